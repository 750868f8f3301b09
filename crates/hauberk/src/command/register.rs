//! `hauberk register`: turns repositories into builds.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hauberk_publish::BaseUrl;
use hauberk_register::{Config, NixDaemon, PushWhen, ServerUrl, specification};

use crate::command::DatabaseLocation;
use crate::exit::Failure;
use crate::lifetime;

/// Watch repositories, evaluate them, and record what is to be built
///
/// Looks at the repositories of every specification, again and again. Where there is a new commit, evaluates the expression there to
/// jobs and records their builds with all dependencies that the farm has to build. Makes the schema in an empty database.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    location: DatabaseLocation,

    /// The specifications: what to watch and to build (TOML)
    #[arg(short = 'S', long, value_name = "FILE")]
    specifications: PathBuf,

    /// Leave the builds to remote-workers, the only way there is; accepted so that Cuirass's invocations work
    #[arg(long)]
    build_remote: bool,

    /// Time between two looks at a specification that names no period, in seconds
    #[arg(short = 'I', long, value_name = "SECONDS", default_value_t = 600)]
    interval: u64,

    /// Look at each specification once, and end
    #[arg(long)]
    one_shot: bool,

    /// Where mirrors, checkouts and evaluation logs are kept
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/hauberk/register")]
    state_directory: PathBuf,

    /// The build daemon of the store that derivations go to: PATH, or unix://PATH?root=DIRECTORY
    #[arg(long, value_name = "SOCKET", default_value = "/nix/var/nix/daemon-socket/socket")]
    daemon: String,

    /// Substitute servers whose paths need not be built, separated by blanks
    #[arg(long, value_name = "URLS", default_value = "")]
    substitute_urls: String,

    /// Push derivations and their sources to servers before their builds are recorded: `auto`, to those whose store is not this one; `always`;
    /// or `never`, as all share this store
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    push: PushWhen,

    /// Reach the server's publish port there, and not where it says itself; NAME=URL where the farm has several servers, given for each
    #[arg(long, value_name = "[NAME=]URL")]
    server_url: Vec<ServerUrl>,

    /// Try for so long to push where no server can be reached, in seconds; then the evaluation is given up, and made again later
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    push_patience: u64,
}

/// Registers until a signal comes, or once.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let daemon: NixDaemon = options.daemon.parse().map_err(Failure::configuration)?;
    let substitute_urls = options
        .substitute_urls
        .split_whitespace()
        .map(|url| BaseUrl::parse(url).map_err(Failure::configuration))
        .collect::<Result<_, _>>()?;
    let config = Config {
        database: options.location.parse()?,
        specifications: specification::read(&options.specifications).map_err(Failure::configuration)?,
        interval: Duration::from_secs(options.interval.max(1)),
        one_shot: options.one_shot,
        state_directory: options.state_directory,
        daemon,
        substitute_urls,
        push: options.push,
        server_urls: options.server_url,
        push_patience: Duration::from_secs(options.push_patience),
    };
    Ok(hauberk_register::run(config, lifetime::stop_on_signals()?, lifetime::ready).await?)
}
