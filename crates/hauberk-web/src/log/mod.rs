//! Logs of attempts: gzip files that a server writes and that may still grow.

mod decoder;
pub(crate) mod follow;
mod reader;
mod render;
mod source;
pub(crate) mod tail;
pub(crate) mod text;

pub use decoder::DecodeError;
pub use reader::{LogReader, Step};
pub(crate) use render::Renderer;
pub use source::{LogDirectory, LogError};
