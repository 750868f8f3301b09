//! The publication of an evaluation: its jobs and builds become visible all together, or not at all.
//!
//! Builds are found by the paths they give, so two derivations with the same outputs are one build, and what older
//! evaluations wanted is shared. Three rules keep a build from waiting for ever:
//!
//! - the builds that a new one needs are locked *before* its unmet dependencies are counted, so that a result that
//!   arrives meanwhile is either counted, or finds the new dependent;
//! - what has failed already fails its new dependents at once, unless it is mended, and what was canceled is wanted again;
//! - one evaluation is published at a time.
//!
//! Everything is read and written by sets, in time linear in the size of the evaluation, whatever the size of the
//! farm.
//!
//! The paths that a build gives may come of another derivation than before: a source is fetched from another place, and is still what it
//! was. A known build that nobody works at takes the derivation of this evaluation, with what that needs; one that has failed begins
//! anew by it, unless that very derivation is known to fail.
//!
//! What becomes of each build is decided by a pure function over the graph (`plan`), first without locks
//! to write the new rows by, then again once the few rows that it rests on hold still.

mod plan;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::{Client, GenericClient, Transaction};
use hauberk_store::{DrvPath, OutputName, StoreDirectory, StorePath};

use crate::evaluations::{self, JobError};
use crate::statement::{Record, statement};
use crate::{
    BuildId, BuildState, DatabaseError, DerivationId, EvaluationId, LaneId, Level, Priority, SpecificationId,
    begin, commit, durations, priority_control, revival,
};
use plan::{Known, Node, Order, Outcome, Renewal};

/// How often a publication is begun anew after PostgreSQL ended it in favour of another transaction.
const TRIES: u32 = 5;

/// An evaluation to publish.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// Every build that the jobs are or need and that is not there yet, in any order. One that is known is found.
    pub builds: Vec<NewBuild>,
    /// The jobs.
    pub jobs: Vec<NewJob>,
    /// Jobs that gave no build.
    pub errors: Vec<JobError>,
    /// The files of their outputs that are to be offered for download.
    pub products: Vec<NewProduct>,
}

/// A build to find or make.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// Its derivation.
    pub derivation: DrvPath,
    /// Name and version, as the derivation has them.
    pub name: String,
    /// The system it builds on.
    pub system: String,
    /// The features it requires, sorted.
    pub features: Vec<String>,
    /// Seconds it may take; 0 = no limit.
    pub timeout: u32,
    /// Seconds it may be silent; 0 = no limit.
    pub max_silent: u32,
    /// What it gives; not empty.
    pub outputs: Vec<(OutputName, StorePath)>,
    /// The paths it needs of other derivations, built by the farm or not.
    pub dependencies: Vec<StorePath>,
}

/// A job.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its name, unique in the evaluation.
    pub name: String,
    /// Its build: a place in [`Registration::builds`].
    pub build: usize,
    /// How urgent it is among the jobs.
    pub priority: Level,
}

/// A file of a build's output, or several, to be offered for download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    /// The build: a place in [`Registration::builds`].
    pub build: usize,
    /// The output's name.
    pub output: String,
    /// The path in it, perhaps with wild cards; empty for all of it.
    pub path: String,
    /// What people call it.
    pub kind: String,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Jobs.
    pub jobs: usize,
    /// Builds that are new to the farm.
    pub new: usize,
    /// Builds that were known.
    pub known: usize,
    /// Known builds that begin anew.
    pub revived: usize,
    /// Builds that became ready.
    pub ready: usize,
    /// Builds that cannot be built because something they need has failed.
    pub failed_dependency: usize,
}

/// Why an evaluation could not be published.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The database could not do it.
    #[error("cannot publish evaluation {evaluation}")]
    Database {
        /// The evaluation.
        evaluation: EvaluationId,
        /// What it said.
        #[source]
        source: DatabaseError,
    },
    /// It has ended already, or does not exist.
    #[error("evaluation {evaluation} has ended already")]
    NotStarted {
        /// The evaluation.
        evaluation: EvaluationId,
    },
    /// A derivation without outputs.
    #[error("derivation {derivation} has no outputs")]
    NoOutputs {
        /// The derivation.
        derivation: DrvPath,
    },
    /// A job names a build that is not there.
    #[error("job `{job}` has no build")]
    NoBuild {
        /// The job.
        job: String,
    },
    /// Builds need each other.
    #[error("build {build} needs itself")]
    Cycle {
        /// One of them, or one that needs them.
        build: BuildId,
    },
}

