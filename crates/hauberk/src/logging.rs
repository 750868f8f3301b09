//! Logs: for people on a terminal, JSON for programs, always on standard error.

use std::io::{IsTerminal, stderr};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::EnvFilter;

use crate::exit::Failure;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Like `human`; with colours on a terminal.
    Auto,
    /// A line of text, without colours.
    Human,
    /// A JSON object a line.
    Json,
}

/// Options about logs, the same for every command.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// How log lines look, on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "auto",
        help_heading = "Logging"
    )]
    log_format: Format,

    /// What is logged: error, warn, info, debug or trace, for all or by module: `info,hauberk_server=debug`
    #[arg(
        long = "log",
        global = true,
        value_name = "FILTER",
        default_value = "info",
        env = "HAUBERK_LOG",
        help_heading = "Logging"
    )]
    filter: String,
}

/// Starts logging.
pub(crate) fn start(options: &Logging) -> Result<(), Failure> {
    // mdns-sd reports interfaces that come and go as errors, tokio-postgres every notice of the server as news.
    let filter = EnvFilter::try_new(format!("mdns_sd=off,tokio_postgres=warn,{}", options.filter)).map_err(
        |error| {
            Failure::configuration(
                anyhow::Error::new(error).context(format!("--log {} is no filter", options.filter)),
            )
        },
    )?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match options.log_format {
        Format::Auto => builder.with_ansi(stderr().is_terminal()).with_target(false).init(),
        Format::Human => builder.with_ansi(false).with_target(false).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
