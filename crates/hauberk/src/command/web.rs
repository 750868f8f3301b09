//! `hauberk web`: pages and JSON.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hauberk_web::{Config, Operators, Tokens};

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

    /// Let those operate the farm by the pages who log in with a token of this file: a line `NAME TOKEN` for each, readable by its
    /// owner only
    #[arg(long, value_name = "FILE", env = "HAUBERK_OPERATOR_TOKEN_FILE", help_heading = "Operators")]
    operator_token_file: Option<PathBuf>,

    /// Let people of this machine operate the farm by the pages, without a token: not for a machine with a proxy in front of the
    /// pages, or with users that should not
    #[arg(long, value_enum, value_name = "WHO", help_heading = "Operators")]
    operators: Option<Who>,
}

/// Who may operate the farm without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// People of this machine, over its loopback interface
    Loopback,
}

/// Serves until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut operators = Operators::default();
    if let Some(file) = &options.operator_token_file {
        operators = operators.with_tokens(Tokens::read(file).map_err(Failure::configuration)?);
    }
    if let Some(Who::Loopback) = options.operators {
        operators = operators.with_loopback().map_err(Failure::other)?;
    }
    let config = Config {
        database: options.location.parse()?,
        listen: SocketAddr::new(options.listen, options.port),
        cache: options.cache,
        operators,
    };
    Ok(hauberk_web::run(config, lifetime::stop_on_signals()?, lifetime::ready).await?)
}
