//! What the dispatcher does to builds and attempts, in batches.
//!
//! Every function runs set-based statements (`sql/dispatch/`) on the caller's transaction, guarded by attempt and epoch: a write
//! about an attempt that has ended, or that another start of a server owns by now, touches nothing. A batch begins with
//! [`begin_batch`], so that two batches can wait for each other but not in a circle.

use std::collections::BTreeSet;

use futures::try_join;
use hauberk_store::{DrvPath, StoreDirectory, StorePath};
use tokio_postgres::types::ToSql;

use crate::statement::{Record, statement};
use crate::text_column::text_enum;
use crate::{
    AttemptId, BatchTransaction, BuildId, BuildState, Database, DatabaseError, Epoch, GenericClient, LaneId,
    ServerId, SpecificationId, WorkerId, control, priority_control,
};

text_enum! {
    /// How an attempt ended (`attempts.class`).
    AttemptClass {
        /// Its outputs are in the farm's cache.
        Succeeded = "succeeded",
        /// The builder failed, or made no outputs.
        BuildFailed = "build_failed",
        /// The builder took longer than allowed.
        TimedOut = "timed_out",
        /// The builder wrote nothing for longer than allowed.
        Silent = "silent",
        /// The log grew beyond its limit.
        LogLimit = "log_limit",
        /// The outputs grew beyond their limit.
        OutputLimit = "output_limit",
        /// A check gave other outputs.
        NotDeterministic = "not_deterministic",
        /// Inputs were to be had nowhere.
        MissingInputs = "missing_inputs",
        /// Inputs or outputs could not be moved.
        Transfer = "transfer",
        /// The worker's disk was full.
        DiskFull = "disk_full",
        /// The worker's memory was.
        OutOfMemory = "out_of_memory",
        /// The worker's build daemon failed.
        Daemon = "daemon",
        /// The worker was not heard of any more, or did not know of the attempt.
        WorkerLost = "worker_lost",
        /// The worker would not take it.
        Declined = "declined",
        /// Stopped on purpose.
        Canceled = "canceled",
        /// Another attempt's result was taken.
        Superseded = "superseded",
    }
}

text_enum! {
    /// Where the outputs of a successful attempt came from (`attempts.origin`).
    AttemptOrigin {
        /// The attempt built them.
        Built = "built",
        /// They were in the worker's store, or in an upstream cache.
        AlreadyValid = "already_valid",
    }
}

text_enum! {
    /// Which try of a build an attempt is (`attempts.kind`).
    AttemptKind {
        /// The first.
        First = "first",
        /// Another, after one that did not settle the build.
        Retry = "retry",
        /// A second build of something built, to compare.
        Check = "check",
    }
}

/// A lane, as the dispatcher needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The lane.
    pub id: LaneId,
    /// The specification it belongs to.
    pub specification: SpecificationId,
    /// Its builds' store directory.
    pub store_directory: StoreDirectory,
    /// Its builds' system.
    pub system: String,
    /// The features its builds require.
    pub features: BTreeSet<String>,
    /// The specification's part of the farm, against those of the others.
    pub shares: u32,
}

/// A build that waits for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyBuild {
    /// The build.
    pub id: BuildId,
    /// The lane it was recorded in.
    pub lane: LaneId,
    /// Those of other specifications that want it as well.
    pub other_lanes: Vec<LaneId>,
    /// 0 is the most urgent, 99 the least; -1 goes before everything.
    pub urgency: i16,
    /// How long the longest chain is that waits for it, in steps ([`hauberk_order::PathStep`]); 0 = not known.
    pub path_step: i16,
    /// Milliseconds it should take; 0 = not known.
    pub expected_ms: i64,
    /// Milliseconds since it became ready.
    pub age_ms: i64,
    /// Where it has failed by the farm's fault in this generation, as far as that was asked for.
    pub failed_on: Vec<WorkerId>,
}

/// What a refill of the window brings.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// All lanes.
    pub lanes: Vec<Lane>,
    /// The builds at their heads, each once.
    pub builds: Vec<ReadyBuild>,
}

