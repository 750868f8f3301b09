//! The registry: lets workers join, and keeps the table of workers true.
//!
//! Requests that have come together are done together: after a start of the server all workers say Hello at once, and one transaction
//! admits them. Nobody is answered before it is committed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hauberk_database::servers::{self, Neighbour};
use hauberk_database::workers::{self, Description, Worker};
use hauberk_database::{Client, Database, DatabaseError, Epoch, ServerId, WorkerId, begin, commit};
use hauberk_order::Capabilities;
use hauberk_protocol::proto::{Enrol, Enrolled, Hello, Load, OtherServer, Refused, RefusedReason, Welcome};
use hauberk_protocol::socket::RoutingId;
use hauberk_store::StoreDirectory;
use hauberk_store::signature::PublicKey;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::enrolment::{EnrolmentDesk, Guest};
use crate::greeting::{Greeting, Join, welcome_for};
use crate::refusal::{not_ready, refused};
use crate::session::SessionId;
use crate::sources::{Source, Sources};
use crate::step::Admitted;
use crate::wording::one_line;

/// What workers said of their load is written together, so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Requests done together at most.
const BATCH: usize = 1000;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Request {
    /// A worker says Hello.
    Join(Join),
    /// A guest presents a token.
    Enrol {
        /// The connection it came by.
        routing: RoutingId,
        /// Who it is.
        guest: Guest,
        /// What it says.
        enrol: Box<Enrol>,
    },
    /// A worker's session is over.
    Left(WorkerId, SessionId),
    /// A worker was heard of.
    Seen(WorkerId, Option<Load>),
}

/// What came of a Hello or a token.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may join.
    Admitted(Box<Admitted>, Box<Hello>),
    /// It may not.
    Refused(RoutingId, Refused),
    /// A guest is enrolled.
    Enrolled(RoutingId, Enrolled),
}

/// See the module's description.
pub(crate) struct Registry {
    /// Where the workers are recorded.
    pub(crate) database: Database,
    /// The server.
    pub(crate) server: ServerId,
    /// The start of the server.
    pub(crate) epoch: Epoch,
    /// What every Welcome says to workers of a store directory; session and peer address are filled in.
    pub(crate) welcomes: BTreeMap<StoreDirectory, Welcome>,
    /// Workers must have an enrolled key.
    pub(crate) secure: bool,
    /// Told where the results of workers are.
    pub(crate) sources: Sources,
    /// Where guests go.
    pub(crate) desk: EnrolmentDesk,
    /// The newest session of each worker that has one: that an older one is over changes nothing.
    pub(crate) sessions: HashMap<WorkerId, SessionId>,
}

