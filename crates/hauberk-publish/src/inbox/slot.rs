//! The side of a reception that faces those who upload.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hauberk_store::{
    NarInfo, Sha256, StoreDirectory, StorePath, StorePathHash, narinfo, narinfo::NarInfoError,
};
use tokio::sync::watch;

use super::item::Item;
use crate::{client::Expected, signer::TrustedKeys};

/// Bytes of nars that must come within the patience of whoever waits.
const STEP: u64 = 64 * 1024;

/// What of a path is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its narinfo.
    NarInfo,
    /// Its nar.
    Nar,
}

/// Names what is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadName {
    /// The reception.
    pub(crate) number: u64,
    /// The path.
    pub(crate) hash: StorePathHash,
    /// What of it.
    pub(crate) part: Part,
}

/// How much is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    /// Bytes.
    pub(crate) at: u64,
    /// Whether that is all.
    pub(crate) complete: bool,
}

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody wants it.
    #[error("this was not asked for")]
    NotAsked,
    /// A nar came before its narinfo.
    #[error("the narinfo comes before its nar")]
    TooSoon,
    /// It does not join what is here.
    #[error("{} bytes are here", .0.at)]
    Elsewhere(Offset),
    /// It is larger than it may be.
    #[error("it may have {limit} bytes")]
    TooLarge {
        /// Bytes it may have.
        limit: u64,
    },
    /// What was uploaded is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be kept.
    #[error("it cannot be kept")]
    Io(#[from] io::Error),
}

/// Why a narinfo is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadNarInfo {
    #[error("the narinfo is malformed: {0}")]
    Malformed(NarInfoError),
    #[error("it is the narinfo of {0}")]
    OtherPath(StorePath),
    #[error("it is not signed by the worker's key")]
    Unsigned,
    #[error("its nar is packed in a way that is not known here")]
    Packed,
}

/// The side of a reception that faces those who upload.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    directory: PathBuf,
    store_directory: StoreDirectory,
    trusted: TrustedKeys,
    token: Sha256,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Why nothing is taken any more.
    pub(super) closed: Option<String>,
    pub(super) items: HashMap<StorePathHash, Item>,
    /// When there was progress last, and the bytes that came since.
    progressed: Instant,
    since: u64,
}

impl Slot {
    pub(super) fn new(
        number: u64,
        directory: PathBuf,
        store_directory: StoreDirectory,
        trusted: TrustedKeys,
        token: Sha256,
    ) -> Self {
        let state = State { closed: None, items: HashMap::new(), progressed: Instant::now(), since: 0 };
        let state = Mutex::new(state);
        Self { number, directory, store_directory, trusted, token, state, changes: watch::Sender::new(0) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn has_token(&self, token: &Sha256) -> bool {
        self.token == *token
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes nothing any more, for this reason.
    pub(super) fn close(&self, why: &str) {
        self.state().closed.get_or_insert_with(|| why.to_owned());
        self.changed();
    }

    /// Lets a path come. False if it may already.
    pub(super) fn ask(&self, path: &StorePath) -> bool {
        let mut state = self.state();
        if state.items.contains_key(&path.hash()) {
            return false;
        }
        let file = self.directory.join(format!("{}.nar", path.hash()));
        state.items.insert(path.hash(), Item::new(path.clone(), file));
        drop(state);
        self.changed();
        true
    }

    /// How long nothing to speak of has come.
    pub(super) fn idle(&self) -> Duration {
        self.state().progressed.elapsed()
    }

    /// Tells how much is here.
    pub(crate) fn offset(&self, name: &UploadName) -> Result<Offset, Refusal> {
        let mut state = self.state();
        let item = state.item(name)?;
        Ok(match name.part {
            Part::NarInfo => Offset { at: 0, complete: item.narinfo.is_some() },
            Part::Nar => Offset { at: item.length, complete: item.complete },
        })
    }

    /// Takes a piece that begins at `at`. Blocks while it is written.
    pub(crate) fn append(
        &self,
        name: &UploadName,
        at: u64,
        bytes: &[u8],
        last: bool,
    ) -> Result<Offset, Refusal> {
        let offset = match name.part {
            Part::NarInfo => self.take_narinfo(name, at, bytes, last)?,
            Part::Nar => self.take_piece(name, at, bytes, last)?,
        };
        self.changed();
        Ok(offset)
    }

    fn take_narinfo(&self, name: &UploadName, at: u64, bytes: &[u8], last: bool) -> Result<Offset, Refusal> {
        if bytes.len() > narinfo::MAX_SIZE {
            return Err(Refusal::TooLarge { limit: narinfo::MAX_SIZE as u64 });
        }
        let mut state = self.state();
        let item = state.item(name)?;
        let here = Offset { at: 0, complete: item.narinfo.is_some() };
        if here.complete || at != 0 || !last {
            return Err(Refusal::Elsewhere(here));
        }
        if bytes.is_empty() {
            item.narinfo = Some(None);
        } else {
            match self.check(&item.path, bytes) {
                Ok((narinfo, limit)) => (item.narinfo, item.limit) = (Some(Some(narinfo)), limit),
                Err(bad) => {
                    let why = format!("the narinfo of {} is not taken: {bad}", item.path);
                    state.closed = Some(why.clone());
                    drop(state);
                    self.changed();
                    return Err(Refusal::Wrong(why));
                }
            }
        }
        (state.progressed, state.since) = (Instant::now(), 0);
        Ok(Offset { at: bytes.len() as u64, complete: true })
    }

    /// Reads a narinfo, which must be of `path` and signed. Gives the most bytes that the file of its nar may have, too.
    fn check(&self, path: &StorePath, bytes: &[u8]) -> Result<(NarInfo, u64), BadNarInfo> {
        let narinfo = NarInfo::parse(&self.store_directory, &String::from_utf8_lossy(bytes));
        let narinfo = narinfo.map_err(BadNarInfo::Malformed)?;
        if narinfo.store_path != *path {
            return Err(BadNarInfo::OtherPath(narinfo.store_path));
        }
        if !self.trusted.vouch_for(&narinfo) {
            return Err(BadNarInfo::Unsigned);
        }
        let limit = Expected::of(&narinfo).map_err(|_| BadNarInfo::Packed)?.file_limit();
        Ok((narinfo, limit))
    }

    fn take_piece(&self, name: &UploadName, at: u64, bytes: &[u8], last: bool) -> Result<Offset, Refusal> {
        let mut state = self.state();
        let item = state.item(name)?;
        if !matches!(item.narinfo, Some(Some(_))) {
            return Err(Refusal::TooSoon);
        }
        if item.complete || at != item.length {
            return Err(Refusal::Elsewhere(Offset { at: item.length, complete: item.complete }));
        }
        let limit = item.limit;
        if item.length.saturating_add(bytes.len() as u64) > limit {
            let why = format!("the nar of {} has more than the {limit} bytes it may have", item.path);
            item.forget();
            state.closed = Some(why);
            drop(state);
            self.changed();
            return Err(Refusal::TooLarge { limit });
        }
        item.append(bytes)?;
        item.complete = last;
        let offset = Offset { at: item.length, complete: item.complete };
        state.since += bytes.len() as u64;
        if last || state.since >= STEP {
            (state.progressed, state.since) = (Instant::now(), 0);
        }
        Ok(offset)
    }
}

impl State {
    /// The item that is wanted, while anything is.
    fn item(&mut self, name: &UploadName) -> Result<&mut Item, Refusal> {
        if let Some(why) = &self.closed {
            return Err(Refusal::Wrong(why.clone()));
        }
        self.items.get_mut(&name.hash).ok_or(Refusal::NotAsked)
    }
}