/// The last build of a lane that a refill showed: the next may begin after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The lane.
    pub lane: LaneId,
    /// The build's urgency, as [`ReadyBuild::urgency`].
    pub urgency: i16,
    /// Its path, as [`ReadyBuild::path_step`].
    pub path_step: i16,
    /// The build.
    pub build: BuildId,
}

/// A wish to give a build to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The build.
    pub build: BuildId,
    /// The worker.
    pub worker: WorkerId,
    /// The worker's session.
    pub session: i64,
    /// The lane on whose turn it is: its specification pays.
    pub lane: LaneId,
}

/// What the farm vouches for about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPath {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its nar.
    pub nar_hash: Vec<u8>,
    /// Bytes of its nar.
    pub nar_size: i64,
}

/// A claim that was granted: the attempt is recorded, its message may leave.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The new attempt.
    pub attempt: AttemptId,
    /// 1, 2, 3 ... of its build.
    pub number: i32,
    /// The build.
    pub build: BuildId,
    /// The worker it is for.
    pub worker: WorkerId,
    /// The session it is for.
    pub session: i64,
    /// Name and version.
    pub name: String,
    /// The derivation to build.
    pub derivation: DrvPath,
    /// The system it is for.
    pub system: String,
    /// The features it requires.
    pub features: Vec<String>,
    /// 0 is the most urgent, 99 the least.
    pub priority: i16,
    /// Seconds; 0 = no limit.
    pub timeout: i32,
    /// Seconds; 0 = no limit.
    pub max_silent: i32,
    /// Attempts of this generation that failed by the farm's fault.
    pub farm_faults: i16,
    /// The outputs it is to give: names and paths.
    pub outputs: Vec<(String, StorePath)>,
    /// What is known of its inputs.
    pub inputs: Vec<KnownPath>,
}

/// An output, as a worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltOutput {
    /// Its name: `out`, `dev` and so on.
    pub name: String,
    /// Its path.
    pub path: StorePath,
    /// SHA-256 of its nar.
    pub nar_hash: Vec<u8>,
    /// Bytes of its nar.
    pub nar_size: i64,
    /// The paths it refers to.
    pub references: Vec<StorePath>,
}

/// Figures about an attempt, as the worker measured them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measures {
    /// Milliseconds spent on inputs.
    pub inputs_ms: Option<i64>,
    /// Milliseconds spent building.
    pub build_ms: Option<i64>,
    /// Bytes.
    pub peak_memory: Option<i64>,
    /// Bytes of the log's text.
    pub log_bytes: Option<i64>,
    /// What the builder exited with, or 128 + signal.
    pub exit_status: Option<i32>,
}

/// A worker's word that an attempt succeeded.
#[derive(Debug, Clone)]
pub struct Built {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its build.
    pub build: BuildId,
    /// Where the outputs came from.
    pub origin: AttemptOrigin,
    /// All outputs.
    pub outputs: Vec<BuiltOutput>,
    /// Figures.
    pub measures: Measures,
}

/// An attempt whose outputs are in the farm's cache.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its build.
    pub build: BuildId,
    /// All outputs, as the cache has them.
    pub outputs: Vec<KnownPath>,
}

/// What becomes of a build when an attempt of it ends without success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Consequence {
    /// The package's fault: final.
    Fail,
    /// The farm's fault once too often: final.
    FailOther,
    /// The farm's fault: tried again after `delay` seconds.
    Retry {
        /// Seconds.
        delay: f64,
    },
    /// Nobody's fault: ready at once.
    Ready,
}

impl Consequence {
    fn state(self) -> BuildState {
        match self {
            Self::Fail => BuildState::Failed,
            Self::FailOther => BuildState::FailedOther,
            Self::Retry { .. } => BuildState::Deferred,
            Self::Ready => BuildState::Ready,
        }
    }

    fn delay(self) -> f64 {
        match self {
            Self::Retry { delay } => delay,
            Self::Fail | Self::FailOther | Self::Ready => 0.0,
        }
    }

