//! Finds the server and connects to it, for as long as it takes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hauberk_discovery::{Browser, Discovery, Found, Interfaces};
use hauberk_protocol::DEFAULT_BACKEND_PORT;
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::socket::{
    Candidate, Context, DealerOptions, DealerSocket, RaceError, ServerAddress, connect_first_of,
    require_curve,
};
use tracing::warn;

use crate::config::{Security, ServerLocation};
use crate::error::WorkerError;
use crate::neighbours::{Neighbour, Neighbours};

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between the first tries: a server that is started anew is back in a moment.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// How many tries those are, which is a quarter of a minute.
const SHORT_PAUSES: u32 = 20;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long each address has before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long other addresses of a server have to turn up before its link-local ones are tried: those name it on this link only, so
/// that what is learnt from the connection (where to fetch results) is of less use.
const LINK_LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// The same failure is told again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// How long mDNS may find nothing before that is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a server is left alone whose signatures the build daemon does not accept.
const SHUNNED: Duration = Duration::from_secs(60);

/// Most addresses that are tried; anybody on the network can announce any number.
const MOST_ENDPOINTS: usize = 32;

/// Where a server may be, and the key it must own there; none without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    endpoint: SocketAddr,
    key: Option<CurvePublicKey>,
}

/// A connection to a server, and how it is protected.
pub(crate) struct Connection {
    /// The connection.
    pub(crate) socket: DealerSocket,
    /// The keys of both sides.
    pub(crate) security: Box<Security>,
}

/// Finds a server of the farm for one worker.
#[derive(Debug)]
pub(crate) struct Finder {
    location: ServerLocation,
    security: Security,
    context: Context,
    neighbours: Arc<Neighbours>,
    /// Where among several servers to begin, so that not all workers of a farm begin with the same.
    turn: usize,
    /// Where a server was found last: it is tried first when it is lost.
    last: Mutex<Option<Place>>,
    /// Where servers are left alone, and until when.
    shunned: Mutex<Vec<(Place, Instant)>>,
}

/// Why no server was reached.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error(transparent)]
    Race(#[from] RaceError),
    #[error("the build daemon accepts the signatures of no server that is known")]
    Shunned,
}

impl Finder {
    /// Checks what can be checked before the search. `name` is the worker's.
    ///
    /// # Errors
    /// A libzmq that cannot encrypt.
    pub(crate) fn new(
        name: &str,
        location: ServerLocation,
        security: Security,
        context: Context,
        neighbours: Arc<Neighbours>,
    ) -> Result<Arc<Self>, WorkerError> {
        if let Security::Curve { .. } = security {
            require_curve().map_err(WorkerError::Socket)?;
        }
        let turn = name.bytes().fold(0_usize, |turn, byte| turn.wrapping_mul(31).wrapping_add(byte.into()));
        Ok(Arc::new(Self {
            location,
            security,
            context,
            neighbours,
            turn,
            last: Mutex::new(None),
            shunned: Mutex::default(),
        }))
    }

    /// Waits for `pause`, then looks for a server until a handshake with one succeeds.
    ///
    /// # Errors
    /// Only what no further try can mend: sockets cannot be made.
    pub(crate) async fn find(self: Arc<Self>, pause: Duration) -> Result<Connection, WorkerError> {
        tokio::time::sleep(pause).await;
        match &self.location {
            ServerLocation::Addresses(addresses) => self.connect_to(addresses).await,
            ServerLocation::Discover(interfaces) => self.discover(interfaces).await,
        }
    }

