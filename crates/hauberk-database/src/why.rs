//! Why a build is not running, and when it will.
//!
//! Every reason is read from the rows by keys and from indexes, and what could be long is counted up to a bound, however
//! long the queue is. What only the servers know, what specifications have used of the farm, they write down
//! now and then ([`crate::usage`]).

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use hauberk_order::LedgerPolicy;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio_postgres::types::ToSql;

use crate::statement::{Record, statement};
use crate::{BuildId, BuildState, DatabaseError, SpecificationId, WorkerId};

mod forecast;
mod words;

pub use forecast::{Foretold, Seconds, forecast};

/// More urgent builds are counted up to so many.
pub const MOST_AHEAD: i64 = 1000;
/// Inputs that are named.
const INPUTS: i64 = 10;
/// Workers that are named.
const NAMED: usize = 5;

/// Why a build is not running.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// The build.
    pub build: BuildId,
    /// Name and version.
    pub name: String,
    /// How it stands.
    pub state: BuildState,
    /// The reasons, what must end first before the others; empty for one that runs or is over by itself.
    pub reasons: Vec<Reason>,
}

/// A reason why a build is not running.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Reason {
    /// Its evaluation is not published yet.
    Staged,
    /// An operator keeps it back.
    Held,
    /// It waits for what it needs.
    Inputs {
        /// How many have not succeeded.
        count: i32,
        /// The first of them, what runs before what waits.
        first: Vec<Input>,
    },
    /// It is tried again later.
    Deferred {
        /// Not before.
        #[serde(serialize_with = "unix_or_none")]
        until: Option<Timestamp>,
        /// Tries that failed by the farm's fault.
        tries: i16,
        /// How the last one failed.
        class: Option<String>,
        /// What was said about it.
        message: Option<String>,
    },
    /// No connected worker can build it.
    NoWorker {
        /// The store it is for.
        store_directory: String,
        /// The system it is for.
        system: String,
        /// The features it requires.
        features: Vec<String>,
        /// Since when: when the last worker that could was heard of, or since it was recorded where none ever was.
        #[serde(serialize_with = "unix")]
        since: Timestamp,
        /// Workers that could, if they were there.
        away: Vec<String>,
    },
    /// Workers that could build it are kept from it.
    WorkersHeld {
        /// They, each with why.
        workers: Vec<HeldWorker>,
        /// How many they are.
        count: usize,
    },
    /// Workers could, but build only what requires some feature.
    WorkersDemand {
        /// The features that they demand.
        features: Vec<String>,
        /// How many they are.
        count: usize,
    },
    /// All slots that could take it are busy.
    NoFreeSlot {
        /// Slots of the connected workers that could.
        slots: i64,
        /// How many are busy.
        busy: i64,
    },
    /// More urgent builds go before it.
    Behind {
        /// How many; up to [`MOST_AHEAD`] of each kind are counted.
        builds: i64,
        /// Whether there are more than that.
        or_more: bool,
    },
    /// Its specification has used more of the farm than others that wait for the same slots.
    OverShare {
        /// The specification.
        specification: String,
        /// What it has used of what all that wait have, as a part of 1.
        used: f64,
        /// What its shares say.
        share: f64,
    },
    /// Nothing stands before it: the next free slot takes it.
    Next,
    /// It was given to a worker, and its attempt is being stopped.
    Stopping,
    /// A worker has it.
    WithWorker {
        /// The worker.
        worker: Option<String>,
        /// Since when.
        #[serde(serialize_with = "unix_or_none")]
        since: Option<Timestamp>,
        /// Whether its builder has begun.
        begun: bool,
    },
    /// Something that it needs failed, or was canceled.
    FailedDependency {
        /// What failed in the first place.
        build: Option<BuildId>,
        /// Its name.
        name: Option<String>,
        /// How it stands.
        state: Option<BuildState>,
    },
    /// It was canceled itself.
    Canceled,
}

