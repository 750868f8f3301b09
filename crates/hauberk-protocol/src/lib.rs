//! Messages between the remote-server and its remote-workers, and the ZeroMQ sockets that carry them.
