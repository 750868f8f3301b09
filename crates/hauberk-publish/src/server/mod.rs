//! The HTTP server of substitutes.

mod activity;
mod body;
mod config;
mod connections;
mod failure;
mod handler;
mod json;
mod log_source;
mod metrics;
mod places;
mod range;
mod reply;
mod route;
mod store_source;

pub use config::{Limits, PublishConfig};
pub use connections::{PublishServer, Running, ServeError};
pub use log_source::{LogBody, LogSource};
pub use store_source::{PathInfos, StoreError, StoreSource};
