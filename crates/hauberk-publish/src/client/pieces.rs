//! Sending what is large in pieces that join.

use std::{
    io::{self, Read},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::{sync::mpsc, time::timeout};

use super::{
    config::ClientConfig,
    error::ClientError,
    substitutes::http_client,
    upload::{UploadError, UploadTarget},
};
use crate::inbox::PIECE;

/// How often the end of a piece is looked for where the server says that it is.
pub(super) const MOST_TURNS: usize = 8;

/// Longest text of a refusal that is told on, in characters.
const LONGEST_REASON: usize = 300;

/// Sends pieces. Clones share connections.
#[derive(Clone)]
pub(super) struct PieceSender {
    http: reqwest::Client,
    /// Time for a piece and its answer.
    patience: Duration,
}

impl PieceSender {
    /// Sends as `config` says.
    pub(super) fn new(config: ClientConfig) -> Result<Self, ClientError> {
        // A piece is no longer than what must pass within this time anyway, sixteen times over.
        Ok(Self { http: http_client(&config)?, patience: config.stall_timeout * 4 })
    }

    /// Does as this one, but waits so long for each answer.
    pub(super) fn with_patience(&self, patience: Duration) -> Self {
        Self { http: self.http.clone(), patience }
    }

    /// Asks how much the server has of something.
    pub(super) async fn offset(&self, target: &UploadTarget, url: &Url) -> Result<Here, UploadError> {
        let request = self.http.head(url.clone()).bearer_auth(&target.token);
        let response = self.send(url, request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(Here::of(&response)),
            _ => Err(refused(url, response).await),
        }
    }

    /// Puts a piece. False when it does not join what the server has.
    pub(super) async fn put(
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

    /// Asks something that the content tells; the answer may have so many bytes.
    pub(super) async fn ask(
        &self,
        target: &UploadTarget,
        url: &Url,
        content: String,
        limit: usize,
    ) -> Result<Vec<u8>, UploadError> {
        let request = self.http.post(url.clone()).bearer_auth(&target.token).body(content);
        let mut response = self.send(url, request).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(url, response).await);
        }
        let mut answer = Vec::new();
        loop {
            let chunk = timeout(self.patience, response.chunk()).await;
            let chunk = chunk.map_err(|_| UploadError::Late { url: url.to_string() })?;
            let chunk = chunk.map_err(|source| UploadError::Unreachable { url: url.to_string(), source })?;
            let Some(chunk) = chunk else { return Ok(answer) };
            if answer.len() + chunk.len() > limit {
                let text = "its answer is too long".to_owned();
                return Err(UploadError::Refused { url: url.to_string(), status: 200, text });
            }
            answer.extend_from_slice(&chunk);
        }
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, UploadError> {
        match timeout(self.patience, request.send()).await {
            Ok(sent) => sent.map_err(|source| UploadError::Unreachable { url: url.to_string(), source }),
            Err(_) => Err(UploadError::Late { url: url.to_string() }),
        }
    }
}

/// What a server has of an upload.
pub(super) struct Here {
    /// Bytes.
    pub(super) at: u64,
    /// Whether that is all.
    pub(super) complete: bool,
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

async fn refused(url: &Url, mut response: Response) -> UploadError {
    let status = response.status().as_u16();
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&first).trim().chars().take(LONGEST_REASON).collect();
    UploadError::Refused { url: url.to_string(), status, text }
}

/// Gives what `packed` reads, from `first` on, in pieces of which only the last one is shorter. What came before comes out the same as it did.
pub(super) fn read_pieces(mut packed: impl Read, first: u64, sender: &mpsc::Sender<Bytes>) -> io::Result<()> {
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