/// Publishes an evaluation and ends it as succeeded, in one transaction.
///
/// # Errors
/// [`RegistrationError`]; nothing of the evaluation is visible then.
pub async fn publish(
    client: &mut Client,
    evaluation: EvaluationId,
    registration: &Registration,
) -> Result<Published, RegistrationError> {
    let learned = durations::learn(client).await;
    learned.map_err(|source| RegistrationError::Database { evaluation, source })?;
    let mut tries = 1;
    loop {
        match try_publish(client, evaluation, registration).await {
            Err(Fault::Database(error)) if error.is_conflict() && tries < TRIES => {
                tracing::debug!(evaluation.id = %evaluation, tries, "publication met another transaction");
                tries += 1;
            }
            Err(Fault::Database(source)) => {
                return Err(RegistrationError::Database { evaluation, source });
            }
            Err(Fault::Registration(error)) => return Err(error),
            Ok(published) => return Ok(published),
        }
    }
}

/// Tells which of these paths the farm has built.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn succeeded_outputs(
    client: &impl GenericClient,
    paths: &[&StorePath],
) -> Result<HashSet<StorePath>, DatabaseError> {
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let records = statement!("registration/succeeded_outputs").all(client, &[&paths]).await?;
    records.iter().map(|record| record.parse("path")).collect()
}

/// What ends one try.
enum Fault {
    Database(DatabaseError),
    Registration(RegistrationError),
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<RegistrationError> for Fault {
    fn from(error: RegistrationError) -> Self {
        Self::Registration(error)
    }
}

async fn try_publish(
    client: &mut Client,
    evaluation: EvaluationId,
    registration: &Registration,
) -> Result<Published, Fault> {
    let transaction = begin(client).await?;
    statement!("registration/lock").execute(&transaction, &[]).await?;
    statement!("registration/settings").execute(&transaction, &[]).await?;
    let Some(record) =
        statement!("registration/specification_priority").optional(&transaction, &[&evaluation]).await?
    else {
        return Err(RegistrationError::NotStarted { evaluation }.into());
    };
    let specification: SpecificationId = record.get("specification_id")?;
    let wish = (record.get("priority")?, record.get("emergency")?);

    let derivations = derivations(&transaction, registration).await?;
    let mut graph = Graph::load(&transaction, registration, &derivations, wish).await?;
    graph.estimate(&transaction, registration).await?;
    let order = Order::of(&graph.nodes).map_err(|cycle| RegistrationError::Cycle { build: cycle.0 })?;
    let first = plan::plan(&graph.nodes, &order);

    let lanes = lanes(&transaction, specification, registration, &graph).await?;
    add_builds(&transaction, evaluation, registration, &graph, &first, &derivations, &lanes).await?;
    add_derivations(&transaction, registration, &graph, &derivations).await?;
    add_outputs(&transaction, registration, &graph).await?;
    add_jobs(&transaction, evaluation, registration, &graph, &derivations).await?;
    evaluations::add_errors(&transaction, evaluation, &registration.errors).await?;

    hold_dropped(&transaction, &graph).await?;
    let last = settle(&transaction, &mut graph, &order).await?;
    write_edges(&transaction, &graph, &last).await?;
    let mut published =
        change_builds(&transaction, registration, &graph, &first, &last, &derivations).await?;
    withdraw_cancel(&transaction, &graph).await?;
    add_products(&transaction, specification, registration, &graph).await?;
    share(&transaction, specification, &graph).await?;
    published.revive_others(&transaction, &graph, &last).await?;
    statement!("registration/weather").execute(&transaction, &[&evaluation]).await?;
    let message = errors_in_a_line(registration);
    statement!("registration/finish").execute(&transaction, &[&evaluation, &message]).await?;
    if published.ready > 0 {
        statement!("evaluations/notify_ready").execute(&transaction, &[]).await?;
    }
    evaluations::notify_changed(&transaction).await?;
    commit(transaction).await?;
    Ok(published)
}

fn errors_in_a_line(registration: &Registration) -> Option<String> {
    let bad = registration.errors.len();
    (bad > 0).then(|| format!("{bad} of {} jobs gave no build", bad + registration.jobs.len()))
}

/// The builds of an evaluation and, of those that were there before, everything unfinished below them.
struct Graph {
    nodes: Vec<Node>,
    /// The node of each of the registration's builds.
    node_of: Vec<usize>,
    /// For a new node, the first of the registration's builds that made it.
    made_by: HashMap<usize, usize>,
    /// Edges that are not recorded yet.
    new_edges: Vec<(BuildId, BuildId)>,
    /// Edges that are recorded, of derivations whose place another one takes.
    dropped_edges: Vec<(BuildId, BuildId)>,
    /// The nodes that were there before and may begin anew or have not ended.
    described: HashMap<usize, Description>,
}

/// What is recorded of a known build that does not change with its state.
struct Description {
    system: String,
    name: String,
    /// The derivation that attempts use.
    derivation: DerivationId,
}

impl Graph {
    async fn load(
        transaction: &Transaction<'_>,
        registration: &Registration,
        derivations: &Derivations,
        (specification, emergency): (Level, bool),
    ) -> Result<Self, Fault> {
        let builds = &registration.builds;
        let found = find_outputs(transaction, builds).await?;

        // Which build each derivation is: a known one, or one of this evaluation, by the paths it gives.
        let mut graph = Self {
            nodes: Vec::new(),
            node_of: Vec::new(),
            made_by: HashMap::new(),
            new_edges: Vec::new(),
            dropped_edges: Vec::new(),
            described: HashMap::new(),
        };
        let mut by_path: HashMap<&StorePath, usize> = HashMap::new();
        let mut by_id: HashMap<BuildId, usize> = HashMap::new();
        let mut new = Vec::new();
        for (index, build) in builds.iter().enumerate() {
            if build.outputs.is_empty() {
                return Err(RegistrationError::NoOutputs { derivation: build.derivation.clone() }.into());
            }
            let paths = || build.outputs.iter().map(|(_, path)| path);
            let place = paths().find_map(|path| by_path.get(path).copied()).unwrap_or_else(|| {
                match paths().find_map(|path| found.get(path).copied()) {
                    Some(id) => *by_id.entry(id).or_insert_with(|| graph.push(id)),
                    None => {
                        let place = graph.push(BuildId::new(0));
                        new.push(place);
                        graph.made_by.insert(place, index);
                        place
                    }
                }
            });
            for path in paths() {
                by_path.entry(path).or_insert(place);
            }
            graph.node_of.push(place);
        }
        let reserved = statement!("registration/reserve_builds")
            .all(transaction, &[&i32::try_from(new.len()).unwrap_or(i32::MAX)])
            .await?;
        for (&place, record) in new.iter().zip(&reserved) {
            graph.nodes[place].id = record.get("id")?;
        }

        // What each needs. What neither the evaluation nor the farm has needs no build.
        let mut needs: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
        for (index, build) in builds.iter().enumerate() {
            let place = graph.node_of[index];
            for path in &build.dependencies {
                let dependency = by_path.get(path).copied().or_else(|| {
                    found.get(path).map(|&id| *by_id.entry(id).or_insert_with(|| graph.push(id)))
                });
                if let Some(dependency) = dependency
                    && dependency != place
                {
                    needs[place].push(dependency);
                }
            }
        }
        needs.resize(graph.nodes.len(), Vec::new());
        graph.load_known(transaction, registration, derivations, by_id, needs).await?;

        for job in &registration.jobs {
            let Some(&place) = graph.node_of.get(job.build) else {
                return Err(RegistrationError::NoBuild { job: job.name.clone() }.into());
            };
            let node = &mut graph.nodes[place];
            node.wanted = node.wanted.min(Priority::of(specification, job.priority));
            node.emergency = emergency;
        }
        Ok(graph)
    }

