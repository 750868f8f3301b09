//! Nars packed with zstd while they are read.

use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use hauberk_store::NarHash;
use zstd::{
    stream::read::Encoder,
    zstd_safe::{self, CParameter},
};

/// Level of zstd for what is packed on its way: small enough, and as fast as most networks.
const LEVEL: i32 = 3;

/// Bytes of a nar that threads are worth.
const WORTH: u64 = 16 << 20;

/// Bytes that a thread packs at a time: it holds about three times as many.
const JOB: u32 = 2 << 20;

/// Nars that are packed by more than one thread at once; of those beyond, each has one, so that memory stays bounded.
const MOST_AT_ONCE: usize = 4;

/// How nars are packed. Clones share the threads.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// Whether large nars are cut into pieces that threads can pack side by side. What comes out depends on that, and not on how many there are.
    divided: bool,
    threads: u32,
    /// Nars that more than one thread packs now.
    at_once: Arc<AtomicUsize>,
}

impl Packed {
    /// Packs a large nar by so many threads, but no more than the machine has processors; or by the one that reads it, where that is 1.
    pub(crate) fn by(threads: u32) -> Self {
        let processors = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
        Self { divided: threads > 1, threads: threads.min(processors), at_once: Arc::default() }
    }

    fn is_divided(&self, size: Option<u64>) -> bool {
        self.divided && size.is_some_and(|size| size >= WORTH)
    }

    /// Packs `nar`, which has `size` bytes where that is known. The same nar comes out the same, as long as [`Self::tag`] gives the same.
    ///
    /// # Errors
    /// No memory or thread for it.
    pub(crate) fn pack<R: Read>(&self, nar: R, size: Option<u64>) -> io::Result<PackedNar<R>> {
        let mut encoder = Encoder::new(nar, LEVEL)?;
        // What is small needs small tables, and whoever unpacks it a small window.
        encoder.set_pledged_src_size(size)?;
        let mut place = None;
        if self.is_divided(size) {
            let taken = Place::take(&self.at_once);
            encoder.set_parameter(CParameter::NbWorkers(if taken.is_some() { self.threads } else { 1 }))?;
            encoder.set_parameter(CParameter::JobSize(JOB))?;
            place = taken;
        }
        Ok(PackedNar { encoder, _place: place })
    }

    /// Names the bytes that [`Self::pack`] makes of the nar with this hash: where the name is the same, what was cut can be gone on with.
    pub(crate) fn tag(&self, nar_hash: &NarHash, size: Option<u64>) -> String {
        let how = if self.is_divided(size) { "j" } else { "" };
        format!("{}.zst-{LEVEL}{how}-{}", nar_hash.to_base32(), zstd_safe::version_number())
    }
}

/// A nar that is packed while it is read.
pub(crate) struct PackedNar<R: Read> {
    encoder: Encoder<'static, BufReader<R>>,
    _place: Option<Place>,
}

impl<R: Read> Read for PackedNar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.encoder.read(buffer)
    }
}

/// One of the places of those that are packed by several threads; free again when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(places));
        (places.fetch_add(1, Ordering::Relaxed) < MOST_AT_ONCE).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use hauberk_store::Sha256;

    use super::*;

    /// Bytes that can be packed somewhat, given in pieces of all sizes.
    struct Pieces {
        left: u64,
        turn: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = usize::try_from(self.left).unwrap();
            let count = left.min(buffer.len()).min(self.turn % 70_001 + 1);
            for byte in &mut buffer[..count] {
                *byte = (self.left.wrapping_mul(0x9e37_79b9) >> 29) as u8 & 0x3f;
                self.left -= 1;
            }
            self.turn = self.turn.wrapping_mul(7).wrapping_add(1);
            Ok(count)
        }
    }

    fn packed(packed: &Packed, size: u64, turn: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = packed.pack(Pieces { left: size, turn }, Some(size)).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn whatever_packs_a_nar_gives_the_same_under_the_same_tag() {
        let several = Packed { divided: true, threads: 3, at_once: Arc::default() };
        let size = WORTH + 12_345;
        let bytes = packed(&several, size, 1);
        let mut nar = Vec::new();
        Pieces { left: size, turn: 5 }.read_to_end(&mut nar).unwrap();
        assert!(zstd::decode_all(bytes.as_slice()).unwrap() == nar);
        assert!(bytes.len() < nar.len());
        assert!(packed(&several, size, 77) == bytes);
        // All places are taken.
        several.at_once.store(MOST_AT_ONCE, Ordering::Relaxed);
        assert!(packed(&several, size, 3) == bytes);
        assert_eq!(several.at_once.load(Ordering::Relaxed), MOST_AT_ONCE);

        let hash = Sha256::digest(&nar);
        let one = Packed::by(1);
        assert_ne!(one.tag(&hash, Some(size)), several.tag(&hash, Some(size)));
        assert_eq!(one.tag(&hash, Some(WORTH - 1)), several.tag(&hash, Some(WORTH - 1)));
        assert!(packed(&one, 100_000, 1) == packed(&several, 100_000, 9));
    }
}
