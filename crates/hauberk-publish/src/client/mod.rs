//! The substitute client: narinfos, nars that are verified while they arrive, and build logs.

mod base_url;
mod closure;
mod config;
mod download;
mod error;
mod fetch;
mod input;
mod keep;
mod local;
mod logs;
mod pieces;
mod push;
mod substitutes;
mod transfer;
mod unchecked;
mod upload;
mod verify;

pub use base_url::{BaseUrl, BaseUrlError};
pub(crate) use closure::{Answer, walk};
pub use closure::{AskError, Closure, ClosureError, ClosureLimits, MissingPath, Source, ValidPaths};
pub use config::ClientConfig;
pub use download::NarDownload;
pub use error::{ClientError, FetchError};
pub(crate) use fetch::store as store_nar;
pub use logs::{LogClient, LogPart};
pub use push::{Pusher, Sent};
pub use substitutes::SubstituteClient;
pub use unchecked::UncheckedNar;
pub use upload::{UploadError, UploadTarget, Uploader};
pub(crate) use verify::Expected;
