//! The register as a process: looks at every specification, once or for ever.

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hauberk_database::listen::{EVALUATION, EVALUATION_CANCELED, Event, Listener};
use hauberk_database::specifications::NewSpecification;
use hauberk_database::{
    Database, DatabaseError, EvaluationId, SpecificationId, begin, commit, evaluations, specifications,
};
use hauberk_publish::SubstituteClient;
use hauberk_publish::client::{ClientConfig, ClientError};
use hauberk_store::StoreDirectory;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::git::{Git, GitError};
use crate::look::{LookError, Register, Seen, Watched, chain};
use crate::running::Running;
use crate::stores::Stores;

/// Looks that run at a time: an evaluator can take much memory.
const PARALLEL: usize = 2;
/// Connections to the database: each look uses two at most.
const CONNECTIONS: usize = 2 * PARALLEL + 1;
/// Time to the next look when the database was away.
const RECOVERY: Duration = Duration::from_secs(15);

/// Why the register ended.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The database cannot be used.
    #[error("the register cannot use its database")]
    Database(#[from] DatabaseError),
    /// The state directory cannot be used.
    #[error("the register cannot use its state directory {}", path.display())]
    StateDirectory {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Git cannot be prepared.
    #[error("the register cannot prepare git")]
    Git(#[from] GitError),
    /// The client for substitutes cannot be made.
    #[error("the register cannot ask for substitutes")]
    Substitutes(#[from] ClientError),
    /// With `one_shot`: these came to nothing.
    #[error("{}", describe(specifications))]
    EvaluationFailed {
        /// Each specification and what went wrong with it.
        specifications: Vec<(String, String)>,
    },
}

fn describe(specifications: &[(String, String)]) -> String {
    let faults: Vec<String> = specifications
        .iter()
        .map(|(name, fault)| format!("specification `{name}` gave no evaluation: {fault}"))
        .collect();
    faults.join("; ")
}

/// Runs the register until `stop` is cancelled, or, with [`Config::one_shot`], until it has looked at every specification.
///
/// `ready` is called once the specifications are recorded. When it is stopped, evaluations under way are aborted and
/// their programs are killed.
///
/// # Errors
/// [`RegisterError`]. What goes wrong with a specification is recorded with it and ends nothing, unless it is to be
/// looked at once.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), RegisterError> {
    let state = prepare(&config.state_directory)?;
    let database = Database::connect_or_create(&config.database, CONNECTIONS).await?;
    let watched = record(&database, &config).await?;
    let register = Register {
        git: Git::prepare(&state).await?,
        substitutes: SubstituteClient::new(StoreDirectory::nix(), ClientConfig::internet())?,
        urls: config.substitute_urls.clone(),
        stores: Stores::new(
            StoreDirectory::nix(),
            config.push,
            config.server_urls.clone(),
            config.push_patience,
        )?,
        keeper: config.daemon.keeper(),
        daemon: config.daemon.clone(),
        database,
        state,
        running: Running::default(),
    };
    if config.one_shot {
        ready();
        return look_once(&register, &watched, &stop).await;
    }
    let listener = Listener::connect(&config.database, &[EVALUATION, EVALUATION_CANCELED]).await?;
    ready();
    watch(Arc::new(register), watched, config.interval, listener, &stop).await;
    Ok(())
}

/// Makes the state directory and its parts, and gives its real path: a restricted evaluation compares real paths.
fn prepare(directory: &Path) -> Result<PathBuf, RegisterError> {
    let fault = |source| RegisterError::StateDirectory { path: directory.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    for part in ["", "mirrors", "checkouts", "evaluations", "roots", "home"] {
        builder.create(directory.join(part)).map_err(fault)?;
    }
    directory.canonicalize().map_err(fault)
}

/// Records the specifications, and ends what a killed register left behind; gives those that are to be watched.
async fn record(database: &Database, config: &Config) -> Result<Vec<Watched>, RegisterError> {
    let mut client = database.client().await?;
    let transaction = begin(&mut client).await?;
    let mut watched = Vec::new();
    for specification in &config.specifications {
        let definition =
            serde_json::to_value(specification).expect("a specification is text, numbers and lists of them");
        let id: SpecificationId = specifications::upsert(
            &transaction,
            NewSpecification {
                name: specification.name.as_str(),
                definition: &definition,
                priority: specification.priority,
                shares: i32::try_from(u32::from(specification.shares)).unwrap_or(i32::MAX),
                enabled: specification.enabled,
                public: true,
            },
        )
        .await?;
        if specification.enabled {
            watched.push(Watched { id, specification: specification.clone() });
        }
    }
    let names: Vec<&str> =
        config.specifications.iter().map(|specification| specification.name.as_str()).collect();
    for name in specifications::disable_others(&transaction, &names).await? {
        tracing::info!(specification = %name, "{name} is not in the specification file and is not watched any more");
    }
    for id in evaluations::abort_started(&transaction, "the register was killed").await? {
        tracing::warn!(evaluation.id = %id, "evaluation {id} was left unfinished and is aborted");
    }
    commit(transaction).await?;
    Ok(watched)
}

/// Looks at every specification once.
async fn look_once(
    register: &Register,
    watched: &[Watched],
    stop: &CancellationToken,
) -> Result<(), RegisterError> {
    let mut failed = Vec::new();
    for one in watched {
        match register.look(one, true, stop).await {
            Ok(Seen::Unchanged | Seen::Published(..)) => {}
            Ok(Seen::Canceled) => {
                failed.push((one.specification.name.to_string(), "its evaluation was canceled".to_owned()));
            }
            Ok(Seen::StillFailed) => {
                failed.push((one.specification.name.to_string(), "its last evaluation failed".to_owned()));
            }
            Err(LookError::Stopped) => return Ok(()),
            Err(LookError::Database(error)) => return Err(error.into()),
            Err(error) => failed.push((one.specification.name.to_string(), chain(&error))),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(RegisterError::EvaluationFailed { specifications: failed }) }
}

/// A wish that a specification is looked at now.
#[derive(Debug, Default)]
struct Request {
    notify: Notify,
    /// Whether somebody asked, so that an evaluation that failed is to be repeated.
    retry: AtomicBool,
}

impl Request {
    fn make(&self, retry: bool) {
        if retry {
            self.retry.store(true, Ordering::Relaxed);
        }
        self.notify.notify_one();
    }
}

/// Looks at every specification again and again.
async fn watch(
    register: Arc<Register>,
    watched: Vec<Watched>,
    interval: Duration,
    mut listener: Listener,
    stop: &CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut requests: BTreeMap<String, Arc<Request>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    for one in watched {
        let request = Arc::new(Request::default());
        requests.insert(one.specification.name.to_string(), Arc::clone(&request));
        let (register, permits, stop) = (Arc::clone(&register), Arc::clone(&permits), stop.clone());
        tasks.spawn(async move { watch_one(&register, &one, interval, &request, &permits, &stop).await });
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = listener.next() => match event {
                Event::Notification { channel, payload } if channel == EVALUATION_CANCELED => {
                    match payload.parse() {
                        Ok(evaluation) => register.running.cancel(EvaluationId::new(evaluation)),
                        Err(_) => tracing::warn!("told that `{payload}` is canceled, which is no evaluation"),
                    }
                }
                Event::Notification { payload, .. } => match requests.get(&payload) {
                    Some(request) => request.make(true),
                    None if payload.is_empty() => requests.values().for_each(|request| request.make(true)),
                    None => tracing::warn!("asked to evaluate `{payload}`, which is not watched"),
                },
                // What was asked meanwhile is lost.
                Event::Reconnected => {
                    requests.values().for_each(|request| request.make(false));
                    let canceled = async { register.cancel_canceled(&register.database.client().await?).await };
                    if let Err(error) = canceled.await {
                        tracing::warn!(error = &error as &dyn Error, "cannot look for canceled evaluations");
                    }
                }
            },
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(error = &error as &dyn Error, "the watch over a specification ended by itself");
        }
    }
}

async fn watch_one(
    register: &Register,
    watched: &Watched,
    interval: Duration,
    request: &Request,
    permits: &Semaphore,
    stop: &CancellationToken,
) {
    let period = watched.specification.period.map_or(interval, Duration::from);
    let mut database_away = false;
    loop {
        let retry = request.retry.swap(false, Ordering::Relaxed);
        let permit = tokio::select! {
            permit = permits.acquire() => permit.expect("nobody closes the semaphore"),
            () = stop.cancelled() => return,
        };
        // It ends by itself when it is to stop, and leaves nothing behind.
        let looked = register.look(watched, retry, stop).await;
        drop(permit);
        let mut pause = period;
        match looked {
            Err(LookError::Stopped) => return,
            Err(LookError::Database(error)) => {
                if !database_away {
                    tracing::error!(specification = %watched.specification.name, error = &error as &dyn Error,
                        "the database failed; {} waits for it", watched.specification.name);
                }
                database_away = true;
                pause = period.min(RECOVERY);
            }
            Ok(_) | Err(_) => database_away = false,
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = request.notify.notified() => {}
        }
    }
}
