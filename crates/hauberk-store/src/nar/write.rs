//! NARs of what is on disk.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat},
    io::Errno,
};

use super::{EncodeError, Encoder, Event, Limits};

/// Why a path could not be written as a NAR.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file, directory or link could not be read.
    #[error("cannot {operation} {}", path.display())]
    Read {
        /// What was tried, as `open`.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something is neither a file, a directory nor a symbolic link.
    #[error("{} is neither a file, a directory nor a symbolic link", path.display())]
    Unsupported {
        /// What it is.
        path: PathBuf,
    },
    /// A file became shorter while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Directories are inside each other too deeply.
    #[error("{} is more than {limit} directories deep", path.display())]
    TooDeep {
        /// The directory that is one too many.
        path: PathBuf,
        /// The most allowed.
        limit: usize,
    },
    /// The archive could not be written.
    #[error("cannot write the NAR of {}", path.display())]
    Write {
        /// What was being written.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: EncodeError,
    },
}

/// Writes the NAR of `path` and gives its size. Symbolic links are written, never followed.
///
/// No file is held whole in memory. Large buffers are used, so `writer` needs none of its own.
///
/// # Errors
/// What cannot be read, is of another type than a NAR can hold, or changes meanwhile; a writer that fails.
pub fn write_path(path: impl AsRef<Path>, writer: impl Write) -> Result<u64, WriteError> {
    write_path_with(path, writer, Limits::default())
}

/// Writes the NAR of `path` as [`write_path`] does, with a bound of one's own on the depth.
///
/// # Errors
/// As [`write_path`].
pub fn write_path_with(
    path: impl AsRef<Path>,
    writer: impl Write,
    limits: Limits,
) -> Result<u64, WriteError> {
    let path = path.as_ref();
    let mut walk = Walk {
        encoder: Encoder::new(writer),
        path: path.as_os_str().as_bytes().to_vec(),
        depth: 0,
        limit: limits.depth,
    };
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| walk.read_error("open", io::ErrorKind::InvalidInput.into()))?;
    walk.node(CWD, &name, FileType::Unknown)?;
    walk.event(Event::End)?;
    Ok(walk.encoder.size())
}

struct Walk<W> {
    encoder: Encoder<W>,
    /// Where the walk is, for messages.
    path: Vec<u8>,
    depth: usize,
    limit: usize,
}

impl<W: Write> Walk<W> {
    fn here(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }

    fn read_error(&self, operation: &'static str, source: io::Error) -> WriteError {
        WriteError::Read { operation, path: self.here(), source }
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> WriteError {
        move |errno| self.read_error(operation, errno.into())
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), WriteError> {
        self.encoder.event(event).map_err(|source| WriteError::Write { path: self.here(), source })
    }

    /// Writes the node called `name` in `parent`; its type is what the directory says, if it says it.
    fn node(&mut self, parent: impl AsFd, name: &CStr, kind: FileType) -> Result<(), WriteError> {
        let kind = match kind {
            FileType::Unknown => {
                let stat =
                    statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("examine"))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::RegularFile => self.file(parent, name),
            FileType::Directory => self.directory(parent, name),
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new()).map_err(self.failed("read the link"))?;
                self.event(Event::Symlink { target: target.as_bytes() })
            }
            _ => Err(WriteError::Unsupported { path: self.here() }),
        }
    }

    fn open(&self, parent: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, WriteError> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(parent, name, flags, Mode::empty()).map_err(self.failed("open"))
    }

    fn file(&mut self, parent: impl AsFd, name: &CStr) -> Result<(), WriteError> {
        // Without NONBLOCK, a pipe that took the file's place would never open.
        let file = self.open(parent, name, OFlags::NONBLOCK)?;
        let stat = fstat(&file).map_err(self.failed("examine"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(WriteError::Changed { path: self.here() });
        }
        let executable = stat.st_mode & 0o100 != 0;
        let size = u64::try_from(stat.st_size).map_err(|_| WriteError::Unsupported { path: self.here() })?;
        match self.encoder.file_from(executable, size, File::from(file)) {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(WriteError::Changed { path: self.here() }),
            Ok(Err(source)) => Err(self.read_error("read", source)),
            Err(source) => Err(WriteError::Write { path: self.here(), source }),
        }
    }

    fn directory(&mut self, parent: impl AsFd, name: &CStr) -> Result<(), WriteError> {
        if self.depth == self.limit {
            return Err(WriteError::TooDeep { path: self.here(), limit: self.limit });
        }
        self.depth += 1;
        let directory = self.open(parent, name, OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(self.failed("read"))? {
            let entry = entry.map_err(self.failed("read"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.event(Event::Directory)?;
        let length = self.path.len();
        for (name, kind) in &entries {
            self.event(Event::Entry { name: name.to_bytes() })?;
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            self.node(&directory, name, *kind)?;
            self.path.truncate(length);
        }
        self.depth -= 1;
        self.event(Event::EndDirectory)
    }
}