    /// Estimates how long each unfinished build takes, by those that are like it.
    async fn estimate(
        &mut self,
        transaction: &Transaction<'_>,
        registration: &Registration,
    ) -> Result<(), DatabaseError> {
        let new = self.made_by.iter().map(|(&place, &index)| {
            let build = &registration.builds[index];
            (place, build.system.as_str(), build.name.as_str())
        });
        let known = self.described.iter();
        let known = known.map(|(&place, known)| (place, known.system.as_str(), known.name.as_str()));
        let builds: Vec<(usize, &str, &str)> = new.chain(known).collect();
        let names = builds.iter().map(|(_, system, name)| (*system, *name));
        let history = durations::history(transaction, names).await?;
        for (place, system, name) in builds {
            let millis = history.estimate(system, name).duration.as_millis();
            // Nothing takes no time: else the depth of a chain would not count.
            self.nodes[place].expected_ms = i64::try_from(millis).unwrap_or(i64::MAX).max(1);
        }
        Ok(())
    }

    fn push(&mut self, id: BuildId) -> usize {
        self.nodes.push(Node {
            id,
            wanted: Priority::LEAST_URGENT,
            emergency: false,
            expected_ms: 0,
            known: None,
            renewal: None,
            dependencies: Vec::new(),
            has_new_edges: false,
        });
        self.nodes.len() - 1
    }

