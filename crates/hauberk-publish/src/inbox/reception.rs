//! The side of a reception that faces those who wait for it.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::Bytes;
use hauberk_store::{NarInfo, StorePath};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

use super::{Inbox, slot::Slot};
use crate::{
    cache::{Cache, CacheError, Pending},
    client::{
        Answer, Closure, ClosureError, ClosureLimits, Expected, FetchError, MissingPath, ValidPaths,
        store_nar, walk,
    },
    signer::TrustedKeys,
};

/// Bytes read at a time of what has come.
const CHUNK: usize = 256 * 1024;

/// Chunks that wait to be unpacked.
const AHEAD: usize = 4;

/// Waits for what is uploaded for one attempt. When it is dropped, its token is good for nothing any more, and what came of nars stays for the
/// next reception of the same number until it is discarded.
#[derive(Debug)]
pub struct Reception {
    inbox: Inbox,
    slot: Arc<Slot>,
    token: String,
    patience: Duration,
}

impl Reception {
    pub(super) fn new(inbox: Inbox, slot: Arc<Slot>, token: String) -> Self {
        Self { inbox, slot, token, patience: Duration::from_secs(90) }
    }

    /// Gives up when nothing to speak of (a narinfo, 64 KiB, the end of a nar) has come for so long; 90 s without this.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What an upload must have as its bearer token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where it goes, below the publish server's URL.
    pub fn place(&self) -> String {
        format!("upload/{}", self.slot.number())
    }

    /// What is waited for.
    pub fn asked(&self) -> BTreeSet<StorePath> {
        self.slot.state().items.values().map(|item| item.path.clone()).collect()
    }

