//! Temporary files beside the cache, which do not outlive the process that made them.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A directory of our own under the cache's `tmp`. Its lock says that we live: what a killed process left is
/// known by having none, and removed when the cache is next opened.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Scratch {
    /// Removes leftovers in `parent` and makes a directory of our own there.
    pub(crate) fn open(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        // Held while leftovers are removed and ours is made but not yet locked, so that openers do not meet.
        let openers = File::open(parent)?;
        openers.lock()?;
        for entry in fs::read_dir(parent)? {
            remove_if_left(&entry?.path())?;
        }
        for number in 0_u32.. {
            let path = parent.join(format!("{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = File::open(&path)?;
                    lock.lock()?;
                    return Ok(Self { path, next: AtomicU64::new(0), _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives a new empty file, removed when its guard is dropped.
    pub(crate) fn file(&self) -> io::Result<(File, ScratchFile)> {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((file, ScratchFile { path: Some(path) }))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever stays is removed at the next opening.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_if_left(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return fs::remove_file(path);
    }
    match File::open(path)?.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a temporary file unless it was renamed.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    path: Option<PathBuf>,
}

impl ScratchFile {
    /// Brings the file's contents to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match &self.path {
            Some(path) => File::open(path)?.sync_data(),
            None => Ok(()),
        }
    }

    /// Gives the file its final name.
    pub(crate) fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, to)?;
            self.path = None;
        }
        Ok(())
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
