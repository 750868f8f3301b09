//! `hauberk worker`: who may build for the farm.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::workers::{self, Direction, Enrolment, NewWorker};
use hauberk_database::{Database, audit, begin, commit};
use serde_json::json;

use crate::command::{DatabaseLocation, print, token, user};
use crate::exit::Failure;
use crate::keys::{curve_public_key, signing_public_key};

/// Enrol workers, list them, keep work from them, or take their enrolment back
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let a worker join: only with these keys, and under this name
    Add {
        /// The worker's name, unique in the farm
        name: String,
        /// Its CURVE public key, or the file that holds it
        // A key may begin with `-`, as one in 85 does.
        #[arg(long, value_name = "KEY|FILE", allow_hyphen_values = true)]
        public_key: String,
        /// The public key its results are signed with, or the file that holds it
        #[arg(long, value_name = "KEY|FILE")]
        signing_key: String,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Make a token by which a new machine joins without anybody carrying keys
    ///
    /// The token is printed, and kept nowhere. On the new machine: hauberk remote-worker --enrol TOKEN
    Token(Box<token::Options>),
    /// Print all workers
    List {
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Give a worker no more work until `resume`; what it runs goes on
    Pause {
        /// The worker's name
        name: String,
        /// Why, for those who look at it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Give a worker work again that was paused or drained
    Resume {
        /// The worker's name
        name: String,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Let a worker finish what it runs, and end; until `resume` it is told so whenever it comes back
    Drain {
        /// The worker's name
        name: String,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Take a worker's enrolment back: its session ends at once, and its results no longer count
    Remove {
        /// The worker's name
        name: String,
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Add { name, public_key, signing_key, location } => {
            let public_key = curve_public_key(&public_key)?.to_string();
            let signing_key = signing_public_key(&signing_key)?.to_string();
            let database = Database::connect(&location.parse()?, 1).await?;
            let mut client = database.client().await?;
            let transaction = begin(&mut client).await?;
            let who = user();
            let new = NewWorker {
                name: &name,
                public_key: &public_key,
                signing_key: &signing_key,
                enrolled_by: &who,
            };
            match workers::add(&transaction, new).await? {
                Enrolment::Done(_) => {}
                Enrolment::NameTaken => {
                    return Err(Failure::configuration(anyhow!(
                        "a worker named `{name}` is enrolled with another key; `hauberk worker remove {name}` first"
                    )));
                }
                Enrolment::KeyTaken => {
                    return Err(Failure::configuration(anyhow!(
                        "another worker is enrolled with the key {public_key}"
                    )));
                }
            }
            audit::record(&transaction, &who, "worker.add", &name, None).await?;
            commit(transaction).await?;
            print(format_args!("enrolled {name}"))
        }
        Action::Token(options) => token::run(*options).await,
        Action::List { location } => {
            let database = Database::connect(&location.parse()?, 1).await?;
            let all = workers::list(&database.client().await?).await?;
            let width = all.iter().map(|worker| worker.name.len()).max().unwrap_or(0).max(4);
            print(format_args!(
                "{:width$}  {:13}  {:>5}  {:20}  SYSTEMS",
                "NAME", "STATE", "SLOTS", "MACHINE"
            ))?;
            for worker in all {
                let state = match (&worker.revoked_at, &worker.connected, worker.paused, worker.draining) {
                    (Some(_), ..) => "removed",
                    (None, None, _, false) => "not connected",
                    (None, None, _, true) => "drained",
                    (None, Some(_), _, true) => "draining",
                    (None, Some(_), true, false) => "paused",
                    (None, Some(_), false, false) => "connected",
                };
                let said = &worker.description;
                print(format_args!(
                    "{:width$}  {state:13}  {:>5}  {:20}  {}",
                    worker.name,
                    said.slots,
                    said.machine,
                    said.systems.join(",")
                ))?;
            }
            Ok(())
        }
        Action::Pause { name, reason, location } => {
            direct(&location, &name, Direction::Pause(reason.as_deref()), "worker.pause").await?;
            print(format_args!("paused {name}"))
        }
        Action::Resume { name, location } => {
            direct(&location, &name, Direction::Resume, "worker.resume").await?;
            print(format_args!("resumed {name}"))
        }
        Action::Drain { name, location } => {
            direct(&location, &name, Direction::Drain, "worker.drain").await?;
            print(format_args!("{name} is to finish what it runs, and to leave"))
        }
        Action::Remove { name, location } => {
            let database = Database::connect(&location.parse()?, 1).await?;
            let mut client = database.client().await?;
            let transaction = begin(&mut client).await?;
            if workers::remove(&transaction, &name).await?.is_none() {
                return Err(Failure::configuration(anyhow!("no worker named `{name}` is enrolled")));
            }
            audit::record(&transaction, &user(), "worker.remove", &name, None).await?;
            commit(transaction).await?;
            print(format_args!("removed {name}"))
        }
    }
}

/// Directs a worker and records who did.
async fn direct(
    location: &DatabaseLocation,
    name: &str,
    direction: Direction<'_>,
    action: &str,
) -> Result<(), Failure> {
    let database = Database::connect(&location.parse()?, 1).await?;
    let mut client = database.client().await?;
    let transaction = begin(&mut client).await?;
    if workers::direct(&transaction, name, direction).await?.is_none() {
        return Err(Failure::configuration(anyhow!("no worker named `{name}` is enrolled")));
    }
    let detail = match direction {
        Direction::Pause(Some(reason)) => Some(json!({ "reason": reason })),
        Direction::Pause(None) | Direction::Drain | Direction::Resume => None,
    };
    audit::record(&transaction, &user(), action, name, detail.as_ref()).await?;
    commit(transaction).await?;
    Ok(())
}