    /// Reads how the known builds stand, level by level down to what is finished, and joins the edges.
    async fn load_known(
        &mut self,
        transaction: &Transaction<'_>,
        registration: &Registration,
        derivations: &Derivations,
        mut by_id: HashMap<BuildId, usize>,
        mut needs: Vec<Vec<usize>>,
    ) -> Result<(), DatabaseError> {
        let mut recorded: HashSet<(BuildId, BuildId)> = HashSet::new();
        let mut level: Vec<BuildId> = by_id.keys().copied().collect();
        while !level.is_empty() {
            level.sort_unstable();
            let mut found = Vec::with_capacity(level.len());
            for record in statement!("registration/find_builds").all(transaction, &[&level]).await? {
                let known = known(&record)?;
                if let Some(&place) = by_id.get(&record.get("id")?) {
                    self.nodes[place].known = Some(known);
                    if takes_derivation(known) {
                        let description = Description {
                            system: record.get("system")?,
                            name: record.get("name")?,
                            derivation: record.get("derivation_id")?,
                        };
                        self.described.insert(place, description);
                    }
                    found.push(place);
                }
            }
            if recorded.is_empty() {
                // All that the evaluation itself names is in the first level.
                self.renew(transaction, registration, derivations, &by_id).await?;
            }
            let open = found.iter().map(|&place| &self.nodes[place]).filter(|node| node_takes_edges(node));
            let open: Vec<BuildId> = open.map(|node| node.id).collect();
            level.clear();
            for record in statement!("registration/find_edges").all(transaction, &[&open]).await? {
                let (build, dependency) = (record.get("build_id")?, record.get("dependency_id")?);
                recorded.insert((build, dependency));
                if let Some(&place) = by_id.get(&build)
                    && self.nodes[place].renewal.is_some()
                {
                    // What the other derivation needed does not matter any more, unless this one needs it too.
                    if !by_id.get(&dependency).is_some_and(|below| needs[place].contains(below)) {
                        self.dropped_edges.push((build, dependency));
                    }
                    continue;
                }
                let below = *by_id.entry(dependency).or_insert_with(|| {
                    level.push(dependency);
                    self.push(dependency)
                });
                needs.resize(self.nodes.len(), Vec::new());
                if let Some(&place) = by_id.get(&build) {
                    needs[place].push(below);
                }
            }
        }
        for (place, mut dependencies) in needs.into_iter().enumerate() {
            let node = &self.nodes[place];
            if !node_takes_edges(node) {
                continue;
            }
            dependencies.sort_unstable();
            dependencies.dedup();
            let id = node.id;
            let mut has_new_edges = false;
            for &dependency in &dependencies {
                let edge = (id, self.nodes[dependency].id);
                if !recorded.contains(&edge) {
                    self.new_edges.push(edge);
                    has_new_edges = true;
                }
            }
            self.nodes[place].has_new_edges = has_new_edges;
            self.nodes[place].dependencies = dependencies;
        }
        Ok(())
    }

    /// Finds the known builds that this evaluation has another derivation for. One of another system or with other features is left
    /// alone: the build waits for workers that could not build it.
    async fn renew(
        &mut self,
        transaction: &Transaction<'_>,
        registration: &Registration,
        derivations: &Derivations,
        by_id: &HashMap<BuildId, usize>,
    ) -> Result<(), DatabaseError> {
        let mut named: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, place) in self.node_of.iter().enumerate() {
            if self.described.contains_key(place) {
                named.entry(*place).or_default().push(index);
            }
        }
        let id = |index: usize| derivations.id(&registration.builds[index]);
        named.retain(|place, builds| {
            let current = self.described.get(place).map(|known| known.derivation);
            builds.iter().any(|&index| Some(id(index)) != current)
        });
        let mut asked: Vec<BuildId> = named.keys().map(|&place| self.nodes[place].id).collect();
        asked.sort_unstable();
        if asked.is_empty() {
            return Ok(());
        }
        for record in statement!("registration/failed_derivations").all(transaction, &[&asked]).await? {
            let Some(&place) = by_id.get(&record.get("id")?) else { continue };
            let (Some(known), Some(builds)) = (self.nodes[place].known, named.get(&place)) else { continue };
            let current: DerivationId = record.get("derivation_id")?;
            let failed: Vec<DerivationId> = record.get("failed")?;
            let lane: LaneKey =
                (record.parse("store_directory")?, record.get("system")?, record.get("features")?);
            let candidates = builds.iter().filter(|&&index| lane_key(&registration.builds[index]) == lane);
            let candidates: Vec<DerivationId> = candidates.map(|&index| id(index)).collect();
            self.nodes[place].renewal = renewal(known.state, current, &candidates, &failed);
        }
        Ok(())
    }
}

/// Chooses the derivation that a build takes, of those that an evaluation has for it.
fn renewal(
    state: BuildState,
    current: DerivationId,
    candidates: &[DerivationId],
    failed: &[DerivationId],
) -> Option<Renewal> {
    let untried = candidates.iter().find(|&id| *id != current && !failed.contains(id));
    let untried = untried.map(|&derivation| Renewal { derivation, is_untried: true });
    let other = candidates.first().filter(|_| !candidates.contains(&current));
    let tried = other.map(|&derivation| Renewal { derivation, is_untried: false });
    match state {
        BuildState::Failed | BuildState::FailedOther => untried.or(tried),
        // The store may have lost the derivation that it was made for long ago; this evaluation's is there.
        BuildState::Canceled | BuildState::Succeeded => tried.and(untried.or(tried)),
        // A derivation that is known to fail does not take the place of one that waits.
        _ => tried.and(untried),
    }
}