    fn is_farm_fault(self) -> bool {
        match self {
            Self::FailOther | Self::Retry { .. } => true,
            Self::Fail | Self::Ready => false,
        }
    }
}

/// The end of an attempt without success.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its build.
    pub build: BuildId,
    /// How it ended.
    pub class: AttemptClass,
    /// A line for people.
    pub message: String,
    /// Figures.
    pub measures: Measures,
    /// What becomes of the build.
    pub consequence: Consequence,
}

/// What a batch changed beyond what it was asked to.
#[derive(Debug, Default)]
pub struct Effects {
    /// Builds that became ready.
    pub ready: Vec<ReadyBuild>,
    /// Builds that became final: succeeded, failed, canceled, or failed or canceled with what they depend on.
    pub finished: Vec<BuildId>,
    /// Whether a build was put off.
    pub deferred: bool,
    /// Whether there is something for [`crate::priority_control::settle`].
    pub noted: bool,
}

/// Takes a connection for a batch.
///
/// # Errors
/// [`DatabaseError::Pool`], or any failure of a statement's preparation.
pub async fn batch(database: &Database) -> Result<BatchTransaction, DatabaseError> {
    let client = database.client().await?;
    // What is not prepared would be overtaken by what comes after it.
    statement!("dispatch/lock_builds").prepare(&client).await?;
    Ok(BatchTransaction::on(client))
}

/// Begins a batch, and locks the builds that it is about to touch, in the order of their id. What is sent after the first poll of
/// this comes after it, and finds them locked.
///
/// # Errors
/// Any failure of the statements.
pub async fn begin_batch(transaction: &BatchTransaction, builds: &[BuildId]) -> Result<(), DatabaseError> {
    try_join!(transaction.begin(), lock_builds(&**transaction, builds))?;
    Ok(())
}

/// Locks the builds a batch is about to touch, in the order of their id.
///
/// # Errors
/// Any failure of the statement.
pub async fn lock_builds(client: &impl GenericClient, builds: &[BuildId]) -> Result<(), DatabaseError> {
    statement!("dispatch/lock_builds").execute(client, &[&builds]).await?;
    Ok(())
}

/// Tells that the connection still stands, by an error if it does not. PostgreSQL ends all of them before it recovers from a crash.
///
/// # Errors
/// Any failure of the statement.
pub async fn stands(client: &impl GenericClient) -> Result<(), DatabaseError> {
    statement!("dispatch/stands").execute(client, &[]).await?;
    Ok(())
}

/// Returns when everything that was committed by this connection, or before, is on the disk. Outside of a transaction.
///
/// # Errors
/// Any failure of the statement.
pub async fn flush(client: &impl GenericClient) -> Result<(), DatabaseError> {
    statement!("dispatch/flush").execute(client, &[]).await?;
    Ok(())
}

/// Reads the most urgent `per_lane` ready builds of every lane that has any; with `aged`, also those that have been ready for so
/// many seconds. `farm_faults` are the classes of ends that [`ReadyBuild::failed_on`] is about.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn window(
    client: &impl GenericClient,
    per_lane: i64,
    aged: Option<f64>,
    farm_faults: &[AttemptClass],
) -> Result<Window, DatabaseError> {
    let classes = words(farm_faults);
    let builds = statement!("dispatch/window").all(client, &[&per_lane, &aged, &classes]).await?;
    let builds = builds.iter().map(failed_build).collect::<Result<_, _>>()?;
    // After the builds: so every lane of theirs is among them.
    let lanes = statement!("dispatch/lanes").all(client, &[]).await?;
    let lanes = lanes.iter().map(lane).collect::<Result<_, _>>()?;
    Ok(Window { lanes, builds })
}

