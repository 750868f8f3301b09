//! The servers' stores: which of them is the register's own, too, and what has to be brought to the others.
//!
//! An evaluation is published when a server has its derivations and their sources: one that shares the store has them, and to any other
//! they are pushed before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use hauberk_daemon::{BuildDaemon, DaemonError, PathInfo};
use hauberk_database::pushes::{self, Destination};
use hauberk_database::{Client, DatabaseError, EvaluationId, ServerId};
use hauberk_publish::BaseUrl;
use hauberk_publish::client::{ClientConfig, ClientError, Pusher, UploadError, UploadTarget};
use hauberk_publish::push::{PushToken, PushedItem};
use hauberk_store::{StoreDirectory, StorePath};

use crate::daemon::NixDaemon;

/// A server that has not shown for so long that it lives counts as away.
const LATELY: Duration = Duration::from_secs(60);

/// How long a token is good. The evaluation's end ends it before.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a server that is away holds up others.
const GLANCE: Duration = Duration::from_secs(5);

/// When derivations are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushWhen {
    /// To servers whose store is found to be another one.
    #[default]
    Auto,
    /// To all servers.
    Always,
    /// To none: they all share the store.
    Never,
}

/// A text that is none of the words for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give `auto`, `always` or `never`")]
pub struct UnknownPushWhen;

impl FromStr for PushWhen {
    type Err = UnknownPushWhen;

    fn from_str(text: &str) -> Result<Self, UnknownPushWhen> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(UnknownPushWhen),
        }
    }
}

/// Where a server's publish port is, as the register reaches it: `URL`, or `NAME=URL` where the farm has several servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    name: Option<String>,
    url: BaseUrl,
}

impl FromStr for ServerUrl {
    type Err = hauberk_publish::client::BaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains(':') => (Some(name.to_owned()), url),
            _ => (None, text),
        };
        Ok(Self { name, url: BaseUrl::parse(url)? })
    }
}

/// Why an evaluation's derivations did not reach a server.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// Nobody would have them.
    #[error("no server has run with this database yet, to which the derivations could be pushed: start one")]
    NoServer,
    /// The server's row names no URL.
    #[error("{text} cannot be used to reach server {server}: give --server-url")]
    Url {
        /// The server's name.
        server: String,
        /// What its row has.
        text: String,
    },
    /// A server could not be asked, or does not take something.
    #[error(
        "cannot push the derivations to server {server} at {url}, and so the evaluation is not published"
    )]
    Push {
        /// The server's name.
        server: String,
        /// Where it was looked for.
        url: BaseUrl,
        /// What went wrong.
        #[source]
        source: Box<UploadError>,
    },
    /// Something that a derivation needs is not in the store.
    #[error("{0} is not in the store any more")]
    Lost(StorePath),
    /// The build daemon of the register's store.
    #[error("cannot ask the build daemon what the derivations need")]
    Daemon(#[from] DaemonError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The system.
    #[error("cannot make a token")]
    Random(#[source] getrandom::Error),
}

/// Brings the derivations of evaluations to the servers of the farm that have another store.
#[derive(Debug)]
pub struct Stores {
    directory: StoreDirectory,
    pusher: Pusher,
    when: PushWhen,
    urls: Vec<ServerUrl>,
}

/// Where the derivations of one evaluation are needed.
#[derive(Debug)]
pub struct Delivery<'a> {
    pusher: &'a Pusher,
    evaluation: EvaluationId,
    /// Whether a server has them, as it shares the store.
    shared: bool,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    server: ServerId,
    name: String,
    place: UploadTarget,
}

