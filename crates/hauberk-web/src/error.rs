//! What can end the process.

use std::io;
use std::net::SocketAddr;

use hauberk_database::DatabaseError;

/// Why the web process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The database cannot be used.
    #[error("cannot use the farm's database")]
    Database(#[source] DatabaseError),
    /// The address is taken, or not one of this machine.
    #[error(
        "cannot listen on {address}; is another program using it? choose another with --listen and --port"
    )]
    Listen {
        /// Where it was to serve.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
