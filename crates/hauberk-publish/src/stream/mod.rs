//! Bytes on their way: nars made from the file system, decoders, response bodies, connections that must move.

mod buffer;
mod decode;
mod listing;
mod nar_reader;
mod read_body;
mod timed;

pub(crate) use buffer::BufferPool;
pub use decode::Unsupported;
pub(crate) use decode::decoder;
pub use listing::list;
pub use nar_reader::NarReader;
pub(crate) use read_body::ReadBody;
pub(crate) use timed::TimedStream;
