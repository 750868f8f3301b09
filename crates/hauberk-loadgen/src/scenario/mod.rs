//! The scenarios, one module each.

mod chain;
mod deep_queue;
mod farm;
mod fetch;
mod flat;
mod idle;
mod join;
mod logs;
mod order;
mod refill;
mod replay;
mod restart;
mod serve;

use anyhow::Result;
use clap::Subcommand;

use crate::figure::Figure;
use crate::lab::LabOptions;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Scenario {
    Flat(flat::Options),
    Chain(chain::Options),
    Refill(refill::Options),
    Join(join::Options),
    Restart(restart::Options),
    Serve(serve::Options),
    Fetch(fetch::Options),
    #[command(hide = true)]
    Echo(crate::http::EchoOptions),
    DeepQueue(deep_queue::Options),
    Idle(idle::Options),
    Logs(logs::Options),
    Order(order::Options),
    Replay(replay::Options),
}

impl Scenario {
    /// Runs it once.
    pub(crate) async fn run(&self, lab: &LabOptions) -> Result<Vec<Figure>> {
        match self {
            Self::Flat(options) => flat::run(options, lab).await,
            Self::Chain(options) => chain::run(options, lab).await,
            Self::Refill(options) => refill::run(options, lab).await,
            Self::Join(options) => join::run(options, lab).await,
            Self::Restart(options) => restart::run(options, lab).await,
            Self::Serve(options) => serve::run(options, lab).await,
            Self::Fetch(options) => fetch::run(options, lab).await,
            Self::Echo(options) => crate::http::echo(*options).map(|()| Vec::new()),
            Self::DeepQueue(options) => deep_queue::run(options, lab).await,
            Self::Idle(options) => idle::run(options, lab).await,
            Self::Logs(options) => logs::run(options, lab).await,
            Self::Order(options) => order::run(options, lab).await,
            Self::Replay(options) => replay::run(options),
        }
    }
}
