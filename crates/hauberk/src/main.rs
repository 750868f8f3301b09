//! The program: one subcommand for each process of a farm, and the tools that administer it.

mod cli;
mod command;
mod exit;
mod keyring;
mod keys;
mod lifetime;
mod logging;
mod output;

use clap::Parser;

use crate::cli::Arguments;
use crate::exit::Failure;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    lifetime::allow_many_descriptors();
    let outcome = logging::start(&arguments.logging).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::other(anyhow::Error::new(error).context("cannot start threads")))?;
        let outcome = runtime.block_on(command::run(arguments.command));
        // What still waits for a disk or a peer must not hold the end up.
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
        outcome
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.code.into()
        }
    }
}
