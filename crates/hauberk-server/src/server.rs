//! Starts the parts of a server, and ends them in order.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use hauberk_daemon::{ClientOptions, ConnectOptions, DaemonAddress, Pool};
use hauberk_database::listen::{self, Listener};
use hauberk_database::servers::{self, PublishedStore, ServerFacts};
use hauberk_database::{Database, attempts, dispatch};
use hauberk_discovery::{Advertisement, Advertiser};
use hauberk_protocol::PROTOCOL_VERSION;
use hauberk_protocol::proto::{SigningKey, Welcome, welcome};
use hauberk_protocol::socket::{Context, RouterOptions, RouterSocket, ServerAddress, ServerSecurity};
use hauberk_publish::client::ClientConfig;
use hauberk_publish::server::PublishOptions;
use hauberk_publish::{
    Cache, Inbox, Products, PublishConfig, PushDoor, StoreSource, SubstituteClient, products,
};
use hauberk_store::StorePath;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{channel, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aftermath::Aftermath;
use crate::backend;
use crate::committer::Committers;
use crate::config::{Config, StoreConfig};
use crate::elsewhere::OtherCaches;
use crate::enrolment::EnrolmentDesk;
use crate::error::ServerError;
use crate::fetch::{Fetcher, RECEPTIONS, Shelf};
use crate::heart::{Company, Heart};
use crate::herald::Herald;
use crate::identity;
use crate::logs::{AttemptLogs, LogJanitor, LogReceiver};
use crate::metrics::{Exporter, Metrics};
use crate::outcome::farm_faults;
use crate::products::ProductKeeper;
use crate::pushes::Gate;
use crate::registry::Registry;
use crate::settler::Settler;
use crate::sink::StoreSink;
use crate::sources::Sources;
use crate::step::Policy;
use crate::task::{Channels, Task};
use crate::trust;
use crate::upstreams::Upstreams;
use crate::ways;

/// Connections to the database.
const DATABASE_POOL: usize = 16;
/// Connections to the local build daemon, of the fetcher and of the publish server each.
const DAEMON_POOL: usize = 8;
/// Threads that serve substitutes.
const PUBLISH_THREADS: usize = 2;
/// Messages of workers that wait for the dispatcher; beyond them, they wait in their connections.
const BACKLOG: usize = 4096;
/// Version of the program, for people.
const VERSION: &str = env!("CARGO_PKG_VERSION");

type Part = (&'static str, Result<(), ServerError>);

/// Runs a server until `stop`, then finishes what is in hand. `ready` is called once it serves.
///
/// # Errors
/// Whatever keeps it from starting; afterwards only what it cannot live without: a socket that breaks, or another server of the
/// same name. A database that is away is waited for.
pub async fn run(
    mut config: Config,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), ServerError> {
    let security = config.curve.as_ref().map_or(ServerSecurity::Insecure, ServerSecurity::Curve);
    if config.curve.is_none() {
        warn!("running without encryption: anybody on this network can join as a worker");
    }
    let context = Context::new();
    let address = |port| SocketAddr::new(config.listen, port);
    let backend =
        RouterSocket::bind(&context, address(config.backend_port), security, &RouterOptions::backend())?;
    let logs = RouterSocket::bind(&context, address(config.log_port), security, &RouterOptions::logs())?;
    let (backend_port, log_port) = (backend.endpoint().port(), logs.endpoint().port());

    let mut stores = Vec::new();
    let mut publish_options = std::mem::take(&mut config.publish);
    for store in &config.stores {
        stores.push(Store::open(store, publish_options.take_port(), &config).await?);
    }
    let first = stores.first().ok_or(ServerError::NoStore)?;
    let log_directory = config.cache.join("logs");
    std::fs::create_dir_all(&log_directory)
        .map_err(|source| ServerError::Logs { path: log_directory.clone(), source })?;

    let database = Database::connect(&config.database, DATABASE_POOL).await?;
    let listener =
        Listener::connect(&config.database, &[listen::READY, listen::CONTROL, listen::PRODUCTS]).await?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let public_key = config.curve.as_ref().map(|keys| *keys.public());
    let client = database.client().await?;
    let server = servers::enrol(
        &client,
        &ServerFacts {
            name: config.name.clone(),
            host: host.clone(),
            backend_port,
            log_port,
            publish_url: Some(first.url(&config, &host)),
            public_key: public_key.map(|key| key.to_string()),
            version: VERSION.to_owned(),
            address: Some(address_for_workers(&config, &host, backend_port)),
            stores: stores.iter().map(|store| store.published(&config, &host)).collect(),
        },
    )
    .await?;
    let epoch = servers::begin_epoch(&client, server, config.limits.lease).await?;
    let open = attempts::open(&client, epoch, &farm_faults()).await?;
    // So that other servers know of this one at once.
    dispatch::notify_ready(&client, epoch).await?;
    drop(client);

    let welcome = Welcome {
        protocol: PROTOCOL_VERSION,
        session: 0,
        server: config.name.clone(),
        version: VERSION.to_owned(),
        epoch: epoch.get(),
        log_port: log_port.into(),
        publish: None,
        signing_keys: Vec::new(),
        heartbeat_interval_ms: millis(config.limits.heartbeat),
        lease_ms: millis(config.limits.lease),
        trust_probe: None,
        peer_address: String::new(),
        others: Vec::new(),
    };
    let mut welcomes = BTreeMap::new();
    for store in &stores {
        welcomes.insert(store.config.directory.clone(), store.welcome(&welcome)?);
    }
    let publish_ports: Vec<_> = stores.iter().map(|store| store.port).collect();

    // `core` ends the dispatcher; the parts that serve others end after what it has said is written and sent.
    let core = stop.child_token();
    let rest = CancellationToken::new();
    let mut parts: JoinSet<Part> = JoinSet::new();

    let products = Products::open(&Products::beside(&config.cache))?;
    let metrics = Metrics::default();
    let exporter = std::sync::Arc::new(Exporter::new(&metrics, database.clone()));
    let mut shelves = HashMap::new();
    for store in stores {
        let Store { config: store, listener, port, cache, pool: local, .. } = store;
        let mut publishing = PublishConfig::new(store.directory.clone());
        publishing.signer = store.signer.clone();
        publishing.cache = Some(cache.clone());
        let inbox = Inbox::open(&cache.directory().join("inbox"), &store.directory)?;
        inbox.tidy(|number| open.iter().any(|open| i64::try_from(number) == Ok(open.attempt.get())))?;
        publishing.inbox = Some(inbox.clone());
        // All of them have all, as a product is found by its content alone.
        publishing.products = Some(products.clone());
        let gate = Gate { database: database.clone(), server };
        publishing.pushes = Some(PushDoor::open(
            &cache.directory().join("pushes"),
            gate,
            cache.clone(),
            store.signer.clone(),
            config.limits.push,
        )?);
        // A pool of its own, so that users of the farm never keep its fetcher waiting.
        publishing.store = store
            .daemon
            .as_ref()
            .map(|address| StoreSource::new(pool(address, &store), &address.store_root(&store.directory)));
        publishing.logs = Some(std::sync::Arc::new(AttemptLogs {
            database: database.clone(),
            server,
            directory: log_directory.clone(),
        }));
        let elsewhere = OtherCaches::new(
            database.clone(),
            server,
            store.directory.clone(),
            cache.clone(),
            store.signer.clone(),
        )?;
        publishing.elsewhere = Some(std::sync::Arc::new(elsewhere));
        publishing.metrics = Some(std::sync::Arc::clone(&exporter) as _);
        publishing.limits.grace = config.limits.grace;
        let options = PublishOptions {
            // All of them, so that the next store gets none.
            listeners: std::mem::take(&mut publish_options.listeners),
            tls: publish_options.tls.clone(),
            ttl: publish_options.ttl,
            negative_ttl: publish_options.negative_ttl,
            packing: publish_options.packing.clone(),
        };
        let running = options
            .server(listener, publishing)
            .spawn_on_own_runtime(PUBLISH_THREADS, rest.clone())
            .map_err(|source| ServerError::Listen { address: address(port), source })?;
        parts.spawn(async { ("publish server", running.join().await.map_err(ServerError::from)) });
        let client = SubstituteClient::new(store.directory.clone(), ClientConfig::farm())?;
        let own_url = store.publish_url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}"));
        let sink = store.daemon.filter(|_| config.add_to_store).map(|daemon| {
            StoreSink::new(cache.clone(), &store.directory, daemon, own_url, &store.substitute_urls)
        });
        let upstreams = Upstreams::new(store.directory.clone(), store.substitute_urls)?;
        let shelf = Shelf { client, cache, inbox, signer: store.signer, store: local, upstreams, sink };
        shelves.insert(store.directory, shelf);
    }

    let (product_events, wanted_products) = unbounded_channel();
    let keeper = ProductKeeper {
        database: database.clone(),
        server,
        caches: shelves.iter().map(|(store, shelf)| (store.clone(), shelf.cache.clone())).collect(),
        products,
        limits: products::Limits { size: config.limits.product, ..products::Limits::default() },
        events: wanted_products,
    };
    let end = rest.clone();
    parts.spawn(async move {
        keeper.run(end).await;
        ("keeper of products", Ok(()))
    });

    if let Some(age) = config.limits.log_expiry {
        let janitor = LogJanitor::new(database.clone(), server, log_directory.clone(), age);
        let end = rest.clone();
        parts.spawn(async move {
            janitor.run(end).await;
            ("log janitor", Ok(()))
        });
    }

    let receiver = LogReceiver::new(logs, database.clone(), server, log_directory, &metrics);
    let end = rest.clone();
    parts.spawn(async move { ("log receiver", receiver.run(end).await.map_err(ServerError::from)) });

    let (committed_sender, committed) = unbounded_channel();
    let (late, late_steps) = unbounded_channel();
    let settler = Settler { database: database.clone(), epoch, server, metrics: metrics.dispatch.clone() };
    let settled_sender = committed_sender.clone();
    parts.spawn(async move {
        settler.run(late_steps, settled_sender).await;
        ("settler", Ok(()))
    });
    let company = Company::new(config.limits.lease);
    let aftermath = Aftermath::default();
    let (ops, mut committers) =
        Committers::start(&database, epoch, server, &company, &aftermath, &committed_sender, &metrics);
    drop(committed_sender);
    parts.spawn(async move {
        while let Some(Ok(())) = committers.join_next().await {}
        ("committers", Ok(()))
    });

    let sources = Sources::looking()?;
    let (registry, requests) = unbounded_channel();
    let (answers_sender, answers) = channel(BACKLOG);
    let secure = config.curve.is_some();
    let desk = EnrolmentDesk::new(database.clone(), public_key);
    let keeper = Registry {
        database: database.clone(),
        server,
        epoch,
        welcomes,
        secure,
        sources: sources.clone(),
        desk,
        sessions: HashMap::new(),
    };
    parts.spawn(async move {
        keeper.run(requests, answers_sender).await;
        ("registry", Ok(()))
    });

    let (found, recording, end) = (sources.clone(), database.clone(), core.clone());
    parts.spawn(async move {
        ways::record(found, recording, epoch, end).await;
        ("record of ways", Ok(()))
    });

    let (fetches, jobs) = unbounded_channel();
    let (fetched_sender, fetched) = unbounded_channel();
    let (ask_upload, uploads) = unbounded_channel();
    let fetcher = Fetcher {
        database: database.clone(),
        epoch,
        sources: sources.clone(),
        shelves,
        parallel: config.limits.fetches,
        ask_upload,
        trigger: config.trigger.clone(),
        receptions: Semaphore::new(RECEPTIONS),
        metrics: metrics.fetches.clone(),
    };
    parts.spawn(async move {
        fetcher.run(jobs, fetched_sender).await;
        ("fetcher", Ok(()))
    });

    let (outgoing, outgoing_receiver) = unbounded_channel();
    let (from_backend, backend_events) = channel(BACKLOG);
    let (end, wire) = (rest.clone(), metrics.wire.clone());
    parts.spawn(async move {
        let ended = backend::run(backend, from_backend, outgoing_receiver, end, wire).await;
        ("backend", ended.map_err(ServerError::from))
    });

    let policy = Policy {
        lease: config.limits.lease,
        stop_patience: config.limits.stop_patience,
        retry: config.limits.retry,
        health: config.limits.health,
        log_limit: config.limits.log,
        output_limit: config.limits.output,
        order: hauberk_order::Policy {
            ageing: config.limits.ageing,
            priority_and_age_alone: config.limits.priority_and_age_alone,
            ..hauberk_order::Policy::default()
        },
        company: company.clone(),
    };
    let herald = Herald::new(company.clone());
    let (heirs, inherited) = unbounded_channel();
    let channels = Channels {
        backend: backend_events,
        outgoing,
        ops,
        late,
        committed,
        registry,
        answers,
        fetches,
        fetched,
        uploads,
        products: product_events,
        listener,
        herald: herald.clone(),
        aftermath: aftermath.clone(),
        inherited,
    };
    let task = Task::new(
        policy,
        database.clone(),
        (server, epoch),
        channels,
        sources.clone(),
        open,
        metrics.clone(),
    );
    let (sweep, end) = (config.limits.sweep, core.clone());
    parts.spawn(async move {
        task.run(sweep, end).await;
        ("dispatcher", Ok(()))
    });

    let (telling, end) = (database.clone(), core.clone());
    parts.spawn(async move {
        herald.run(telling, epoch, end).await;
        ("herald", Ok(()))
    });
    let (deciding, sweep, end) = (database.clone(), config.limits.sweep, core.clone());
    parts.spawn(async move {
        aftermath.run(deciding, sweep, end).await;
        ("aftermath", Ok(()))
    });
    let heart = Heart {
        database: database.clone(),
        server,
        epoch,
        name: config.name.clone(),
        lease: config.limits.lease,
        company,
    };
    let end = core.clone();
    parts.spawn(async move { ("heart", heart.run(heirs, end).await) });

    let advertiser = match &config.announce {
        None => None,
        Some(interfaces) => {
            let advertisement = Advertisement {
                instance: config.name.clone(),
                farm: config.farm.clone(),
                version: VERSION.to_owned(),
                backend_port,
                log_port: Some(log_port),
                publish_port: publish_ports.first().copied(),
                store_directories: config.stores.iter().map(|store| store.directory.to_string()).collect(),
                server_key: public_key,
            };
            Some(Advertiser::start(&advertisement, interfaces)?)
        }
    };

    info!(
        server.name = %config.name, server.epoch = %epoch,
        "{} serves: workers on {backend_port}, logs on {log_port}, substitutes on {}",
        config.name,
        publish_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ")
    );
    ready();

    let outcome = tokio::select! {
        // The parts are asked to end by the same token: that they did is no surprise then.
        biased;
        () = stop.cancelled() => Ok(()),
        Some(ended) = parts.join_next() => match ended {
            Ok((_, Err(error))) => Err(error),
            Ok((part, Ok(()))) => Err(ServerError::Ended { part }),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a part of the server panicked");
                Err(ServerError::Ended { part: "server" })
            }
        },
    };
    if let Some(advertiser) = advertiser {
        advertiser.stop().await;
    }
    core.cancel();
    let drained = timeout(config.limits.grace, async {
        // The dispatcher's end closes the channels of the others; the sockets go last.
        while let Some(ended) = parts.join_next().await {
            if matches!(ended, Ok(("committers", _))) {
                rest.cancel();
            }
        }
    });
    if drained.await.is_err() {
        warn!(parts.left = parts.len(), "the grace period is over");
        rest.cancel();
        parts.shutdown().await;
    }
    let over = async { servers::end_epoch(&database.client().await?, epoch).await };
    match timeout(config.limits.grace, over).await {
        Ok(Err(error)) => {
            warn!(error = &error as &dyn std::error::Error, "cannot record that this server ended");
        }
        Ok(Ok(())) => {}
        Err(_) => warn!("cannot record that this server ended: the database does not answer"),
    }
    context.close().await;
    outcome
}

