//! Build logs, as publish servers give them.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};

use super::base_url::BaseUrl;
use super::error::{ClientError, FetchError};
use super::substitutes::install_tls;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a log may pause while it arrives.
const SILENCE: Duration = Duration::from_secs(60);

/// Asks publish servers for build logs.
#[derive(Debug, Clone)]
pub struct LogClient {
    http: reqwest::Client,
}

/// A part of the gzip file of a log, as far as it went when it was asked for.
#[derive(Debug)]
pub struct LogPart {
    /// Nothing, where nothing is new.
    response: Option<Response>,
    url: String,
}

impl LogClient {
    /// Makes a client.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub fn new() -> Result<Self, ClientError> {
        install_tls();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("hauberk/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
        };
        // Without any root certificate on the system only https fails, so that plain http still works.
        let http =
            builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(ClientError)?;
        Ok(Self { http })
    }

    /// Begins to read the gzip file of an attempt's log from a byte on, as far as it goes now; nothing where the server has none. The log need not
    /// be complete, and what was read before does not come again.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] or [`FetchError::Refused`].
    pub async fn attempt(
        &self,
        base: &BaseUrl,
        attempt: u64,
        from: u64,
    ) -> Result<Option<LogPart>, FetchError> {
        let name = format!("log/attempt/{attempt}");
        let url = base.join(&name).ok_or_else(|| FetchError::Refused { url: name, status: 400 })?;
        let text = url.to_string();
        let unreachable = |source| FetchError::Unreachable { url: text.clone(), source };
        let request =
            self.http.get(url).header(ACCEPT_ENCODING, "gzip").header(RANGE, format!("bytes={from}-"));
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, from) => {
                Ok(Some(LogPart { response: Some(response), url: text }))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(LogPart { response: None, url: text })),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(FetchError::Refused { url: text, status: status.as_u16() }),
        }
    }
}

/// Tells whether an answer is packed with gzip and begins with the byte that was asked for.
fn begins_at(response: &Response, from: u64) -> bool {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let range = header(CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
    header(CONTENT_ENCODING) == Some("gzip")
        && range.is_some_and(|range| range.starts_with(&format!("{from}-")))
}

impl LogPart {
    /// Gives the next piece; nothing at its end.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] when the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let chunk = response.chunk().await;
        chunk.map_err(|source| FetchError::Unreachable { url: self.url.clone(), source })
    }
}
