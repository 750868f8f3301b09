//! The scenarios, one module each.

pub(crate) mod flat;

mod farm;

use anyhow::Result;
use clap::Subcommand;

use crate::figure::Figure;
use crate::lab::LabOptions;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Scenario {
    Flat(flat::Options),
}

impl Scenario {
    /// Runs it once.
    pub(crate) async fn run(&self, lab: &LabOptions) -> Result<Vec<Figure>> {
        match self {
            Self::Flat(options) => flat::run(options, lab).await,
        }
    }
}