impl Registry {
    /// Works until nobody asks any more. What came together is answered together.
    pub(crate) async fn run(
        mut self,
        mut requests: UnboundedReceiver<Request>,
        answers: Sender<Vec<Answer>>,
    ) {
        let mut loads: HashMap<WorkerId, Option<Value>> = HashMap::new();
        let mut batch = Vec::new();
        let mut flush = interval(LOAD_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                count = requests.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    let answered = self.take(batch.drain(..), &mut loads).await;
                    if !answered.is_empty() && answers.send(answered).await.is_err() {
                        break;
                    }
                }
                _ = flush.tick(), if !loads.is_empty() => {
                    let seen: Vec<_> = std::mem::take(&mut loads).into_iter().collect();
                    if let Err(error) = self.seen(&seen).await {
                        warn!(error = &error as &dyn std::error::Error, "cannot record that workers were seen");
                    }
                }
            }
        }
    }

    async fn take(
        &mut self,
        requests: impl Iterator<Item = Request>,
        loads: &mut HashMap<WorkerId, Option<Value>>,
    ) -> Vec<Answer> {
        let (mut joins, mut guests, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Join(join) => joins.push(join),
                Request::Enrol { routing, guest, enrol } => guests.push((routing, guest, enrol)),
                Request::Left(worker, session) => {
                    if self.sessions.get(&worker) == Some(&session) {
                        self.sessions.remove(&worker);
                        loads.remove(&worker);
                        left.push(worker);
                    }
                }
                Request::Seen(worker, load) => drop(loads.insert(worker, load.as_ref().map(load_value))),
            }
        }
        // First: whoever joins in the same batch has left before.
        if !left.is_empty()
            && let Err(error) = self.left(&left).await
        {
            warn!(error = &error as &dyn std::error::Error, "cannot record that workers left");
        }
        let mut answers = if joins.is_empty() { Vec::new() } else { self.join(joins).await };
        for (routing, guest, enrol) in guests {
            answers.push(match self.enrol(guest, &enrol).await {
                Ok(enrolled) => Answer::Enrolled(routing, enrolled),
                Err(refused) => Answer::Refused(routing, refused),
            });
        }
        answers
    }

    async fn enrol(&mut self, guest: Guest, enrol: &Enrol) -> Result<Enrolled, Refused> {
        let keys = self.welcomes.values().flat_map(|welcome| &welcome.signing_keys);
        let kinds: Vec<PublicKey> = keys.filter_map(|key| key.key.parse().ok()).collect();
        self.desk.enrol(guest, enrol, &kinds).await
    }

    async fn left(&self, workers: &[WorkerId]) -> Result<(), DatabaseError> {
        workers::disconnected(&self.database.client().await?, workers, self.epoch).await?;
        Ok(())
    }

    async fn seen(&self, seen: &[(WorkerId, Option<Value>)]) -> Result<(), DatabaseError> {
        workers::seen(&self.database.client().await?, self.epoch, seen).await
    }

    /// Answers Hellos, in their order.
    async fn join(&mut self, joins: Vec<Join>) -> Vec<Answer> {
        let (count, began) = (joins.len(), Instant::now());
        let checked: Vec<_> = joins.into_iter().map(|join| Greeting::check(join, &self.welcomes)).collect();
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(count);
        let (mut greetings, mut places) = (Vec::new(), Vec::new());
        for (place, checked) in checked.into_iter().enumerate() {
            answers.push(match checked {
                Ok(greeting) => {
                    greetings.push(greeting);
                    places.push(place);
                    None
                }
                Err((join, refused)) => Some(refuse(&join, refused)),
            });
        }
        for (place, answer) in places.into_iter().zip(self.admit(greetings).await) {
            answers[place] = Some(answer);
        }
        let answers: Vec<Answer> = answers.into_iter().flatten().collect();
        for answer in &answers {
            if let Answer::Admitted(admitted, _) = answer {
                self.sessions.insert(admitted.worker, admitted.session);
            }
        }
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        debug!(workers.hellos = count, duration_ms, "answered {count} hellos in {duration_ms} ms");
        answers
    }

    /// Admits whoever may join, in one transaction. One that the database does not take for a single worker's sake is made again for
    /// each alone.
    async fn admit(&self, greetings: Vec<Greeting>) -> Vec<Answer> {
        if greetings.is_empty() {
            return Vec::new();
        }
        match self.record(&greetings).await {
            Ok(results) => {
                let answer = |(greeting, result): (Greeting, Result<Admitted, Refused>)| match result {
                    Ok(admitted) => Answer::Admitted(Box::new(admitted), greeting.join.hello),
                    Err(refused) => refuse(&greeting.join, refused),
                };
                greetings.into_iter().zip(results).map(answer).collect()
            }
            Err(error) if error.is_transient() || greetings.len() == 1 => {
                let refused = not_ready(error);
                greetings.iter().map(|greeting| refuse(&greeting.join, refused.clone())).collect()
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the database refuses {} workers at once; they are admitted one by one",
                    greetings.len()
                );
                let mut answers = Vec::with_capacity(greetings.len());
                for greeting in greetings {
                    answers.extend(Box::pin(self.admit(vec![greeting])).await);
                }
                answers
            }
        }
    }

    async fn record(&self, greetings: &[Greeting]) -> Result<Vec<Result<Admitted, Refused>>, DatabaseError> {
        let keys: Vec<String> = greetings.iter().filter_map(|greeting| greeting.key.clone()).collect();
        let names: Vec<&str> = greetings
            .iter()
            .filter(|greeting| greeting.key.is_none() && !self.secure)
            .map(|greeting| greeting.join.hello.name.as_str())
            .collect();
        let mut client: Client = self.database.client().await?;
        let transaction = begin(&mut client).await?;
        if !names.is_empty() {
            workers::enter(&transaction, &names).await?;
        }
        let mut known = Known::new(workers::candidates(&transaction, &keys, &names).await?);
        let results: Vec<_> = greetings.iter().map(|greeting| self.identify(greeting, &mut known)).collect();
        // Of several Hellos of one worker the last counts.
        let mut said: BTreeMap<WorkerId, &Description> = BTreeMap::new();
        for identified in results.iter().flatten() {
            said.insert(identified.worker.id, &identified.description);
        }
        if !known.pinned.is_empty() {
            workers::pin_signing_keys(&transaction, &known.pinned).await?;
        }
        if !said.is_empty() {
            let said: Vec<_> = said.into_iter().collect();
            workers::hello(&transaction, self.epoch, &said).await?;
        }
        let others = servers::neighbours(&transaction, self.server).await?;
        commit(transaction).await?;
        Ok(greetings
            .iter()
            .zip(results)
            .map(|(greeting, identified)| self.welcome(greeting, identified?, &others))
            .collect())
    }

    /// Finds the worker that says Hello, and tells whether it may join.
    fn identify<'a>(&self, greeting: &'a Greeting, known: &mut Known<'a>) -> Result<Identified, Refused> {
        let hello = &greeting.join.hello;
        let worker = match &greeting.key {
            Some(key) => known.by_key(key).ok_or_else(|| {
                refused(
                    RefusedReason::NotEnrolled,
                    format!(
                        "the key {key} is not enrolled; on the server: hauberk worker add {} --public-key '{key}' \
                         --signing-key '{}', or start it with --enrol and a token of `hauberk worker token`",
                        hello.name,
                        hello.signing_key.split_whitespace().collect::<Vec<_>>().join(" ")
                    ),
                )
            })?,
            None if self.secure => {
                return Err(refused(RefusedReason::NotEnrolled, "a key is needed to join".to_owned()));
            }
            None => known.by_name(&hello.name, &hello.signing_key).ok_or_else(|| {
                refused(
                    RefusedReason::NameTaken,
                    format!("`{}` belongs to a worker with a key, or to one that was removed", hello.name),
                )
            })?,
        };
        if worker.name != hello.name {
            return Err(refused(
                RefusedReason::NameTaken,
                format!(
                    "this key is enrolled as `{}`; start the worker with --name {}",
                    worker.name, worker.name
                ),
            ));
        }
        if worker.revoked_at.is_some() {
            return Err(refused(
                RefusedReason::Revoked,
                format!("`{}` was removed from the farm", worker.name),
            ));
        }
        // However either is spelt: one may be the text of a file, with its line ends.
        let pinned = worker.signing_key.as_deref().and_then(|key| key.parse::<PublicKey>().ok());
        if pinned.as_ref() != Some(&greeting.signing_key) {
            return Err(refused(
                RefusedReason::SigningKey,
                format!(
                    "`{}` is enrolled with another signing key than `{}`; remove and add the worker to change it",
                    worker.name,
                    greeting.signing_key.to_line()
                ),
            ));
        }
        let mut capabilities = greeting.capabilities.clone();
        let mut description = greeting.description.clone();
        if let Some(allowed) = &worker.allowed_systems {
            restrict(&mut capabilities, &mut description, allowed)?;
        }
        Ok(Identified { worker: worker.clone(), capabilities, description })
    }

    /// Makes the session of a worker whose join is recorded.
    fn welcome(
        &self,
        greeting: &Greeting,
        identified: Identified,
        others: &[Neighbour],
    ) -> Result<Admitted, Refused> {
        let Identified { worker, capabilities, description } = identified;
        let welcome = welcome_for(&self.welcomes, &capabilities.store_directory)?;
        let session = SessionId::from_random(getrandom::u64().map_err(|error| {
            refused(RefusedReason::NotReady, format!("the server has no randomness: {error}"))
        })?);
        self.sources.put(
            worker.id,
            Source {
                worker: worker.name.clone(),
                publish_url: description.publish_url,
                signing_key: worker.signing_key,
            },
        );
        Ok(Admitted {
            worker: worker.id,
            name: worker.name,
            paused: worker.paused,
            draining: worker.draining,
            capabilities,
            session,
            routing: greeting.join.routing,
            welcome: Welcome {
                session: session.to_wire(),
                peer_address: description.address,
                others: others.iter().map(other_server).collect(),
                ..welcome.clone()
            },
        })
    }
}

