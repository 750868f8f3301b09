//! The substitute HTTP server (narinfo, nar, log) and the substitute client.
