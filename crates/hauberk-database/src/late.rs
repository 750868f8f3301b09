//! Attempts that were given up, and whose workers come back: with the attempt still running, or with its result.
//!
//! A build has one result that counts. A worker that was not heard of for a lease may have it all the same, so what it brings is
//! taken as long as the build is unfinished and in the same generation: [`take_back`] opens the attempt again, and everything
//! that follows is as if it had never been given up. Where another attempt of the build is open by then, a success stands beside it
//! until its outputs are checked ([`succeed`]); only then the other is over.

use crate::dispatch::{
    AttemptClass, AttemptKind, BuiltOutput, Effects, Fetched, Measures, hold_outputs, ready_build,
};
use crate::statement::statement;
use crate::{
    AttemptId, BuildId, BuildState, DatabaseError, Epoch, GenericClient, ServerId, WorkerId, dispatch,
};

/// What a worker says of an attempt that it was thought to have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// It still runs.
    Running,
    /// It succeeded.
    Succeeded,
    /// It failed by the package's fault.
    Failed,
    /// It came to nothing: stopped, or failed by the farm's fault.
    Nothing,
    /// Its success was acknowledged, and its outputs are still kept.
    Kept,
}

impl Word {
    /// Every word.
    pub const ALL: &'static [Self] =
        &[Self::Running, Self::Succeeded, Self::Failed, Self::Nothing, Self::Kept];
}

/// The end of an attempt, as its worker tells it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// A line for people that says how it ended.
    pub message: String,
    /// All outputs, on success.
    pub outputs: Vec<BuiltOutput>,
    /// Figures.
    pub measures: Measures,
}

/// An attempt that a worker comes back with.
#[derive(Debug, Clone)]
pub struct Returned {
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker that speaks of it.
    pub worker: WorkerId,
    /// What it says.
    pub word: Word,
    /// Its result, unless it still runs.
    pub report: Option<Report>,
}

/// What becomes of such an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is open again, and its build is its own. Another attempt of the build may have been ended in its favour.
    Reopened(Reopened),
    /// It is open again beside another, until its outputs are checked.
    Beside(Reopened),
    /// It changes nothing: what is not kept of it yet is now.
    History,
    /// It belongs to another worker, or does not exist.
    NotTheirs,
    /// It is open, and this start of the server is over: whoever has it now decides.
    NotOurs,
}

/// An attempt that is open again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopened {
    /// Its build.
    pub build: BuildId,
    /// Name and version.
    pub name: String,
    /// Attempts of the build that failed by the farm's fault, this one not counted.
    pub farm_faults: i16,
    /// The attempt that was ended in its favour.
    pub superseded: Option<AttemptId>,
    /// Its worker's word that it succeeded is recorded: only its outputs are not here yet.
    pub built: bool,
}

/// How an attempt, its build, and the attempt that is open instead of it stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How the attempt ended; `None` while it is open.
    pub class: Option<AttemptClass>,
    /// Whether its build is in the generation it was made for.
    pub current: bool,
    /// The state of its build.
    pub build: BuildState,
    /// The attempt that is open instead of it.
    pub other: Option<Other>,
}

/// An attempt that is open while another comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// Its worker has said that it succeeded.
    pub built: bool,
    /// It began after the one that comes back, and is expected to end after it.
    pub later: bool,
}

/// What is to be done about an attempt that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It was never ended: go on.
    GoOn,
    /// Open it again; end the attempt that is open instead of it, if there is one.
    Reopen,
    /// Open it again beside the other.
    Beside,
    /// Keep what it says and change nothing.
    History,
}

/// Tells whether attempts that ended so were ended without their workers' word, and may be opened again.
pub const fn was_given_up(class: AttemptClass) -> bool {
    match class {
        AttemptClass::WorkerLost | AttemptClass::Canceled | AttemptClass::Superseded => true,
        AttemptClass::Succeeded
        | AttemptClass::BuildFailed
        | AttemptClass::TimedOut
        | AttemptClass::Silent
        | AttemptClass::LogLimit
        | AttemptClass::OutputLimit
        | AttemptClass::NotDeterministic
        | AttemptClass::MissingInputs
        | AttemptClass::Transfer
        | AttemptClass::DiskFull
        | AttemptClass::OutOfMemory
        | AttemptClass::Daemon
        | AttemptClass::Declined => false,
    }
}

