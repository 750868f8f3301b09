//! What an operator may choose of a publish server.

use std::{fmt, net::TcpListener, time::Duration};

use tokio_rustls::TlsAcceptor;

use super::{config::PublishConfig, listener::Listener, packer::Packing, publish_server::PublishServer};

/// What an operator may choose of the publish server of a process that knows the rest.
#[derive(Default)]
pub struct PublishOptions {
    /// Where else it listens, or, by the first that is a port, in place of the usual one.
    pub listeners: Vec<Listener>,
    /// Encrypts connections by TCP.
    pub tls: Option<TlsAcceptor>,
    /// How long clients may remember narinfos.
    pub ttl: Option<Duration>,
    /// How long clients may remember that something is not here; 0 where not at all.
    pub negative_ttl: Option<Duration>,
    /// How items of the store get into the cache.
    pub packing: Option<Packing>,
}

impl PublishOptions {
    /// Takes the first listener that is a port, to be used in place of the usual one.
    pub fn take_port(&mut self) -> Option<TcpListener> {
        let place = self.listeners.iter().position(|listener| matches!(listener, Listener::Tcp(_)))?;
        match self.listeners.remove(place) {
            Listener::Tcp(listener) => Some(listener),
            Listener::Unix(_) => None,
        }
    }

    /// Makes the server of `listener` and all others.
    pub fn server(self, listener: impl Into<Listener>, mut config: PublishConfig) -> PublishServer {
        config.tls = self.tls;
        config.ttl = self.ttl;
        if let Some(ttl) = self.negative_ttl {
            config.negative_ttl = ttl;
        }
        config.packing = self.packing;
        let server = PublishServer::new(listener, config);
        self.listeners.into_iter().fold(server, PublishServer::also_on)
    }
}

impl fmt::Debug for PublishOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishOptions")
            .field("listeners", &self.listeners)
            .field("tls", &self.tls.is_some())
            .field("ttl", &self.ttl)
            .field("negative_ttl", &self.negative_ttl)
            .field("packing", &self.packing)
            .finish()
    }
}
