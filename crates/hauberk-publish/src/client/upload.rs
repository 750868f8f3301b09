//! Putting results into the inbox of a server that cannot fetch them.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use hauberk_store::{StoreDirectory, StorePath, narinfo::Compression};
use reqwest::{Response, StatusCode, Url};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::{base_url::BaseUrl, config::ClientConfig, error::ClientError, substitutes::http_client};
use crate::{
    inbox::PIECE,
    server::{StoreError, StoreItem, StoreSource},
    signer::Signer,
    stream::{NarReader, packed},
};

/// Nars uploaded at once.
const PARALLEL: usize = 2;

/// How often the end of a piece is looked for where the server says that it is.
const MOST_TURNS: usize = 8;

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
    http: reqwest::Client,
    store_directory: StoreDirectory,
    store: StoreSource,
    signer: Signer,
    config: ClientConfig,
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
        Ok(Self { http: http_client(&config)?, store_directory, store, signer, config })
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
            let url = place(target, &name)?;
            if !self.offset(target, &url).await?.complete {
                self.put(target, &url, 0, text, true).await?;
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
        let url = place(target, &format!("{}.nar", path.hash()))?;
        for _ in 0..MOST_TURNS {
            let here = self.offset(target, &url).await?;
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
        let (item, first) = (Arc::clone(item), at);
        let reading = spawn_blocking(move || read_pieces(&item, first, &sender));
        while let Some(piece) = pieces.recv().await {
            let last = piece.len() < PIECE;
            let length = piece.len() as u64;
            if !self.put(target, url, at, piece, last).await? {
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

    async fn offset(&self, target: &UploadTarget, url: &Url) -> Result<Here, UploadError> {
        let request = self.http.head(url.clone()).bearer_auth(&target.token);
        let response = self.send(url, request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(Here::of(&response)),
            _ => Err(refused(url, response).await),
        }
    }

    /// Puts a piece. False when it does not join what the server has.
    async fn put(
        &self,
        target: &UploadTarget,
        url: &Url,
        at: u64,
        piece: Bytes,
        last: bool,
    ) -> Result<bool, UploadError> {
        let request = self
            .http
            .patch(url.clone())
            .bearer_auth(&target.token)
            .header("content-type", "application/partial-upload")
            .header("upload-offset", at)
            .header("upload-complete", if last { "?1" } else { "?0" })
            .body(piece);
        let response = self.send(url, request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            _ => Err(refused(url, response).await),
        }
    }

    async fn send(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<Response, UploadError> {
        // A piece is no longer than what must pass within this time anyway, sixteen times over.
        match timeout(self.config.stall_timeout * 4, request.send()).await {
            Ok(sent) => sent.map_err(|source| UploadError::Unreachable { url: url.to_string(), source }),
            Err(_) => Err(UploadError::Late { url: url.to_string() }),
        }
    }
}

/// What a server has of an upload.
struct Here {
    at: u64,
    complete: bool,
}

impl Here {
    fn of(response: &Response) -> Self {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            at: header("upload-offset").and_then(|value| value.parse().ok()).unwrap_or(0),
            complete: header("upload-complete") == Some("?1"),
        }
    }
}

fn place(target: &UploadTarget, name: &str) -> Result<Url, UploadError> {
    let name = format!("{}/{name}", target.place);
    target.base.join(&name).ok_or(UploadError::Place(name))
}

/// Longest text of a refusal that is told on, in characters.
const LONGEST_REASON: usize = 300;

async fn refused(url: &Url, mut response: Response) -> UploadError {
    let status = response.status().as_u16();
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&first).trim().chars().take(LONGEST_REASON).collect();
    UploadError::Refused { url: url.to_string(), status, text }
}

/// Reads the packed nar of an item from `first` on, in pieces of which only the last one is shorter.
fn read_pieces(item: &StoreItem, first: u64, sender: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let nar = NarReader::open(&item.file)?;
    let mut packed = packed(nar, item.nar_size())?;
    // What was packed before comes out the same.
    io::copy(&mut packed.by_ref().take(first), &mut io::sink())?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        packed.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        let last = piece.len() < PIECE;
        if sender.blocking_send(piece.into()).is_err() || last {
            return Ok(());
        }
    }
}
