//! The registry: lets workers join, and keeps the table of workers true, one step after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use hauberk_database::workers::{self, Description, Worker};
use hauberk_database::{Database, DatabaseError, Epoch, WorkerId};
use hauberk_order::Capabilities;
use hauberk_protocol::PROTOCOL_VERSION;
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::proto::{Enrol, Enrolled, Hello, Load, Refused, RefusedReason, Welcome, hello};
use hauberk_protocol::socket::RoutingId;
use hauberk_store::StoreDirectory;
use hauberk_store::signature::PublicKey;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::enrolment::{EnrolmentDesk, Guest};
use crate::session::SessionId;
use crate::sources::{Source, Sources};
use crate::step::Admitted;
use crate::wording::one_line;

/// What workers said of their load is written together, so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Words in a Hello's lists at most.
const WORDS: usize = 256;
/// Bytes in a name or word at most.
const WORD: usize = 256;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Request {
    /// A worker says Hello.
    Join {
        /// The connection it came by.
        routing: RoutingId,
        /// The key it has proved to own.
        user: Option<CurvePublicKey>,
        /// Where it is.
        peer_address: Option<IpAddr>,
        /// What it says.
        hello: Box<Hello>,
    },
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
    Left(WorkerId),
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
}

impl Registry {
    /// Works until nobody asks any more.
    pub(crate) async fn run(mut self, mut requests: UnboundedReceiver<Request>, answers: Sender<Answer>) {
        let mut loads: HashMap<WorkerId, Option<Value>> = HashMap::new();
        let mut flush = interval(LOAD_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    None => break,
                    Some(Request::Join { routing, user, peer_address, hello }) => {
                        let name = hello.name.clone();
                        let answer = match self.join(routing, user, peer_address, &hello).await {
                            Ok(admitted) => Answer::Admitted(Box::new(admitted), hello),
                            Err(refused) => {
                                warn!(
                                    worker.name = name, peer.address = ?peer_address,
                                    "refused {name}: {}", refused.message
                                );
                                Answer::Refused(routing, refused)
                            }
                        };
                        if answers.send(answer).await.is_err() {
                            break;
                        }
                    }
                    Some(Request::Enrol { routing, guest, enrol }) => {
                        let answer = match self.enrol(guest, &enrol).await {
                            Ok(enrolled) => Answer::Enrolled(routing, enrolled),
                            Err(refused) => Answer::Refused(routing, refused),
                        };
                        if answers.send(answer).await.is_err() {
                            break;
                        }
                    }
                    Some(Request::Left(worker)) => {
                        loads.remove(&worker);
                        if let Err(error) = self.left(worker).await {
                            warn!(error = &error as &dyn std::error::Error, "cannot record that a worker left");
                        }
                    }
                    Some(Request::Seen(worker, load)) => {
                        loads.insert(worker, load.as_ref().map(load_value));
                    }
                },
                _ = flush.tick(), if !loads.is_empty() => {
                    let seen: Vec<_> = std::mem::take(&mut loads).into_iter().collect();
                    if let Err(error) = self.seen(&seen).await {
                        warn!(error = &error as &dyn std::error::Error, "cannot record that workers were seen");
                    }
                }
            }
        }
    }

    async fn enrol(&mut self, guest: Guest, enrol: &Enrol) -> Result<Enrolled, Refused> {
        let keys = self.welcomes.values().flat_map(|welcome| &welcome.signing_keys);
        let kinds: Vec<PublicKey> = keys.filter_map(|key| key.key.parse().ok()).collect();
        self.desk.enrol(guest, enrol, &kinds).await
    }

    async fn left(&self, worker: WorkerId) -> Result<(), DatabaseError> {
        workers::disconnected(&self.database.client().await?, worker, self.epoch).await?;
        Ok(())
    }

    async fn seen(&self, seen: &[(WorkerId, Option<Value>)]) -> Result<(), DatabaseError> {
        workers::seen(&self.database.client().await?, self.epoch, seen).await
    }

    async fn join(
        &self,
        routing: RoutingId,
        user: Option<CurvePublicKey>,
        peer_address: Option<IpAddr>,
        hello: &Hello,
    ) -> Result<Admitted, Refused> {
        if hello.protocol != PROTOCOL_VERSION {
            return Err(refused(
                RefusedReason::Protocol,
                format!(
                    "this server speaks version {PROTOCOL_VERSION} of the protocol, the worker version {}; \
                     install the same release of hauberk on both",
                    hello.protocol
                ),
            ));
        }
        let mut capabilities = capabilities(hello)?;
        let welcome = self.welcome_for(&capabilities.store_directory)?;
        let signing_key = signing_key(hello, welcome)?;
        let worker = self.identify(user, hello).await?;
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
        if pinned.as_ref() != Some(&signing_key) {
            return Err(refused(
                RefusedReason::SigningKey,
                format!(
                    "`{}` is enrolled with another signing key than `{}`; remove and add the worker to change it",
                    worker.name,
                    signing_key.to_line()
                ),
            ));
        }
        if let Some(allowed) = &worker.allowed_systems {
            restrict(&mut capabilities, allowed)?;
        }
        let address = peer_address.map(|address| address.to_string()).unwrap_or_default();
        let description = Description {
            machine: hello.machine.clone(),
            address: address.clone(),
            version: hello.version.clone(),
            daemon: hello.resources.as_ref().map(|machine| machine.daemon.clone()).unwrap_or_default(),
            store_directory: hello.store_directory.clone(),
            systems: hello
                .systems
                .iter()
                .filter(|system| capabilities.systems.contains(*system))
                .cloned()
                .collect(),
            features: hello.features.clone(),
            mandatory_features: hello.mandatory_features.clone(),
            slots: i32::try_from(hello.slots).unwrap_or(i32::MAX),
            publish_url: publish_url(hello, peer_address)?,
        };
        let client = self.database.client().await.map_err(not_ready)?;
        if !workers::hello(&client, worker.id, self.epoch, &description).await.map_err(not_ready)? {
            return Err(refused(
                RefusedReason::Revoked,
                format!("`{}` was removed from the farm", worker.name),
            ));
        }
        self.sources.put(
            worker.id,
            Source {
                worker: worker.name.clone(),
                publish_url: description.publish_url,
                signing_key: worker.signing_key,
            },
        );
        let session = SessionId::from_random(getrandom::u64().map_err(|error| {
            refused(RefusedReason::NotReady, format!("the server has no randomness: {error}"))
        })?);
        let welcome = Welcome { session: session.to_wire(), peer_address: address, ..welcome.clone() };
        Ok(Admitted {
            worker: worker.id,
            name: worker.name,
            paused: worker.paused,
            draining: worker.draining,
            capabilities,
            session,
            routing,
            welcome,
        })
    }

    /// What to say to a worker of this store directory.
    fn welcome_for(&self, directory: &StoreDirectory) -> Result<&Welcome, Refused> {
        self.welcomes.get(directory).ok_or_else(|| {
            let held: Vec<_> = self.welcomes.keys().map(StoreDirectory::to_string).collect();
            refused(
                RefusedReason::StoreDirectory,
                format!(
                    "this server holds {}, and the worker builds in {directory}; give the server --store {directory} \
                     and a signing key for it",
                    held.join(" and ")
                ),
            )
        })
    }

    async fn identify(&self, user: Option<CurvePublicKey>, hello: &Hello) -> Result<Worker, Refused> {
        let client = self.database.client().await.map_err(not_ready)?;
        if let Some(user) = user {
            let key = user.to_string();
            return workers::by_public_key(&client, &key).await.map_err(not_ready)?.ok_or_else(|| {
                refused(
                    RefusedReason::NotEnrolled,
                    format!(
                        "the key {key} is not enrolled; on the server: hauberk worker add {} --public-key '{key}' \
                         --signing-key '{}', or start it with --enrol and a token of `hauberk worker token`",
                        hello.name,
                        hello.signing_key.split_whitespace().collect::<Vec<_>>().join(" ")
                    ),
                )
            });
        }
        if self.secure {
            return Err(refused(RefusedReason::NotEnrolled, "a key is needed to join".to_owned()));
        }
        let taken = || {
            refused(
                RefusedReason::NameTaken,
                format!("`{}` belongs to a worker with a key, or to one that was removed", hello.name),
            )
        };
        let id =
            workers::join_without_key(&client, &hello.name).await.map_err(not_ready)?.ok_or_else(taken)?;
        workers::pin_signing_key(&client, id, &hello.signing_key).await.map_err(not_ready)?;
        workers::by_name(&client, &hello.name).await.map_err(not_ready)?.ok_or_else(taken)
    }
}

