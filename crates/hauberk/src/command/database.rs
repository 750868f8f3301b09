//! `hauberk database`: the schema and its versions.

use clap::{Args, Subcommand};
use hauberk_database::{Database, migrations};

use crate::command::{DatabaseLocation, print};
use crate::exit::Failure;

/// Make the farm's tables, bring them up to date, or tell their version
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the schema to the newest version this program knows, or to another
    Migrate {
        #[command(flatten)]
        location: DatabaseLocation,
        /// The version to go to, up or down; 0 drops all tables
        #[arg(long, value_name = "VERSION")]
        to: Option<i32>,
    },
    /// Print the versions that are applied, and those that are not
    Status {
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says and prints each step.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Migrate { location, to } => {
            let database = Database::open(&location.parse()?, 1).await?;
            let steps = migrations::migrate(&mut database.client().await?, to).await?;
            for step in &steps {
                let direction = if step.up { "up" } else { "down" };
                print(format_args!("{direction} {} {}", step.version, step.name))?;
            }
            if steps.is_empty() {
                print(format_args!("nothing to do"))?;
            }
        }
        Action::Status { location } => {
            let database = Database::open(&location.parse()?, 1).await?;
            let status = migrations::status(&database.client().await?).await?;
            for applied in &status.applied {
                print(format_args!("applied {} {} {}", applied.version, applied.name, applied.applied_at))?;
            }
            for pending in &status.pending {
                print(format_args!("pending {} {}", pending.version, pending.name))?;
            }
            print(format_args!(
                "version {}; this program knows {} to {}",
                status.version(),
                status.oldest,
                status.newest
            ))?;
        }
    }
    Ok(())
}