fn node_takes_edges(node: &Node) -> bool {
    node.renewal.is_some() || node.known.is_none_or(takes_edges)
}

/// Tells whether a build that stands so can take another derivation.
fn takes_derivation(known: Known) -> bool {
    takes_edges(known) || matches!(known.state, BuildState::Failed | BuildState::FailedOther)
}

/// Tells whether it still matters what a build that stands so needs.
fn takes_edges(known: Known) -> bool {
    match known.state {
        BuildState::Succeeded => known.collected,
        BuildState::Staged
        | BuildState::Held
        | BuildState::Waiting
        | BuildState::Deferred
        | BuildState::Ready
        | BuildState::FailedDependency
        | BuildState::Canceled => true,
        BuildState::Assigned
        | BuildState::Running
        | BuildState::Built
        | BuildState::Fetching
        | BuildState::Failed
        | BuildState::FailedOther => false,
    }
}

fn known(record: &Record) -> Result<Known, DatabaseError> {
    Ok(Known {
        state: record.get("state")?,
        priority: record.get("priority")?,
        unmet: record.get("unmet")?,
        failed_build: record.get("failed_build_id")?,
        collected: record.get("collected")?,
        emergency: record.get("emergency")?,
        priority_asked: record.get("priority_asked")?,
        expected_ms: record.get("expected_ms")?,
        remaining_path: record.get("remaining_path")?,
    })
}

/// Finds the known builds of all paths that the builds give or need.
async fn find_outputs(
    transaction: &Transaction<'_>,
    builds: &[NewBuild],
) -> Result<HashMap<StorePath, BuildId>, DatabaseError> {
    let mut paths: Vec<String> = builds
        .iter()
        .flat_map(|build| build.outputs.iter().map(|(_, path)| path).chain(&build.dependencies))
        .map(ToString::to_string)
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let records = statement!("registration/find_outputs").all(transaction, &[&paths]).await?;
    records.iter().map(|record| Ok((record.parse("path")?, record.get("build_id")?))).collect()
}

/// The row of each derivation: known, or reserved for it.
struct Derivations {
    ids: HashMap<String, DerivationId>,
    new: HashSet<DerivationId>,
}

impl Derivations {
    fn id(&self, build: &NewBuild) -> DerivationId {
        self.ids[&build.derivation.to_string()]
    }
}

async fn derivations(
    transaction: &Transaction<'_>,
    registration: &Registration,
) -> Result<Derivations, DatabaseError> {
    let mut paths: Vec<String> =
        registration.builds.iter().map(|build| build.derivation.to_string()).collect();
    let mut ids = HashMap::with_capacity(paths.len());
    for record in statement!("registration/find_derivations").all(transaction, &[&paths]).await? {
        ids.insert(record.get("path")?, record.get("id")?);
    }
    // Those that are new in the order of the builds: whoever takes builds one after the other finds them side by side.
    let mut seen = HashSet::new();
    paths.retain(|path| !ids.contains_key(path) && seen.insert(path.clone()));
    let reserved = statement!("registration/reserve_derivations")
        .all(transaction, &[&i32::try_from(paths.len()).unwrap_or(i32::MAX)])
        .await?;
    let mut new = HashSet::with_capacity(paths.len());
    for (path, record) in paths.into_iter().zip(&reserved) {
        let id = record.get("id")?;
        ids.insert(path, id);
        new.insert(id);
    }
    Ok(Derivations { ids, new })
}

/// Store directory, system and features.
type LaneKey = (StoreDirectory, String, Vec<String>);

fn lane_key(build: &NewBuild) -> LaneKey {
    let mut features = build.features.clone();
    features.sort_unstable();
    features.dedup();
    (build.derivation.directory().clone(), build.system.clone(), features)
}

/// Finds or makes the lanes of the new builds.
async fn lanes(
    transaction: &Transaction<'_>,
    specification: SpecificationId,
    registration: &Registration,
    graph: &Graph,
) -> Result<HashMap<LaneKey, LaneId>, DatabaseError> {
    let mut lanes = HashMap::new();
    for record in statement!("registration/find_lanes").all(transaction, &[&specification]).await? {
        let key = (record.parse("store_directory")?, record.get("system")?, record.get("features")?);
        lanes.insert(key, record.get("id")?);
    }
    for &index in graph.made_by.values() {
        let key = lane_key(&registration.builds[index]);
        if let Entry::Vacant(vacant) = lanes.entry(key) {
            let (directory, system, features) = vacant.key();
            let id = statement!("registration/add_lane")
                .one(transaction, &[&specification, &directory.as_str(), system, features])
                .await?
                .get("id")?;
            vacant.insert(id);
        }
    }
    Ok(lanes)
}