    /// Leaves the server that was found last alone for a while, as what it signs is not accepted.
    pub(crate) fn shun(&self) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.extend(last.map(|place| (place, Instant::now() + SHUNNED)));
    }

    /// Those of `places` that are not left alone.
    fn welcome(&self, places: &[Place]) -> Vec<Place> {
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.retain(|(_, until)| *until > Instant::now());
        let is_shunned = |place: &Place| shunned.iter().any(|(other, _)| other == place);
        places.iter().filter(|place| !is_shunned(place)).copied().collect()
    }

    async fn connect_to(&self, addresses: &[ServerAddress]) -> Result<Connection, WorkerError> {
        let (mut pauses, mut complaints) = (Pauses::new(), Complaints::default());
        loop {
            let (places, mut failures) = self.places(addresses).await;
            match self.connect_first(&places).await {
                Ok(connection) => return Ok(connection),
                Err(Unreached::Race(RaceError::Socket(error))) => return Err(WorkerError::Socket(error)),
                Err(failure) if !places.is_empty() => failures.push(failure.to_string()),
                Err(_) => {}
            }
            let failure = failures.join("; ");
            complaints.tell(&failure, || {
                let named: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                warn!("cannot reach the server at {}, trying on: {failure}", named.join(" or "));
            });
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Looks up where servers may be: the one that was joined last, those that were named, and those that servers have told about. Gives
    /// what could not be looked up as well.
    async fn places(&self, addresses: &[ServerAddress]) -> (Vec<Place>, Vec<String>) {
        let known = self.neighbours.known();
        let mut servers: Vec<(&ServerAddress, Vec<Option<CurvePublicKey>>)> =
            addresses.iter().map(|address| (address, self.trusted(&known))).collect();
        for neighbour in &known {
            servers.push((&neighbour.address, vec![neighbour.key]));
        }
        if !servers.is_empty() {
            let turn = self.turn % servers.len();
            servers.rotate_left(turn);
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places: Vec<Place> = last.into_iter().collect();
        let mut failures = Vec::new();
        for (address, keys) in servers {
            match address.resolve(DEFAULT_BACKEND_PORT).await {
                Ok(endpoints) => {
                    for key in keys {
                        for endpoint in &endpoints {
                            let place = Place { endpoint: *endpoint, key };
                            if !places.contains(&place) {
                                places.push(place);
                            }
                        }
                    }
                }
                Err(error) => failures.push(match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                }),
            }
        }
        places.truncate(MOST_ENDPOINTS);
        (places, failures)
    }

    /// The keys that a server may own: the one that is pinned, and those that servers have told.
    fn trusted(&self, known: &[Neighbour]) -> Vec<Option<CurvePublicKey>> {
        let mut keys = vec![self.security.pinned().copied()];
        for neighbour in known {
            if !keys.contains(&neighbour.key) {
                keys.push(neighbour.key);
            }
        }
        keys
    }

    async fn discover(&self, interfaces: &Interfaces) -> Result<Connection, WorkerError> {
        let mut browser = Browser::start(interfaces).map_err(WorkerError::Discovery)?;
        // Those that cannot be looked up may be announced all the same.
        let (mut places, _) = self.places(&[]).await;
        let (mut pauses, mut complaints) = (Pauses::new(), Complaints::default());
        let mut attempt = Box::pin(self.connect_after(head_start(&places), places.clone()));
        let mut nothing = tokio::time::interval_at(tokio::time::Instant::now() + PATIENCE, REMINDER);
        loop {
            tokio::select! {
                news = browser.next() => match news.map_err(WorkerError::Discovery)? {
                    Discovery::Found(found) => if let Some(key) = self.key_of(&found, &mut complaints) {
                        let before = places.len();
                        let announced = found.addresses.iter().map(|endpoint| Place { endpoint: *endpoint, key });
                        let new: Vec<Place> = announced.filter(|place| !places.contains(place)).collect();
                        // What was announced last is what holds now.
                        places.splice(0..0, new);
                        places.truncate(MOST_ENDPOINTS);
                        places.sort_by_key(|place| is_link_local(&place.endpoint));
                        if places.len() > before {
                            pauses = Pauses::new();
                            attempt = Box::pin(self.connect_after(head_start(&places), places.clone()));
                        }
                    },
                    Discovery::Removed { .. } => {}
                },
                connected = &mut attempt => {
                    match connected {
                        Ok(connection) => return Ok(connection),
                        Err(Unreached::Race(RaceError::Socket(error))) => return Err(WorkerError::Socket(error)),
                        Err(failure) => {
                            let failure = failure.to_string();
                            complaints.tell(&failure, || warn!("cannot reach the announced server, trying on: {failure}"));
                        }
                    }
                    attempt = Box::pin(self.connect_after(pauses.next(), places.clone()));
                }
                _ = nothing.tick(), if places.is_empty() => {
                    warn!("no server is announced by mDNS on this network, searching on; name one with --server to do without");
                }
            }
        }
    }

    /// Gives the key that an announced server must own to be joined; nothing if it announces one that is not trusted. Without a pinned
    /// key any server is wanted, and one that announces no key has to own the pinned one.
    fn key_of(&self, found: &Found, complaints: &mut Complaints) -> Option<Option<CurvePublicKey>> {
        let Some(pinned) = self.security.pinned() else { return Some(None) };
        let Some(announced) = found.advertisement.server_key else { return Some(Some(*pinned)) };
        if self.trusted(&self.neighbours.known()).contains(&Some(announced)) {
            return Some(Some(announced));
        }
        let name = &found.advertisement.instance;
        complaints.tell(name, || {
            warn!(server.name = %name, "server {name} announces key {announced}, and {pinned} is wanted: it is not joined");
        });
        None
    }

    /// Waits for `pause` and connects to one of `places`; for ever, if there are none.
    async fn connect_after(&self, pause: Duration, places: Vec<Place>) -> Result<Connection, Unreached> {
        if places.is_empty() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
        self.connect_first(&places).await
    }

    async fn connect_first(&self, places: &[Place]) -> Result<Connection, Unreached> {
        let known = places.len();
        let places = self.welcome(places);
        if places.is_empty() && known > 0 {
            return Err(Unreached::Shunned);
        }
        let securities: Vec<Security> =
            places.iter().map(|place| self.security.with_server(place.key)).collect();
        let candidates: Vec<_> = places
            .iter()
            .zip(&securities)
            .map(|(place, security)| Candidate { endpoint: place.endpoint, security: security.as_client() })
            .collect();
        let options = DealerOptions::backend();
        let (socket, winner) = connect_first_of(&self.context, &candidates, &options, HEAD_START).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(places[winner]);
        Ok(Connection { socket, security: Box::new(securities[winner].clone()) })
    }
}

/// Tells how long to wait before the first of `places` is tried.
fn head_start(places: &[Place]) -> Duration {
    if places.iter().all(|place| is_link_local(&place.endpoint)) { LINK_LOCAL_PAUSE } else { Duration::ZERO }
}

fn is_link_local(endpoint: &SocketAddr) -> bool {
    match endpoint.ip() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Growing pauses, each cut at random by up to a half, so that the workers of a farm do not come back all at once.
struct Pauses {
    next: Duration,
    tries: u32,
    random: RandomState,
}

impl Pauses {
    fn new() -> Self {
        Self { next: FIRST_PAUSE, tries: 0, random: RandomState::new() }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.tries += 1;
        let longest = if self.tries < SHORT_PAUSES { SHORT_PAUSE } else { LONGEST_PAUSE };
        self.next = (pause * 2).min(longest);
        let mut hasher = self.random.build_hasher();
        hasher.write_u128(pause.as_nanos());
        // 53 bits fit a float exactly.
        let fraction = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
        self.random = RandomState::new();
        pause.mul_f64(0.5 + fraction / 2.0)
    }
}

/// Tells a failure when it is a new one, and reminds of it now and then.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn tell(&mut self, failure: &str, warn: impl FnOnce()) {
        let told = |(last, at): &(String, Instant)| last == failure && at.elapsed() < REMINDER;
        if !self.last.as_ref().is_some_and(told) {
            self.last = Some((failure.to_owned(), Instant::now()));
            warn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let mut pauses = Pauses::new();
        let made: Vec<_> = (0..30).map(|_| pauses.next()).collect();
        assert!(made[0] >= FIRST_PAUSE / 2 && made[0] <= FIRST_PAUSE);
        assert!(made[1..20].iter().all(|pause| *pause <= SHORT_PAUSE));
        assert!(made[29] >= LONGEST_PAUSE / 2 && made[29] <= LONGEST_PAUSE);
        let others: Vec<_> = (0..10).map(|_| Pauses::new().next()).collect();
        assert!(others.iter().any(|pause| *pause != others[0]));
    }

    #[test]
    fn link_local_addresses_wait_for_better_ones() {
        let link_local: SocketAddr = ([0xfe80, 0, 0, 0, 0, 0, 0, 1], 5555).into();
        let other: SocketAddr = ([10, 0, 0, 1], 5555).into();
        let [link_local, other] = [link_local, other].map(|endpoint| Place { endpoint, key: None });
        assert_eq!(head_start(&[link_local]), LINK_LOCAL_PAUSE);
        assert_eq!(head_start(&[other, link_local]), Duration::ZERO);
    }

    #[test]
    fn a_failure_is_told_once_until_it_changes() {
        let (mut complaints, mut told) = (Complaints::default(), Vec::new());
        for failure in ["a", "a", "b", "b", "a"] {
            complaints.tell(failure, || told.push(failure));
        }
        assert_eq!(told, ["a", "b", "a"]);
    }
}
