//! How a Guix daemon gets what an attempt needs.
//!
//! It takes no nar on the word of a narinfo's signature. Texts (derivations above all) and sources follow from their contents, so they
//! are added as such. Everything else it substitutes itself, from the farm's server first, by keys of its own list; it is only told
//! to when a server is known to have the path, as it remembers for a while what was not there. What another worker has built it gets by a
//! [`Relay`].

use std::collections::BTreeSet;

use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildTarget, ClientOptions, ConnectOptions, Connection, DaemonAddress,
    DaemonError, LogEvent, LogSink, PathInfo,
};
use hauberk_publish::client::{FetchError, MissingPath, SubstituteClient};
use hauberk_store::nar::{Limits, Node};
use hauberk_store::store_path::References;
use hauberk_store::{NarInfo, StorePath};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tracing::{debug, info};

use super::inputs::{InputError, Sources};
use super::relay::{Passed, Passing, Relay};

/// Nars that a session substitutes at once.
const PARALLEL: u32 = 4;

/// The largest nar of a text, in bytes.
const LARGEST_TEXT: u64 = 64 << 20;

/// The largest nar that is looked at whether it is a text though it is no derivation, in bytes.
const LARGEST_SCRIPT: u64 = 1 << 20;

/// Brings paths into the store of a Guix daemon.
pub(crate) struct GuixInputs<'f> {
    /// Fetches texts and sources.
    pub(crate) client: &'f SubstituteClient,
    /// Where the daemon listens.
    pub(crate) address: &'f DaemonAddress,
    /// How it is connected to.
    pub(crate) connect: &'f ConnectOptions,
    /// Where things may be had.
    pub(crate) sources: &'f Sources,
    /// Passes on what other workers have, where that is worth it.
    pub(crate) relay: Option<&'f Relay>,
}

