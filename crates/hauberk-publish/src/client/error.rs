//! What can go wrong with a substitute.

use std::{io, time::Duration};

use hauberk_store::{NarHash, Sha256, StorePath, StorePathHash, nar::NarError, narinfo::NarInfoError};

use crate::{cache::CacheError, stream::Unsupported};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client")]
pub struct ClientError(#[source] pub(super) reqwest::Error);

/// Why a substitute could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server could not be reached, or broke off before it answered.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// The server answered with another status than 200; for a nar, 404 is one.
    #[error("{url} answered with status {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// The narinfo did not arrive within the time for it.
    #[error("{url} did not arrive within {limit:?}")]
    Late {
        /// What was asked for.
        url: String,
        /// The time allowed.
        limit: Duration,
    },
    /// The answer is larger than a narinfo may be.
    #[error("{url} is larger than a narinfo may be")]
    NarInfoTooLarge {
        /// What was asked for.
        url: String,
    },
    /// The answer is no narinfo.
    #[error("malformed narinfo {url}")]
    NarInfo {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        source: NarInfoError,
    },
    /// The narinfo is of another path than was asked for.
    #[error("{base} gave the narinfo of {path} for {hash}")]
    OtherPath {
        /// The server.
        base: String,
        /// The hash part asked for.
        hash: StorePathHash,
        /// The path it is of.
        path: StorePath,
    },
    /// No valid signature of a trusted key.
    #[error("{path} is not signed by a trusted key")]
    BadSignature {
        /// The item.
        path: StorePath,
    },
    /// The narinfo names a place that does not lie on its server.
    #[error("the nar of {path} is not on the server that named it")]
    ForeignUrl {
        /// The item.
        path: StorePath,
    },
    /// The nar is compressed in no way known here.
    #[error("cannot unpack the nar of {path}")]
    Unsupported {
        /// The item.
        path: StorePath,
        /// What is not supported.
        source: Unsupported,
    },
    /// Too few bytes came for too long.
    #[error("the nar of {path} stalled after {received} bytes")]
    Stalled {
        /// The item.
        path: StorePath,
        /// Bytes that came.
        received: u64,
    },
    /// The connection broke off, or the file ended, before the nar was whole.
    #[error("the nar of {path} broke off after {received} bytes")]
    Truncated {
        /// The item.
        path: StorePath,
        /// Bytes that came.
        received: u64,
        /// Why, where it is known.
        source: Option<reqwest::Error>,
    },
    /// The bytes cannot be unpacked.
    #[error("the nar of {path} cannot be unpacked")]
    Corrupt {
        /// The item.
        path: StorePath,
        /// What is wrong.
        source: io::Error,
    },
    /// The bytes are no NAR.
    #[error("what was fetched for {path} is not a nar")]
    NotANar {
        /// The item.
        path: StorePath,
        /// What is wrong.
        source: NarError,
    },
    /// The nar, or the file that holds it, has another size.
    #[error("{what} of {path} has {found} bytes or more, not {expected}")]
    SizeMismatch {
        /// The item.
        path: StorePath,
        /// `nar` or `file`.
        what: &'static str,
        /// Bytes announced.
        expected: u64,
        /// Bytes found, at least.
        found: u64,
    },
    /// The nar has another hash.
    #[error("the nar of {path} has the hash {found}, not {expected}")]
    HashMismatch {
        /// The item.
        path: StorePath,
        /// The hash announced.
        expected: NarHash,
        /// The hash found.
        found: NarHash,
    },
    /// The file that holds the nar has another hash.
    #[error("the nar file of {path} has the hash {found}, not the one announced")]
    FileHashMismatch {
        /// The item.
        path: StorePath,
        /// The hash found.
        found: Sha256,
    },
    /// Our own cache could not take it.
    #[error("cannot store the nar of {path}")]
    Store {
        /// The item.
        path: StorePath,
        /// Why not.
        source: Box<CacheError>,
    },
    /// What was uploaded is not what was asked for.
    #[error("the upload of {path} is refused: {why}")]
    Uploaded {
        /// The item.
        path: StorePath,
        /// What is wrong with what came.
        why: String,
    },
    /// The system gives no random bytes.
    #[error("cannot make a nonce")]
    Random(#[source] getrandom::Error),
    /// Whoever wanted it went away, or the program ends.
    #[error("nobody waits for {path} any more")]
    Abandoned {
        /// The item.
        path: StorePath,
    },
}

impl FetchError {
    /// Tells whether the same request may succeed in a while.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Late { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Store { .. }
            | Self::Random(_)
            | Self::Abandoned { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::NarInfoTooLarge { .. }
            | Self::NarInfo { .. }
            | Self::OtherPath { .. }
            | Self::BadSignature { .. }
            | Self::ForeignUrl { .. }
            | Self::Unsupported { .. }
            | Self::Corrupt { .. }
            | Self::NotANar { .. }
            | Self::SizeMismatch { .. }
            | Self::HashMismatch { .. }
            | Self::Uploaded { .. }
            | Self::FileHashMismatch { .. } => false,
        }
    }

    /// Finds the error of a download in what reading it gave.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}
