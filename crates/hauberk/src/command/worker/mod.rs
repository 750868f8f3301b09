//! `hauberk worker`: who may build for the farm, and what operators do to them.

mod show;

use clap::{Args, Subcommand};
use hauberk_database::operators;
use hauberk_database::workers::{Direction, NewWorker};
use serde_json::json;

use crate::command::{DatabaseLocation, token, user};
use crate::exit::Failure;
use crate::keys::{curve_public_key, signing_public_key};
use crate::output::{Form, plain};

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
        #[arg(long, value_name = "KEY|FILE", allow_hyphen_values = true)]
        signing_key: String,
        #[command(flatten)]
        form: Form,
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
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: Option<String>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Give workers work again that were paused or drained
    Resume {
        /// The workers' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Let workers finish what they run, and end; until `resume` they are told so whenever they come back
    Drain {
        /// The workers' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Take a worker's enrolment back: its session ends at once, and its results no longer count
    Remove {
        /// The worker's name
        name: String,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Add { name, public_key, signing_key, form, location } => {
            let public_key = curve_public_key(&public_key)?.to_string();
            let signing_key = signing_public_key(&signing_key)?.to_string();
            let database = location.connect().await?;
            let who = user();
            let new = NewWorker {
                name: &name,
                public_key: &public_key,
                signing_key: &signing_key,
                enrolled_by: &who,
            };
            operators::enrol_worker(&database, new).await?;
            form.show(&json!({ "enrolled": name }), || format!("enrolled {name}\n"))
        }
        Action::Token(options) => token::run(*options).await,
        Action::List(options) => show::list(options).await,
        Action::Show(options) => show::show(options).await,
        Action::Pause { names, reason, form, location } => {
            direct(&location, &names, Direction::Pause(reason.as_deref())).await?;
            form.show(&json!({ "paused": names }), || each(&names, "is paused"))
        }
        Action::Resume { names, form, location } => {
            direct(&location, &names, Direction::Resume).await?;
            form.show(&json!({ "resumed": names }), || each(&names, "gets work again"))
        }
        Action::Drain { names, form, location } => {
            direct(&location, &names, Direction::Drain).await?;
            let words = "is to finish what it runs, and to leave";
            form.show(&json!({ "draining": names }), || each(&names, words))
        }
        Action::Remove { name, form, location } => {
            let database = location.connect().await?;
            operators::remove_worker(&database, &user(), &name).await?;
            form.show(&json!({ "removed": name }), || format!("removed {name}\n"))
        }
    }
}

/// Directs workers, all or none.
async fn direct(
    location: &DatabaseLocation,
    names: &[String],
    direction: Direction<'_>,
) -> Result<(), Failure> {
    let database = location.connect().await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(operators::direct_workers(&database, &user(), &names, direction).await?)
}

/// A line for each worker.
fn each(names: &[String], words: &str) -> String {
    names.iter().map(|name| format!("{} {words}\n", plain(name))).collect()
}
