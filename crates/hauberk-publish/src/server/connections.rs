//! Connections: accepting, bounding and ending them.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    activity::Activity,
    config::{Limits, PublishConfig},
    handler::Handler,
    metrics::Metrics,
    places::Places,
};
use crate::stream::TimedStream;

/// Largest request head, in bytes. Substitute clients send a few hundred.
const MAX_HEAD: usize = 16 * 1024;

/// Threads that read files for bodies, at most, on a runtime of its own.
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

/// Serves substitutes over HTTP on a listener that is bound already.
pub struct PublishServer {
    listener: std::net::TcpListener,
    config: PublishConfig,
}

/// A publish server that runs on its own thread.
#[derive(Debug)]
pub struct Running {
    outcome: oneshot::Receiver<Result<(), ServeError>>,
}

impl PublishServer {
    /// Takes a bound listener.
    pub fn new(listener: std::net::TcpListener, config: PublishConfig) -> Self {
        Self { listener, config }
    }

    /// Gives the address it is bound to.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then finishes the answers in hand within the grace.
    ///
    /// # Errors
    /// A listener that cannot be used. Nothing that a client does ends the server.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        self.listener.set_nonblocking(true).map_err(ServeError::Listener)?;
        let listener = TcpListener::from_std(self.listener).map_err(ServeError::Listener)?;
        let limits = self.config.limits;
        let metrics = Arc::new(Metrics::default());
        let handler = Arc::new(Handler::new(self.config, Arc::clone(&metrics)));
        let places = Arc::new(Places::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    let served = Served {
                        handler: Arc::clone(&handler),
                        metrics: Arc::clone(&metrics),
                        places: Arc::clone(&places),
                        limits,
                        stop: stop.clone(),
                    };
                    connections.spawn(async move {
                        served.connection(stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot accept a substitute client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained =
            tokio::time::timeout(limits.grace, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            info!(connections.left = connections.len(), "grace period of the publish server is over");
            connections.shutdown().await;
        }
        Ok(())
    }

    /// Runs the server on a runtime of its own with `threads` threads, so that nars never delay anything else.
    ///
    /// # Errors
    /// Threads that cannot be made.
    pub fn spawn_on_own_runtime(self, threads: usize, stop: CancellationToken) -> io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("publish")
            .worker_threads(threads.max(1))
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let (sender, outcome) = oneshot::channel();
        let span = tracing::Span::current();
        thread::Builder::new().name("publish".into()).spawn(move || {
            let ended = span.in_scope(|| runtime.block_on(self.run(stop)));
            runtime.shutdown_timeout(Duration::from_secs(1));
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
    /// What [`PublishServer::run`] gave.
    pub async fn join(self) -> Result<(), ServeError> {
        self.outcome.await.unwrap_or(Err(ServeError::Thread))
    }
}

/// Waits for a free place, then for a client to take it.
async fn accept(
    listener: &TcpListener,
    places: &Places,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = places.take().await.ok_or(io::ErrorKind::ConnectionAborted)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// What a connection is served with.
struct Served {
    handler: Arc<Handler>,
    metrics: Arc<Metrics>,
    places: Arc<Places>,
    limits: Limits,
    stop: CancellationToken,
}

impl Served {
    /// Serves one connection to its end.
    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        let Self { handler, metrics, places, limits, stop } = self;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, error = &error as &dyn std::error::Error, "cannot set nodelay");
        }
        metrics.opened();
        let activity = Arc::new(Activity::new());
        let moved = {
            let (activity, metrics) = (Arc::clone(&activity), Arc::clone(&metrics));
            move |sent| {
                activity.note();
                metrics.sent(sent as u64);
            }
        };
        let stream = TokioIo::new(TimedStream::new(stream, limits.stall_timeout, moved));
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |request: Request<Incoming>| {
                let (handler, activity) = (Arc::clone(&handler), Arc::clone(&activity));
                async move {
                    let _answering = activity.answering();
                    Ok::<_, Infallible>(handler.handle(&request).await)
                }
            })
        };
        // Not `pipeline_flush`: with it, hyper takes a whole body into memory however slow its client is.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = places.crowded() => {
                    if activity.is_quiet_for(limits.crowded_timeout) {
                        break Ok(());
                    }
                }
            }
        };
        metrics.closed();
        if let Err(error) = ended {
            debug!(%peer, error = &error as &dyn std::error::Error, "connection of a substitute client broke");
        }
    }
}
