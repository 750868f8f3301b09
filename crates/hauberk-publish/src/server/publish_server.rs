//! The server: accepting clients, sharing them among threads, and ending in order.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use futures::future::select_all;
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    activity::Activity,
    config::PublishConfig,
    connection::{self, Shared},
    handler::Handler,
    listener::{Arrival, Listener, SettledListener},
    metrics::Metrics,
    places::Places,
    socket::Socket,
};

/// Threads that read files for bodies, at most, for each thread that serves.
const BLOCKING_THREADS: usize = 64;

/// Pause after accepting failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a publish server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener cannot be used.
    #[error("cannot listen for substitute clients")]
    Listener(#[source] io::Error),
    /// Its thread ended early.
    #[error("the publish server's thread ended early")]
    Thread,
}

/// Serves substitutes over HTTP on listeners that are bound already.
pub struct PublishServer {
    listeners: Vec<Listener>,
    config: PublishConfig,
}

/// A publish server that runs on threads of its own.
#[derive(Debug)]
pub struct Running {
    outcome: oneshot::Receiver<Result<(), ServeError>>,
}

impl PublishServer {
    /// Takes a bound listener.
    pub fn new(listener: impl Into<Listener>, config: PublishConfig) -> Self {
        Self { listeners: vec![listener.into()], config }
    }

    /// Listens there as well.
    #[must_use]
    pub fn also_on(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Gives the address of the first listener that is one of the network.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        for listener in &self.listeners {
            if let Some(address) = listener.local_address()? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Runs the server until `stop` on `threads` threads of its own, so that nars never delay anything else; then it finishes the
    /// answers in hand within the grace. A connection stays on its thread. Nothing that a client does ends the server.
    ///
    /// # Errors
    /// Threads that cannot be made.
    pub fn spawn_on_own_runtime(self, threads: usize, stop: CancellationToken) -> io::Result<Running> {
        let runtime = single()?;
        let limits = self.config.limits;
        let tls = self.config.tls.clone();
        let metrics = Arc::new(Metrics::default());
        let places = Arc::new(Places::new(limits.connections.min(affordable())));
        let shared = Arc::new(Shared {
            handler: Arc::new(Handler::start(self.config, Arc::clone(&metrics), &stop)?),
            metrics,
            limits,
            stop: stop.clone(),
        });
        let mut posts = Vec::new();
        let mut helpers = Vec::new();
        let (own_post, own_arrivals) = mpsc::unbounded_channel();
        posts.push(own_post);
        let room = |arrivals| Room {
            shared: Arc::clone(&shared),
            places: Arc::clone(&places),
            tls: tls.clone(),
            arrivals,
        };
        let own_room = room(own_arrivals);
        for number in 1..threads.max(1) {
            let (post, arrivals) = mpsc::unbounded_channel();
            posts.push(post);
            let (runtime, room, span) = (single()?, room(arrivals), tracing::Span::current());
            helpers.push(thread::Builder::new().name(format!("publish-{number}")).spawn(move || {
                span.in_scope(|| runtime.block_on(room.serve()));
                runtime.shutdown_timeout(Duration::from_secs(1));
            })?);
        }
        let (sender, outcome) = oneshot::channel();
        let (listeners, span) = (self.listeners, tracing::Span::current());
        thread::Builder::new().name("publish".into()).spawn(move || {
            let ended = span.in_scope(|| {
                runtime.block_on(async {
                    let (ended, ()) =
                        tokio::join!(accept_all(listeners, posts, &places, &stop), own_room.serve());
                    ended
                })
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
            let helped = helpers.into_iter().all(|helper| helper.join().is_ok());
            let ended = if helped { ended } else { ended.and(Err(ServeError::Thread)) };
            // Whoever does not wait for the end does not want it.
            let _ = sender.send(ended);
        })?;
        Ok(Running { outcome })
    }
}

impl Running {
    /// Waits until the server has ended.
    ///
    /// # Errors
    /// A listener that could not be used, a thread that ended early.
    pub async fn join(self) -> Result<(), ServeError> {
        self.outcome.await.unwrap_or(Err(ServeError::Thread))
    }
}

/// Gives the number of connections for which there are descriptors: half, as each may have a file open.
fn affordable() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE)
        .map_or(usize::MAX, |(allowed, _)| usize::try_from(allowed / 2).unwrap_or(usize::MAX))
}

fn single() -> io::Result<Runtime> {
    Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()
}

/// Takes clients and hands them to the threads in turn, until `stop`. The threads know by the end of their posts.
async fn accept_all(
    listeners: Vec<Listener>,
    posts: Vec<mpsc::UnboundedSender<(Arrival, OwnedSemaphorePermit)>>,
    places: &Places,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let listeners = listeners.into_iter().map(Listener::settle).collect::<io::Result<Vec<_>>>();
    let listeners = listeners.map_err(ServeError::Listener)?;
    let mut turns = posts.iter().cycle();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = accept(&listeners, places) => accepted,
        };
        match accepted {
            Ok(client) => {
                // A thread ends only after this one has, or by a panic; then the client is left.
                let _ = turns.next().map(|post| post.send(client));
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot accept a substitute client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for a free place, then for a client to take it.
async fn accept(
    listeners: &[SettledListener],
    places: &Places,
) -> io::Result<(Arrival, OwnedSemaphorePermit)> {
    let permit = places.take().await.ok_or(io::ErrorKind::ConnectionAborted)?;
    let waiting = listeners.iter().map(|listener| Box::pin(listener.accept()));
    let (accepted, ..) = select_all(waiting).await;
    Ok((accepted?, permit))
}

/// The connections of one thread.
struct Room {
    shared: Arc<Shared>,
    places: Arc<Places>,
    tls: Option<TlsAcceptor>,
    arrivals: mpsc::UnboundedReceiver<(Arrival, OwnedSemaphorePermit)>,
}

impl Room {
    /// Serves those who arrive until nobody will, then for at most the grace those who are there.
    async fn serve(mut self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                arrived = self.arrivals.recv() => {
                    let Some((client, permit)) = arrived else { break };
                    let served = serve(client, Arc::clone(&self.shared), Arc::clone(&self.places), self.tls.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
        let grace = self.shared.limits.grace;
        let drained = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            info!(connections.left = connections.len(), "grace period of the publish server is over");
            connections.shutdown().await;
        }
    }
}

/// Serves one client, unless it does nothing while others wait for its place.
async fn serve(client: Arrival, shared: Arc<Shared>, places: Arc<Places>, tls: Option<TlsAcceptor>) {
    let peer = client.to_string();
    shared.metrics.opened();
    let activity = Arc::new(Activity::new());
    let ended = {
        let mut serving = std::pin::pin!(async {
            let socket = client.settle()?;
            let socket = match (socket, tls) {
                (Socket::Tcp(stream), Some(tls)) => {
                    let greeting = tokio::time::timeout(shared.limits.header_timeout, tls.accept(stream));
                    let stream = greeting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                    Socket::Tls(Box::new(stream))
                }
                (socket, _) => socket,
            };
            connection::serve(socket, &shared, Arc::clone(&activity)).await
        });
        let mut crowded = std::pin::pin!(places.crowded());
        loop {
            tokio::select! {
                biased;
                ended = serving.as_mut() => break ended,
                () = crowded.as_mut() => {
                    if activity.is_quiet_for(shared.limits.crowded_timeout) {
                        break Ok(());
                    }
                    crowded.set(places.crowded());
                }
            }
        }
    };
    shared.metrics.closed();
    if let Err(error) = ended {
        debug!(%peer, error = &error as &dyn std::error::Error, "connection of a substitute client broke");
    }
}
