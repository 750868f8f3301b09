//! The client itself.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use hauberk_store::{NarInfo, StoreDirectory, StorePath, StorePathHash, narinfo};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url, redirect};
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    base_url::BaseUrl,
    config::ClientConfig,
    download::NarDownload,
    error::{ClientError, FetchError},
    fetch,
    transfer::Transfer,
    unchecked::UncheckedNar,
    verify::{Expected, choose},
};
use crate::{
    cache::{Cache, Pending},
    nonce::Nonce,
    server::PEER_FIELD,
    signer::TrustedKeys,
};

/// Chunks of the network that wait to be unpacked.
const AHEAD: usize = 16;

/// How long a connection is kept for the next request: shorter than servers keep it, so that none is used that ends at
/// that moment.
const KEPT: Duration = Duration::from_secs(10);

/// Most redirects followed, where they are.
const MAX_REDIRECTS: usize = 5;

/// Asks substitute servers of one store. Clones share connections.
#[derive(Debug, Clone)]
pub struct SubstituteClient {
    http: reqwest::Client,
    store_directory: StoreDirectory,
    config: ClientConfig,
    fetches: Arc<Semaphore>,
}

/// Makes ring the TLS implementation, unless the program chose one already.
pub(super) fn install_tls() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only where another one is installed, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Makes what speaks HTTP.
pub(super) fn http_client(config: &ClientConfig) -> Result<reqwest::Client, ClientError> {
    install_tls();
    let builder = || {
        let redirects = match config.follow_redirects {
            true => redirect::Policy::limited(MAX_REDIRECTS),
            false => redirect::Policy::none(),
        };
        let builder = reqwest::Client::builder()
            .user_agent(concat!("hauberk/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .pool_idle_timeout(KEPT)
            .redirect(redirects)
            .tcp_nodelay(true);
        let builder = if config.as_peer { builder.default_headers(peer_header()) } else { builder };
        if config.use_proxies { builder } else { builder.no_proxy() }
    };
    // Without any root certificate on the system only https fails, so that plain http still works.
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(ClientError)
}

/// Tells servers that another of their farm asks.
fn peer_header() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(PEER_FIELD), HeaderValue::from_static("1"))])
}

