//! Build logs, as publish servers give them.

use std::time::Duration;

use bytes::Bytes;
use hauberk_store::StorePath;
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

/// The text of a log, as far as it went when it was asked for.
#[derive(Debug)]
pub struct LogText {
    response: Response,
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

    /// Begins to read the newest log of a derivation or output; nothing where the server has none.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] or [`FetchError::Refused`].
    pub async fn log(&self, base: &BaseUrl, item: &StorePath) -> Result<Option<LogText>, FetchError> {
        let name = format!("log/{}", item.base_name());
        let url = base.join(&name).ok_or_else(|| FetchError::Refused { url: name, status: 400 })?;
        let text = url.to_string();
        let unreachable = |source| FetchError::Unreachable { url: text.clone(), source };
        let response = self.http.get(url).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => Ok(Some(LogText { response, url: text })),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(FetchError::Refused { url: text, status: status.as_u16() }),
        }
    }
}

impl LogText {
    /// Gives the next piece of text; nothing at its end.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] when the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|source| FetchError::Unreachable { url: self.url.clone(), source })
    }
}
