//! One worker per spool.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock of a spool, held as long as it lives; the kernel drops it when the process dies.
#[derive(Debug)]
pub(super) struct SpoolLock {
    _file: Flock<File>,
}

/// Why a lock was not had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it, and says of itself.
    Taken(String),
    /// The file cannot be opened or locked.
    Io(io::Error),
}

impl SpoolLock {
    /// Takes the lock file `path` for the worker `worker`.
    pub(super) fn take(path: &Path, worker: &str) -> Result<Self, LockError> {
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
        let file = open().map_err(LockError::Io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(LockError::Io)?;
                writeln!(file, "worker {worker}, process {}", std::process::id()).map_err(LockError::Io)?;
                Ok(Self { _file: file })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                // Whoever has the lock wrote one short line; if not, the message does without.
                let _ = file.take(512).read_to_string(&mut holder);
                let holder = holder.trim();
                Err(LockError::Taken(if holder.is_empty() {
                    "another process".to_owned()
                } else {
                    holder.to_owned()
                }))
            }
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}
