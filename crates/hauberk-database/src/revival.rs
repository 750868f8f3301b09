//! Final builds that begin anew, with all that had failed because of them.
//!
//! A revived build is in a new generation: whatever is still said about an older one changes nothing. Before what depends on it is
//! revived too, its other dependencies are held, so that a failure that is being recorded is either seen or sees the revived build.

use crate::dispatch::{ReadyBuild, ready_build};
use crate::statement::statement;
use crate::{BuildId, BuildState, DatabaseError, GenericClient};

/// What was revived.
#[derive(Debug, Default)]
pub struct Revived {
    /// All builds that begin anew.
    pub revived: Vec<BuildId>,
    /// Those of them that wait for nothing.
    pub ready: Vec<ReadyBuild>,
}

/// Revives final builds that have not succeeded, together with what they failed by, and what failed by them in other evaluations.
///
/// Needs a transaction, which must hold [`crate::control::lock_graph`].
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn restart(client: &impl GenericClient, builds: &[BuildId]) -> Result<Revived, DatabaseError> {
    let rows = statement!("revival/below").all(client, &[&builds]).await?;
    let below: Vec<BuildId> = rows.iter().map(|row| row.get("build_id")).collect::<Result<_, _>>()?;
    let mut revived = revive(client, &below).await?;
    let others = dependents(client, &below).await?;
    revived.revived.extend(others.revived);
    revived.ready.extend(others.ready);
    Ok(revived)
}

/// Revives what had failed or been canceled only because of `builds`, which are not so any more.
///
/// Needs a transaction, which must hold [`crate::control::lock_graph`].
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn dependents(client: &impl GenericClient, builds: &[BuildId]) -> Result<Revived, DatabaseError> {
    let above = above(client, builds).await?;
    if above.is_empty() {
        return Ok(Revived::default());
    }
    statement!("revival/hold_dependencies").execute(client, &[&above]).await?;
    // Again: a dependency may have failed before it was held.
    let above = self::above(client, builds).await?;
    revive(client, &above).await
}

async fn above(client: &impl GenericClient, builds: &[BuildId]) -> Result<Vec<BuildId>, DatabaseError> {
    let rows = statement!("revival/above").all(client, &[&builds]).await?;
    rows.iter().map(|row| row.get("build_id")).collect()
}

/// Lets final builds begin anew, and nothing else.
pub(crate) async fn revive(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Revived, DatabaseError> {
    let mut all = Revived::default();
    if builds.is_empty() {
        return Ok(all);
    }
    for row in statement!("revival/revive").all(client, &[&builds]).await? {
        all.revived.push(row.get("build_id")?);
        if row.parse::<BuildState>("state")? == BuildState::Ready {
            all.ready.push(ready_build(&row)?);
        }
    }
    Ok(all)
}