/// Leaves a worker the systems that it was enrolled for.
fn restrict(capabilities: &mut Capabilities, allowed: &[String]) -> Result<(), Refused> {
    let said: Vec<_> = capabilities.systems.iter().cloned().collect();
    capabilities.systems.retain(|system| allowed.contains(system));
    if capabilities.systems.is_empty() {
        return Err(refused(
            RefusedReason::BadHello,
            format!("it is enrolled to build for {}, and offers {}", allowed.join(", "), said.join(", ")),
        ));
    }
    Ok(())
}

/// Makes a refusal; those that time may mend say when to try again.
pub(crate) fn refused(reason: RefusedReason, message: String) -> Refused {
    let retry_after_s = match reason {
        RefusedReason::NotReady => 5,
        // The operator may enrol it while it waits.
        RefusedReason::NotEnrolled => 30,
        RefusedReason::Unspecified
        | RefusedReason::Revoked
        | RefusedReason::Protocol
        | RefusedReason::NameTaken
        | RefusedReason::SigningKey
        | RefusedReason::StoreDirectory
        | RefusedReason::BadHello
        | RefusedReason::BadToken
        | RefusedReason::Superseded => 0,
    };
    Refused { reason: reason.into(), message, retry_after_s }
}

/// Refuses for as long as the database is away.
#[expect(clippy::needless_pass_by_value, reason = "the argument of map_err")]
pub(crate) fn not_ready(error: DatabaseError) -> Refused {
    warn!(error = &error as &dyn std::error::Error, "cannot let a worker join now");
    refused(RefusedReason::NotReady, "the server's database is away".to_owned())
}

