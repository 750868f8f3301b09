//! `hauberk build list`.

use clap::Args;
use hauberk_database::listing::{self, Filter, LOOKED_AT, Listed};
use hauberk_database::{BuildId, BuildState, EvaluationId};
use jiff::Timestamp;
use serde::Serialize;

use crate::command::DatabaseLocation;
use crate::exit::Failure;
use crate::output::{Form, Table, ago, at, maybe_at};

/// List builds, newest first
///
/// Without options, the builds that were recorded last. If only states of builds that are over are asked for, what ended last comes
/// first; with --worker, what it had last.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only in these states: waiting, ready, deferred, held, assigned, running, built, fetching, succeeded, failed,
    /// failed_dependency, failed_other, canceled; or `queued`, `active`, `unfinished`, `over`, `broken` for several of them
    #[arg(short, long, value_name = "STATE", value_delimiter = ',', value_parser = parse_states)]
    state: Vec<States>,
    /// Only what this specification wanted first
    #[arg(long, value_name = "NAME")]
    specification: Option<String>,
    /// Only for this system, as x86_64-linux
    #[arg(long)]
    system: Option<String>,
    /// Only what jobs of this evaluation name
    #[arg(short, long, value_name = "ID")]
    evaluation: Option<i64>,
    /// Only what this worker tried
    #[arg(short, long, value_name = "NAME")]
    worker: Option<String>,
    /// Only with a name like this: `*` stands for any text, `?` for any character
    #[arg(short, long, value_name = "PATTERN")]
    name: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    #[command(flatten)]
    form: Form,
}

/// Some states, by one word.
#[derive(Debug, Clone)]
struct States(Vec<BuildState>);

fn parse_states(word: &str) -> Result<States, String> {
    let all = |takes: fn(BuildState) -> bool| {
        States(
            BuildState::ALL
                .iter()
                .copied()
                .filter(|state| *state != BuildState::Staged && takes(*state))
                .collect(),
        )
    };
    match word {
        "queued" => Ok(all(|state| !state.is_final() && !state.is_active())),
        "active" => Ok(all(BuildState::is_active)),
        "unfinished" => Ok(all(|state| !state.is_final())),
        "over" => Ok(all(BuildState::is_final)),
        "broken" => Ok(all(|state| state.is_final() && state != BuildState::Succeeded)),
        word => word.replace('-', "_").parse().map(|state| States(vec![state])).map_err(|_| {
            let words: Vec<&str> = BuildState::ALL.iter().map(|state| state.as_str()).collect();
            format!("give queued, active, unfinished, over, broken, or one of: {}", words.join(", "))
        }),
    }
}

#[derive(Debug, Serialize)]
struct BuildObject<'a> {
    id: BuildId,
    name: &'a str,
    system: &'a str,
    state: BuildState,
    priority: i16,
    specification: &'a str,
    worker: Option<&'a str>,
    #[serde(serialize_with = "at")]
    created_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    started_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    finished_at: Option<Timestamp>,
}

impl<'a> From<&'a Listed> for BuildObject<'a> {
    fn from(build: &'a Listed) -> Self {
        let line = &build.line;
        Self {
            id: line.id,
            name: &line.name,
            system: &line.system,
            state: line.state,
            priority: line.priority,
            specification: &build.specification,
            worker: build.worker.as_deref(),
            created_at: line.created_at,
            started_at: line.started_at,
            finished_at: line.finished_at,
        }
    }
}

pub(super) async fn run(options: Options, location: &DatabaseLocation) -> Result<(), Failure> {
    let filter = Filter {
        states: options.state.into_iter().flat_map(|states| states.0).collect(),
        specification: options.specification,
        system: options.system,
        evaluation: options.evaluation.map(EvaluationId::new),
        worker: options.worker,
        name: options.name,
    };
    let database = location.connect().await?;
    let found = listing::builds(&database.client().await?, &filter, options.limit).await?;
    if found.is_partial {
        tracing::warn!(
            "only {LOOKED_AT} builds were looked at; name an evaluation, a worker or how the name begins to look closer"
        );
    }
    let objects: Vec<BuildObject<'_>> = found.builds.iter().map(BuildObject::from).collect();
    options.form.show(&objects, || {
        let mut table = Table::new(&[
            "#BUILD",
            "STATE",
            "#PRIO",
            "NAME",
            "SYSTEM",
            "SPECIFICATION",
            "WORKER",
            "RECORDED",
            "ENDED",
        ]);
        for build in &found.builds {
            let line = &build.line;
            table.row([
                line.id.to_string(),
                line.state.to_string(),
                line.priority.to_string(),
                line.name.clone(),
                line.system.clone(),
                build.specification.clone(),
                build.worker.clone().unwrap_or_else(|| "-".to_owned()),
                ago(Some(line.created_at)),
                ago(line.finished_at),
            ]);
        }
        if table.is_empty() { "no build is like that\n".to_owned() } else { table.text() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_states() {
        let states = |word: &str| parse_states(word).map(|states| states.0);
        assert_eq!(states("failed-other"), Ok(vec![BuildState::FailedOther]));
        assert_eq!(states("active").unwrap().len(), 4);
        let both = [states("unfinished").unwrap(), states("over").unwrap()].concat();
        assert_eq!(both.len(), BuildState::ALL.len() - 1);
        assert!(states("done").unwrap_err().contains("succeeded"));
    }
}
