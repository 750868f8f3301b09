//! Builds: cancel, restart.

use deadpool_postgres::GenericClient;
use serde_json::json;

use super::{OperatorError, ids, in_transaction, record};
use crate::control::{self, Canceled, Restarted};
use crate::statement::statement;
use crate::{BuildId, BuildState, Database, DatabaseError};

/// Which builds around the named ones begin anew too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// All that they need.
    pub dependencies: bool,
    /// All that needs them.
    pub dependents: bool,
}

/// Which builds begin anew, by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Only {
    /// However they ended short of success.
    #[default]
    Any,
    /// Those that failed, by their own or the farm's fault.
    Failed,
    /// Those that were canceled, and need nothing that failed.
    Canceled,
}

impl Only {
    fn takes(self, state: BuildState) -> bool {
        match self {
            Self::Any => state.is_final() && state != BuildState::Succeeded,
            Self::Failed => matches!(state, BuildState::Failed | BuildState::FailedOther),
            Self::Canceled => state == BuildState::Canceled,
        }
    }

    /// Gives the word for the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// Cancels builds, whoever wants them, and what needs them.
///
/// # Errors
/// [`OperatorError::NoBuilds`] or [`OperatorError::Database`].
pub async fn cancel_builds(
    database: &Database,
    who: &str,
    builds: &[BuildId],
) -> Result<Canceled, OperatorError> {
    in_transaction!(database, |transaction| cancel(&transaction, who, builds))
}

async fn cancel(
    client: &impl GenericClient,
    who: &str,
    builds: &[BuildId],
) -> Result<Canceled, OperatorError> {
    let outcome = control::cancel_builds(client, builds).await?;
    if !outcome.unknown.is_empty() {
        return Err(OperatorError::NoBuilds(outcome.unknown));
    }
    let touched = [outcome.canceled.as_slice(), &outcome.stopping].concat();
    for id in builds.iter().filter(|id| touched.contains(id)) {
        let detail = json!({ "canceled": outcome.canceled.len(), "stopping": outcome.stopping.len() });
        // What was canceled along with others is told of by the first of them.
        let about =
            if Some(id) == builds.iter().find(|id| touched.contains(id)) { &touched[..] } else { &[*id] };
        record(client, who, "build.cancel", &id.to_string(), Some(&detail), about).await?;
    }
    Ok(outcome)
}

/// Lets builds begin anew that are over without success, with what they failed by, and what failed because of them.
///
/// # Errors
/// [`OperatorError::NoBuilds`] or [`OperatorError::Database`].
pub async fn restart_builds(
    database: &Database,
    who: &str,
    builds: &[BuildId],
    extent: Extent,
    only: Only,
) -> Result<Restarted, OperatorError> {
    in_transaction!(database, |transaction| restart(&transaction, who, builds, extent, only))
}

async fn restart(
    client: &impl GenericClient,
    who: &str,
    builds: &[BuildId],
    extent: Extent,
    only: Only,
) -> Result<Restarted, OperatorError> {
    control::lock_graph(client).await?;
    let known = control::states(client, builds).await?;
    let unknown: Vec<BuildId> =
        builds.iter().filter(|id| !known.iter().any(|(known, _)| known == *id)).copied().collect();
    if !unknown.is_empty() {
        return Err(OperatorError::NoBuilds(unknown));
    }
    let mut subtree = builds.to_vec();
    if extent.dependencies {
        subtree.extend(ids(&statement!("operators/dependencies").all(client, &[&builds]).await?)?);
    }
    if extent.dependents {
        subtree.extend(ids(&statement!("operators/dependents").all(client, &[&builds]).await?)?);
    }
    subtree.sort_unstable();
    subtree.dedup();
    let mut outcome = begin_anew(client, &subtree, only).await?;
    // Of what was not named, only what happens is of interest.
    outcome.succeeded.retain(|id| builds.contains(id));
    outcome.unfinished.retain(|id| builds.contains(id));
    if !outcome.revived.is_empty() {
        let named: Vec<BuildId> = builds.iter().filter(|id| outcome.revived.contains(id)).copied().collect();
        let subjects = if named.is_empty() { builds } else { &named };
        for (place, id) in subjects.iter().enumerate() {
            let detail = json!({
                "revived": outcome.revived.len(), "only": only.as_str(),
                "dependencies": extent.dependencies, "dependents": extent.dependents,
            });
            let about = if place == 0 { &outcome.revived[..] } else { &[*id] };
            record(client, who, "build.restart", &id.to_string(), Some(&detail), about).await?;
        }
    }
    Ok(outcome)
}

/// Lets those of some builds begin anew that ended so.
pub(super) async fn begin_anew(
    client: &impl GenericClient,
    builds: &[BuildId],
    only: Only,
) -> Result<Restarted, DatabaseError> {
    let known = control::states(client, builds).await?;
    let mut chosen: Vec<BuildId> =
        known.iter().filter(|(_, state)| only.takes(*state)).map(|(id, _)| *id).collect();
    if only == Only::Canceled {
        let blocked = ids(&statement!("operators/blocked").all(client, &[&chosen]).await?)?;
        chosen.retain(|id| !blocked.contains(id));
    }
    let mut outcome = control::restart_builds(client, &chosen).await?;
    for (id, state) in known {
        match state {
            BuildState::Succeeded => outcome.succeeded.push(id),
            state if !state.is_final() => outcome.unfinished.push(id),
            _ => {}
        }
    }
    Ok(outcome)
}