fn capabilities(hello: &Hello) -> Result<Capabilities, Refused> {
    let bad = |what: String| refused(RefusedReason::BadHello, what);
    if !is_name(&hello.name) {
        return Err(bad(
            "a worker's name has 1 to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit".to_owned(),
        ));
    }
    let store_directory: StoreDirectory = hello
        .store_directory
        .parse()
        .map_err(|error| refused(RefusedReason::StoreDirectory, format!("{error}")))?;
    if hello.slots == 0 {
        return Err(bad("a worker has one slot at least".to_owned()));
    }
    let words = |what: &str, list: &[String]| -> Result<BTreeSet<String>, Refused> {
        if list.len() > WORDS || list.iter().any(|word| word.is_empty() || word.len() > WORD) {
            return Err(bad(format!("there are too many {what}, or one is empty or too long")));
        }
        Ok(list.iter().cloned().collect())
    };
    if [&hello.machine, &hello.version].iter().any(|text| text.len() > WORD) || hello.signing_key.len() > 4096
    {
        return Err(bad("machine, version or signing key is too long".to_owned()));
    }
    Ok(Capabilities {
        store_directory,
        systems: words("systems", &hello.systems)?,
        features: words("features", &hello.features)?,
        mandatory_features: words("mandatory features", &hello.mandatory_features)?,
    })
}

/// Reads the key a worker signs with, which must be of the kind that its store's narinfos are signed by.
fn signing_key(hello: &Hello, welcome: &Welcome) -> Result<PublicKey, Refused> {
    let is_guix = |key: &PublicKey| matches!(key, PublicKey::Guix(_));
    let key: PublicKey = hello.signing_key.parse().map_err(|error| {
        refused(RefusedReason::SigningKey, format!("its signing key cannot be read: {error}"))
    })?;
    let ours = welcome.signing_keys.iter().find_map(|key| key.key.parse().ok());
    match ours {
        Some(ours) if is_guix(&ours) != is_guix(&key) => Err(refused(
            RefusedReason::SigningKey,
            format!(
                "results of {} are signed with keys of {} here; make one with `hauberk key signing`",
                hello.store_directory,
                if is_guix(&ours) { "Guix" } else { "Nix" }
            ),
        )),
        _ => Ok(key),
    }
}