fn other_server(other: &Neighbour) -> OtherServer {
    OtherServer {
        name: other.name.clone(),
        address: other.address.clone(),
        public_key: other.public_key.clone().unwrap_or_default(),
    }
}

/// A worker that may join, and what it can be believed.
struct Identified {
    worker: Worker,
    capabilities: Capabilities,
    description: Description,
}

/// The workers that a batch may be of, as their rows are.
struct Known<'a> {
    workers: Vec<Worker>,
    keys: HashMap<String, usize>,
    names: HashMap<String, usize>,
    /// Signing keys that are seen for the first time.
    pinned: Vec<(WorkerId, &'a str)>,
}

impl<'a> Known<'a> {
    fn new(workers: Vec<Worker>) -> Self {
        let (mut keys, mut names) = (HashMap::new(), HashMap::new());
        for (place, worker) in workers.iter().enumerate() {
            match &worker.public_key {
                Some(key) => keys.insert(key.clone(), place),
                None if worker.revoked_at.is_none() => names.insert(worker.name.clone(), place),
                None => None,
            };
        }
        Self { workers, keys, names, pinned: Vec::new() }
    }

    fn by_key(&self, key: &str) -> Option<&Worker> {
        self.keys.get(key).and_then(|place| self.workers.get(*place))
    }