/// One store, open.
struct Store {
    config: StoreConfig,
    listener: TcpListener,
    port: u16,
    cache: Cache,
    pool: Option<Pool>,
    /// A path that is in its local store alone.
    identity: Option<StorePath>,
}

impl Store {
    /// Opens its port, unless it was handed over, its cache, and its daemon's socket if there is to be one.
    async fn open(
        config: &StoreConfig,
        handed: Option<TcpListener>,
        server: &Config,
    ) -> Result<Self, ServerError> {
        let address = SocketAddr::new(server.listen, config.publish_port);
        let listen_error = |source| ServerError::Listen { address, source };
        let listener = match handed {
            Some(listener) => listener,
            None => TcpListener::bind(address).map_err(listen_error)?,
        };
        let port = listener.local_addr().map_err(listen_error)?.port();
        let cache = Cache::open(&config.cache(&server.cache), &config.directory)?;
        let pool = match &config.daemon {
            Some(address) => Some(local_store(address, config).await?),
            None => None,
        };
        let identity = match &pool {
            Some(pool) => identity::settle(pool, cache.directory(), &server.name).await,
            None => None,
        };
        Ok(Self { config: config.clone(), listener, port, cache, pool, identity })
    }

    /// Where others reach it.
    fn url(&self, server: &Config, host: &str) -> String {
        let host = server.address.as_ref().map_or(host, ServerAddress::host);
        self.config.publish_url.clone().unwrap_or_else(|| format!("http://{}", at_port(host, self.port)))
    }

