//! The subcommands, one module each.

pub(crate) mod audit;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod completions;
pub(crate) mod database;
pub(crate) mod evaluation;
mod expiry;
pub(crate) mod gc;
pub(crate) mod key;
pub(crate) mod named;
mod publish_options;
pub(crate) mod register;
pub(crate) mod remote_server;
pub(crate) mod remote_worker;
pub(crate) mod status;
pub(crate) mod store;
mod token;
pub(crate) mod up;
pub(crate) mod urgency;
pub(crate) mod web;
pub(crate) mod worker;

use clap::Args;
use hauberk_database::{ConnectionString, Database, DatabaseError};

use crate::cli::Command;
use crate::exit::Failure;

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Register(options) => register::run(options).await,
        Command::RemoteServer(options) => remote_server::run(*options).await,
        Command::RemoteWorker(options) => remote_worker::run(*options).await,
        Command::Web(options) => web::run(options).await,
        Command::Up(options) => up::run(options).await,
        Command::Cache(options) => cache::run(options).await,
        Command::Gc(options) => gc::run(options).await,
        Command::Key(options) => key::run(options),
        Command::Worker(options) => worker::run(options).await,
        Command::Build(options) => build::run(options).await,
        Command::Evaluation(options) => evaluation::run(options).await,
        Command::Status(options) => status::run(options).await,
        Command::Audit(options) => audit::run(options).await,
        Command::Completions(options) => completions::run(&options),
        Command::Database(options) => database::run(options).await,
    }
}

/// Where the farm's database is, the same for every command that needs it.
#[derive(Debug, Args)]
pub(crate) struct DatabaseLocation {
    /// The farm's database: a PostgreSQL connection string or URL
    #[arg(
        short = 'D',
        long,
        global = true,
        value_name = "CONNECTION",
        env = "HAUBERK_DATABASE",
        hide_env_values = true,
        default_value = "dbname=hauberk host=/var/run/postgresql"
    )]
    pub(crate) database: String,
}

impl DatabaseLocation {
    pub(crate) fn parse(&self) -> Result<ConnectionString, Failure> {
        self.database.parse().map_err(Failure::configuration)
    }

    /// Connects, for a command that does one thing.
    pub(crate) async fn connect(&self) -> Result<Database, Failure> {
        Ok(Database::connect(&self.parse()?, 1).await?)
    }
}

/// Who runs the command, for the audit.
pub(crate) fn user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map_or_else(|| format!("uid {}", nix::unistd::getuid()), |user| user.name)
}

/// Tries an operator's transaction again when the farm's own writes came in its way.
pub(crate) async fn persist<T, F>(mut deed: impl FnMut() -> F) -> Result<T, DatabaseError>
where
    F: Future<Output = Result<T, DatabaseError>>,
{
    const TRIES: u32 = 5;
    for _ in 1..TRIES {
        match deed().await {
            Err(error) if error.is_conflict() => {}
            done => return done,
        }
    }
    deed().await
}

/// Prints a line of what a command was asked for; logs go to standard error.
pub(crate) fn print(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    crate::output::print(&format!("{text}\n"))
}
