//! `hauberk build`: what operators ask about builds, and do to them.

mod deed;
mod list;
mod log;
mod show;
mod urgency;
mod wait;
mod why;

pub(crate) use deed::{CanceledObject, OnlyOptions, canceled_text};

use clap::{Args, Subcommand};

use crate::command::DatabaseLocation;
use crate::exit::Failure;

/// Look at builds, cancel them, let them begin anew, read their logs, wait for them
///
/// Wherever a build is asked for, it can be named by its number, by its derivation, or by one of its outputs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    location: DatabaseLocation,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(list::Options),
    Show(show::Options),
    Cancel(deed::Cancel),
    Restart(deed::Restart),
    Priority(urgency::SetPriority),
    Emergency(urgency::Emergency),
    Log(log::Options),
    Wait(wait::Options),
    Why(why::Options),
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Options { action, location } = options;
    match action {
        Action::List(options) => list::run(options, &location).await,
        Action::Show(options) => show::run(options, &location).await,
        Action::Cancel(options) => deed::cancel(options, &location).await,
        Action::Restart(options) => deed::restart(options, &location).await,
        Action::Priority(options) => urgency::priority(options, &location).await,
        Action::Emergency(options) => urgency::emergency(options, &location).await,
        Action::Log(options) => log::run(options, &location).await,
        Action::Wait(options) => wait::run(options, &location).await,
        Action::Why(options) => why::run(options, &location).await,
    }
}