    /// What the database is told of it, for other servers.
    fn published(&self, server: &Config, host: &str) -> PublishedStore {
        PublishedStore {
            directory: self.config.directory.to_string(),
            url: self.url(server, host),
            keys: signing_keys(&self.config).into_iter().map(|key| key.key).collect(),
            identity: self.identity.clone(),
        }
    }

    /// Fills in what a Welcome says of this store.
    fn welcome(&self, general: &Welcome) -> Result<Welcome, ServerError> {
        Ok(Welcome {
            publish: Some(match &self.config.publish_url {
                Some(url) => welcome::Publish::PublishUrl(url.clone()),
                None => welcome::Publish::PublishPort(self.port.into()),
            }),
            signing_keys: signing_keys(&self.config),
            trust_probe: Some(trust::probe(&self.config.directory, &self.config.signer)?),
            ..general.clone()
        })
    }
}

/// Connects to the daemon of a local store and checks that it is of the right kind.
async fn local_store(address: &DaemonAddress, config: &StoreConfig) -> Result<Pool, ServerError> {
    let usual = ConnectOptions::default();
    let probe = Pool::to_socket(address.clone(), usual, ClientOptions::default(), 1);
    let found = probe.get().await.map_err(ServerError::Daemon)?.info().store_directory.clone();
    if found != config.directory {
        return Err(ServerError::OtherStore {
            found: found.to_string(),
            wanted: config.directory.to_string(),
        });
    }
    Ok(pool(address, config))
}

