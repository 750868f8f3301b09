//! Unpacking NARs to disk.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat},
    io::Errno,
};

use super::{Decoder, Event, Limits, NarError};

/// Why a NAR could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes could not be read.
    #[error("cannot read the NAR for {}", target.display())]
    Read {
        /// Where it was being unpacked to.
        target: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The bytes are not a NAR, or one beyond the limits.
    #[error("malformed NAR for {}", target.display())]
    Nar {
        /// Where it was being unpacked to.
        target: PathBuf,
        /// What is wrong.
        #[source]
        source: NarError,
    },
    /// A file, directory or link could not be made; one that exists is never replaced.
    #[error("cannot {operation} {}", path.display())]
    Create {
        /// What was tried, as `create`.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a NAR as its bytes arrive.
///
/// Everything is made below the target, which must not exist: directories are entered by file descriptor, no link is
/// followed, and nothing is replaced. Modes are 0666 or 0777 less the umask. After an error what was made stays.
#[derive(Debug)]
pub struct Restorer {
    decoder: Decoder,
    disk: Disk,
}

/// The part of the file system below the target.
#[derive(Debug)]
struct Disk {
    target: PathBuf,
    /// The path below the target of the node being made, for messages.
    path: Vec<u8>,
    /// The directories that are open, and the length of their paths.
    open: Vec<(OwnedFd, usize)>,
    /// The last component of `path` begins here.
    name: usize,
    file: Option<File>,
}

impl Restorer {
    /// Starts before the first byte; nothing is made yet.
    pub fn new(target: impl Into<PathBuf>, limits: Limits) -> Self {
        let disk = Disk { target: target.into(), path: Vec::new(), open: Vec::new(), name: 0, file: None };
        Self { decoder: Decoder::new(limits), disk }
    }

    /// Takes the next bytes up to the archive's end and gives their number.
    ///
    /// # Errors
    /// Bytes that are not a NAR or beyond the limits, and whatever the file system refuses.
    pub fn push_some(&mut self, bytes: &[u8]) -> Result<usize, RestoreError> {
        let mut rest = bytes;
        loop {
            let event = match self.decoder.next(&mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(bytes.len() - rest.len()),
                Err(source) => return Err(self.disk.nar_error(source)),
            };
            self.disk.apply(event)?;
        }
    }

    /// Takes the next bytes, which must all belong to the archive.
    ///
    /// # Errors
    /// As [`Self::push_some`], and bytes beyond the archive's end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        if self.push_some(bytes)? == bytes.len() {
            return Ok(());
        }
        Err(self.disk.nar_error(NarError::TrailingBytes { offset: self.decoder.offset() }))
    }

    /// Tells whether the whole archive has been unpacked.
    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    /// Ends and gives the archive's size.
    ///
    /// # Errors
    /// [`NarError::Truncated`] when the archive is not complete.
    pub fn finish(self) -> Result<u64, RestoreError> {
        self.decoder.finish().map_err(|source| self.disk.nar_error(source))?;
        Ok(self.decoder.offset())
    }

    /// Gives the directory, file or link that is being made.
    pub fn target(&self) -> &Path {
        &self.disk.target
    }
}

impl Disk {
    fn nar_error(&self, source: NarError) -> RestoreError {
        RestoreError::Nar { target: self.target.clone(), source }
    }

    fn here(&self) -> PathBuf {
        if self.path.is_empty() {
            self.target.clone()
        } else {
            self.target.join(OsStr::from_bytes(&self.path))
        }
    }

    fn io_error(&self, operation: &'static str, source: io::Error) -> RestoreError {
        RestoreError::Create { operation, path: self.here(), source }
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> RestoreError {
        move |errno| self.io_error(operation, errno.into())
    }

    /// Gives the directory the node is made in, and its name there.
    fn place(&self) -> (BorrowedFd<'_>, &OsStr) {
        match self.open.last() {
            Some((directory, _)) => (directory.as_fd(), OsStr::from_bytes(&self.path[self.name..])),
            None => (CWD, self.target.as_os_str()),
        }
    }

    fn apply(&mut self, event: Event<'_>) -> Result<(), RestoreError> {
        match event {
            Event::File { executable, .. } => {
                let (directory, name) = self.place();
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
                let file = openat(directory, name, flags, mode).map_err(self.failed("create the file"))?;
                self.file = Some(File::from(file));
            }
            Event::Contents(contents) => {
                if let Some(Err(source)) = self.file.as_mut().map(|file| file.write_all(contents)) {
                    return Err(self.io_error("write", source));
                }
            }
            Event::EndFile => self.file = None,
            Event::Symlink { target } => {
                let (directory, name) = self.place();
                symlinkat(target, directory, name).map_err(self.failed("create the symbolic link"))?;
            }
            Event::Directory => {
                let (directory, name) = self.place();
                mkdirat(directory, name, Mode::from_raw_mode(0o777))
                    .map_err(self.failed("create the directory"))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(directory, name, flags, Mode::empty())
                    .map_err(self.failed("open the directory"))?;
                self.open.push((directory, self.path.len()));
            }
            Event::Entry { name } => {
                let parent = self.open.last().map_or(0, |(_, length)| *length);
                self.path.truncate(parent);
                if parent > 0 {
                    self.path.push(b'/');
                }
                self.name = self.path.len();
                self.path.extend_from_slice(name);
            }
            Event::EndDirectory => {
                self.open.pop();
            }
            Event::End => {}
        }
        Ok(())
    }
}

/// Unpacks the NAR that `reader` gives, to its end, as `target`, which must not exist; gives the archive's size.
///
/// # Errors
/// A reader that fails, bytes that are not a NAR or beyond the limits, and whatever the file system refuses.
pub fn restore(
    mut reader: impl Read,
    target: impl Into<PathBuf>,
    limits: Limits,
) -> Result<u64, RestoreError> {
    let mut restorer = Restorer::new(target, limits);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return restorer.finish(),
            Ok(length) => restorer.push(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(RestoreError::Read { target: restorer.target().to_owned(), source });
            }
        }
    }
}
