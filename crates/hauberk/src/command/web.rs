//! `hauberk web`: pages and JSON.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use hauberk_web::Config;

use crate::command::DatabaseLocation;
use crate::exit::Failure;
use crate::lifetime;

/// Show the farm: pages for people, JSON for programs
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    location: DatabaseLocation,

    /// The address to listen at
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,

    /// The port to listen at
    #[arg(short, long, default_value_t = 8080)]
    port: u16,

    /// The remote-server's cache directory, to read build logs from
    #[arg(long, value_name = "DIRECTORY")]
    cache: Option<PathBuf>,
}

/// Serves until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let config = Config {
        database: options.location.parse()?,
        listen: SocketAddr::new(options.listen, options.port),
        cache: options.cache,
    };
    Ok(hauberk_web::run(config, lifetime::stop_on_signals()?, lifetime::ready).await?)
}