impl Stores {
    /// Brings what is in a store of this directory, where servers are to be reached at `urls` or else as they say themselves. Where no server can be
    /// reached, it tries for `patience`.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub fn new(
        directory: StoreDirectory,
        when: PushWhen,
        urls: Vec<ServerUrl>,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let pusher = Pusher::new(ClientConfig::farm(), patience)?;
        Ok(Self { directory, pusher, when, urls })
    }

    /// Finds out where the derivations of an evaluation that has begun are needed, and makes tokens for pushing them there. `daemon` is that of
    /// the register's store.
    ///
    /// # Errors
    /// [`StoresError`]; servers that cannot be reached are found out later.
    pub async fn plan(
        &self,
        client: &Client,
        daemon: &mut dyn BuildDaemon,
        evaluation: EvaluationId,
    ) -> Result<Delivery<'_>, StoresError> {
        let mut delivery = Delivery { pusher: &self.pusher, evaluation, shared: true, targets: Vec::new() };
        if self.when == PushWhen::Never {
            return Ok(delivery);
        }
        let mut servers = pushes::destinations(client, &self.directory, LATELY).await?;
        if servers.is_empty() {
            return match self.when {
                PushWhen::Always => Err(StoresError::NoServer),
                PushWhen::Auto | PushWhen::Never => {
                    tracing::info!("no server is known yet: it is taken to share the store of this register");
                    Ok(delivery)
                }
            };
        }
        let several = servers.len() > 1;
        if servers.iter().any(|server| server.alive) {
            servers.retain(|server| server.alive);
        }
        let sharing = self.sharing(&servers, daemon).await?;
        let (shared, others): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| sharing.contains(&server.server));
        delivery.shared = !shared.is_empty();
        for server in others {
            match self.target(client, &server, several, evaluation).await {
                Ok(target) => delivery.targets.push(target),
                Err(error @ (StoresError::Database(_) | StoresError::Random(_))) => return Err(error),
                Err(error) if !delivery.shared => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "nothing is pushed to server {}",
                        server.name
                    );
                }
            }
        }
        Ok(delivery)
    }

    /// Tells which servers' stores are this one.
    async fn sharing(
        &self,
        servers: &[Destination],
        daemon: &mut dyn BuildDaemon,
    ) -> Result<HashSet<ServerId>, StoresError> {
        if self.when == PushWhen::Always {
            return Ok(HashSet::new());
        }
        let identities: BTreeSet<StorePath> =
            servers.iter().filter_map(|server| server.identity.clone()).collect();
        let valid =
            if identities.is_empty() { identities } else { daemon.query_valid_paths(&identities).await? };
        let shares =
            |server: &&Destination| server.identity.as_ref().is_some_and(|identity| valid.contains(identity));
        Ok(servers.iter().filter(shares).map(|server| server.server).collect())
    }

    async fn target(
        &self,
        client: &Client,
        server: &Destination,
        several: bool,
        evaluation: EvaluationId,
    ) -> Result<Target, StoresError> {
        let given = self.urls.iter().find(|url| match &url.name {
            Some(name) => *name == server.name,
            None => !several,
        });
        let base = match given {
            Some(given) => given.url.clone(),
            None => BaseUrl::parse(&server.publish_url).map_err(|_| StoresError::Url {
                server: server.name.clone(),
                text: server.publish_url.clone(),
            })?,
        };
        let token = PushToken::random().map_err(StoresError::Random)?;
        pushes::begin(client, evaluation, server.server, token.digest().as_bytes(), LIFETIME).await?;
        let place =
            UploadTarget { base, place: format!("push/{evaluation}"), token: token.text().to_owned() };
        Ok(Target { server: server.server, name: server.name.clone(), place })
    }
}

