//! The bytes of a nar on their way, gone on with when they are cut.

use std::time::Duration;

use bytes::Bytes;
use hauberk_store::StorePath;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, RANGE},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{config::ClientConfig, error::FetchError};

/// How often a download is gone on with without anything to speak of in between.
const RESUMES: u32 = 3;

/// The pause before that, multiplied by four each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The last byte that is asked for where nobody knows the length: far beyond any (RFC 8673).
const ALL_THAT_COMES: u64 = (1 << 53) - 1;

/// A download under way.
pub(super) struct Transfer {
    http: reqwest::Client,
    path: StorePath,
    response: Response,
    config: ClientConfig,
    /// Names just this content; nothing where it cannot be gone on with.
    tag: Option<HeaderValue>,
    /// Whether its length was told.
    measured: bool,
    received: u64,
    /// How often it may still be gone on with.
    resumes: u32,
}

impl Transfer {
    /// Takes what a server has begun to send.
    pub(super) fn new(
        http: reqwest::Client,
        path: StorePath,
        response: Response,
        config: ClientConfig,
    ) -> Self {
        let header = |name| response.headers().get(name);
        let measured = header(CONTENT_LENGTH).is_some();
        // Of what has no length, stock clients could not ask for a rest, so that it is not offered to them.
        let ranges = !measured || header(ACCEPT_RANGES).is_some_and(|value| value == "bytes");
        // A weak tag does not tell one sequence of bytes from another.
        let tag = header(ETAG).filter(|tag| ranges && !tag.as_bytes().starts_with(b"W/")).cloned();
        Self { http, path, response, config, tag, measured, received: 0, resumes: RESUMES }
    }

    /// Sends the content into `sender`, until its end, an error that does not pass, or nobody wants more.
    pub(super) async fn pump(mut self, sender: &mpsc::Sender<Result<Bytes, FetchError>>) {
        let (mut arrived, mut waited) = (0_u64, Duration::ZERO);
        loop {
            let left = self.config.stall_timeout.saturating_sub(waited);
            let started = Instant::now();
            let item = match timeout(left, self.response.chunk()).await {
                Ok(Ok(None)) => return,
                Ok(Ok(Some(chunk))) => {
                    self.received += chunk.len() as u64;
                    arrived += chunk.len() as u64;
                    waited += started.elapsed();
                    if arrived >= self.config.stall_bytes {
                        (arrived, waited) = (0, Duration::ZERO);
                        self.resumes = RESUMES;
                    }
                    Ok(chunk)
                }
                Ok(Err(source)) => {
                    let path = self.path.clone();
                    Err(FetchError::Truncated { path, received: self.received, source: Some(source) })
                }
                Err(_) => Err(FetchError::Stalled { path: self.path.clone(), received: self.received }),
            };
            if let Err(error) = &item
                && !sender.is_closed()
                && self.resume(error).await
            {
                (arrived, waited) = (0, Duration::ZERO);
                continue;
            }
            let ended = item.is_err();
            if sender.send(item).await.is_err() || ended {
                return;
            }
        }
    }

    /// Asks for the rest of what was cut. False when it is not to be had.
    async fn resume(&mut self, error: &FetchError) -> bool {
        let Some(tag) = self.tag.clone() else { return false };
        let url = self.response.url().clone();
        while self.resumes > 0 {
            sleep(FIRST_PAUSE * 4_u32.pow(RESUMES - self.resumes)).await;
            self.resumes -= 1;
            match self.rest(&url, &tag).await {
                Some(response) => {
                    debug!(
                        store.path = %self.path, error = error as &dyn std::error::Error,
                        "the nar of {} was cut, and is gone on with after {} bytes", self.path, self.received
                    );
                    self.response = response;
                    return true;
                }
                None => continue,
            }
        }
        false
    }

    async fn rest(&self, url: &Url, tag: &HeaderValue) -> Option<Response> {
        let range = match self.measured {
            true => format!("bytes={}-", self.received),
            false => format!("bytes={}-{ALL_THAT_COMES}", self.received),
        };
        let request = self.http.get(url.clone()).header(RANGE, range).header(IF_RANGE, tag.clone());
        let response = timeout(self.config.stall_timeout, request.send()).await.ok()?.ok()?;
        let joins = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let joins = joins.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.received)));
        (response.status() == StatusCode::PARTIAL_CONTENT && joins).then_some(response)
    }
}
