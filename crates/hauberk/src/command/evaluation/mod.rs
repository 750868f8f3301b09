//! `hauberk evaluation`: what operators ask about evaluations, and do to them.

mod deed;
mod list;

use clap::{Args, Subcommand};

use crate::command::DatabaseLocation;
use crate::exit::Failure;

/// Look at evaluations, cancel what they want, let it begin anew, evaluate again
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    location: DatabaseLocation,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(list::List),
    Show(list::Show),
    Start(deed::Start),
    Cancel(deed::Cancel),
    Restart(deed::Restart),
    Retry(deed::Retry),
    Priority(deed::SetPriority),
    Emergency(deed::Emergency),
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Options { action, location } = options;
    match action {
        Action::List(options) => list::list(options, &location).await,
        Action::Show(options) => list::show(options, &location).await,
        Action::Start(options) => deed::start(options, &location).await,
        Action::Cancel(options) => deed::cancel(options, &location).await,
        Action::Restart(options) => deed::restart(options, &location).await,
        Action::Retry(options) => deed::retry(options, &location).await,
        Action::Priority(options) => deed::priority(options, &location).await,
        Action::Emergency(options) => deed::emergency(options, &location).await,
    }
}
