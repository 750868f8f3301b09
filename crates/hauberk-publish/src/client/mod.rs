//! The substitute client: narinfos, nars that are verified while they arrive, and build logs.

mod base_url;
mod closure;
mod config;
mod download;
mod error;
mod fetch;
mod input;
mod logs;
mod substitutes;
mod verify;

pub use base_url::{BaseUrl, BaseUrlError};
pub use closure::{AskError, Closure, ClosureError, ClosureLimits, MissingPath, Source, ValidPaths};
pub use config::ClientConfig;
pub use download::NarDownload;
pub use error::{ClientError, FetchError};
pub use logs::{LogClient, LogPart};
pub use substitutes::SubstituteClient;
