//! Notifications of PostgreSQL, on a connection of their own.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::NoTlsStream};

use crate::{ConnectionString, DatabaseError};

/// Builds became ready. Sent without a payload by a transaction that made them so, and with its epoch by the start of a server, whose results did, or that begins.
pub const READY: &str = "hauberk_ready";
/// Tells the servers that an operator has canceled builds that run, or wants something of a worker; no payload.
pub const CONTROL: &str = "hauberk_control";
/// Asks the register to look at a specification now; its name is the payload.
pub const EVALUATION: &str = "hauberk_evaluation";
/// Tells the register that an evaluation was canceled that is still being evaluated; its id is the payload.
pub const EVALUATION_CANCELED: &str = "hauberk_evaluation_canceled";
/// Tells the servers that build products are wanted; no payload.
pub const PRODUCTS: &str = "hauberk_products";
/// For pages: something changed. The payload is empty, `build:ID` or `worker:NAME`.
pub const CHANGED: &str = "hauberk_changed";

/// Notifications that wait for the listener; beyond them, the connection waits.
const BACKLOG: usize = 1024;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transaction that notified was committed.
    Notification {
        /// The channel.
        channel: String,
        /// What the notifier said.
        payload: String,
    },
    /// The connection was lost and is there again. Notifications in between are gone: read the tables again.
    Reconnected,
}

/// Listens on channels, and connects again whenever the connection is lost.
#[derive(Debug)]
pub struct Listener {
    events: mpsc::Receiver<Event>,
    connected: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

type Parts = (Client, Connection<Socket, NoTlsStream>);

impl Listener {
    /// Connects and listens. Everything committed after this returns is heard, so read the tables after it.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`].
    pub async fn connect(location: &ConnectionString, channels: &[&str]) -> Result<Self, DatabaseError> {
        let request: String = channels.iter().map(|channel| format!("listen \"{channel}\";")).collect();
        let (sender, events) = mpsc::channel(BACKLOG);
        let parts = connect(location).await.map_err(|source| unreachable(location, source))?;
        let (started, wait_started) = tokio::sync::oneshot::channel();
        let location = location.clone();
        let place = location.clone();
        let connected = Arc::new(AtomicBool::new(true));
        let is_connected = Arc::clone(&connected);
        let task = tokio::spawn(async move {
            let (client, connection) = parts;
            let error = serve(&request, client, connection, &sender, Some(started)).await;
            keep_connected(&location, &request, &sender, &is_connected, error).await;
        });
        match wait_started.await {
            Ok(()) => Ok(Self { events, connected, task }),
            Err(_) => {
                task.abort();
                Err(DatabaseError::Unreachable {
                    server: place.to_string(),
                    source: "the connection ended while it began to listen".into(),
                })
            }
        }
    }

    /// Waits for the next event. Safe to cancel: no event is lost.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only when this listener does.
            None => std::future::pending().await,
        }
    }

    /// Tells whether the connection stands, as far as is known; while it does not, the database is away, or this server of it is.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Takes an event that is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(location: &ConnectionString) -> Result<Parts, tokio_postgres::Error> {
    location.config().connect(NoTls).await
}

fn unreachable(location: &ConnectionString, source: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::Unreachable { server: location.to_string(), source: source.into() }
}

/// Connects again and again, until nobody listens to the events any more.
async fn keep_connected(
    location: &ConnectionString,
    request: &str,
    sender: &mpsc::Sender<Event>,
    connected: &AtomicBool,
    mut error: Option<tokio_postgres::Error>,
) {
    let mut delay = FIRST_DELAY;
    let mut told = false;
    while !sender.is_closed() {
        connected.store(false, Ordering::Relaxed);
        if !told {
            tracing::warn!(
                error = error.as_ref().map(|error| error as &(dyn std::error::Error + 'static)),
                "lost the connection that listens to the database at {location}; connecting again"
            );
            told = true;
        }
        tokio::time::sleep(delay).await;
        match connect(location).await {
            Ok((client, connection)) => {
                let (started, wait_started) = tokio::sync::oneshot::channel();
                let announce = async {
                    if wait_started.await.is_ok() {
                        tracing::info!("listening to the database at {location} again");
                        connected.store(true, Ordering::Relaxed);
                        // Only a listener that is gone does not take it.
                        let _ = sender.send(Event::Reconnected).await;
                        true
                    } else {
                        false
                    }
                };
                let (lost, announced) =
                    tokio::join!(serve(request, client, connection, sender, Some(started)), announce);
                error = lost;
                if announced {
                    told = false;
                    delay = FIRST_DELAY;
                    continue;
                }
            }
            Err(source) => error = Some(source),
        }
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// Hands on what the connection says until it ends; `started` is told once it listens.
async fn serve(
    request: &str,
    client: Client,
    mut connection: Connection<Socket, NoTlsStream>,
    sender: &mpsc::Sender<Event>,
    started: Option<tokio::sync::oneshot::Sender<()>>,
) -> Option<tokio_postgres::Error> {
    let listen = async {
        let result = client.batch_execute(request).await;
        if result.is_ok()
            && let Some(started) = started
        {
            // Nobody waits any more when the listener was dropped meanwhile.
            let _ = started.send(());
        }
        match result {
            // The connection ends when its client is dropped.
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let drive = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    let event = Event::Notification {
                        channel: notification.channel().to_owned(),
                        payload: notification.payload().to_owned(),
                    };
                    if sender.send(event).await.is_err() {
                        return None;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(error),
                None => return None,
            }
        }
    };
    tokio::select! {
        error = listen => Some(error),
        error = drive => error,
    }
}
