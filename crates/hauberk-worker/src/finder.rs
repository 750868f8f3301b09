//! Finds the server and connects to it, for as long as it takes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hauberk_discovery::{Browser, Discovery, Found, Interfaces};
use hauberk_protocol::DEFAULT_BACKEND_PORT;
use hauberk_protocol::socket::{
    Context, DealerOptions, DealerSocket, RaceError, ServerAddress, connect_first, require_curve,
};
use tracing::warn;

use crate::config::{Security, ServerLocation};
use crate::error::WorkerError;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long each address of a server has before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long other addresses of a server have to turn up before its link-local ones are tried: those name it on this link only, so
/// that what is learnt from the connection (where to fetch results) is of less use.
const LINK_LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// The same failure is told again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// How long mDNS may find nothing before that is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most addresses that are tried; anybody on the network can announce any number.
const MOST_ENDPOINTS: usize = 32;

/// Finds the server of one worker.
#[derive(Debug)]
pub(crate) struct Finder {
    location: ServerLocation,
    security: Security,
    context: Context,
    /// Where the server was found last by mDNS: it is tried first when it is lost.
    last: Mutex<Option<SocketAddr>>,
}

impl Finder {
    /// Checks what can be checked before the search.
    ///
    /// # Errors
    /// A libzmq that cannot encrypt.
    pub(crate) fn new(
        location: ServerLocation,
        security: Security,
        context: Context,
    ) -> Result<Arc<Self>, WorkerError> {
        if let Security::Curve { .. } = security {
            require_curve().map_err(WorkerError::Socket)?;
        }
        Ok(Arc::new(Self { location, security, context, last: Mutex::new(None) }))
    }

    /// Waits for `pause`, then looks for the server until a handshake with it succeeds.
    ///
    /// # Errors
    /// Only what no further try can mend: sockets cannot be made.
    pub(crate) async fn find(self: Arc<Self>, pause: Duration) -> Result<DealerSocket, WorkerError> {
        tokio::time::sleep(pause).await;
        match &self.location {
            ServerLocation::Address(address) => self.connect_to(address).await,
            ServerLocation::Discover(interfaces) => self.discover(interfaces).await,
        }
    }

    async fn connect_to(&self, address: &ServerAddress) -> Result<DealerSocket, WorkerError> {
        let (mut pauses, mut complaints) = (Pauses::new(), Complaints::default());
        loop {
            let failure = match address.resolve(DEFAULT_BACKEND_PORT).await {
                Ok(endpoints) => match self.connect_first(&endpoints).await {
                    Ok(socket) => return Ok(socket),
                    Err(RaceError::Socket(error)) => return Err(WorkerError::Socket(error)),
                    Err(failure) => failure.to_string(),
                },
                Err(error) => match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                },
            };
            complaints.tell(&failure, || warn!("cannot reach the server at {address}, trying on: {failure}"));
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn discover(&self, interfaces: &Interfaces) -> Result<DealerSocket, WorkerError> {
        let mut browser = Browser::start(interfaces).map_err(WorkerError::Discovery)?;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut endpoints: Vec<SocketAddr> = last.into_iter().collect();
        let (mut pauses, mut complaints) = (Pauses::new(), Complaints::default());
        let mut attempt = Box::pin(self.connect_after(head_start(&endpoints), endpoints.clone()));
        let mut nothing = tokio::time::interval_at(tokio::time::Instant::now() + PATIENCE, REMINDER);
        loop {
            tokio::select! {
                news = browser.next() => match news.map_err(WorkerError::Discovery)? {
                    Discovery::Found(found) if self.is_ours(&found, &mut complaints) => {
                        let before = endpoints.len();
                        let new = found.addresses.iter().filter(|address| !endpoints.contains(address));
                        let new: Vec<SocketAddr> = new.copied().collect();
                        // What was announced last is what holds now.
                        endpoints.splice(0..0, new);
                        endpoints.truncate(MOST_ENDPOINTS);
                        endpoints.sort_by_key(is_link_local);
                        if endpoints.len() > before {
                            pauses = Pauses::new();
                            attempt = Box::pin(self.connect_after(head_start(&endpoints), endpoints.clone()));
                        }
                    }
                    Discovery::Found(_) | Discovery::Removed { .. } => {}
                },
                connected = &mut attempt => {
                    match connected {
                        Ok(socket) => {
                            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.endpoint());
                            return Ok(socket);
                        }
                        Err(RaceError::Socket(error)) => return Err(WorkerError::Socket(error)),
                        Err(failure) => {
                            let failure = failure.to_string();
                            complaints.tell(&failure, || warn!("cannot reach the announced server, trying on: {failure}"));
                        }
                    }
                    attempt = Box::pin(self.connect_after(pauses.next(), endpoints.clone()));
                }
                _ = nothing.tick(), if endpoints.is_empty() => {
                    warn!("no server is announced by mDNS on this network, searching on; name one with --server to do without");
                }
            }
        }
    }

    /// Tells whether a server is the one that is wanted: without a pinned key any is, and a server that announces no key has to
    /// prove it in the handshake.
    fn is_ours(&self, found: &Found, complaints: &mut Complaints) -> bool {
        let (Some(pinned), Some(announced)) = (self.security.pinned(), &found.advertisement.server_key)
        else {
            return true;
        };
        let ours = pinned == announced;
        if !ours {
            let name = &found.advertisement.instance;
            complaints.tell(name, || {
                warn!(server.name = %name, "server {name} announces key {announced}, and {pinned} is wanted: it is not joined");
            });
        }
        ours
    }

    /// Waits for `pause` and connects to one of `endpoints`; for ever, if there are none.
    async fn connect_after(
        &self,
        pause: Duration,
        endpoints: Vec<SocketAddr>,
    ) -> Result<DealerSocket, RaceError> {
        if endpoints.is_empty() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
        self.connect_first(&endpoints).await
    }

    async fn connect_first(&self, endpoints: &[SocketAddr]) -> Result<DealerSocket, RaceError> {
        let options = DealerOptions::backend();
        connect_first(&self.context, endpoints, self.security.as_client(), &options, HEAD_START).await
    }
}

/// Tells how long to wait before the first of `endpoints` is tried.
fn head_start(endpoints: &[SocketAddr]) -> Duration {
    if endpoints.iter().all(is_link_local) { LINK_LOCAL_PAUSE } else { Duration::ZERO }
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
    random: RandomState,
}

impl Pauses {
    fn new() -> Self {
        Self { next: FIRST_PAUSE, random: RandomState::new() }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
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
        let made: Vec<_> = (0..10).map(|_| pauses.next()).collect();
        assert!(made[0] >= FIRST_PAUSE / 2 && made[0] <= FIRST_PAUSE);
        assert!(made[9] >= LONGEST_PAUSE / 2 && made[9] <= LONGEST_PAUSE);
        let others: Vec<_> = (0..10).map(|_| Pauses::new().next()).collect();
        assert!(others.iter().any(|pause| *pause != others[0]));
    }

    #[test]
    fn link_local_addresses_wait_for_better_ones() {
        let link_local: SocketAddr = ([0xfe80, 0, 0, 0, 0, 0, 0, 1], 5555).into();
        let other: SocketAddr = ([10, 0, 0, 1], 5555).into();
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
