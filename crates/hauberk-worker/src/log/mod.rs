//! Logs of attempts: compressed as they are written, kept until the server has them, sent on a port of their own.

mod attempt_log;
mod chunk;
mod courier;
mod index;
mod store;
mod transfer;

pub use attempt_log::AttemptLog;
#[cfg(test)]
pub(crate) use attempt_log::Piece;
pub(crate) use attempt_log::Wake;
#[cfg(test)]
pub(crate) use chunk::CHUNK_TEXT;
pub(crate) use courier::Courier;
pub(crate) use store::{ChunkStore, DiskStore, MemoryStore, remove_if_there};