/// Reads what follows in some lanes on what is known of them, `per_lane` builds of each at most; with `aged`, also those that have been
/// ready for so many seconds. `farm_faults` is as in [`window`]. Of lanes, it tells nothing.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn window_more(
    client: &impl GenericClient,
    per_lane: i64,
    aged: Option<f64>,
    after: &[Reached],
    farm_faults: &[AttemptClass],
) -> Result<Window, DatabaseError> {
    let classes = words(farm_faults);
    let lanes: Vec<_> = after.iter().map(|last| last.lane).collect();
    let urgencies: Vec<_> = after.iter().map(|last| last.urgency).collect();
    let paths: Vec<_> = after.iter().map(|last| last.path_step).collect();
    let builds: Vec<_> = after.iter().map(|last| last.build).collect();
    let builds = statement!("dispatch/window_more")
        .all(client, &[&per_lane, &aged, &lanes, &urgencies, &paths, &builds, &classes])
        .await?;
    Ok(Window { lanes: Vec::new(), builds: builds.iter().map(failed_build).collect::<Result<_, _>>()? })
}

fn lane(row: &Record) -> Result<Lane, DatabaseError> {
    Ok(Lane {
        id: row.get("lane_id")?,
        specification: row.get("specification_id")?,
        store_directory: row.parse("store_directory")?,
        system: row.get("system")?,
        features: row.get::<Vec<String>>("features")?.into_iter().collect(),
        shares: row.convert::<i32, _>("shares")?,
    })
}

/// Grants those claims whose builds are still ready. With `again`, the transaction may be the second one for these claims, and
/// what the first has granted counts.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn claim(
    client: &impl GenericClient,
    claims: &[Claim],
    epoch: Epoch,
    server: ServerId,
    again: bool,
) -> Result<Vec<Claimed>, DatabaseError> {
    let builds: Vec<_> = claims.iter().map(|claim| claim.build).collect();
    let workers: Vec<_> = claims.iter().map(|claim| claim.worker).collect();
    let sessions: Vec<_> = claims.iter().map(|claim| claim.session).collect();
    let lanes: Vec<_> = claims.iter().map(|claim| claim.lane).collect();
    let mut rows = Vec::new();
    if again {
        let before = statement!("dispatch/claimed_before")
            .all(client, &[&builds, &workers, &sessions, &epoch])
            .await?;
        let before: Vec<AttemptId> =
            before.iter().map(|row| row.get("attempt_id")).collect::<Result<_, _>>()?;
        rows = statement!("dispatch/claimed").all(client, &[&before]).await?;
    }
    rows.extend(
        statement!("dispatch/claim")
            .all(client, &[&builds, &workers, &sessions, &epoch, &server, &lanes])
            .await?,
    );
    rows.iter().map(claimed).collect()
}

fn claimed(row: &Record) -> Result<Claimed, DatabaseError> {
    let names: Vec<String> = row.get("output_names")?;
    let paths = store_paths(row, "output_paths")?;
    let inputs = store_paths(row, "input_paths")?;
    let hashes: Vec<Vec<u8>> = row.get("input_hashes")?;
    let sizes: Vec<i64> = row.get("input_sizes")?;
    Ok(Claimed {
        attempt: row.get("attempt_id")?,
        number: row.get("number")?,
        build: row.get("build_id")?,
        worker: row.get("worker_id")?,
        session: row.get("session")?,
        name: row.get("name")?,
        derivation: row.parse("derivation")?,
        system: row.get("system")?,
        features: row.get("features")?,
        priority: row.get("priority")?,
        timeout: row.get("timeout")?,
        max_silent: row.get("max_silent")?,
        farm_faults: row.get("farm_faults")?,
        outputs: names.into_iter().zip(paths).collect(),
        inputs: inputs
            .into_iter()
            .zip(hashes)
            .zip(sizes)
            .map(|((path, nar_hash), nar_size)| KnownPath { path, nar_hash, nar_size })
            .collect(),
    })
}

/// Records that the builders of attempts have begun, each with the milliseconds its inputs took.
///
/// # Errors
/// Any failure of the statement.
pub async fn start(
    client: &impl GenericClient,
    started: &[(AttemptId, i64)],
    epoch: Epoch,
) -> Result<(), DatabaseError> {
    let (attempts, inputs_ms): (Vec<_>, Vec<_>) = started.iter().copied().unzip();
    statement!("dispatch/start").execute(client, &[&attempts, &inputs_ms, &epoch]).await?;
    Ok(())
}