/// Something that a build needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The build that gives it.
    pub build: BuildId,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: BuildState,
}

/// A connected worker that gets no work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldWorker {
    /// Its name.
    pub worker: String,
    /// Why it is held.
    pub reason: String,
}

/// What is asked for first about a build.
struct Subject {
    id: BuildId,
    name: String,
    state: BuildState,
    urgency: i16,
    path_step: i16,
    specification: SpecificationId,
    specification_name: String,
    store_directory: String,
    system: String,
    features: Vec<String>,
    runs_for: Option<f64>,
}

impl Subject {
    fn read(row: &Record) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: row.get("build_id")?,
            name: row.get("name")?,
            state: row.get("state")?,
            urgency: row.get("urgency")?,
            path_step: row.get("path_step")?,
            specification: row.get("specification_id")?,
            specification_name: row.get("specification")?,
            store_directory: row.get("store_directory")?,
            system: row.get("system")?,
            features: row.get("features")?,
            runs_for: row.get("runs_for")?,
        })
    }
}

/// A worker whose store, systems and features fit.
struct Candidate {
    id: WorkerId,
    name: String,
    slots: i64,
    connected: bool,
    demands: bool,
    mandatory_features: Vec<String>,
    held: Option<String>,
    last_seen: Option<Timestamp>,
}

impl Candidate {
    fn read(row: &Record) -> Result<Option<Self>, DatabaseError> {
        if row.get("revoked")? {
            return Ok(None);
        }
        let held = if row.get("draining")? {
            Some("it is to finish what it runs and to leave".to_owned())
        } else if row.get("paused")? {
            let reason: Option<String> = row.get("pause_reason")?;
            Some(reason.map_or_else(|| "paused".to_owned(), |reason| format!("paused: {reason}")))
        } else {
            row.get::<Option<String>>("shortage")?.map(|shortage| format!("takes no work now: {shortage}"))
        };
        Ok(Some(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            slots: row.get::<i32>("slots")?.into(),
            connected: row.get("connected")?,
            demands: row.get("demands")?,
            mandatory_features: row.get("mandatory_features")?,
            held,
            last_seen: row.get("last_seen_at")?,
        }))
    }

    fn can_take(&self) -> bool {
        self.connected && !self.demands && self.held.is_none()
    }
}