/// Whether a text can be a worker's name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Where the worker's results are: the URL it gave, or its port at the address it is seen at.
fn publish_url(hello: &Hello, peer_address: Option<IpAddr>) -> Result<Option<String>, Refused> {
    match &hello.publish {
        None => Ok(None),
        Some(hello::Publish::PublishUrl(url)) => {
            if url.len() <= 1024 && (url.starts_with("http://") || url.starts_with("https://")) {
                Ok(Some(url.trim_end_matches('/').to_owned()))
            } else {
                Err(refused(RefusedReason::BadHello, format!("`{url}` is not an http URL")))
            }
        }
        Some(hello::Publish::PublishPort(port)) => match (u16::try_from(*port), peer_address) {
            (Ok(port @ 1..), Some(IpAddr::V4(address))) => Ok(Some(format!("http://{address}:{port}"))),
            (Ok(port @ 1..), Some(IpAddr::V6(address))) => Ok(Some(format!("http://[{address}]:{port}"))),
            (Ok(1..), None) => Ok(None),
            (Ok(0) | Err(_), _) => Err(refused(RefusedReason::BadHello, format!("{port} is not a port"))),
        },
    }
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
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            name: "w-1.example".to_owned(),
            store_directory: "/nix/store".to_owned(),
            systems: vec!["x86_64-linux".to_owned()],
            slots: 2,
            ..Hello::default()
        }
    }

    #[test]
    fn a_hello_is_checked_before_anything_is_believed() {
        assert!(capabilities(&hello()).is_ok());
        let cases: [fn(&mut Hello); 6] = [
            |hello| hello.name = String::new(),
            |hello| hello.name = "a b".to_owned(),
            |hello| hello.name = "x".repeat(65),
            |hello| hello.slots = 0,
            |hello| hello.store_directory = "store".to_owned(),
            |hello| hello.systems = vec!["s".repeat(300)],
        ];
        for case in cases {
            let mut bad = hello();
            case(&mut bad);
            assert!(capabilities(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_worker_builds_for_the_systems_it_was_enrolled_for() {
        let mut capabilities = capabilities(&hello()).unwrap();
        capabilities.systems.insert("i686-linux".to_owned());
        restrict(&mut capabilities, &["i686-linux".to_owned(), "aarch64-linux".to_owned()]).unwrap();
        assert_eq!(capabilities.systems, BTreeSet::from(["i686-linux".to_owned()]));
        assert!(restrict(&mut capabilities, &["aarch64-linux".to_owned()]).is_err());
    }

    #[test]
    fn a_port_is_joined_with_the_address_the_server_sees() {
        let mut hello = hello();
        assert_eq!(publish_url(&hello, None).unwrap(), None);
        hello.publish = Some(hello::Publish::PublishPort(5558));
        let v4 = publish_url(&hello, Some("10.0.0.1".parse().unwrap())).unwrap();
        assert_eq!(v4.as_deref(), Some("http://10.0.0.1:5558"));
        let v6 = publish_url(&hello, Some("fd00::1".parse().unwrap())).unwrap();
        assert_eq!(v6.as_deref(), Some("http://[fd00::1]:5558"));
        hello.publish = Some(hello::Publish::PublishPort(70_000));
        assert!(publish_url(&hello, Some("10.0.0.1".parse().unwrap())).is_err());
        hello.publish = Some(hello::Publish::PublishUrl("file:///etc".to_owned()));
        assert!(publish_url(&hello, None).is_err());
        hello.publish = Some(hello::Publish::PublishUrl("https://w.example/x/".to_owned()));
        assert_eq!(publish_url(&hello, None).unwrap().as_deref(), Some("https://w.example/x"));
    }
}