/// Records the word of workers that attempts succeeded, and what they gave.
///
/// # Errors
/// Any failure of the statements.
pub async fn built(client: &impl GenericClient, built: &[Built], epoch: Epoch) -> Result<(), DatabaseError> {
    let rows =
        statement!("dispatch/built").all(client, &Reports::of(&built.iter()).parameters(&epoch)).await?;
    let taken: BTreeSet<AttemptId> =
        rows.iter().map(|row| row.get("attempt_id")).collect::<Result<_, _>>()?;
    add_outputs(client, outputs_of(built.iter().filter(|b| taken.contains(&b.attempt)))).await
}

fn outputs_of<'a>(
    built: impl Iterator<Item = &'a Built>,
) -> impl Iterator<Item = (AttemptId, &'a BuiltOutput)> {
    built.flat_map(|b| b.outputs.iter().map(|output| (b.attempt, output)))
}

/// What workers say of attempts that succeeded, column by column.
struct Reports {
    attempts: Vec<AttemptId>,
    origins: Vec<&'static str>,
    inputs_ms: Vec<Option<i64>>,
    build_ms: Vec<Option<i64>>,
    peak_memory: Vec<Option<i64>>,
    log_bytes: Vec<Option<i64>>,
    exit: Vec<Option<i32>>,
}

impl Reports {
    fn of<'a>(built: &(impl Iterator<Item = &'a Built> + Clone)) -> Self {
        let built = || built.clone();
        Self {
            attempts: built().map(|b| b.attempt).collect(),
            origins: built().map(|b| b.origin.as_str()).collect(),
            inputs_ms: built().map(|b| b.measures.inputs_ms).collect(),
            build_ms: built().map(|b| b.measures.build_ms).collect(),
            peak_memory: built().map(|b| b.measures.peak_memory).collect(),
            log_bytes: built().map(|b| b.measures.log_bytes).collect(),
            exit: built().map(|b| b.measures.exit_status).collect(),
        }
    }

    fn parameters<'a>(&'a self, epoch: &'a Epoch) -> [&'a (dyn ToSql + Sync); 8] {
        [
            &self.attempts,
            &self.origins,
            &self.inputs_ms,
            &self.build_ms,
            &self.peak_memory,
            &self.log_bytes,
            &self.exit,
            epoch,
        ]
    }
}

/// Records what attempts gave.
pub(crate) async fn add_outputs(
    client: &impl GenericClient,
    outputs: impl Iterator<Item = (AttemptId, &BuiltOutput)>,
) -> Result<(), DatabaseError> {
    let outputs: Vec<_> = outputs.collect();
    let of: Vec<_> = outputs.iter().map(|(attempt, _)| *attempt).collect();
    let names: Vec<_> = outputs.iter().map(|(_, output)| output.name.as_str()).collect();
    let paths: Vec<_> = outputs.iter().map(|(_, output)| output.path.to_string()).collect();
    let hashes: Vec<_> = outputs.iter().map(|(_, output)| output.nar_hash.as_slice()).collect();
    let sizes: Vec<_> = outputs.iter().map(|(_, output)| output.nar_size).collect();
    let references: Vec<_> = outputs
        .iter()
        .map(|(_, output)| output.references.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        .collect();
    if of.is_empty() {
        return Ok(());
    }
    statement!("dispatch/built_outputs")
        .execute(client, &[&of, &names, &paths, &hashes, &sizes, &references])
        .await?;
    Ok(())
}

/// Tells which of these attempts another server has taken over.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn moved(
    client: &impl GenericClient,
    attempts: &[AttemptId],
    epoch: Epoch,
) -> Result<BTreeSet<AttemptId>, DatabaseError> {
    let rows = statement!("dispatch/moved").all(client, &[&attempts, &epoch]).await?;
    rows.iter().map(|row| row.get("attempt_id")).collect()
}