/// Decides about an attempt that comes back.
pub const fn decide(standing: Standing, word: Word) -> Decision {
    let Standing { class, current, build, other } = standing;
    match class {
        None => return Decision::GoOn,
        Some(class) if !was_given_up(class) || !current => return Decision::History,
        Some(_) => {}
    }
    match (build, word, other) {
        // Nothing that still counts.
        (_, Word::Nothing | Word::Kept, _) => Decision::History,
        // Nobody is at it.
        (BuildState::Ready | BuildState::Deferred, Word::Running | Word::Succeeded | Word::Failed, None) => {
            Decision::Reopen
        }
        // Two run: the one that began first is expected to end first.
        (
            BuildState::Assigned | BuildState::Running,
            Word::Running,
            Some(Other { built: false, later: true }),
        ) => Decision::Reopen,
        // The package is at fault, here as there.
        (BuildState::Assigned | BuildState::Running, Word::Failed, Some(Other { built: false, .. })) => {
            Decision::Reopen
        }
        // A success counts once it is checked, whatever else happens meanwhile.
        (
            BuildState::Ready
            | BuildState::Deferred
            | BuildState::Waiting
            | BuildState::Held
            | BuildState::Assigned
            | BuildState::Running
            | BuildState::Built
            | BuildState::Fetching,
            Word::Succeeded,
            _,
        ) => Decision::Beside,
        (
            BuildState::Staged
            | BuildState::Held
            | BuildState::Waiting
            | BuildState::Deferred
            | BuildState::Ready
            | BuildState::Assigned
            | BuildState::Running
            | BuildState::Built
            | BuildState::Fetching
            | BuildState::Succeeded
            | BuildState::Failed
            | BuildState::FailedDependency
            | BuildState::FailedOther
            | BuildState::Canceled,
            Word::Running | Word::Succeeded | Word::Failed,
            _,
        ) => Decision::History,
    }
}

/// Takes an attempt back, if it still counts. The transaction should have nothing else in it.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn take_back(
    client: &impl GenericClient,
    returned: &Returned,
    epoch: Epoch,
) -> Result<Verdict, DatabaseError> {
    let Some(found) = look(client, returned.attempt).await? else { return Ok(Verdict::NotTheirs) };
    if found.worker != returned.worker {
        return Ok(Verdict::NotTheirs);
    }
    let reopened = |superseded| Reopened {
        build: found.build,
        name: found.name.clone(),
        farm_faults: found.farm_faults,
        superseded,
        built: found.built,
    };
    let class = found.standing.class;
    match decide(found.standing, returned.word) {
        Decision::GoOn if found.kind == AttemptKind::Check => Ok(Verdict::History),
        // It is another server's, or an older start's: it goes where its worker is.
        Decision::GoOn
            if found.epoch != epoch
                && statement!("late/move").execute(client, &[&returned.attempt, &epoch]).await? == 0 =>
        {
            Ok(Verdict::NotOurs)
        }
        // An earlier transaction did it, whose end was not learned.
        Decision::GoOn if found.late => Ok(Verdict::Beside(reopened(None))),
        Decision::GoOn => Ok(Verdict::Reopened(reopened(None))),
        Decision::Reopen => {
            if let Some(other) = found.other {
                supersede(client, other, "an earlier attempt of the same build came back").await?;
            }
            statement!("late/reopen").execute(client, &[&returned.attempt, &epoch, &false]).await?;
            let fault = class == Some(AttemptClass::WorkerLost);
            statement!("late/give_back").execute(client, &[&returned.attempt, &fault]).await?;
            let farm_faults = (found.farm_faults - i16::from(fault)).max(0);
            Ok(Verdict::Reopened(Reopened { farm_faults, built: false, ..reopened(found.other) }))
        }
        Decision::Beside => {
            statement!("late/reopen").execute(client, &[&returned.attempt, &epoch, &true]).await?;
            Ok(Verdict::Beside(reopened(None)))
        }
        Decision::History => {
            if let Some(report) = &returned.report
                && returned.word != Word::Nothing
            {
                note(client, returned.attempt, report).await?;
            }
            Ok(Verdict::History)
        }
    }
}

