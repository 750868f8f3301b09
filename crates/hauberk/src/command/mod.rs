//! The subcommands, one module each.

pub(crate) mod database;
pub(crate) mod key;
pub(crate) mod register;
pub(crate) mod remote_server;
pub(crate) mod remote_worker;
pub(crate) mod up;
pub(crate) mod web;
pub(crate) mod worker;

use clap::Args;
use hauberk_database::ConnectionString;

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
        Command::Key(options) => key::run(options),
        Command::Worker(options) => worker::run(options).await,
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
}

/// Standard output, for what a command was asked for; logs go to standard error.
pub(crate) fn print(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").map_err(Failure::other)
}
