//! What the process is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use hauberk_database::ConnectionString;

use crate::operators::Operators;

/// What the web process is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the farm's database is.
    pub database: ConnectionString,
    /// Where to serve.
    pub listen: SocketAddr,
    /// The cache folder of the server, whose `logs/` hold the logs and whose `products/` the build products; without it, log pages say where the
    /// logs are, and downloads are led to the server.
    pub cache: Option<PathBuf>,
    /// Who may operate the farm by the pages.
    pub operators: Operators,
}
