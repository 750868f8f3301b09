//! Temporary roots that outlive the connection of the work they are for.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use hauberk_store::StorePath;
use tokio::{sync::Mutex, task::JoinSet, time::sleep};

use crate::{
    address::DaemonAddress,
    connection::ConnectOptions,
    daemon::BuildDaemon,
    error::DaemonError,
    pool::{Connector, SocketConnector},
};

/// How long a path is kept at least: no collector takes so long to read the roots.
const SPAN: Duration = Duration::from_secs(30);

/// Keeps paths from being collected for half a minute to a minute, by connections that are not closed.
///
/// A collector reads the lasting roots first and the temporary ones then. A path that gets its lasting root after the one and loses its
/// temporary root before the other is collected, though it was never without a root. So whoever makes a lasting root for what a
/// connection of his keeps asks this keeper first.
pub struct Keeper {
    connector: Box<dyn Connector>,
    span: Duration,
    held: Mutex<Held>,
}

type Shared = Mutex<Box<dyn BuildDaemon>>;

/// Connections that stand for the sake of their roots, each for two spans; it takes new roots in the first of them.
#[derive(Default)]
struct Held {
    newest: Option<(Instant, Weak<Shared>)>,
    /// What closes each of them. They end with the keeper.
    closing: JoinSet<()>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("span", &self.span).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps paths by connections to a daemon's socket. None is made before it is needed.
    pub fn to_socket(address: DaemonAddress, options: ConnectOptions) -> Self {
        Self::new(SocketConnector { address, options }, SPAN)
    }

    /// Keeps paths for `span` at least and twice as long at most, by connections that `connector` makes.
    pub fn new(connector: impl Connector + 'static, span: Duration) -> Self {
        Self { connector: Box::new(connector), span, held: Mutex::new(Held::default()) }
    }

    /// Keeps `paths` from being collected from now on.
    ///
    /// # Errors
    /// A daemon that cannot be reached or refuses.
    pub async fn keep(&self, paths: &[StorePath]) -> Result<(), DaemonError> {
        let mut held = self.held.lock().await;
        while held.closing.try_join_next().is_some() {}
        let young = held.newest.as_ref().filter(|(since, _)| since.elapsed() < self.span);
        let mut connection = young.and_then(|(_, connection)| connection.upgrade());
        if let Some(found) = &connection
            && !found.lock().await.is_usable()
        {
            connection = None;
        }
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let connection = Arc::new(Mutex::new(self.connector.connect().await?));
                held.newest = Some((Instant::now(), Arc::downgrade(&connection)));
                let (standing, life) = (Arc::clone(&connection), 2 * self.span);
                held.closing.spawn(async move {
                    sleep(life).await;
                    drop(standing);
                });
                connection
            }
        };
        let mut connection = connection.lock().await;
        for path in paths {
            connection.add_temp_root(path).await?;
        }
        Ok(())
    }
}
