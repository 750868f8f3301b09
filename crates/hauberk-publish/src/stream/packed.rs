//! Nars packed with zstd while they are read.

use std::io::{self, BufReader, Read};

use hauberk_store::NarHash;
use zstd::{stream::read::Encoder, zstd_safe};

/// Level of zstd for what is packed on its way: small enough, and as fast as most networks.
const LEVEL: i32 = 3;

/// Packs `nar`, which has `size` bytes where that is known. The same nar comes out the same, as long as [`packed_tag`] gives the same.
///
/// # Errors
/// No memory for it.
pub(crate) fn packed<R: Read>(nar: R, size: Option<u64>) -> io::Result<Encoder<'static, BufReader<R>>> {
    let mut encoder = Encoder::new(nar, LEVEL)?;
    // What is small needs small tables, and whoever unpacks it a small window.
    encoder.set_pledged_src_size(size)?;
    Ok(encoder)
}

/// Names the bytes that [`packed`] makes of the nar with this hash: where the name is the same, what was cut can be gone on with.
pub(crate) fn packed_tag(nar_hash: &NarHash) -> String {
    format!("{}.zst-{LEVEL}-{}", nar_hash.to_base32(), zstd_safe::version_number())
}
