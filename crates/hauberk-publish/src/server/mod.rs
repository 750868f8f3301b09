//! The HTTP server of substitutes.

mod activity;
mod body;
mod cached_narinfos;
mod config;
mod connection;
mod date;
mod failure;
mod handler;
mod json;
mod listener;
mod log_source;
mod metrics;
mod metrics_source;
mod options;
mod packer;
mod places;
mod publish_server;
mod pump;
mod range;
mod reply;
mod request;
mod route;
mod socket;
mod status;
mod store_source;
mod tls;

pub use config::{Limits, PublishConfig};
pub use listener::Listener;
pub use log_source::{LogBody, LogSource};
pub use metrics_source::MetricsSource;
pub use options::PublishOptions;
pub use packer::{Meanwhile, Packing};
pub use publish_server::{PublishServer, Running, ServeError};
pub use store_source::{PathInfos, StoreError, StoreSource};
pub use tls::{TlsError, tls_acceptor};
