//! Why a request has no good answer.

use std::{error::Error, io, time::Duration};

use tracing::error;

use super::{reply, reply::Reply, status::Status, store_source::StoreError};
use crate::cache::CacheError;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked for is not here.
    #[error("{0}")]
    NotFound(&'static str),
    /// What was asked for will be here soon.
    #[error("this is being packed")]
    NotYet(Duration),
    /// What was asked for comes from another server of the farm.
    #[error("this is on its way from another server")]
    Coming(Duration),
    /// The store cannot be asked.
    #[error("cannot look a path up in the store")]
    Store(#[from] StoreError),
    /// The cache cannot be read.
    #[error("cannot look a path up in the cache")]
    Cache(#[source] Box<CacheError>),
    /// A log cannot be found.
    #[error("cannot look for a log")]
    Log(#[source] io::Error),
    /// What was asked for is here and cannot be read.
    #[error("cannot open what was asked for")]
    Open(#[source] io::Error),
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Cache(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound("nothing is here under this name"),
            _ => Self::Open(error),
        }
    }
}

impl Failure {
    /// Logs what an operator should know and gives what the client may.
    pub(super) fn into_reply(self, path: &str, negative_ttl: Duration) -> Reply {
        let status = match &self {
            Self::NotFound(text) => return reply::not_found(negative_ttl, *text),
            Self::NotYet(ttl) => return reply::not_found(*ttl, "this is being packed; ask again"),
            Self::Coming(wait) => {
                return reply::come_back(*wait, "this is on its way from another server; ask again");
            }
            Self::Store(_) | Self::Log(_) => Status::Unavailable,
            Self::Cache(_) | Self::Open(_) => Status::InternalError,
        };
        error!(error = &self as &dyn Error, http.path = path, "cannot answer a substitute client");
        reply::refusal(status, "this cannot be had now; the server's log says why")
    }
}
