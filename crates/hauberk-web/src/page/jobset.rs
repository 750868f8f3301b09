//! `/jobset/NAME`: the evaluations of a specification.

use askama::Template;
use axum::extract::{Path, Query, State};
use hauberk_database::EvaluationId;
use hauberk_database::operators::{self, Subject};
use hauberk_database::pages::{self, Checkout, Evaluation, Specification};

use super::history::{self, Line};
use super::{Page, Parameters, counts, parameter, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Session, Visitor};
use crate::view::{self as v, Bar};

/// Evaluations on a page.
const PAGE: usize = 20;

#[derive(Template)]
#[template(path = "jobset.html")]
struct Jobset {
    specification: Specification,
    rows: Vec<Row>,
    is_first: bool,
    /// Where the next page begins.
    older: Option<EvaluationId>,
    history: Vec<Line>,
    operator: Option<Session>,
}

struct Row {
    evaluation: Evaluation,
    inputs: Vec<Input>,
    bar: Bar,
}

struct Input {
    checkout: Checkout,
    /// Whether the evaluation before had another commit; false if that is not on the page.
    changed: bool,
}

/// Serves `/jobset/NAME`.
pub(crate) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
    Visitor(operator): Visitor,
) -> Page {
    let before: Option<EvaluationId> = parameter(&parameters, "before", "an evaluation")?;
    let client = app.database.client().await?;
    let Some(specification) = pages::specification(&client, &name).await? else {
        return Err(PageFailure::Missing(format!("There is no specification `{name}`.")));
    };
    let mut evaluations = pages::evaluations(&client, specification.id, before, PAGE as i64 + 1).await?;
    let ids: Vec<EvaluationId> = evaluations.iter().map(|evaluation| evaluation.id).collect();
    let checkouts = pages::checkouts(&client, &ids).await?;
    let has_more = evaluations.len() > PAGE;
    evaluations.truncate(PAGE);
    let shown = &ids[..evaluations.len()];
    let counts = counts(&app, &client, shown).await?;
    let older = shown.last().copied().filter(|_| has_more);
    let of = |id: EvaluationId| checkouts.iter().filter(move |checkout| checkout.evaluation == id);
    let rows = evaluations
        .into_iter()
        .enumerate()
        .map(|(at, evaluation)| {
            let inputs = of(evaluation.id)
                .map(|checkout| Input {
                    changed: ids.get(at + 1).is_some_and(|before| {
                        !of(*before)
                            .any(|old| old.input == checkout.input && old.revision == checkout.revision)
                    }),
                    checkout: checkout.clone(),
                })
                .collect();
            let counts = counts.get(&evaluation.id).copied().unwrap_or_default();
            Row { inputs, bar: Bar::new(&counts), evaluation }
        })
        .collect();
    let history = operators::of_subject(&client, Subject::Specification, &name, history::LINES).await?;
    let history = history::of_subject(history);
    render(&Jobset { specification, rows, is_first: before.is_none(), older, history, operator })
}
