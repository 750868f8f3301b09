//! NAR: the archive format whose bytes depend on nothing but names, contents, executable bits and link targets.
//!
//! [`Decoder`] turns bytes into [`Event`]s as they arrive and checks every rule of the format; [`Encoder`] turns events
//! into bytes. The rest stands on these two: [`write_path`] and [`Restorer`] meet the file system, [`Verifier`]
//! computes hash and size, [`Listing`] says what is inside.

mod asynchronous;
mod decoder;
mod encoder;
mod event;
mod hashing;
mod listing;
mod node;
mod restore;
#[cfg(test)]
mod tests;
mod write;

pub use asynchronous::{AsyncNarError, copy_verified, list_async, restore_async};
pub use decoder::{Decoder, Limits, NarError};
pub use encoder::{EncodeError, Encoder};
pub use event::Event;
pub use hashing::{HashingWriter, NarSummary, Verifier};
pub use listing::{Listing, ListingBuilder, ListingEntry};
pub use node::Node;
pub use restore::{RestoreError, Restorer, restore};
pub use write::{WriteError, write_path, write_path_with};

/// The first string of every NAR.
const MAGIC: &[u8] = b"nix-archive-1";

/// Longest name of a directory entry, in bytes, as Linux has it.
pub const MAX_NAME_LENGTH: usize = 255;

/// Longest target of a symbolic link, in bytes, as Linux has it.
pub const MAX_TARGET_LENGTH: usize = 4095;

/// Gives the zero bytes that follow a string of `length` bytes.
const fn padding(length: u64) -> usize {
    (8 - (length % 8) as usize) % 8
}

/// Tells whether `name` may stand in a directory.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME_LENGTH
        && memchr::memchr2(b'/', 0, name).is_none()
}

/// Tells whether `target` may be that of a symbolic link.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= MAX_TARGET_LENGTH && !target.contains(&0)
}
