//! `hauberk audit`: who did what.

use clap::Args;
use hauberk_database::audit::{self, Entry};
use hauberk_database::operators::{self, Subject};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::command::DatabaseLocation;
use crate::command::named::find_build;
use crate::exit::Failure;
use crate::output::{Form, Table, at, moment};

/// Show what operators did to the farm, newest first
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what was done to this build, by whatever name
    #[arg(long, value_name = "BUILD", group = "subject")]
    build: Option<String>,
    /// Only what was done to this evaluation
    #[arg(long, value_name = "ID", group = "subject")]
    evaluation: Option<i64>,
    /// Only what was done to this worker
    #[arg(long, value_name = "NAME", group = "subject")]
    worker: Option<String>,
    /// How many lines at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    limit: i64,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    location: DatabaseLocation,
}

/// A line of the audit, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct EntryObject<'a> {
    #[serde(serialize_with = "at")]
    at: Timestamp,
    who: &'a str,
    action: &'a str,
    subject: &'a str,
    detail: Option<&'a Value>,
}

impl<'a> From<&'a Entry> for EntryObject<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            at: entry.at,
            who: &entry.who,
            action: &entry.action,
            subject: &entry.subject,
            detail: entry.detail.as_ref(),
        }
    }
}

/// Shows what was done to a thing, if anything was.
pub(crate) fn history_text(entries: &[Entry]) -> String {
    if entries.is_empty() { String::new() } else { format!("operators:\n{}", table(entries)) }
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new(&["AT", "WHO", "ACTION", "SUBJECT", "MORE"]);
    for entry in entries {
        table.row([
            moment(Some(entry.at)),
            entry.who.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.detail.as_ref().map(words).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// Writes an object as `key value, key value`.
fn words(detail: &Value) -> String {
    let Some(object) = detail.as_object() else { return detail.to_string() };
    let pair = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key} {text}"),
        value => format!("{key} {value}"),
    };
    object.iter().map(pair).collect::<Vec<_>>().join(", ")
}

/// Prints the audit.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let database = options.location.connect().await?;
    let client = database.client().await?;
    let limit = options.limit;
    let entries = match (&options.build, options.evaluation, &options.worker) {
        (Some(build), ..) => operators::of_build(&client, find_build(&client, build).await?, limit).await?,
        (_, Some(id), _) => {
            operators::of_subject(&client, Subject::Evaluation, &id.to_string(), limit).await?
        }
        (.., Some(name)) => operators::of_subject(&client, Subject::Worker, name, limit).await?,
        (None, None, None) => audit::latest(&client, limit).await?,
    };
    let objects: Vec<EntryObject<'_>> = entries.iter().map(EntryObject::from).collect();
    options
        .form
        .show(&objects, || if entries.is_empty() { "nothing was done\n".to_owned() } else { table(&entries) })
}
