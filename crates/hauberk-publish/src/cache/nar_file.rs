//! A nar file while it is written.

use std::{
    fs::File,
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use hauberk_store::{
    Sha256,
    hash::Sha256Hasher,
    narinfo::{Compression, NarUrl},
};

use super::scratch::ScratchFile;

/// Bytes that come before the disk is asked for them the first time, and each time after.
const STRIDE: u64 = 16 << 20;

/// Receives the (compressed) bytes of a nar into a temporary file, hashing them. Removed when dropped. What is large is brought to the disk
/// while it comes, so that whoever waits for the disk in the end waits for little.
#[derive(Debug)]
pub struct NarFile {
    file: File,
    scratch: ScratchFile,
    hasher: Sha256Hasher,
    /// Bytes since the disk was last asked.
    since: u64,
    syncer: Option<Syncer>,
}

impl NarFile {
    pub(super) fn new(file: File, scratch: ScratchFile) -> Self {
        Self { file, scratch, hasher: Sha256Hasher::new(), since: 0, syncer: None }
    }

    /// Ends the file, whose bytes are compressed with `compression`.
    pub fn finish(self, compression: Compression) -> FinishedNar {
        let (file_hash, file_size) = self.hasher.finish();
        let syncing = self.syncer.map(Syncer::finish);
        FinishedNar { scratch: self.scratch, file_hash, file_size, compression, syncing, durable: false }
    }

    fn stride(&mut self) -> io::Result<()> {
        match &self.syncer {
            Some(syncer) => syncer.ask(),
            None => self.syncer = Some(Syncer::start(self.file.try_clone()?)?),
        }
        self.since = 0;
        Ok(())
    }
}

impl Write for NarFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.since += count as u64;
        if self.since >= STRIDE {
            self.stride()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A thread that waits for the disk.
#[derive(Debug)]
struct Syncer {
    strides: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    /// Brings to the disk what `file` has, again and again, and a last time at the end.
    fn start(file: File) -> io::Result<Self> {
        let (strides, asked) = sync_channel::<()>(1);
        let sync = move || {
            file.sync_data()?;
            for () in asked {
                file.sync_data()?;
            }
            file.sync_data()
        };
        Ok(Self { strides, thread: thread::Builder::new().name("nar-syncer".to_owned()).spawn(sync)? })
    }

    /// Has it done once more, unless that is to come anyway.
    fn ask(&self) {
        // One that has failed tells it at the end.
        let _ = self.strides.try_send(());
    }

    fn finish(self) -> JoinHandle<io::Result<()>> {
        self.thread
    }
}

/// A whole nar file that has no name in the cache yet. Removed when dropped.
#[derive(Debug)]
pub struct FinishedNar {
    pub(super) scratch: ScratchFile,
    /// The hash of its bytes.
    pub file_hash: Sha256,
    /// Their number.
    pub file_size: u64,
    /// How they are compressed.
    pub compression: Compression,
    /// Who brings it to the disk, if it is large.
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// Whether it is on the disk.
    pub(super) durable: bool,
}

impl FinishedNar {
    /// Waits until it is on the disk, if it is large; what is small is brought there with others when it is given its name.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        syncing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that waits for the disk has ended")))?;
        self.durable = true;
        Ok(())
    }

    /// Gives the name the file gets under `nar/`: the hash of its bytes and a suffix that tells the compression, so
    /// that a name never means two contents.
    pub fn file_name(&self) -> String {
        let suffix = match &self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Lzip => ".lz",
            Compression::Xz => ".xz",
            Compression::Bzip2 => ".bz2",
            Compression::Brotli => ".br",
            Compression::Other(_) => ".other",
        };
        format!("{}.nar{suffix}", self.file_hash.to_base32())
    }

    /// Gives the place a narinfo of the cache names.
    pub(super) fn place(&self) -> NarUrl {
        NarUrl {
            url: format!("nar/{}", self.file_name()),
            compression: self.compression.clone(),
            file_size: Some(self.file_size),
            file_hash: Some(self.file_hash.into()),
        }
    }
}