/// Records that the outputs of attempts are being fetched.
///
/// # Errors
/// Any failure of the statement.
pub async fn fetching(
    client: &impl GenericClient,
    attempts: &[AttemptId],
    epoch: Epoch,
) -> Result<(), DatabaseError> {
    statement!("dispatch/fetching").execute(client, &[&attempts, &epoch]).await?;
    Ok(())
}

/// Records that a fetch failed and will be tried again in `delay` seconds.
///
/// # Errors
/// Any failure of the statement.
pub async fn fetch_failed(
    client: &impl GenericClient,
    attempt: AttemptId,
    epoch: Epoch,
    delay: f64,
    error: &str,
) -> Result<(), DatabaseError> {
    statement!("dispatch/fetch_failed").execute(client, &[&attempt, &epoch, &delay, &error]).await?;
    Ok(())
}

/// Ends attempts without success, and does to their builds and to all that need them what follows from it.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn end(
    client: &impl GenericClient,
    ended: &[Ended],
    epoch: Epoch,
) -> Result<Effects, DatabaseError> {
    let attempts: Vec<_> = ended.iter().map(|e| e.attempt).collect();
    let classes: Vec<_> = ended.iter().map(|e| e.class.as_str()).collect();
    let exit: Vec<_> = ended.iter().map(|e| e.measures.exit_status).collect();
    let messages: Vec<_> =
        ended.iter().map(|e| (!e.message.is_empty()).then_some(e.message.as_str())).collect();
    let inputs_ms: Vec<_> = ended.iter().map(|e| e.measures.inputs_ms).collect();
    let build_ms: Vec<_> = ended.iter().map(|e| e.measures.build_ms).collect();
    let peak_memory: Vec<_> = ended.iter().map(|e| e.measures.peak_memory).collect();
    let log_bytes: Vec<_> = ended.iter().map(|e| e.measures.log_bytes).collect();
    let rows = statement!("dispatch/end_attempts")
        .all(
            client,
            &[&attempts, &classes, &exit, &messages, &inputs_ms, &build_ms, &peak_memory, &log_bytes, &epoch],
        )
        .await?;
    let taken: BTreeSet<AttemptId> =
        rows.iter().map(|row| row.get("attempt_id")).collect::<Result<_, _>>()?;
    let taken: Vec<_> = ended.iter().filter(|e| taken.contains(&e.attempt)).collect();

    let builds: Vec<_> = taken.iter().map(|e| e.build).collect();
    let attempts: Vec<_> = taken.iter().map(|e| e.attempt).collect();
    let states: Vec<_> = taken.iter().map(|e| e.consequence.state().as_str()).collect();
    let delays: Vec<_> = taken.iter().map(|e| e.consequence.delay()).collect();
    let faults: Vec<_> = taken.iter().map(|e| e.consequence.is_farm_fault()).collect();
    let rows = statement!("dispatch/after_attempts")
        .all(client, &[&builds, &attempts, &states, &delays, &faults])
        .await?;

    let mut effects = Effects::default();
    let (mut failed, mut canceled) = (Vec::new(), Vec::new());
    for row in &rows {
        match row.parse::<BuildState>("state")? {
            BuildState::Ready => effects.ready.push(ready_build(row)?),
            BuildState::Deferred => effects.deferred = true,
            BuildState::Canceled => canceled.push(row.get("build_id")?),
            _ => failed.push(row.get("build_id")?),
        }
    }
    let mut dependents = fail_dependents(client, &failed).await?;
    dependents.extend(control::cancel_dependents(client, &canceled).await?);
    effects.finished.extend(failed);
    effects.finished.extend(canceled);
    if !dependents.is_empty() {
        // What else they needed is not as urgent any more.
        priority_control::note(client, &effects.finished).await?;
        effects.noted = true;
        effects.finished.extend(dependents);
    }
    if !effects.finished.is_empty() {
        statement!("dispatch/weather").execute(client, &[&effects.finished]).await?;
    }
    Ok(effects)
}

