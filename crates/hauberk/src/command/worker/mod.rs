//! `hauberk worker`: who may build for the farm, and what operators do to them.

mod show;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::workers::{self, Direction, Enrolment, NewWorker};
use hauberk_database::{audit, begin, commit, operators};

use crate::command::{DatabaseLocation, print, token, user};
use crate::exit::Failure;
use crate::keys::{curve_public_key, signing_public_key};

/// Enrol workers, look at them, keep work from them, or take their enrolment back
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
    List(show::List),
    Show(show::Show),
    /// Give workers no more work until `resume`; what they run goes on
    Pause {
        /// The workers' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why, for those who look at it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Give workers work again that were paused or drained
    Resume {
        /// The workers' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Let workers finish what they run, and end; until `resume` they are told so whenever they come back
    Drain {
        /// The workers' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
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
            let database = location.connect().await?;
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
        Action::List(options) => show::list(options).await,
        Action::Show(options) => show::show(options).await,
        Action::Pause { names, reason, location } => {
            direct(&location, &names, Direction::Pause(reason.as_deref()), "is paused").await
        }
        Action::Resume { names, location } => {
            direct(&location, &names, Direction::Resume, "gets work again").await
        }
        Action::Drain { names, location } => {
            direct(&location, &names, Direction::Drain, "is to finish what it runs, and to leave").await
        }
        Action::Remove { name, location } => {
            let database = location.connect().await?;
            operators::remove_worker(&database, &user(), &name).await?;
            print(format_args!("removed {name}"))
        }
    }
}

/// Directs workers, and says so.
async fn direct(
    location: &DatabaseLocation,
    names: &[String],
    direction: Direction<'_>,
    done: &str,
) -> Result<(), Failure> {
    let database = location.connect().await?;
    for name in names {
        operators::direct_worker(&database, &user(), name, direction).await?;
        print(format_args!("{name} {done}"))?;
    }
    Ok(())
}
