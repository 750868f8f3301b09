//! Simulated workers and queues, for benchmarks and fault tests.
#![doc = include_str!("../README.md")]

mod figure;
mod http;
mod lab;
mod logs;
mod replay;
mod scenario;

use std::fmt::Arguments;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::figure::Figure;
use crate::lab::LabOptions;
use crate::scenario::Scenario;

/// Measure a farm under load
///
/// Starts a throw-away PostgreSQL that waits for the disk, the real `hauberk remote-server`, and workers whose builders are simulated
/// behind real sessions; runs a bounded load, checks the tables, stops everything, and prints what it measured.
#[derive(Debug, Parser)]
#[command(name = "hauberk-loadgen", version, max_term_width = 100)]
struct CommandLine {
    /// Print a JSON object for each figure
    #[arg(long, global = true)]
    json: bool,

    /// Measure so often, and give medians
    #[arg(long, global = true, value_name = "N", default_value_t = 1)]
    runs: usize,

    #[command(flatten)]
    lab: LabOptions,

    #[command(subcommand)]
    scenario: Scenario,
}

/// What is logged unless `HAUBERK_LOADGEN_LOG` says otherwise: a hundred workers need not all tell that their server was killed.
const QUIET: &str = "warn,hauberk_worker=error";

/// Tells what happens, on standard error.
pub(crate) fn progress(message: Arguments<'_>) {
    eprintln!("hauberk-loadgen: {message}");
}

fn main() -> ExitCode {
    match start(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(options: &CommandLine) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("HAUBERK_LOADGEN_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET)),
        )
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let figures = runtime.block_on(async {
        let mut runs = Vec::new();
        for _ in 0..options.runs.max(1) {
            // Dropped on an interrupt, a run ends all it has started.
            tokio::select! {
                figures = options.scenario.run(&options.lab) => runs.push(figures?),
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
        Ok(figure::medians(runs))
    })?;
    print(&figures, options.json).context("printing the figures")
}

fn print(figures: &[Figure], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !json {
        out.write_all(figure::table(figures).as_bytes())?;
        return Ok(());
    }
    for figure in figures {
        serde_json::to_writer(&mut out, figure)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