/// Fails what needs builds that have failed now, through all levels; gives it.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub(crate) async fn fail_dependents(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Vec<BuildId>, DatabaseError> {
    let mut failed = Vec::new();
    if builds.is_empty() {
        return Ok(failed);
    }
    // Again until nothing is left: an evaluation that is published meanwhile adds dependents to builds of this chain,
    // and either counts them as failed itself, or has its rows in sight of the next round.
    loop {
        let rows = statement!("dispatch/fail_dependents").all(client, &[&builds]).await?;
        if rows.is_empty() {
            return Ok(failed);
        }
        for row in &rows {
            failed.push(row.get("build_id")?);
        }
    }
}

/// Records that the outputs of attempts are in the farm's cache: their builds have succeeded, and what waits for nothing else
/// any more is ready.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn succeed(
    client: &impl GenericClient,
    fetched: &[Fetched],
    epoch: Epoch,
    server: ServerId,
) -> Result<Effects, DatabaseError> {
    finish(client, &[], fetched, epoch, server).await
}

/// Does what [`succeed`] does for `fetched`, and what [`built`] and [`succeed`] do for `finished`, in half as many writes.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn finish(
    client: &impl GenericClient,
    finished: &[(Built, Fetched)],
    fetched: &[Fetched],
    epoch: Epoch,
    server: ServerId,
) -> Result<Effects, DatabaseError> {
    let (mut rows, mut reported) = (Vec::new(), Vec::new());
    if !finished.is_empty() {
        let built = finished.iter().map(|(built, _)| built);
        let reports = Reports::of(&built);
        rows = statement!("dispatch/finish").all(client, &reports.parameters(&epoch)).await?;
        let taken: BTreeSet<AttemptId> =
            rows.iter().map(|row| row.get("attempt_id")).collect::<Result<_, _>>()?;
        reported.extend(built.filter(|b| taken.contains(&b.attempt)));
    }
    if !fetched.is_empty() {
        let attempts: Vec<_> = fetched.iter().map(|f| f.attempt).collect();
        rows.extend(statement!("dispatch/succeed").all(client, &[&attempts, &epoch]).await?);
    }
    let fetched = finished.iter().map(|(_, fetched)| fetched).chain(fetched);
    after_success(client, &rows, &reported, fetched, server).await
}

/// What follows from the success of the builds in `rows`, and what is `reported` of them for the first time.
async fn after_success<'a>(
    client: &impl GenericClient,
    rows: &[Record],
    reported: &[&Built],
    fetched: impl Iterator<Item = &'a Fetched>,
    server: ServerId,
) -> Result<Effects, DatabaseError> {
    let finished: Vec<BuildId> = rows.iter().map(|row| row.get("build_id")).collect::<Result<_, _>>()?;
    if finished.is_empty() {
        return Ok(Effects::default());
    }
    let taken: BTreeSet<AttemptId> =
        rows.iter().map(|row| row.get("attempt_id")).collect::<Result<_, _>>()?;
    let fetched = fetched.filter(|f| taken.contains(&f.attempt));
    let of: &(dyn ToSql + Sync) = &finished;
    let of = [of];
    // None needs what another gives: they travel together.
    let ((), (), rows, _) = try_join!(
        add_outputs(client, outputs_of(reported.iter().copied())),
        hold_outputs(client, fetched, server),
        statement!("dispatch/release_dependents").all(client, &of),
        statement!("dispatch/weather").execute(client, &of),
    )?;
    let ready = rows.iter().map(ready_build).collect::<Result<_, _>>()?;
    Ok(Effects { ready, finished, ..Effects::default() })
}