    /// Hears of every change, among them of what is asked for.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.slot.changes()
    }

    /// Asks for a path and waits for its narinfo, whose signature and name are checked; nothing where it is not to be had.
    ///
    /// # Errors
    /// [`FetchError::Uploaded`] when something wrong came, [`FetchError::Stalled`] when nothing comes.
    pub async fn narinfo(&self, path: &StorePath) -> Result<Option<NarInfo>, FetchError> {
        let mut changes = self.slot.changes();
        self.slot.ask(path);
        loop {
            {
                let state = self.slot.state();
                if let Some(why) = &state.closed {
                    return Err(FetchError::Uploaded { path: path.clone(), why: why.clone() });
                }
                let item = state.items.get(&path.hash());
                if let Some(narinfo) = item.and_then(|item| item.narinfo.clone()) {
                    return Ok(narinfo);
                }
            }
            self.wait(path, &mut changes, 0).await?;
        }
    }

    /// Finds what is missing of the closure of `roots`, as [`SubstituteClient::closure`](crate::SubstituteClient::closure) does, by what is uploaded.
    ///
    /// # Errors
    /// As there.
    pub async fn closure(
        &self,
        roots: impl IntoIterator<Item = StorePath>,
        store: &mut dyn ValidPaths,
        limits: ClosureLimits,
    ) -> Result<Closure, ClosureError> {
        walk(roots, |path| Box::pin(self.answer(path)), store, limits).await
    }

    async fn answer(&self, path: StorePath) -> Answer {
        match self.narinfo(&path).await {
            Ok(Some(narinfo)) => Answer::Found(MissingPath { narinfo, source: 0 }),
            Ok(None) => Answer::Absent(path),
            Err(error) => Answer::Failed(path, error),
        }
    }

    /// Waits for a change, but not longer than the patience since something came.
    async fn wait(
        &self,
        path: &StorePath,
        changes: &mut watch::Receiver<u64>,
        received: u64,
    ) -> Result<(), FetchError> {
        let left = self.patience.saturating_sub(self.slot.idle());
        match timeout(left, changes.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(FetchError::Abandoned { path: path.clone() }),
            Err(_) if self.slot.idle() < self.patience => Ok(()),
            Err(_) => Err(FetchError::Stalled { path: path.clone(), received }),
        }
    }

    /// Takes the nar that `narinfo` tells of into `cache` while it comes, as [`SubstituteClient::fetch`](crate::SubstituteClient::fetch) does with
    /// one that is fetched, by the same checks. One that fails them is forgotten, and its reception takes nothing any more.
    ///
    /// # Errors
    /// All that [`FetchError`] tells. One that failed the checks and had begun in an earlier reception is [`FetchError::Truncated`]: it is worth another
    /// try from its beginning.
    pub async fn fetch(
        &self,
        narinfo: &NarInfo,
        trusted: &TrustedKeys,
        cache: &Cache,
    ) -> Result<Pending, FetchError> {
        let path = &narinfo.store_path;
        if !trusted.vouch_for(narinfo) {
            return Err(FetchError::BadSignature { path: path.clone() });
        }
        let expected = Expected::of(narinfo)?;
        let store = |source| FetchError::Store { path: path.clone(), source: Box::new(source) };
        let file = cache.begin().map_err(store)?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let kept = trusted.kept(narinfo);
        let storing = spawn_blocking(move || store_nar(&expected, kept, chunks, file));
        let fed = self.feed(path, &sender).await;
        drop(sender);
        let stored = storing.await.unwrap_or_else(|_| Err(FetchError::Abandoned { path: path.clone() }));
        match (stored, fed) {
            (Ok(pending), _) => Ok(pending),
            // The reader was told what the feeder met.
            (Err(error), Ok(())) => Err(self.refuse(path, error)),
            (Err(_), Err(error)) => Err(error),
        }
    }

    /// Gives what comes to whoever unpacks it, until all has come or nobody wants more.
    async fn feed(
        &self,
        path: &StorePath,
        sender: &mpsc::Sender<Result<Bytes, FetchError>>,
    ) -> Result<(), FetchError> {
        let io = |error| {
            let source = Box::new(CacheError::Write(error));
            FetchError::Store { path: path.clone(), source }
        };
        let mut changes = self.slot.changes();
        let mut at = 0_u64;
        let mut file: Option<Arc<File>> = None;
        loop {
            let fed = self.next(path, at, &mut file, io);
            let (length, complete) = match fed {
                Ok(standing) => standing,
                Err(error) => {
                    let _ = sender.send(Err(FetchError::Abandoned { path: path.clone() })).await;
                    return Err(error);
                }
            };
            if at < length {
                let count = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
                let Some(open) = file.clone() else { continue };
                let read = spawn_blocking(move || {
                    let mut chunk = vec![0; count];
                    open.read_exact_at(&mut chunk, at).map(|()| chunk)
                });
                let chunk = read.await.map_err(io::Error::other).flatten().map_err(io)?;
                at += count as u64;
                if sender.send(Ok(chunk.into())).await.is_err() {
                    return Ok(());
                }
            } else if complete {
                return Ok(());
            } else {
                let waited = tokio::select! {
                    waited = self.wait(path, &mut changes, at) => waited,
                    // What has come is wrong already.
                    () = sender.closed() => return Ok(()),
                };
                if let Err(error) = waited {
                    let _ = sender.send(Err(FetchError::Abandoned { path: path.clone() })).await;
                    return Err(error);
                }
            }
        }
    }

    /// How much there is, and whether that is all.
    fn next(
        &self,
        path: &StorePath,
        at: u64,
        file: &mut Option<Arc<File>>,
        io: impl Fn(io::Error) -> FetchError,
    ) -> Result<(u64, bool), FetchError> {
        let state = self.slot.state();
        if let Some(why) = &state.closed {
            return Err(FetchError::Uploaded { path: path.clone(), why: why.clone() });
        }
        let item = state.items.get(&path.hash());
        let item = item.ok_or_else(|| FetchError::Abandoned { path: path.clone() })?;
        if item.length > at && file.is_none() {
            *file = Some(Arc::new(item.open().map_err(io)?));
        }
        Ok((item.length, item.complete))
    }

    /// Forgets a nar that failed the checks.
    fn refuse(&self, path: &StorePath, error: FetchError) -> FetchError {
        if error.is_transient() && !matches!(error, FetchError::Truncated { .. }) {
            return error;
        }
        let resumed = {
            let mut state = self.slot.state();
            state.items.get_mut(&path.hash()).is_some_and(|item| {
                let resumed = item.resumed;
                item.forget();
                resumed
            })
        };
        self.slot.close(&format!("what came is refused: {error}"));
        match error {
            error if resumed => {
                tracing::warn!(
                    store.path = %path, error = &error as &dyn std::error::Error,
                    "the upload of {path} was gone on with and does not join, it begins anew"
                );
                FetchError::Truncated { path: path.clone(), received: 0, source: None }
            }
            // It was said to be whole.
            FetchError::Truncated { path, received, .. } => {
                FetchError::Uploaded { path, why: format!("it ends after {received} bytes") }
            }
            error => error,
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.inbox.close(&self.slot);
    }
}