    /// A worker without a key, which keeps the signing key that it shows first.
    fn by_name(&mut self, name: &str, signing_key: &'a str) -> Option<&Worker> {
        let worker = self.names.get(name).and_then(|place| self.workers.get_mut(*place))?;
        if worker.signing_key.is_none() {
            worker.signing_key = Some(signing_key.to_owned());
            self.pinned.push((worker.id, signing_key));
        }
        Some(worker)
    }
}

/// Leaves a worker the systems that it was enrolled for.
fn restrict(
    capabilities: &mut Capabilities,
    description: &mut Description,
    allowed: &[String],
) -> Result<(), Refused> {
    let said: Vec<_> = capabilities.systems.iter().cloned().collect();
    capabilities.systems.retain(|system| allowed.contains(system));
    if capabilities.systems.is_empty() {
        return Err(refused(
            RefusedReason::BadHello,
            format!("it is enrolled to build for {}, and offers {}", allowed.join(", "), said.join(", ")),
        ));
    }
    description.systems.retain(|system| allowed.contains(system));
    Ok(())
}

fn refuse(join: &Join, refused: Refused) -> Answer {
    let (name, address) = (&join.hello.name, join.peer_address);
    warn!(worker.name = name, peer.address = ?address, "refused {name}: {}", refused.message);
    Answer::Refused(join.routing, refused)
}

fn load_value(load: &Load) -> Value {
    json!({
        "load1": f64::from(load.load1_centi) / 100.0,
        "cpu_pressure": load.cpu_pressure.map(|p| f64::from(p) / 100.0),
        "memory_pressure": load.memory_pressure.map(|p| f64::from(p) / 100.0),
        "io_pressure": load.io_pressure.map(|p| f64::from(p) / 100.0),
        "memory_available_bytes": load.memory_available_bytes,
        "store_free_bytes": load.store_free_bytes,
        "build_free_bytes": load.build_free_bytes,
        "shortage": (!load.shortage.is_empty()).then(|| one_line(&load.shortage)),
    })
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