async fn add_builds(
    transaction: &Transaction<'_>,
    evaluation: EvaluationId,
    registration: &Registration,
    graph: &Graph,
    outcomes: &[Outcome],
    derivations: &Derivations,
    lanes: &HashMap<LaneKey, LaneId>,
) -> Result<(), DatabaseError> {
    let mut new: Vec<(BuildId, &NewBuild, &Outcome)> = graph
        .made_by
        .iter()
        .map(|(&place, &index)| (graph.nodes[place].id, &registration.builds[index], &outcomes[place]))
        .collect();
    new.sort_unstable_by_key(|(id, ..)| *id);
    let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
    let ids: Vec<BuildId> = new.iter().map(|(id, ..)| *id).collect();
    let lanes: Vec<LaneId> = new.iter().map(|(_, build, _)| lanes[&lane_key(build)]).collect();
    let derivations: Vec<DerivationId> = new.iter().map(|(_, build, _)| derivations.id(build)).collect();
    let names: Vec<&str> = new.iter().map(|(_, build, _)| build.name.as_str()).collect();
    let systems: Vec<&str> = new.iter().map(|(_, build, _)| build.system.as_str()).collect();
    let priorities: Vec<Priority> = new.iter().map(|(.., to)| to.priority).collect();
    let states: Vec<BuildState> = new.iter().map(|(.., to)| to.state).collect();
    let unmet: Vec<i32> = new.iter().map(|(.., to)| to.unmet).collect();
    let failed: Vec<Option<BuildId>> = new.iter().map(|(.., to)| to.failed_build).collect();
    let timeouts: Vec<i32> = new.iter().map(|(_, build, _)| seconds(build.timeout)).collect();
    let silences: Vec<i32> = new.iter().map(|(_, build, _)| seconds(build.max_silent)).collect();
    let paths: Vec<i64> = new.iter().map(|(.., to)| to.remaining_path).collect();
    let expected: Vec<i64> = new.iter().map(|(.., to)| to.expected_ms).collect();
    let emergencies: Vec<bool> = new.iter().map(|(.., to)| to.emergency).collect();
    statement!("registration/add_builds")
        .execute(
            transaction,
            &[
                &ids,
                &lanes,
                &derivations,
                &names,
                &systems,
                &priorities,
                &states,
                &unmet,
                &failed,
                &timeouts,
                &silences,
                &evaluation,
                &paths,
                &expected,
                &emergencies,
            ],
        )
        .await?;
    Ok(())
}

async fn add_derivations(
    transaction: &Transaction<'_>,
    registration: &Registration,
    graph: &Graph,
    derivations: &Derivations,
) -> Result<(), DatabaseError> {
    let mut rows: BTreeMap<DerivationId, (String, BuildId)> = BTreeMap::new();
    for (build, &place) in registration.builds.iter().zip(&graph.node_of) {
        let id = derivations.id(build);
        if derivations.new.contains(&id) {
            rows.entry(id).or_insert_with(|| (build.derivation.to_string(), graph.nodes[place].id));
        }
    }
    let (ids, (paths, builds)): (Vec<DerivationId>, (Vec<String>, Vec<BuildId>)) = rows.into_iter().unzip();
    statement!("registration/add_derivations").execute(transaction, &[&ids, &paths, &builds]).await?;
    Ok(())
}

