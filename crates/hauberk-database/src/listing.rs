//! Builds by what is asked of them, newest first.
//!
//! What is asked most closely decides through which index candidates are read, at most [`LOOKED_AT`] of them; the rest of the
//! question is answered by looking at each. So no question reads the whole history, and the answer says when it did not see all of it.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use crate::pages::BuildLine;
use crate::statement::{Record, Statement, statement};
use crate::{BuildState, DatabaseError, EvaluationId};

/// Builds that are looked at for one listing at most.
pub const LOOKED_AT: i64 = 100_000;

/// Which builds are wanted. What is empty or `None` asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In one of these states.
    pub states: Vec<BuildState>,
    /// Wanted first by this specification.
    pub specification: Option<String>,
    /// For this system.
    pub system: Option<String>,
    /// Named by a job of this evaluation.
    pub evaluation: Option<EvaluationId>,
    /// Tried on this worker; together with an evaluation: there last.
    pub worker: Option<String>,
    /// With a name like this, where `*` stands for any text and `?` for any character.
    pub name: Option<String>,
}

/// A build of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The build.
    pub line: BuildLine,
    /// The specification that wanted it first.
    pub specification: String,
    /// The worker that has it or decided its state.
    pub worker: Option<String>,
}

/// Builds that were asked for.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The builds, newest first: by their number, by the end if only ended ones are asked for, and by the last attempt if a
    /// worker's are.
    pub builds: Vec<Listed>,
    /// Whether there are more candidates than were looked at.
    pub is_partial: bool,
}

/// Finds builds, at most `limit` of them.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn builds(
    client: &impl GenericClient,
    filter: &Filter,
    limit: i64,
) -> Result<Listing, DatabaseError> {
    let states = (!filter.states.is_empty()).then_some(&filter.states);
    let like = filter.name.as_deref().map(like);
    let prefix = filter.name.as_deref().map(prefix).filter(|prefix| !prefix.is_empty());
    let phases = phases(&filter.states);
    // A question that names the worker and nothing closer is about all it tried.
    let worker = filter.evaluation.and(filter.worker.as_ref());
    let look = async |statement: Statement, key: &(dyn ToSql + Sync), count: i64| {
        let rows = statement
            .all(
                client,
                &[&states, &filter.specification, &filter.system, &worker, &like, &limit, &count, key],
            )
            .await?;
        listing(&rows)
    };
    let ask = async |statement, key: &(dyn ToSql + Sync)| look(statement, key, LOOKED_AT).await;
    let limited = usize::try_from(limit).unwrap_or(0);
    // The first of those that are read in the order of the answer are often enough.
    let first = async |statement, key: &(dyn ToSql + Sync)| {
        let mut found = look(statement, key, limit.saturating_mul(4).clamp(1, LOOKED_AT)).await?;
        found.is_partial = false;
        Ok::<_, DatabaseError>((found.builds.len() >= limited).then_some(found))
    };
    if let Some(evaluation) = &filter.evaluation {
        return ask(statement!("listing/evaluation"), evaluation).await;
    }
    if let Some(worker) = &filter.worker {
        return ask(statement!("listing/worker"), worker).await;
    }
    if let Some(prefix) = &prefix {
        return ask(statement!("listing/name"), prefix).await;
    }
    if !filter.states.is_empty() && filter.states.iter().all(|state| state.is_final()) {
        if let Some(found) = first(statement!("listing/finished"), &None::<i64>).await? {
            return Ok(found);
        }
        return ask(statement!("listing/finished"), &None::<i64>).await;
    }
    if let Some(found) = first(statement!("listing/newest"), &i64::MAX).await? {
        return Ok(found);
    }
    if let Some(phases) = &phases {
        let found = ask(statement!("listing/unfinished"), phases).await?;
        // Of a queue that is longer than that, the newest part.
        if !found.is_partial {
            return Ok(found);
        }
    }
    ask(statement!("listing/newest"), &i64::MAX).await
}

fn listing(rows: &[Record]) -> Result<Listing, DatabaseError> {
    let mut listing = Listing { builds: Vec::with_capacity(rows.len()), is_partial: false };
    for row in rows {
        listing.is_partial = row.get::<i64>("looked")? >= LOOKED_AT;
        if row.get::<Option<i64>>("id")?.is_some() {
            listing.builds.push(Listed {
                line: BuildLine::read(row)?,
                specification: row.get("specification")?,
                worker: row.get("worker")?,
            });
        }
    }
    Ok(listing)
}

/// Gives the phases of states that are all unfinished (`builds.phase`).
fn phases(states: &[BuildState]) -> Option<Vec<&'static str>> {
    let mut phases = Vec::new();
    for state in states {
        phases.push(match state {
            BuildState::Waiting | BuildState::Held => "waiting",
            BuildState::Deferred => "deferred",
            BuildState::Ready => "ready",
            BuildState::Assigned | BuildState::Running | BuildState::Built | BuildState::Fetching => "open",
            BuildState::Staged
            | BuildState::Succeeded
            | BuildState::Failed
            | BuildState::FailedDependency
            | BuildState::FailedOther
            | BuildState::Canceled => return None,
        });
    }
    (!phases.is_empty()).then_some(phases)
}

/// Writes a pattern as SQL's `like` has it.
fn like(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '*' => text.push('%'),
            '?' => text.push('_'),
            '%' | '_' | '\\' => text.extend(['\\', character]),
            other => text.push(other),
        }
    }
    text
}

/// Gives what every name begins with that a pattern takes.
fn prefix(pattern: &str) -> String {
    pattern.chars().take_while(|character| !matches!(character, '*' | '?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_shells_do() {
        for (pattern, expected, begins) in [
            ("hello-*", "hello-%", "hello-"),
            ("*lib?", "%lib_", ""),
            ("50%_\\x", "50\\%\\_\\\\x", "50%_\\x"),
        ] {
            assert_eq!(like(pattern), expected);
            assert_eq!(prefix(pattern), begins);
        }
    }

    #[test]
    fn only_questions_about_the_queue_are_answered_from_it() {
        assert_eq!(phases(&[BuildState::Ready, BuildState::Held]), Some(vec!["ready", "waiting"]));
        assert_eq!(phases(&[BuildState::Ready, BuildState::Failed]), None);
        assert_eq!(phases(&[]), None);
    }
}