fn pool(address: &DaemonAddress, config: &StoreConfig) -> Pool {
    let connect =
        ConnectOptions { store_directory: Some(config.directory.clone()), ..ConnectOptions::default() };
    Pool::to_socket(address.clone(), connect, ClientOptions::default(), DAEMON_POOL)
}

/// Where workers of other servers reach this one: what was said, else the host they fetch from.
fn address_for_workers(config: &Config, host: &str, backend_port: u16) -> String {
    let published = config.stores.first().and_then(|store| host_of(store.publish_url.as_deref()?));
    match &config.address {
        Some(address) if address.port().is_some() => address.to_string(),
        Some(address) => at_port(address.host(), backend_port),
        None => at_port(published.unwrap_or(host), backend_port),
    }
}

fn at_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host of a URL.
fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

/// The keys that workers must trust: a Nix key a line, or one S-expression of Guix.
fn signing_keys(config: &StoreConfig) -> Vec<SigningKey> {
    let text = config.signer.public_text();
    let keys: Vec<&str> = if text.starts_with('(') { vec![&text] } else { text.lines().collect() };
    keys.into_iter()
        .map(|key| SigningKey { store_directory: config.directory.to_string(), key: key.to_owned() })
        .collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_the_host_that_publishes() {
        assert_eq!(host_of("http://10.77.0.1:5557"), Some("10.77.0.1"));
        assert_eq!(host_of("https://farm.example/cache"), Some("farm.example"));
        assert_eq!(host_of("http://[fd00::1]:5557/"), Some("fd00::1"));
        assert_eq!(host_of("http:///x"), None);
        assert_eq!(host_of("farm"), None);
        assert_eq!(at_port("fd00::1", 5), "[fd00::1]:5");
        assert_eq!(at_port("farm.example", 5), "farm.example:5");
    }
}