impl GuixInputs<'_> {
    /// Makes `missing` valid, which must be in the order of their references.
    pub(crate) async fn add_all(&self, missing: &[MissingPath]) -> Result<(), InputError> {
        let passing = self.relay.map(|relay| relay.pass_on(self.passed(missing)));
        let added = self.try_all(missing, passing.as_ref()).await;
        match (added, passing) {
            (Err(error @ InputError::Transfer { .. }), Some(passing)) => {
                info!(
                    error = &error as &dyn std::error::Error,
                    "the build daemon takes nothing of what other workers have built, and gets it from the server"
                );
                passing.avoid_givers();
                drop(passing);
                self.try_all(missing, None).await
            }
            (added, _) => added,
        }
    }

    /// Gives what other workers have. Only of what the farm's own server vouches for: others name their own nars.
    fn passed(&self, missing: &[MissingPath]) -> Vec<Passed> {
        let Some(server) = self.sources.narinfos.first() else { return Vec::new() };
        let passed = |item: &MissingPath| {
            let narinfo = item.narinfo.clone();
            let places = self.sources.nars.get(&narinfo.store_path)?.clone();
            Some(Passed { narinfo, server: server.url.clone(), places })
        };
        missing.iter().filter(|item| item.source == 0).filter_map(passed).collect()
    }

    async fn try_all(
        &self,
        missing: &[MissingPath],
        passing: Option<&Passing<'_>>,
    ) -> Result<(), InputError> {
        let Some(first) = missing.first() else { return Ok(()) };
        let path = first.narinfo.store_path.clone();
        let mut daemon = self
            .connected(passing)
            .await
            .map_err(|source| InputError::Daemon { path: path.clone(), source })?;
        let mut waiting: BTreeSet<StorePath> = BTreeSet::new();
        for item in missing {
            let needs_waiting = item.narinfo.references.iter().any(|other| waiting.contains(other));
            if needs_waiting && may_be_text(&item.narinfo) {
                self.substitute(std::mem::take(&mut waiting), &mut daemon).await?;
            }
            if !self.add(item, &mut daemon).await? {
                waiting.insert(item.narinfo.store_path.clone());
            }
        }
        self.substitute(waiting, &mut daemon).await
    }

    async fn connected(&self, passing: Option<&Passing<'_>>) -> Result<Connection<UnixStream>, DaemonError> {
        let mut daemon = Connection::connect(self.address, self.connect).await?;
        let relay = passing.map(|passing| passing.url().to_owned());
        let urls = self.sources.narinfos.iter().map(|source| source.url.to_string());
        let urls = relay.into_iter().chain(urls).collect();
        let options = ClientOptions {
            use_substitutes: true,
            substitute_urls: Some(urls),
            max_jobs: Some(PARALLEL),
            keep_going: true,
            ..ClientOptions::default()
        };
        daemon.set_options(&options).await?;
        Ok(daemon)
    }

    /// Adds a text or a source. False if it is neither.
    async fn add(&self, item: &MissingPath, daemon: &mut dyn BuildDaemon) -> Result<bool, InputError> {
        let narinfo = &item.narinfo;
        let is_source = is_source(narinfo);
        if !is_source && !may_be_text(narinfo) {
            return Ok(false);
        }
        let path = &narinfo.store_path;
        let refused = |source| InputError::Daemon { path: path.clone(), source };
        if daemon.is_valid_path(path).await.map_err(refused)? {
            return Ok(true);
        }
        let lost = |source: FetchError| InputError::Transfer { path: path.clone(), source: Box::new(source) };
        let place = self.sources.narinfos.get(item.source);
        let place = place.ok_or_else(|| lost(FetchError::Abandoned { path: path.clone() }))?;
        let mut nar = self.client.nar(&place.url, narinfo).await.map_err(lost)?;
        if is_source {
            return match daemon.add_nar(&PathInfo::from(narinfo), &mut nar, false).await {
                Ok(()) => {
                    info!(store.path = %path, "fetched {path} from {}", place.url);
                    Ok(true)
                }
                Err(DaemonError::Source { source, .. }) => {
                    Err(InputError::Transfer { path: path.clone(), source: Box::new(source) })
                }
                Err(source) => Err(refused(source)),
            };
        }
        let mut bytes = Vec::new();
        nar.read_to_end(&mut bytes)
            .await
            .map_err(|source| InputError::Transfer { path: path.clone(), source: Box::new(source) })?;
        let Some(contents) = text(narinfo, &bytes) else { return Ok(false) };
        let added = daemon.add_text(path.name(), &contents, &narinfo.references).await.map_err(refused)?;
        debug!(store.path = %added, "added the text {added} from {}", place.url);
        Ok(true)
    }

    /// Lets the daemon fetch `paths`.
    async fn substitute(
        &self,
        paths: BTreeSet<StorePath>,
        daemon: &mut dyn BuildDaemon,
    ) -> Result<(), InputError> {
        let Some(first) = paths.first() else { return Ok(()) };
        let targets: Vec<_> = paths.iter().cloned().map(BuildTarget::Path).collect();
        let mut log = Failures::default();
        let results = daemon
            .build(&targets, BuildMode::Normal, &mut log)
            .await
            .map_err(|source| InputError::Daemon { path: first.clone(), source })?;
        let failed = results.iter().find(|result| !result.status.is_success());
        match failed.map(|result| &result.target) {
            None => Ok(()),
            Some(target) => {
                let path = match target {
                    BuildTarget::Path(path) => path.clone(),
                    BuildTarget::Derivation { derivation, .. } => derivation.as_path().clone(),
                };
                Err(InputError::Transfer { path, source: log.words().into() })
            }
        }
    }
}

/// The daemon's words while it substitutes, of which the last ones are kept.
#[derive(Default)]
struct Failures {
    words: Vec<String>,
}

/// How many of the daemon's words are kept.
const KEPT_WORDS: usize = 5;

/// The longest of them, in bytes.
const LONGEST_WORDS: usize = 300;

impl Failures {
    fn keep(&mut self, words: &str) {
        let words = words.trim();
        if !words.is_empty() {
            if self.words.len() == KEPT_WORDS {
                self.words.remove(0);
            }
            self.words.push(words.chars().take(LONGEST_WORDS).collect());
        }
    }

    fn words(&self) -> String {
        if self.words.is_empty() {
            "the build daemon cannot substitute it".to_owned()
        } else {
            format!("the build daemon cannot substitute it: {}", self.words.join("; "))
        }
    }
}

