//! What the fuzzers share: a daemon that says what it is given, and every operation there is.

#[path = "../../tests/peer/operations.rs"]
mod operations;
mod peer;
mod record;
mod replies;

pub use peer::{Peer, run};
pub use record::Record;
pub use replies::replies;

/// Frames of the protocol that the targets lay out themselves.
pub const NEXT: u64 = 0x6f6c_6d67;
/// Ends what is said before a result.
pub const LAST: u64 = 0x616c_7473;
/// What a daemon answers to a client.
pub const MAGIC: u64 = 0x6478_696f;

/// Lays out numbers.
pub fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Lays out a string.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = numbers(&[bytes.len() as u64]);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// Gives what a daemon of that version says when it is greeted.
pub fn greeting(version: u64) -> Vec<u8> {
    let mut said = numbers(&[MAGIC, version]);
    if version >= 0x160 {
        said.extend(numbers(&[LAST]));
        return said;
    }
    if version >= 0x126 {
        said.extend(numbers(&[0]));
    }
    said.extend(string(b"2.8.0"));
    if version >= 0x123 {
        said.extend(numbers(&[1]));
    }
    said.extend(numbers(&[LAST]));
    said
}