/// What came of a success that stood beside another attempt.
#[derive(Debug, Default)]
pub struct Settled {
    /// Whether its build has succeeded by it.
    pub counts: bool,
    /// The attempt that was ended in its favour.
    pub superseded: Option<AttemptId>,
    /// What became ready or final.
    pub effects: Effects,
}

/// Records that the outputs of an attempt that stood beside another are in the farm's cache. Its build has succeeded by it, unless
/// the build came to an end otherwise meanwhile.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn succeed(
    client: &impl GenericClient,
    fetched: &Fetched,
    epoch: Epoch,
    server: ServerId,
) -> Result<Settled, DatabaseError> {
    let Some(found) = look(client, fetched.attempt).await? else { return Ok(Settled::default()) };
    let standing = found.standing;
    if standing.class.is_some() || found.epoch != epoch || !found.late {
        return Ok(Settled::default());
    }
    let counts = standing.current && !standing.build.is_final();
    let (class, message) = if counts {
        (AttemptClass::Succeeded, "its result came after it had been given up")
    } else {
        (AttemptClass::Superseded, "the build had come to an end when its result was checked")
    };
    statement!("late/end").execute(client, &[&fetched.attempt, &epoch, &class.as_str(), &message]).await?;
    if !counts {
        return Ok(Settled::default());
    }
    if let Some(other) = found.other {
        supersede(client, other, "the result of an earlier attempt was taken").await?;
    }
    hold_outputs(client, std::iter::once(fetched), server).await?;
    statement!("late/succeed").execute(client, &[&found.build, &fetched.attempt]).await?;
    // A statement of its own, after the one above: only so it sees the edges of an evaluation published meanwhile.
    let rows = statement!("dispatch/release_dependents").all(client, &[&vec![found.build]]).await?;
    let ready = rows.iter().map(ready_build).collect::<Result<_, _>>()?;
    statement!("dispatch/weather").execute(client, &[&vec![found.build]]).await?;
    let effects = Effects { ready, finished: vec![found.build], ..Effects::default() };
    Ok(Settled { counts, superseded: found.other, effects })
}

struct Found {
    build: BuildId,
    worker: WorkerId,
    epoch: Epoch,
    kind: AttemptKind,
    late: bool,
    name: String,
    farm_faults: i16,
    built: bool,
    other: Option<AttemptId>,
    standing: Standing,
}

/// Locks the build of an attempt and reads how things stand.
async fn look(client: &impl GenericClient, attempt: AttemptId) -> Result<Option<Found>, DatabaseError> {
    statement!("late/lock").execute(client, &[&attempt]).await?;
    let Some(row) = statement!("late/look").optional(client, &[&attempt]).await? else { return Ok(None) };
    let class = row
        .get::<Option<&str>>("class")?
        .map(|text| text.parse().map_err(|source| row.bad("class", source)))
        .transpose()?;
    let other: Option<AttemptId> = row.get("other_id")?;
    let (built, later) = (row.get("other_built")?, row.get("first")?);
    Ok(Some(Found {
        build: row.get("build_id")?,
        worker: row.get("worker_id")?,
        epoch: row.get("epoch")?,
        kind: row.parse("kind")?,
        late: row.get("late")?,
        name: row.get("name")?,
        farm_faults: row.get("farm_faults")?,
        built: row.get("built")?,
        other,
        standing: Standing {
            class,
            current: row.get("current")?,
            build: row.parse("state")?,
            other: other.map(|_| Other { built, later }),
        },
    }))
}

async fn supersede(client: &impl GenericClient, attempt: AttemptId, why: &str) -> Result<(), DatabaseError> {
    statement!("late/supersede").execute(client, &[&attempt, &why]).await?;
    Ok(())
}

async fn note(client: &impl GenericClient, attempt: AttemptId, report: &Report) -> Result<(), DatabaseError> {
    let origin = (!report.outputs.is_empty()).then_some("built");
    let Measures { inputs_ms, build_ms, peak_memory, log_bytes, exit_status } = report.measures;
    let noted = statement!("late/note")
        .execute(
            client,
            &[
                &attempt,
                &report.message,
                &origin,
                &exit_status,
                &inputs_ms,
                &build_ms,
                &peak_memory,
                &log_bytes,
            ],
        )
        .await?;
    if noted > 0 {
        dispatch::add_outputs(client, report.outputs.iter().map(|output| (attempt, output))).await?;
    }
    Ok(())
}