async fn add_outputs(
    transaction: &Transaction<'_>,
    registration: &Registration,
    graph: &Graph,
) -> Result<(), DatabaseError> {
    let (mut paths, mut builds, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut made: Vec<(BuildId, usize)> =
        graph.made_by.iter().map(|(&place, &index)| (graph.nodes[place].id, index)).collect();
    // Side by side, as their builds are, which end about together: else each result writes to a page of its own.
    made.sort_unstable();
    for (build, index) in made {
        for (name, path) in &registration.builds[index].outputs {
            paths.push(path.to_string());
            builds.push(build);
            names.push(name.as_str());
        }
    }
    statement!("registration/add_outputs").execute(transaction, &[&paths, &builds, &names]).await?;
    Ok(())
}

/// What was needed by derivations whose place others take holds still: a result of it must not be counted for a build that waits for
/// other things by then.
async fn hold_dropped(transaction: &Transaction<'_>, graph: &Graph) -> Result<(), DatabaseError> {
    let ids: Vec<BuildId> = graph.dropped_edges.iter().map(|(_, dependency)| *dependency).collect();
    if !ids.is_empty() {
        statement!("registration/hold_dropped").execute(transaction, &[&ids]).await?;
    }
    Ok(())
}

/// Records what builds need. A build that was to take another derivation, and that somebody works at now, needs what it needed.
async fn write_edges(
    transaction: &Transaction<'_>,
    graph: &Graph,
    outcomes: &[Outcome],
) -> Result<(), DatabaseError> {
    let nodes = graph.nodes.iter().zip(outcomes);
    let kept = nodes.filter(|(node, to)| node.renewal.is_some() && !to.takes_derivation);
    let kept: HashSet<BuildId> = kept.map(|(node, _)| node.id).collect();
    let changed = |edges: &[(BuildId, BuildId)]| -> (Vec<BuildId>, Vec<BuildId>) {
        edges.iter().copied().filter(|(build, _)| !kept.contains(build)).unzip()
    };
    let (builds, dependencies) = changed(&graph.dropped_edges);
    if !builds.is_empty() {
        statement!("registration/drop_edges").execute(transaction, &[&builds, &dependencies]).await?;
    }
    let (builds, dependencies) = changed(&graph.new_edges);
    statement!("registration/add_edges").execute(transaction, &[&builds, &dependencies]).await?;
    Ok(())
}

async fn add_jobs(
    transaction: &Transaction<'_>,
    evaluation: EvaluationId,
    registration: &Registration,
    graph: &Graph,
    derivations: &Derivations,
) -> Result<(), DatabaseError> {
    let jobs = &registration.jobs;
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let builds: Vec<BuildId> = jobs.iter().map(|job| graph.nodes[graph.node_of[job.build]].id).collect();
    let derivations: Vec<DerivationId> =
        jobs.iter().map(|job| derivations.id(&registration.builds[job.build])).collect();
    let priorities: Vec<Level> = jobs.iter().map(|job| job.priority).collect();
    statement!("registration/add_jobs")
        .execute(transaction, &[&evaluation, &names, &builds, &derivations, &priorities])
        .await?;
    Ok(())
}

/// Locks what the plan rests on, reads it again, and plans again, until nothing that matters can move any more.
async fn settle(
    transaction: &Transaction<'_>,
    graph: &mut Graph,
    order: &Order,
) -> Result<Vec<Outcome>, DatabaseError> {
    let mut locked = vec![false; graph.nodes.len()];
    loop {
        let outcomes = plan::plan(&graph.nodes, order);
        let still = plan::must_hold_still(&graph.nodes, &outcomes);
        // What a build needs comes before it, as in the transactions that record results.
        let places = order.filter(|place| still[place] && !locked[place]);
        if places.is_empty() {
            return Ok(outcomes);
        }
        let mut by_id: HashMap<BuildId, usize> = HashMap::with_capacity(places.len());
        let mut ids = Vec::with_capacity(places.len());
        for place in places {
            locked[place] = true;
            let id = graph.nodes[place].id;
            by_id.insert(id, place);
            ids.push(id);
        }
        for record in statement!("registration/lock_builds").all(transaction, &[&ids]).await? {
            if let Some(&place) = by_id.get(&record.get("id")?) {
                graph.nodes[place].known = Some(known(&record)?);
            }
        }
    }
}

/// Builds that operators want stopped, and that this evaluation wants, need not stop.
async fn withdraw_cancel(transaction: &Transaction<'_>, graph: &Graph) -> Result<(), DatabaseError> {
    let active = graph.nodes.iter().filter(|node| node.known.is_some_and(|known| known.state.is_active()));
    let ids: Vec<BuildId> = active.map(|node| node.id).collect();
    if !ids.is_empty() {
        statement!("registration/withdraw_cancel").execute(transaction, &[&ids]).await?;
    }
    Ok(())
}

/// Asks for the products. Those of builds that succeeded long ago are taken at once.
async fn add_products(
    transaction: &Transaction<'_>,
    specification: SpecificationId,
    registration: &Registration,
    graph: &Graph,
) -> Result<(), DatabaseError> {
    let products: Vec<(BuildId, &NewProduct)> = registration
        .products
        .iter()
        .filter_map(|product| Some((graph.nodes[*graph.node_of.get(product.build)?].id, product)))
        .collect();
    if products.is_empty() {
        return Ok(());
    }
    let builds: Vec<BuildId> = products.iter().map(|(build, _)| *build).collect();
    let outputs: Vec<&str> = products.iter().map(|(_, product)| product.output.as_str()).collect();
    let paths: Vec<&str> = products.iter().map(|(_, product)| product.path.as_str()).collect();
    let kinds: Vec<&str> = products.iter().map(|(_, product)| product.kind.as_str()).collect();
    let wanted = statement!("registration/add_products")
        .execute(transaction, &[&specification, &builds, &outputs, &paths, &kinds])
        .await?;
    if wanted > 0 {
        statement!("registration/notify_products").execute(transaction, &[]).await?;
    }
    Ok(())
}

/// What other specifications wanted first waits on this one's turn as well.
async fn share(
    transaction: &Transaction<'_>,
    specification: SpecificationId,
    graph: &Graph,
) -> Result<(), DatabaseError> {
    let unfinished = graph.nodes.iter().filter(|node| node.known.is_some_and(takes_derivation));
    let ids: Vec<BuildId> = unfinished.map(|node| node.id).collect();
    if !ids.is_empty() {
        statement!("registration/share_lanes").execute(transaction, &[&ids, &specification]).await?;
        statement!("registration/share_builds").execute(transaction, &[&ids, &specification]).await?;
    }
    Ok(())
}

impl Published {
    /// What begins anew takes with it what other evaluations had lost by it.
    async fn revive_others(
        &mut self,
        transaction: &Transaction<'_>,
        graph: &Graph,
        outcomes: &[Outcome],
    ) -> Result<(), DatabaseError> {
        let revived = graph.nodes.iter().zip(outcomes).filter(|(_, to)| to.revived);
        let ids: Vec<BuildId> =
            revived.filter(|(_, to)| !to.state.is_final()).map(|(node, _)| node.id).collect();
        if !ids.is_empty() {
            let others = revival::dependents(transaction, &ids).await?;
            self.revived += others.revived.len();
            self.ready += others.ready.len();
            // Others may need those as urgently as before they ended.
            priority_control::note(transaction, &ids).await?;
        }
        Ok(())
    }
}

/// Writes what the last plan has otherwise than the rows are, and counts.
async fn change_builds(
    transaction: &Transaction<'_>,
    registration: &Registration,
    graph: &Graph,
    first: &[Outcome],
    last: &[Outcome],
    derivations: &Derivations,
) -> Result<Published, DatabaseError> {
    let limits: HashMap<DerivationId, (u32, u32)> = registration
        .builds
        .iter()
        .map(|build| (derivations.id(build), (build.timeout, build.max_silent)))
        .collect();
    let mut published = Published { jobs: registration.jobs.len(), ..Published::default() };
    let mut changes: Vec<(BuildId, &Outcome, Option<DerivationId>)> = Vec::new();
    for (place, node) in graph.nodes.iter().enumerate() {
        let to = &last[place];
        let changed = match node.known {
            Some(known) => to.changes(known),
            None => *to != first[place],
        };
        if changed {
            let renewal = node.renewal.filter(|_| to.takes_derivation);
            changes.push((node.id, to, renewal.map(|renewal| renewal.derivation)));
        }
        match node.known {
            None => published.new += 1,
            Some(_) => published.known += 1,
        }
        let was = node.known.map(|known| known.state);
        published.revived += usize::from(to.revived);
        published.ready += usize::from(to.state == BuildState::Ready && was != Some(BuildState::Ready));
        published.failed_dependency += usize::from(to.state == BuildState::FailedDependency);
    }
    changes.sort_unstable_by_key(|(id, ..)| *id);
    let ids: Vec<BuildId> = changes.iter().map(|(id, ..)| *id).collect();
    let states: Vec<BuildState> = changes.iter().map(|(_, to, _)| to.state).collect();
    let priorities: Vec<Priority> = changes.iter().map(|(_, to, _)| to.priority).collect();
    let unmet: Vec<i32> = changes.iter().map(|(_, to, _)| to.unmet).collect();
    let failed: Vec<Option<BuildId>> = changes.iter().map(|(_, to, _)| to.failed_build).collect();
    let revived: Vec<bool> = changes.iter().map(|(_, to, _)| to.revived).collect();
    let derivations: Vec<Option<DerivationId>> = changes.iter().map(|(.., derivation)| *derivation).collect();
    let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
    let limits = derivations.iter().map(|derivation| derivation.and_then(|id| limits.get(&id)));
    let (timeouts, silences): (Vec<Option<i32>>, Vec<Option<i32>>) = limits
        .map(|limits| {
            (limits.map(|(timeout, _)| seconds(*timeout)), limits.map(|(_, silent)| seconds(*silent)))
        })
        .unzip();
    let paths: Vec<i64> = changes.iter().map(|(_, to, _)| to.remaining_path).collect();
    let expected: Vec<i64> = changes.iter().map(|(_, to, _)| to.expected_ms).collect();
    let emergencies: Vec<bool> = changes.iter().map(|(_, to, _)| to.emergency).collect();
    statement!("registration/change_builds")
        .execute(
            transaction,
            &[
                &ids,
                &states,
                &priorities,
                &unmet,
                &failed,
                &revived,
                &derivations,
                &paths,
                &expected,
                &emergencies,
                &timeouts,
                &silences,
            ],
        )
        .await?;
    Ok(published)
}
