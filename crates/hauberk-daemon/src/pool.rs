//! Connections kept for use.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::debug;

use crate::{
    address::DaemonAddress,
    connection::{ConnectOptions, Connection},
    daemon::BuildDaemon,
    error::DaemonError,
    operation::Operation,
    options::ClientOptions,
};

/// How long a connection is used. A daemon keeps what was added by a connection from being collected for as long as that stands.
const LIFE: Duration = Duration::from_secs(60);

/// Makes connections: to a daemon's socket or, in tests, to something that stands for one.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Makes a new connection.
    async fn connect(&self) -> Result<Box<dyn BuildDaemon>, DaemonError>;
}

/// Connects to the Unix socket of a daemon.
#[derive(Debug, Clone)]
pub struct SocketConnector {
    /// Where it listens.
    pub address: DaemonAddress,
    /// How to connect.
    pub options: ConnectOptions,
}

#[async_trait]
impl Connector for SocketConnector {
    async fn connect(&self) -> Result<Box<dyn BuildDaemon>, DaemonError> {
        Ok(Box::new(Connection::connect(&self.address, &self.options).await?))
    }
}

/// A bounded number of connections to one daemon, all with the same options.
///
/// What broke while in use or idle is replaced on demand; so is a connection whose options its user changed, as settings once
/// made cannot be taken back, and one that is older than a minute, in use or idle, as its temporary roots stand for as long. Cloning gives another handle of the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Box<dyn Connector>,
    options: ClientOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// A connection and when it was made.
struct Made {
    at: Instant,
    connection: Box<dyn BuildDaemon>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Made>,
    /// Whether somebody closes those that grow old.
    watched: bool,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_back(self: &Arc<Self>, made: Made) {
        if made.at.elapsed() >= LIFE {
            return;
        }
        let mut idle = self.idle();
        idle.connections.push(made);
        if !idle.watched
            && let Ok(runtime) = Handle::try_current()
        {
            idle.watched = true;
            runtime.spawn(close_old(Arc::downgrade(self)));
        }
    }
}

/// Closes idle connections that are old, until none is left.
async fn close_old(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LIFE).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut idle = shared.idle();
        idle.connections.retain(|made| made.at.elapsed() < LIFE);
        if idle.connections.is_empty() {
            idle.watched = false;
            return;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("free", &self.shared.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Makes a pool of at most `size` connections, at least one. None is made before it is asked for.
    pub fn new(connector: impl Connector + 'static, options: ClientOptions, size: usize) -> Self {
        let shared = Shared {
            connector: Box::new(connector),
            options,
            permits: Arc::new(Semaphore::new(size.max(1))),
            idle: Mutex::new(Idle::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a pool of connections to the daemon at `address`.
    pub fn to_socket(
        address: DaemonAddress,
        connect: ConnectOptions,
        options: ClientOptions,
        size: usize,
    ) -> Self {
        Self::new(SocketConnector { address, options: connect }, options, size)
    }

    /// Gives the options its connections have.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// Waits until a connection is free, and gives it, or a new one in its place if it broke.
    ///
    /// # Errors
    /// What connecting and setting options can give.
    pub async fn get(&self) -> Result<PooledConnection, DaemonError> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        let permit = permit.map_err(|_| DaemonError::Broken { operation: Operation::Handshake })?;
        let lent =
            |made| PooledConnection { made: Some(made), shared: Arc::clone(&self.shared), _permit: permit };
        loop {
            let Some(mut made) = self.shared.idle().connections.pop() else { break };
            if made.at.elapsed() < LIFE && made.connection.is_usable() {
                return Ok(lent(made));
            }
            debug!("dropped an idle connection to the build daemon that broke or is old");
        }
        let mut connection = self.shared.connector.connect().await?;
        connection.set_options(&self.shared.options).await?;
        Ok(lent(Made { at: Instant::now(), connection }))
    }
}

/// A connection lent by a [`Pool`]; dropping it gives it back if it is in order.
pub struct PooledConnection {
    made: Option<Made>,
    shared: Arc<Shared>,
    /// Freed after the connection is back, as fields are dropped after [`Drop::drop`].
    _permit: OwnedSemaphorePermit,
}

impl PooledConnection {
    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        self.made = None;
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").finish_non_exhaustive()
    }
}

impl Deref for PooledConnection {
    type Target = dyn BuildDaemon;

    fn deref(&self) -> &Self::Target {
        &*self.made.as_ref().expect("the connection is there until it is dropped or discarded").connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.made.as_mut().expect("the connection is there until it is dropped or discarded").connection
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(mut made) = self.made.take()
            && made.connection.is_usable()
            && made.connection.options() == Some(&self.shared.options)
        {
            self.shared.put_back(made);
        }
    }
}
