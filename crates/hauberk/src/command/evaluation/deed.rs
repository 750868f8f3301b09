//! What operators do to evaluations.

use clap::Args;
use hauberk_database::control::Canceled;
use hauberk_database::operators::{self, EvaluationRestarted, OperatorError, Superseded};
use hauberk_database::{BuildId, EvaluationId, Priority, pages};
use serde::Serialize;
use serde_json::json;

use crate::command::build::{CanceledObject, OnlyOptions, canceled_text};
use crate::command::urgency::{PriorityArgument, changed_object, changed_text, changes_object, changes_text};
use crate::command::{DatabaseLocation, user};
use crate::exit::Failure;
use crate::output::{Form, count, counted};

/// Ask the register to look at a specification's repositories now
#[derive(Debug, Args)]
pub(super) struct Start {
    /// The specification's name
    #[arg(value_name = "SPECIFICATION")]
    specification: String,
    #[command(flatten)]
    form: Form,
}

/// Cancel the builds of evaluations that no other evaluation wants
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The evaluations' numbers
    #[arg(value_name = "ID", required_unless_present = "superseded", conflicts_with = "superseded")]
    evaluations: Vec<i64>,
    /// Every evaluation that has a newer one of the same specification which succeeded
    #[arg(long)]
    superseded: bool,
    /// Only of this specification
    #[arg(long, value_name = "NAME", requires = "superseded")]
    specification: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// Let the builds of an evaluation begin anew that failed or were canceled
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The evaluation's number
    #[arg(value_name = "ID")]
    evaluation: i64,
    #[command(flatten)]
    only: OnlyOptions,
    #[command(flatten)]
    form: Form,
}

/// Evaluate again what the newest evaluation of a specification saw
#[derive(Debug, Args)]
pub(super) struct Retry {
    /// The evaluation's number
    #[arg(value_name = "ID")]
    evaluation: i64,
    #[command(flatten)]
    form: Form,
}

/// Give the unfinished builds of an evaluation's jobs a priority, and with them all that they need
#[derive(Debug, Args)]
pub(super) struct SetPriority {
    /// The evaluation's number
    #[arg(value_name = "ID")]
    evaluation: i64,
    #[command(flatten)]
    priority: PriorityArgument,
    #[command(flatten)]
    form: Form,
}

/// Put all that an evaluation wants before everything else
#[derive(Debug, Args)]
pub(super) struct Emergency {
    /// The evaluation's number
    #[arg(value_name = "ID")]
    evaluation: i64,
    /// Not any more
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Serialize)]
struct EvaluationCanceled<'a> {
    evaluation: EvaluationId,
    #[serde(flatten)]
    outcome: CanceledObject<'a>,
}

pub(super) async fn start(options: Start, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    operators::evaluate(&database, &user(), &options.specification).await?;
    let name = &options.specification;
    options
        .form
        .show(&json!({ "specification": name }), || format!("the register is asked to look at {name} now\n"))
}

pub(super) async fn cancel(options: Cancel, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let mut outcomes: Vec<(EvaluationId, Canceled)> = Vec::new();
    if options.superseded {
        let specification = options.specification.as_deref();
        let all = operators::cancel_superseded(&database, &user(), specification).await?;
        outcomes
            .extend(all.into_iter().map(|(Superseded { evaluation, .. }, outcome)| (evaluation, outcome)));
    } else {
        let ids: Vec<EvaluationId> = options.evaluations.iter().copied().map(EvaluationId::new).collect();
        // Each is canceled by itself, but nothing is done if one of them does not exist.
        let client = database.client().await?;
        for id in &ids {
            if pages::evaluation(&client, *id).await?.is_none() {
                return Err(OperatorError::NoEvaluation(*id).into());
            }
        }
        drop(client);
        for id in ids {
            outcomes.push((id, operators::cancel_evaluation(&database, &user(), id).await?));
        }
    }
    let objects: Vec<EvaluationCanceled<'_>> = outcomes
        .iter()
        .map(|(evaluation, outcome)| EvaluationCanceled { evaluation: *evaluation, outcome: outcome.into() })
        .collect();
    options.form.show(&objects, || {
        if outcomes.is_empty() {
            return "no evaluation is superseded\n".to_owned();
        }
        outcomes.iter().map(|(id, outcome)| format!("evaluation {id}: {}", canceled_text(outcome))).collect()
    })
}

pub(super) async fn restart(options: Restart, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let id = EvaluationId::new(options.evaluation);
    let outcome = operators::restart_evaluation(&database, &user(), id, options.only.into()).await?;
    let EvaluationRestarted { revived, left } = &outcome;
    options.form.show(&json!({ "revived": revived, "left": left }), || {
        let mut text = format!("{} begin anew\n", counted(revived));
        if !left.is_empty() {
            text.push_str(&format!("{} stay as they ended\n", count(left.len(), "build")));
        }
        text
    })
}

pub(super) async fn retry(options: Retry, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let id = EvaluationId::new(options.evaluation);
    let specification = operators::retry_evaluation(&database, &user(), id).await?;
    options.form.show(&json!({ "specification": specification }), || {
        format!("the register is asked to evaluate {specification} again\n")
    })
}

pub(super) async fn priority(options: SetPriority, location: &DatabaseLocation) -> Result<(), Failure> {
    let priority: Option<Priority> = options.priority.get();
    let database = location.connect().await?;
    let id = EvaluationId::new(options.evaluation);
    let all = operators::set_evaluation_priority(&database, &user(), id, priority).await?;
    options.form.show(&changes_object(&all), || {
        let changed: std::collections::BTreeSet<BuildId> =
            all.iter().flat_map(|(_, changed)| changed.builds.iter().copied()).collect();
        if all.is_empty() {
            return format!("nothing of evaluation {id} is unfinished\n");
        }
        if all.len() > 10 {
            return format!(
                "{} of evaluation {id}; {} have another urgency now\n",
                count(all.len(), "build"),
                count(changed.len(), "build")
            );
        }
        changes_text(&all)
    })
}

pub(super) async fn emergency(options: Emergency, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let id = EvaluationId::new(options.evaluation);
    let changed = operators::set_evaluation_emergency(&database, &user(), id, !options.off).await?;
    options.form.show(&changed_object(&changed), || {
        let what = if options.off { "goes by its priorities again" } else { "goes before everything" };
        format!("evaluation {id} {what}; {}", changed_text(&changed))
    })
}
