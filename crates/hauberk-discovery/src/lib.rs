//! Finds remote-servers by mDNS, and lets them be found.