/// Records what the farm's cache has of the outputs of builds that succeed.
pub(crate) async fn hold_outputs<'a>(
    client: &impl GenericClient,
    fetched: impl Iterator<Item = &'a Fetched>,
    server: ServerId,
) -> Result<(), DatabaseError> {
    let (mut builds, mut paths, mut hashes, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (build, output) in fetched.flat_map(|f| f.outputs.iter().map(|output| (f.build, output))) {
        builds.push(build);
        paths.push(output.path.to_string());
        hashes.push(output.nar_hash.as_slice());
        sizes.push(output.nar_size);
    }
    statement!("dispatch/hold_outputs").execute(client, &[&server, &builds, &paths, &hashes, &sizes]).await?;
    Ok(())
}

/// Makes deferred builds ready whose time has come, or that would have to wait for longer than `longest` seconds, which no delay is: the
/// database's clock was set back since then. `farm_faults` is as in [`window`].
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn wake_deferred(
    client: &impl GenericClient,
    longest: f64,
    farm_faults: &[AttemptClass],
) -> Result<Vec<ReadyBuild>, DatabaseError> {
    let rows = statement!("dispatch/wake_deferred").all(client, &[&longest, &words(farm_faults)]).await?;
    rows.iter().map(failed_build).collect()
}

/// Tells in how many seconds the next deferred build is due, if there is one; never more than `longest`, the longest delay.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn next_deferred(client: &impl GenericClient, longest: f64) -> Result<Option<f64>, DatabaseError> {
    let row = statement!("dispatch/next_deferred").optional(client, &[&longest]).await?;
    row.map(|row| row.get("seconds")).transpose()
}

/// Tells the other servers that builds have become ready by what the start `epoch` of one did.
///
/// # Errors
/// Any failure of the statement.
pub async fn notify_ready(client: &impl GenericClient, epoch: Epoch) -> Result<(), DatabaseError> {
    statement!("dispatch/notify_ready").execute(client, &[&epoch]).await?;
    Ok(())
}

/// Tells which of these builds are over, and the workers whose attempts ended as one of these classes.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn over(
    client: &impl GenericClient,
    builds: &[BuildId],
    classes: &[AttemptClass],
) -> Result<Vec<(BuildId, Option<WorkerId>)>, DatabaseError> {
    let rows = statement!("dispatch/over").all(client, &[&builds, &words(classes)]).await?;
    rows.iter().map(|row| Ok((row.get("build_id")?, row.get("worker_id")?))).collect()
}

/// Tells whoever shows the farm that something has changed.
///
/// # Errors
/// Any failure of the statement.
pub async fn notify_changed(client: &impl GenericClient) -> Result<(), DatabaseError> {
    statement!("dispatch/changed").execute(client, &[]).await?;
    Ok(())
}

pub(crate) fn ready_build(row: &Record) -> Result<ReadyBuild, DatabaseError> {
    Ok(ReadyBuild {
        id: row.get("build_id")?,
        lane: row.get("lane_id")?,
        other_lanes: row.get::<Option<Vec<LaneId>>>("other_lanes")?.unwrap_or_default(),
        urgency: row.get("urgency")?,
        path_step: row.get("path_step")?,
        expected_ms: row.get("expected_ms")?,
        age_ms: row.get("age_ms")?,
        failed_on: Vec::new(),
    })
}

/// Reads a build that also shows where it has failed.
fn failed_build(row: &Record) -> Result<ReadyBuild, DatabaseError> {
    Ok(ReadyBuild { failed_on: failed_on(row)?, ..ready_build(row)? })
}

/// Reads where a build has failed by the farm's fault.
pub(crate) fn failed_on(row: &Record) -> Result<Vec<WorkerId>, DatabaseError> {
    Ok(row.get::<Option<Vec<WorkerId>>>("failed_on")?.unwrap_or_default())
}

/// The words of classes in rows.
pub(crate) fn words(classes: &[AttemptClass]) -> Vec<&'static str> {
    classes.iter().map(|class| class.as_str()).collect()
}

pub(crate) fn store_paths(row: &Record, column: &'static str) -> Result<Vec<StorePath>, DatabaseError> {
    row.get::<Vec<&str>>(column)?
        .into_iter()
        .map(|text| StorePath::parse(text).map_err(|source| row.bad(column, source)))
        .collect()
}