impl Delivery<'_> {
    /// Tells which of these outputs servers can give to workers; nothing when what is in the register's own store can be had by them.
    ///
    /// # Errors
    /// [`StoresError`], when no server can be asked.
    pub async fn available(&self, paths: &[StorePath]) -> Result<Option<HashSet<StorePath>>, StoresError> {
        if self.shared {
            return Ok(None);
        }
        let mut available = HashSet::new();
        let (mut asked, mut failure) = (false, None);
        for pusher in self.pushers() {
            for target in &self.targets {
                match pusher.available(&target.place, paths).await {
                    Ok(found) => {
                        asked = true;
                        available.extend(found);
                    }
                    Err(source) => failure = Some(target.failed(source)),
                }
            }
            if asked {
                return Ok(Some(available));
            }
        }
        failure.map_or(Ok(Some(available)), Err)
    }

    /// Those to try all servers with, one after the other until a server is reached: one that is away holds the others up for a moment only, and is
    /// waited for where there is no other.
    fn pushers(&self) -> [Pusher; 2] {
        [self.pusher.at_most(GLANCE), self.pusher.clone()]
    }

    /// Brings `roots`, and all they refer to, to the servers that lack them, so that one has them at least when it returns. `location` tells where the
    /// files of the store are, and `daemon` what is in it.
    ///
    /// # Errors
    /// [`StoresError`], when no server has all of it.
    pub async fn bring(
        &self,
        roots: &BTreeSet<StorePath>,
        location: &NixDaemon,
        daemon: &mut dyn BuildDaemon,
        client: &Client,
    ) -> Result<(), StoresError> {
        let roots: Vec<StorePath> = roots.iter().cloned().collect();
        let mut infos = BTreeMap::new();
        let (mut brought, mut failure) = (self.shared, None);
        for pusher in self.pushers() {
            for target in &self.targets {
                match self.bring_to(&pusher, target, &roots, location, daemon, &mut infos).await {
                    Ok((paths, bytes)) => {
                        pushes::complete(client, self.evaluation, target.server, paths, bytes).await?;
                        brought = true;
                    }
                    Err(error @ StoresError::Push { .. }) => {
                        tracing::warn!(
                            error = &error as &dyn Error,
                            "server {} does not have all derivations",
                            target.name
                        );
                        failure = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            if brought {
                return Ok(());
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Brings them to one server. Gives the number of paths sent, and of their bytes.
    async fn bring_to(
        &self,
        pusher: &Pusher,
        target: &Target,
        roots: &[StorePath],
        location: &NixDaemon,
        daemon: &mut dyn BuildDaemon,
        infos: &mut BTreeMap<StorePath, PathInfo>,
    ) -> Result<(u64, u64), StoresError> {
        let missing = |paths: Vec<StorePath>| async move {
            let missing = pusher.missing(&target.place, &paths).await;
            missing.map_err(|source| target.failed(source))
        };
        let lacking = missing(roots.to_vec()).await?;
        if lacking.is_empty() {
            return Ok((0, 0));
        }
        let closure = closure(roots.iter().filter(|root| lacking.contains(*root)), daemon, infos).await?;
        let lacking = missing(closure.clone()).await?;
        let items: Vec<PushedItem> = closure
            .iter()
            .filter(|path| lacking.contains(*path))
            .filter_map(|path| infos.get(path))
            .map(|info| PushedItem { info: info.clone(), file: location.file(&info.path) })
            .collect();
        tracing::info!(evaluation.id = %self.evaluation, "server {} lacks {} of {} derivations and sources of evaluation {}",
            target.name, items.len(), closure.len(), self.evaluation);
        let sent = pusher.send(&target.place, items).await.map_err(|source| target.failed(source))?;
        tracing::info!(evaluation.id = %self.evaluation, "pushed {} derivations and sources of evaluation {} to server {}, {} bytes",
            sent.items, self.evaluation, target.name, sent.bytes);
        Ok((sent.items as u64, sent.bytes))
    }
}

impl Target {
    fn failed(&self, source: UploadError) -> StoresError {
        StoresError::Push {
            server: self.name.clone(),
            url: self.place.base.clone(),
            source: Box::new(source),
        }
    }
}

/// Gives all that `roots` refer to, each path after those it refers to, and notes what the daemon says of each.
async fn closure<'a>(
    roots: impl Iterator<Item = &'a StorePath>,
    daemon: &mut dyn BuildDaemon,
    infos: &mut BTreeMap<StorePath, PathInfo>,
) -> Result<Vec<StorePath>, StoresError> {
    let mut ordered = Vec::new();
    let mut seen: HashSet<StorePath> = HashSet::new();
    let mut stack: Vec<(StorePath, bool)> = roots.map(|root| (root.clone(), false)).collect();
    while let Some((path, complete)) = stack.pop() {
        if complete {
            ordered.push(path);
            continue;
        }
        if !seen.insert(path.clone()) {
            continue;
        }
        if !infos.contains_key(&path) {
            let info = daemon.query_path_info(&path).await?.ok_or_else(|| StoresError::Lost(path.clone()))?;
            infos.insert(path.clone(), info);
        }
        stack.push((path.clone(), true));
        if let Some(info) = infos.get(&path) {
            stack.extend(info.references.iter().map(|reference| (reference.clone(), false)));
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_or_not() {
        let named: ServerUrl = "two=http://h:5557".parse().unwrap();
        assert_eq!(
            named,
            ServerUrl { name: Some("two".to_owned()), url: BaseUrl::parse("http://h:5557").unwrap() }
        );
        let alone: ServerUrl = "https://h/a=b/".parse().unwrap();
        assert_eq!(alone.name, None);
        assert!("two=h".parse::<ServerUrl>().is_err());
    }
}