/// Tells why a build is not running. Gives `None` when there is no such build.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn why(client: &impl GenericClient, build: BuildId) -> Result<Option<Why>, DatabaseError> {
    let Some(row) = statement!("why/build").optional(client, &[&build]).await? else { return Ok(None) };
    let subject = Subject::read(&row)?;
    let stopping = row.get::<bool>("stopping")?;
    let mut reasons = Vec::new();
    match subject.state {
        BuildState::Staged => reasons.push(Reason::Staged),
        BuildState::Held => reasons.push(Reason::Held),
        BuildState::Canceled | BuildState::FailedDependency => {
            let cause = row.get("failed_build_id")?;
            reasons.push(match (subject.state, cause) {
                (BuildState::Canceled, None) => Reason::Canceled,
                (_, build) => {
                    let (name, state) = (row.get("failed_build_name")?, row.get("failed_build_state")?);
                    Reason::FailedDependency { build, name, state }
                }
            });
        }
        BuildState::Assigned | BuildState::Running if stopping => reasons.push(Reason::Stopping),
        BuildState::Assigned | BuildState::Running => {
            let (worker, since) = (row.get("worker")?, row.get("assigned_at")?);
            let begun = row.get::<Option<Timestamp>>("started_at")?.is_some();
            reasons.push(Reason::WithWorker { worker, since, begun });
        }
        BuildState::Built
        | BuildState::Fetching
        | BuildState::Succeeded
        | BuildState::Failed
        | BuildState::FailedOther => {}
        BuildState::Waiting | BuildState::Deferred | BuildState::Ready => {}
    }
    if subject.state == BuildState::Deferred {
        reasons.push(Reason::Deferred {
            until: row.get("not_before")?,
            tries: row.get("farm_faults")?,
            class: row.get("class")?,
            message: row.get("message")?,
        });
    }
    let count = row.get::<i32>("unmet")?;
    if matches!(subject.state, BuildState::Waiting | BuildState::Held) && count > 0 {
        let rows = statement!("why/inputs").all(client, &[&build, &INPUTS]).await?;
        let first = rows
            .iter()
            .map(|row| {
                Ok(Input { build: row.get("build_id")?, name: row.get("name")?, state: row.get("state")? })
            })
            .collect::<Result<_, DatabaseError>>()?;
        reasons.push(Reason::Inputs { count, first });
    }
    if matches!(subject.state, BuildState::Waiting | BuildState::Deferred | BuildState::Ready) {
        let since = row.get::<Option<Timestamp>>("ready_at")?.unwrap_or(row.get("created_at")?);
        let is_ready = subject.state == BuildState::Ready;
        // They travel together: each alone would wait for its turn on a busy machine.
        let (candidates, busy, standing) =
            tokio::try_join!(candidates(client, &subject), statement!("why/busy").all(client, &[]), async {
                match is_ready {
                    true => Standing::read(client, &subject).await.map(Some),
                    false => Ok(None),
                }
            })?;
        let is_free = workers(&subject, since, &candidates, &busy, &mut reasons)?;
        if let Some(standing) = standing {
            before(&subject, &standing, &mut reasons)?;
            if is_free && reasons.is_empty() {
                reasons.push(Reason::Next);
            }
        }
    }
    Ok(Some(Why { build, name: subject.name, state: subject.state, reasons }))
}

/// The reasons that lie with the workers. Tells whether one of them has a free slot.
fn workers(
    subject: &Subject,
    since: Timestamp,
    candidates: &[Candidate],
    busy: &[Record],
    reasons: &mut Vec<Reason>,
) -> Result<bool, DatabaseError> {
    let held: Vec<&Candidate> = candidates
        .iter()
        .filter(|worker| worker.connected && !worker.demands && worker.held.is_some())
        .collect();
    let demanding: Vec<&Candidate> =
        candidates.iter().filter(|worker| worker.connected && worker.demands).collect();
    let able: Vec<&Candidate> = candidates.iter().filter(|worker| worker.can_take()).collect();
    if able.is_empty() {
        if held.is_empty() {
            let fitting = || candidates.iter().filter(|worker| !worker.demands);
            let since = fitting().filter_map(|worker| worker.last_seen).max().unwrap_or(since);
            reasons.push(Reason::NoWorker {
                store_directory: subject.store_directory.clone(),
                system: subject.system.clone(),
                features: subject.features.clone(),
                since,
                away: fitting().take(NAMED).map(|worker| worker.name.clone()).collect(),
            });
        } else {
            let workers = held
                .iter()
                .take(NAMED)
                .map(|worker| HeldWorker {
                    worker: worker.name.clone(),
                    reason: worker.held.clone().unwrap_or_default(),
                })
                .collect();
            reasons.push(Reason::WorkersHeld { workers, count: held.len() });
        }
        if !demanding.is_empty() {
            let mut features: Vec<String> = demanding
                .iter()
                .flat_map(|worker| &worker.mandatory_features)
                .filter(|feature| !subject.features.contains(feature))
                .cloned()
                .collect();
            features.sort_unstable();
            features.dedup();
            reasons.push(Reason::WorkersDemand { features, count: demanding.len() });
        }
        return Ok(false);
    }
    let mut attempts: HashMap<WorkerId, i64> = HashMap::new();
    for row in busy {
        attempts.insert(row.get("worker_id")?, row.get("attempts")?);
    }
    let slots = able.iter().map(|worker| worker.slots).sum();
    let busy =
        able.iter().map(|worker| attempts.get(&worker.id).copied().unwrap_or(0).min(worker.slots)).sum();
    if busy >= slots && subject.state == BuildState::Ready {
        reasons.push(Reason::NoFreeSlot { slots, busy });
    }
    Ok(busy < slots)
}

