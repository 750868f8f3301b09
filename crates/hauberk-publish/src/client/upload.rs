//! Putting results into the inbox of a server that cannot fetch them.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use hauberk_store::{StoreDirectory, StorePath, narinfo::Compression};
use reqwest::Url;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    base_url::BaseUrl,
    config::ClientConfig,
    error::ClientError,
    pieces::{MOST_TURNS, PieceSender, read_pieces},
};
use crate::{
    inbox::PIECE,
    server::{StoreError, StoreItem, StoreSource},
    signer::Signer,
    stream::{NarReader, Packed},
};

/// Nars uploaded at once.
const PARALLEL: usize = 2;

/// Where an upload goes.
#[derive(Clone)]
pub struct UploadTarget {
    /// The publish server.
    pub base: BaseUrl,
    /// The place below it.
    pub place: String,
    /// What shows that it may.
    pub token: String,
}

impl UploadTarget {
    /// Gives the URL of something there.
    pub(super) fn place(&self, name: &str) -> Result<Url, UploadError> {
        let name = format!("{}/{name}", self.place);
        self.base.join(&name).ok_or(UploadError::Place(name))
    }
}

impl std::fmt::Debug for UploadTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.place)
    }
}

/// Why something was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The server could not be reached, or broke off.
    #[error("cannot upload to {url}")]
    Unreachable {
        /// What was to be put.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// The server did not answer in time.
    #[error("{url} does not answer")]
    Late {
        /// What was to be put.
        url: String,
    },
    /// The server does not take it.
    #[error("{url} answered with status {status}: {text}")]
    Refused {
        /// What was to be put.
        url: String,
        /// The status.
        status: u16,
        /// What it says.
        text: String,
    },
    /// The place cannot be made a URL.
    #[error("`{0}` is not a place below a publish server")]
    Place(String),
    /// The local store cannot be asked.
    #[error("cannot look up what is to be uploaded")]
    Store(#[source] StoreError),
    /// The local store cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The item.
        path: StorePath,
        /// Why not.
        source: io::Error,
    },
}

impl UploadError {
    /// Tells whether the same upload may be gone on with in a while.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::Store(_) => true,
            // One that another request overtook finds out where to go on.
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..=599),
            Self::Place(_) | Self::Read { .. } => false,
        }
    }
}

/// Uploads items of a local store, signed. What a server has already it does not get again. Clones share connections.
#[derive(Clone)]
pub struct Uploader {
    pieces: PieceSender,
    store_directory: StoreDirectory,
    store: StoreSource,
    signer: Signer,
    packed: Packed,
}

impl Uploader {
    /// Uploads items of `store`, which is at `store_directory`, signed by `signer`.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub fn new(
        store_directory: StoreDirectory,
        store: StoreSource,
        signer: Signer,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let (pieces, packed) = (PieceSender::new(config)?, Packed::by(1));
        Ok(Self { pieces, store_directory, store, signer, packed })
    }

    /// Uploads `paths`: what they are first, then their nars, going on where an earlier upload was cut.
    ///
    /// # Errors
    /// [`UploadError`]; what was taken until then stays.
    pub async fn upload(&self, target: &UploadTarget, paths: &[StorePath]) -> Result<(), UploadError> {
        let mut nars: Vec<BoxFuture<'_, Result<(), UploadError>>> = Vec::new();
        for path in paths {
            let found = self.store.find(&self.store_directory, &path.hash()).await;
            let item = found.map_err(UploadError::Store)?.filter(|item| item.is(path));
            let name = format!("{}.narinfo", path.hash());
            let text: Bytes = match &item {
                Some(item) => item.packed_narinfo(&self.signer, &Compression::Zstd).to_string().into(),
                // That it is not here any more.
                None => Bytes::new(),
            };
            let url = target.place(&name)?;
            if !self.pieces.offset(target, &url).await?.complete {
                self.pieces.put(target, &url, 0, text, true).await?;
            }
            if let Some(item) = item {
                nars.push(Box::pin(self.nar(target, path, item)));
            }
        }
        stream::iter(nars).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn nar(
        &self,
        target: &UploadTarget,
        path: &StorePath,
        item: Arc<StoreItem>,
    ) -> Result<(), UploadError> {
        let url = target.place(&format!("{}.nar", path.hash()))?;
        for _ in 0..MOST_TURNS {
            let here = self.pieces.offset(target, &url).await?;
            if here.complete || self.rest(target, &url, path, &item, here.at).await? {
                return Ok(());
            }
        }
        Err(UploadError::Late { url: url.into() })
    }

    /// Sends the packed nar from `at` on. False when the server has another idea of what it has.
    async fn rest(
        &self,
        target: &UploadTarget,
        url: &Url,
        path: &StorePath,
        item: &Arc<StoreItem>,
        mut at: u64,
    ) -> Result<bool, UploadError> {
        let (sender, mut pieces) = mpsc::channel(1);
        let (packed, item, first) = (self.packed.clone(), Arc::clone(item), at);
        let reading = spawn_blocking(move || read_nar(&packed, &item, first, &sender));
        while let Some(piece) = pieces.recv().await {
            let last = piece.len() < PIECE;
            let length = piece.len() as u64;
            if !self.pieces.put(target, url, at, piece, last).await? {
                return Ok(false);
            }
            at += length;
            if last {
                return Ok(true);
            }
        }
        let read = reading.await.map_err(io::Error::other).flatten();
        read.map_err(|source| UploadError::Read { path: path.clone(), source })?;
        Ok(false)
    }
}

/// Reads the packed nar of an item from `first` on.
fn read_nar(packed: &Packed, item: &StoreItem, first: u64, sender: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let nar = NarReader::open(&item.file)?;
    read_pieces(packed.pack(nar, item.nar_size())?, first, sender)
}
