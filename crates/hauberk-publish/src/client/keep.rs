//! What becomes of the bytes that came, besides being unpacked and checked.

use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use hauberk_store::{Sha256, hash::Sha256Hasher};

/// Bytes after which a thread of its own is worth it.
const WORTH: usize = 1 << 20;

/// Chunks that wait for that thread.
const AHEAD: usize = 8;

/// Keeps the bytes that came.
pub(super) trait Keep {
    /// Takes the next ones.
    ///
    /// # Errors
    /// What cannot be written.
    fn keep(&mut self, bytes: &Bytes) -> io::Result<()>;
}

/// Hashes them, where somebody wants to know the hash.
#[derive(Default)]
pub(super) struct Hashed(Option<Sha256Hasher>);

impl Hashed {
    /// Hashes if the hash is `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(Sha256Hasher::new))
    }

    /// Gives the hash, if it was wanted.
    pub(super) fn finish(self) -> Option<Sha256> {
        self.0.map(|hasher| hasher.finish().0)
    }
}

impl Keep for Hashed {
    fn keep(&mut self, bytes: &Bytes) -> io::Result<()> {
        if let Some(hasher) = &mut self.0 {
            hasher.update(bytes);
        }
        Ok(())
    }
}

/// Writes them: a few at once, and what is large on a thread of its own, so that it is written while it is checked.
pub(super) struct Written<W> {
    place: Option<Place<W>>,
}

enum Place<W> {
    Here { writer: W, count: usize },
    Aside { chunks: SyncSender<Bytes>, thread: JoinHandle<io::Result<W>> },
}

impl<W: Write + Send + 'static> Written<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { place: Some(Place::Here { writer, count: 0 }) }
    }

    /// Ends with the writer when all is written.
    ///
    /// # Errors
    /// What cannot be written.
    pub(super) fn finish(self) -> io::Result<W> {
        match self.place {
            Some(Place::Here { writer, .. }) => Ok(writer),
            Some(Place::Aside { chunks, thread }) => {
                drop(chunks);
                thread.join().map_err(|_| ended())?
            }
            None => Err(ended()),
        }
    }
}

impl<W: Write + Send + 'static> Keep for Written<W> {
    fn keep(&mut self, bytes: &Bytes) -> io::Result<()> {
        match self.place.take().ok_or_else(ended)? {
            Place::Here { mut writer, mut count } => {
                writer.write_all(bytes)?;
                count += bytes.len();
                self.place = Some(if count < WORTH { Place::Here { writer, count } } else { aside(writer)? });
            }
            Place::Aside { chunks, thread } => {
                if chunks.send(bytes.clone()).is_err() {
                    // It ended early, and says why.
                    thread.join().map_err(|_| ended())??;
                    return Err(ended());
                }
                self.place = Some(Place::Aside { chunks, thread });
            }
        }
        Ok(())
    }
}

fn aside<W: Write + Send + 'static>(mut writer: W) -> io::Result<Place<W>> {
    let (sender, chunks) = sync_channel::<Bytes>(AHEAD);
    let write = move || {
        for chunk in chunks {
            writer.write_all(&chunk)?;
        }
        Ok(writer)
    };
    let thread = thread::Builder::new().name("nar-writer".to_owned()).spawn(write)?;
    Ok(Place::Aside { chunks: sender, thread })
}

fn ended() -> io::Error {
    io::Error::other("the thread that writes a nar has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes.
    struct Full {
        left: usize,
        taken: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.left).min(10_007);
            self.left -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn chunk(number: usize) -> Bytes {
        vec![number as u8; 100_000 + number].into()
    }

    #[test]
    fn all_is_written_in_order_wherever() {
        for count in [0, 1, 10, 11, 100] {
            let mut written = Written::new(Full { left: usize::MAX, taken: Vec::new() });
            for number in 0..count {
                written.keep(&chunk(number)).unwrap();
            }
            let expected: Vec<u8> = (0..count).flat_map(chunk).collect();
            assert!(written.finish().unwrap().taken == expected, "{count}");
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        for left in [0, 500_000, 3_000_000, 9_950_000] {
            let mut written = Written::new(Full { left, taken: Vec::new() });
            let kept = (0..100).try_for_each(|number| written.keep(&chunk(number)));
            let error = match kept {
                Err(error) => error,
                Ok(()) => written.finish().map(|_| ()).unwrap_err(),
            };
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{left}");
        }
    }
}