impl SubstituteClient {
    /// Makes a client for items of `store_directory`.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub fn new(store_directory: StoreDirectory, config: ClientConfig) -> Result<Self, ClientError> {
        let http = http_client(&config)?;
        let fetches = Arc::new(Semaphore::new(config.parallel_fetches.max(1)));
        Ok(Self { http, store_directory, config, fetches })
    }

    /// Gives the store whose items it asks for.
    pub fn store_directory(&self) -> &StoreDirectory {
        &self.store_directory
    }

    /// Asks for the narinfo with this hash part; nothing where the server does not have it. Signatures are not looked
    /// at.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses, and an answer that is no narinfo or of another path.
    pub async fn narinfo(&self, base: &BaseUrl, hash: &StorePathHash) -> Result<Option<NarInfo>, FetchError> {
        let name = format!("{hash}.narinfo");
        let url = base.join(&name).ok_or_else(|| refused(base, &name))?;
        let text = self.bounded_file(&url).await?;
        let Some(text) = text else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let narinfo = NarInfo::parse(&self.store_directory, &text)
            .map_err(|source| FetchError::NarInfo { url: url.into(), source })?;
        if narinfo.store_path.hash() == *hash {
            Ok(Some(narinfo))
        } else {
            Err(FetchError::OtherPath { base: base.to_string(), hash: *hash, path: narinfo.store_path })
        }
    }

    /// Asks a publish server of a farm to prove that it holds one of `trusted`: that this address leads to whom it is said
    /// to belong to.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses. One that proves nothing is no error.
    pub async fn proves_identity(&self, base: &BaseUrl, trusted: &TrustedKeys) -> Result<bool, FetchError> {
        let nonce = Nonce::random().map_err(FetchError::Random)?;
        let name = format!("identity/{nonce}");
        let url = base.join(&name).ok_or_else(|| refused(base, &name))?;
        let lines = self.bounded_file(&url).await?;
        Ok(lines.is_some_and(|lines| trusted.signed_nonce(&nonce, &String::from_utf8_lossy(&lines))))
    }

    /// Asks for the narinfo of just this path, signed by one of `trusted`.
    ///
    /// # Errors
    /// As [`Self::narinfo`], and [`FetchError::BadSignature`].
    pub async fn trusted_narinfo(
        &self,
        base: &BaseUrl,
        path: &StorePath,
        trusted: &TrustedKeys,
    ) -> Result<Option<NarInfo>, FetchError> {
        let Some(narinfo) = self.narinfo(base, &path.hash()).await? else { return Ok(None) };
        if narinfo.store_path != *path {
            let (base, hash) = (base.to_string(), path.hash());
            return Err(FetchError::OtherPath { base, hash, path: narinfo.store_path });
        }
        if !trusted.vouch_for(&narinfo) {
            return Err(FetchError::BadSignature { path: path.clone() });
        }
        Ok(Some(narinfo))
    }

    /// Begins to download the nar that `narinfo` names on the server that gave it. The caller has judged the
    /// narinfo's signatures, or whoever gets the bytes will.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses, a place that is not on it, an unknown compression. What is wrong
    /// with the bytes is found while they are read.
    pub async fn nar(&self, base: &BaseUrl, narinfo: &NarInfo) -> Result<NarDownload, FetchError> {
        let (expected, response) = self.request_nar(base, narinfo).await?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let transfer = self.transfer(&expected.path, response);
        let pump = tokio::spawn(async move { transfer.pump(&sender).await });
        Ok(NarDownload::start(expected, chunks, pump.abort_handle()))
    }

    /// Downloads the item that `narinfo` tells of into `cache`, where it waits for
    /// [`Cache::commit`](crate::Cache::commit). One of `trusted` must have signed the narinfo, and the nar must be
    /// what it says. Bytes that come compressed are kept as they are, others are packed with zstd. Of the signatures
    /// those of `trusted` are kept.
    ///
    /// # Errors
    /// All that [`FetchError`] tells.
    pub async fn fetch(
        &self,
        base: &BaseUrl,
        narinfo: &NarInfo,
        trusted: &TrustedKeys,
        cache: &Cache,
    ) -> Result<Pending, FetchError> {
        let path = &narinfo.store_path;
        if !trusted.vouch_for(narinfo) {
            return Err(FetchError::BadSignature { path: path.clone() });
        }
        let permit = self.fetches.acquire().await;
        let _permit = permit.map_err(|_| FetchError::Abandoned { path: path.clone() })?;
        let (expected, response) = self.request_nar(base, narinfo).await?;
        let file = cache
            .begin()
            .map_err(|source| FetchError::Store { path: path.clone(), source: Box::new(source) })?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let transfer = self.transfer(&expected.path, response);
        let kept = trusted.kept(narinfo);
        let storing = spawn_blocking(move || fetch::store(&expected, kept, chunks, file));
        transfer.pump(&sender).await;
        drop(sender);
        storing.await.unwrap_or_else(|_| Err(FetchError::Abandoned { path: path.clone() }))
    }

    /// Begins to download what has this name on a server, which is to be the nar of `path`, for somebody who checks it.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses, a name that may mean something elsewhere.
    pub async fn unchecked_nar(
        &self,
        base: &BaseUrl,
        path: &StorePath,
        name: &str,
    ) -> Result<UncheckedNar, FetchError> {
        let response = self.request_file(base, path, name).await?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let transfer = self.transfer(path, response);
        let pump = tokio::spawn(async move { transfer.pump(&sender).await });
        Ok(UncheckedNar::new(chunks, pump.abort_handle()))
    }

    fn transfer(&self, path: &StorePath, response: Response) -> Transfer {
        Transfer::new(self.http.clone(), path.clone(), response, self.config)
    }

    /// Gives a file of at most a narinfo's size, within the time for one.
    async fn bounded_file(&self, url: &Url) -> Result<Option<Vec<u8>>, FetchError> {
        let limit = self.config.narinfo_timeout;
        let late = |_| FetchError::Late { url: url.to_string(), limit };
        timeout(limit, self.small_file(url)).await.map_err(late)?
    }

    async fn small_file(&self, url: &Url) -> Result<Option<Vec<u8>>, FetchError> {
        let unreachable = |source| FetchError::Unreachable { url: url.to_string(), source };
        let mut response = self.http.get(url.clone()).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(FetchError::Refused { url: url.to_string(), status: status.as_u16() }),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > narinfo::MAX_SIZE {
                return Err(FetchError::NarInfoTooLarge { url: url.to_string() });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    async fn request_nar(
        &self,
        base: &BaseUrl,
        narinfo: &NarInfo,
    ) -> Result<(Expected, Response), FetchError> {
        let place = choose(narinfo)?;
        let response = self.request_file(base, &narinfo.store_path, &place.url).await?;
        Ok((Expected::of(narinfo)?, response))
    }

    async fn request_file(
        &self,
        base: &BaseUrl,
        path: &StorePath,
        name: &str,
    ) -> Result<Response, FetchError> {
        let url = base.join(name).ok_or_else(|| FetchError::ForeignUrl { path: path.clone() })?;
        let limit = self.config.stall_timeout;
        let response = match timeout(limit, self.http.get(url.clone()).send()).await {
            Ok(sent) => sent.map_err(|source| FetchError::Unreachable { url: url.to_string(), source })?,
            Err(_) => return Err(FetchError::Late { url: url.into(), limit }),
        };
        if response.status() != StatusCode::OK {
            return Err(FetchError::Refused { url: url.into(), status: response.status().as_u16() });
        }
        Ok(response)
    }
}

/// Says that a base and a name give no URL, which names made here always do.
fn refused(base: &BaseUrl, name: &str) -> FetchError {
    FetchError::Refused { url: format!("{base}/{name}"), status: 400 }
}
