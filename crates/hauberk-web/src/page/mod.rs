//! The pages for people, one module for each.

pub(crate) mod build;
pub(crate) mod deeds;
pub(crate) mod evaluation;
mod history;
pub(crate) mod jobset;
pub(crate) mod live;
pub(crate) mod log;
pub(crate) mod login;
pub(crate) mod machine;
pub(crate) mod product;
pub(crate) mod queue;
mod slots;
pub(crate) mod specifications;
pub(crate) mod workers;

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use askama::Template;
use axum::response::Html;
use hauberk_database::pages::{self, StatusCounts};
use hauberk_database::{DatabaseError, EvaluationId, GenericClient};

use crate::app::App;
use crate::failure::PageFailure;

/// How long counts are kept: those that still change, and those that only a revived build changes.
const FRESH: Duration = Duration::from_millis(1500);
const SETTLED: Duration = Duration::from_secs(20);

/// What stands after the `?` of an address.
pub(crate) type Parameters = HashMap<String, String>;

/// What a page gives.
pub(crate) type Page = Result<Html<String>, PageFailure>;

fn render(template: &impl Template) -> Page {
    Ok(Html(template.render()?))
}

/// Reads a number out of an address.
fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, PageFailure> {
    text.parse().map_err(|_| PageFailure::Malformed(format!("`{text}` is not the number of {what}.")))
}

/// Reads a number out of the parameters, if it is there.
fn parameter<T: FromStr>(parameters: &Parameters, name: &str, what: &str) -> Result<Option<T>, PageFailure> {
    parameters.get(name).filter(|text| !text.is_empty()).map(|text| parse(text, what)).transpose()
}

/// Counts the jobs of evaluations, or remembers.
async fn counts(
    app: &App,
    client: &impl GenericClient,
    evaluations: &[EvaluationId],
) -> Result<BTreeMap<EvaluationId, StatusCounts>, DatabaseError> {
    let mut known = BTreeMap::new();
    let mut unknown = Vec::new();
    for id in evaluations {
        match app.counts.get(id) {
            Some(counts) => {
                known.insert(*id, counts);
            }
            None => unknown.push(*id),
        }
    }
    if !unknown.is_empty() {
        let mut found = pages::evaluation_counts(client, &unknown).await?;
        for id in unknown {
            let counts = found.remove(&id).unwrap_or_default();
            let settled = counts.total() > 0 && counts.unfinished() == 0;
            app.counts.put(id, counts, if settled { SETTLED } else { FRESH });
            known.insert(id, counts);
        }
    }
    Ok(known)
}
