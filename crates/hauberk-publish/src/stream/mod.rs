//! Bytes on their way: nars made from the file system, decoders, encoders, buffers.

mod buffer;
mod decode;
mod listing;
mod nar_reader;
mod packed;

pub(crate) use buffer::{Buffer, BufferPool};
pub use decode::Unsupported;
pub(crate) use decode::decoder;
pub use listing::list;
pub(crate) use listing::list_nar;
pub use nar_reader::NarReader;
pub(crate) use packed::Packed;