async fn candidates(client: &impl GenericClient, subject: &Subject) -> Result<Vec<Candidate>, DatabaseError> {
    let (directory, system, features) = (&subject.store_directory, &subject.system, &subject.features);
    let rows = statement!("why/workers").all(client, &[directory, system, features]).await?;
    let read = rows.iter().map(Candidate::read).collect::<Result<Vec<_>, _>>()?;
    Ok(read.into_iter().flatten().collect())
}

/// How a ready build stands among those that wait for the same slots.
struct Standing {
    /// What goes before it, by specification.
    ahead: Vec<Record>,
    /// What specifications have used.
    usage: Vec<Record>,
}

impl Standing {
    async fn read(client: &impl GenericClient, subject: &Subject) -> Result<Self, DatabaseError> {
        let half_life = LedgerPolicy::default().half_life.as_secs_f64();
        let place: [&(dyn ToSql + Sync); 7] = [
            &subject.id,
            &subject.store_directory,
            &subject.system,
            &subject.urgency,
            &subject.specification,
            &MOST_AHEAD,
            &subject.path_step,
        ];
        let life: [&(dyn ToSql + Sync); 1] = [&half_life];
        let (ahead, usage) = tokio::try_join!(
            statement!("why/ahead").all(client, &place),
            statement!("why/usage").all(client, &life),
        )?;
        Ok(Self { ahead, usage })
    }
}

/// The reasons that lie with other builds that wait for the same slots.
fn before(subject: &Subject, standing: &Standing, reasons: &mut Vec<Reason>) -> Result<(), DatabaseError> {
    let mut ahead = 0;
    let mut or_more = false;
    // Those that want the same slots as urgently, with their shares.
    let mut rivals: Vec<(SpecificationId, f64)> = Vec::new();
    for row in &standing.ahead {
        let builds: i64 = row.get("builds")?;
        ahead += builds;
        or_more |= builds >= MOST_AHEAD;
        if row.get("contends")? {
            rivals.push((row.get("specification_id")?, f64::from(row.get::<i32>("shares")?)));
        }
    }
    if ahead > 0 {
        reasons.push(Reason::Behind { builds: ahead, or_more });
    }
    if rivals.len() < 2 || subject.urgency < 0 {
        return Ok(());
    }
    let ids: Vec<SpecificationId> = rivals.iter().map(|(id, _)| *id).collect();
    let mut used: HashMap<SpecificationId, f64> = HashMap::new();
    for row in &standing.usage {
        used.insert(row.get("specification_id")?, row.get("slot_seconds")?);
    }
    let used_by = |id: &SpecificationId| used.get(id).copied().unwrap_or(0.0);
    let all: f64 = ids.iter().map(used_by).sum();
    let shares: f64 = rivals.iter().map(|(_, shares)| shares).sum();
    let Some((own, own_shares)) = rivals.iter().find(|(id, _)| *id == subject.specification) else {
        return Ok(());
    };
    let (used, share) = (used_by(own) / all.max(f64::MIN_POSITIVE), own_shares / shares);
    if used > share {
        let specification = subject.specification_name.clone();
        reasons.push(Reason::OverShare { specification, used, share });
    }
    Ok(())
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, reason) in self.reasons.iter().enumerate() {
            if number > 0 {
                formatter.write_str("\n")?;
            }
            reason.fmt(formatter)?;
        }
        Ok(())
    }
}

/// Times are Unix seconds in JSON.
fn unix<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    time.as_second().serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde asks for it")]
fn unix_or_none<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(Timestamp::as_second).serialize(serializer)
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