#[async_trait::async_trait]
impl LogSink for Failures {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::SubstitutionFailed { message, .. } => self.keep(message),
            LogEvent::Message { bytes, .. } => self.keep(&String::from_utf8_lossy(bytes)),
            LogEvent::SubstitutionSucceeded { path } => {
                info!(store.path = %path, "the build daemon fetched {path}");
            }
            _ => {}
        }
    }
}

/// Whether the path follows from the nar alone, so that the daemon takes it without anybody's word.
fn is_source(narinfo: &NarInfo) -> bool {
    let path = &narinfo.store_path;
    narinfo.references.is_empty()
        && StorePath::of_source(path.directory(), path.name(), &narinfo.nar_hash, &References::default())
            .is_ok_and(|computed| computed == *path)
}

/// Whether it is worth a look whether this is a text: derivations are, and what nobody has built may be.
fn may_be_text(narinfo: &NarInfo) -> bool {
    let limit = if narinfo.store_path.is_derivation() { LARGEST_TEXT } else { LARGEST_SCRIPT };
    narinfo.nar_size <= limit && (narinfo.store_path.is_derivation() || narinfo.deriver.is_none())
}

/// Gives the contents if the nar is that of a text which the path follows from.
fn text(narinfo: &NarInfo, nar: &[u8]) -> Option<Vec<u8>> {
    let path = &narinfo.store_path;
    let Ok(Node::File { executable: false, contents }) = Node::from_nar(nar, Limits::with_size(LARGEST_TEXT))
    else {
        return None;
    };
    let computed = StorePath::of_text(path.directory(), path.name(), &contents, &narinfo.references).ok()?;
    (computed == *path).then_some(contents)
}

#[cfg(test)]
mod tests {
    use hauberk_store::{NarHash, StoreDirectory};

    use super::*;

    fn narinfo(path: &StorePath, nar: &[u8], references: &BTreeSet<StorePath>) -> NarInfo {
        let hash = NarHash::digest(nar);
        let mut text = format!(
            "StorePath: {path}\nURL: nar/x\nCompression: none\nNarHash: sha256:{}\nNarSize: {}\nReferences:",
            hash.to_base32(),
            nar.len()
        );
        references.iter().for_each(|path| text.push_str(&format!(" {}", path.base_name())));
        NarInfo::parse(&StoreDirectory::guix(), &(text + "\n")).unwrap()
    }

    #[test]
    fn texts_and_sources_are_told_from_what_was_built() {
        let guix = StoreDirectory::guix();
        let nar = Node::file("a script\n").to_nar().unwrap();
        let other: StorePath = "/gnu/store/00000000000000000000000000000000-x".parse().unwrap();
        let references = BTreeSet::from([other]);
        let path = StorePath::of_text(&guix, "s", b"a script\n", &references).unwrap();
        let script = narinfo(&path, &nar, &references);
        assert!(may_be_text(&script) && !is_source(&script));
        assert_eq!(text(&script, &nar).unwrap(), b"a script\n");
        assert_eq!(text(&script, &Node::file("another\n").to_nar().unwrap()), None);
        assert_eq!(text(&script, b"no nar"), None);

        let path = StorePath::of_source(&guix, "s", &NarHash::digest(&nar), &References::default()).unwrap();
        let source = narinfo(&path, &nar, &BTreeSet::new());
        assert!(is_source(&source));
        assert_eq!(text(&source, &nar), None);

        let path: StorePath = "/gnu/store/11111111111111111111111111111111-built".parse().unwrap();
        let built = NarInfo { deriver: Some(path.clone()), ..narinfo(&path, &nar, &BTreeSet::new()) };
        assert!(!is_source(&built) && !may_be_text(&built));
    }

    #[test]
    fn the_last_words_are_kept() {
        let mut log = Failures::default();
        assert!(log.words().contains("cannot substitute"));
        (0..9).for_each(|number| log.keep(&format!("word {number}\n")));
        assert!(log.words().ends_with("word 4; word 5; word 6; word 7; word 8"), "{}", log.words());
    }
}
