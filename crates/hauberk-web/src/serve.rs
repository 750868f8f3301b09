//! The process: listening, connections, and their end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hauberk_database::Database;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::changes::Changes;
use crate::log::LogDirectory;
use crate::operators::Peer;
use crate::product::ProductDirectory;
use crate::{Config, WebError, router};

/// Connections to the database at a time.
const DATABASE_CONNECTIONS: usize = 8;
/// Connections of browsers at a time; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open answers may take to end once the process is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves the pages and the JSON API until `stop` is cancelled; calls `ready` once it does.
///
/// # Errors
/// [`WebError::Database`] when the database cannot be reached or has another schema, [`WebError::Listen`] when the address is taken.
/// A database that goes away later is no error: requests are answered 503 until it is back.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), WebError> {
    let database =
        Database::connect(&config.database, DATABASE_CONNECTIONS).await.map_err(WebError::Database)?;
    let listener = listen(config.listen).await?;
    let address =
        listener.local_addr().map_err(|source| WebError::Listen { address: config.listen, source })?;
    let changes = Changes::start(&config.database, stop.clone()).await.map_err(WebError::Database)?;
    match &config.cache {
        Some(cache) if !cache.join("logs").is_dir() => tracing::warn!(
            cache.path = %cache.display(),
            "there is no folder `logs` in {}; log pages stay empty until the server makes it",
            cache.display()
        ),
        Some(_) => {}
        None => tracing::info!("no --cache: log pages say where the logs are, and do not show them"),
    }
    let logs = LogDirectory::new(config.cache.as_deref());
    let products = ProductDirectory::new(config.cache.as_deref());
    let app = App::new(database, (logs, products), changes, stop.clone(), config.operators);
    tracing::info!(web.address = %address, "serving http://{address}/");
    ready();
    accept(&listener, router::router(app), &stop).await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, WebError> {
    TcpListener::bind(address).await.map_err(|source| WebError::Listen { address, source })
}

/// Accepts connections until `stop`, then lets them end.
async fn accept(listener: &TcpListener, router: Router, stop: &CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept_one(listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let serving = serve_connection(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                // Out of file descriptors: trying again at once would only take a core.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("some answers took longer than {} s to end and are cut", GRACE.as_secs());
    }
}

async fn accept_one(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Pages are small: waiting to fill a packet only makes them late.
    let _ = stream.set_nodelay(true);
    let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let service = tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer { remote, local });
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
    }
}
