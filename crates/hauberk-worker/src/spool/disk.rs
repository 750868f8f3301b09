//! The spool in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hauberk_protocol::proto::Finished;
use tracing::{info, warn};

use super::lock::{LockError, SpoolLock};
use super::{Leftover, LogLimits, record};
use crate::AttemptId;
use crate::log::{AttemptLog, ChunkStore, DiskStore, Wake, remove_if_there};

/// Room for the last line of a log that was cut by a restart, beyond its limit.
const LAST_LINE: u64 = 4096;

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another worker has the spool.
    #[error(
        "spool {} is in use by {holder}: give each worker a spool of its own with --spool, or stop the other one",
        directory.display()
    )]
    Taken {
        /// The spool.
        directory: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// A file or directory of the spool cannot be made, read, written or deleted.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program ends, and files are not written any more.
    #[error("the program is ending")]
    Ending,
}

#[derive(Debug)]
pub(super) struct DiskSpool {
    results: PathBuf,
    kept: PathBuf,
    logs: PathBuf,
    _lock: SpoolLock,
}

trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, SpoolError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError::Io { operation, path: path.to_owned(), source })
    }
}

impl DiskSpool {
    pub(super) fn open(
        directory: &Path,
        worker: &str,
        limits: LogLimits,
        wake: &Wake,
    ) -> Result<(Self, Leftover), SpoolError> {
        let [results, kept, logs] = ["results", "kept", "logs"].map(|name| directory.join(name));
        for path in [directory, &results, &kept, &logs] {
            fs::create_dir_all(path).at("make directory", path)?;
        }
        let lock_path = directory.join("lock");
        let lock = SpoolLock::take(&lock_path, worker).map_err(|error| match error {
            LockError::Taken(holder) => SpoolError::Taken { directory: directory.to_owned(), holder },
            LockError::Io(source) => SpoolError::Io { operation: "lock", path: lock_path, source },
        })?;
        let spool = Self { results, kept, logs, _lock: lock };
        let leftover = Leftover {
            results: spool.read_results()?,
            kept: spool.read_kept()?,
            logs: spool.recover_logs(limits, wake)?,
        };
        Ok((spool, leftover))
    }

    pub(super) fn record(&self, attempt: AttemptId, finished: &Finished) -> Result<(), SpoolError> {
        let path = self.results.join(attempt.to_string());
        write_durably(&path, &record::encode(finished))?;
        sync_directory(&self.results)
    }

    pub(super) fn acknowledge(&self, attempts: &[AttemptId], kept: &[AttemptId]) -> Result<(), SpoolError> {
        for attempt in kept {
            let path = self.kept.join(attempt.to_string());
            File::create(&path).at("create", &path)?;
        }
        if !kept.is_empty() {
            sync_directory(&self.kept)?;
        }
        // A result that comes back after a power cut is sent once more and acknowledged again: no need to sync here.
        remove_all(&self.results, attempts)
    }

    pub(super) fn release(&self, attempts: &[AttemptId]) -> Result<(), SpoolError> {
        remove_all(&self.kept, attempts)?;
        remove_all(&self.results, attempts)
    }

    pub(super) fn create_log(&self, attempt: AttemptId) -> io::Result<DiskStore> {
        let (stream, index) = self.log_paths(attempt);
        DiskStore::create(stream, index)
    }

    fn log_paths(&self, attempt: AttemptId) -> (PathBuf, PathBuf) {
        (self.logs.join(format!("{attempt}.stream")), self.logs.join(format!("{attempt}.index")))
    }

    fn read_results(&self) -> Result<BTreeMap<AttemptId, Finished>, SpoolError> {
        let mut results = BTreeMap::new();
        for name in names(&self.results)? {
            let path = self.results.join(&name);
            let Some(attempt) = attempt_named(&name) else {
                // A file half written when the process died.
                remove_if_there(&path).at("delete", &path)?;
                continue;
            };
            let bytes = fs::read(&path).at("read", &path)?;
            match record::decode(&bytes).filter(|finished| finished.attempt == attempt.get()) {
                Some(finished) => {
                    results.insert(attempt, finished);
                }
                None => {
                    warn!(
                        attempt.id = %attempt,
                        "result {} is damaged and dropped: the server gives attempt {attempt} back",
                        path.display()
                    );
                    remove_if_there(&path).at("delete", &path)?;
                }
            }
        }
        Ok(results)
    }

    fn read_kept(&self) -> Result<Vec<AttemptId>, SpoolError> {
        Ok(names(&self.kept)?.iter().filter_map(|name| attempt_named(name)).collect())
    }

    fn recover_logs(&self, limits: LogLimits, wake: &Wake) -> Result<Vec<AttemptLog>, SpoolError> {
        let mut attempts = BTreeSet::new();
        let mut streams = BTreeSet::new();
        for name in names(&self.logs)? {
            let path = self.logs.join(&name);
            match name.rsplit_once('.').map(|(number, kind)| (attempt_named(number), kind)) {
                Some((Some(attempt), "index")) => drop(attempts.insert(attempt)),
                Some((Some(attempt), "stream")) => drop(streams.insert(attempt)),
                _ => remove_if_there(&path).at("delete", &path)?,
            }
        }
        for attempt in streams.symmetric_difference(&attempts) {
            let (stream, index) = self.log_paths(*attempt);
            remove_if_there(&index).at("delete", &index)?;
            remove_if_there(&stream).at("delete", &stream)?;
        }
        let mut logs = Vec::new();
        for attempt in streams.intersection(&attempts) {
            let (stream, index) = self.log_paths(*attempt);
            let (store, marks) = DiskStore::recover(stream.clone(), index).at("recover log", &stream)?;
            let limit = limits.each.saturating_add(LAST_LINE);
            let log = AttemptLog::resume(*attempt, ChunkStore::Disk(store), &marks, limit, wake.clone());
            if !marks.last().is_some_and(|mark| mark.ended) {
                log.note("the worker was restarted, and the attempt ended with it");
                log.finish();
            }
            info!(attempt.id = %attempt, "found the log of attempt {attempt}, to be sent");
            logs.push(log);
        }
        Ok(logs)
    }
}

/// The names in `directory` that are text.
fn names(directory: &Path) -> Result<Vec<String>, SpoolError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        if let Ok(name) = entry.at("list", directory)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn attempt_named(name: &str) -> Option<AttemptId> {
    let attempt = name.parse().ok().and_then(AttemptId::new)?;
    // "+7" and "007" parse, but are not names we write.
    (attempt.to_string() == name).then_some(attempt)
}

fn remove_all(directory: &Path, attempts: &[AttemptId]) -> Result<(), SpoolError> {
    for attempt in attempts {
        let path = directory.join(attempt.to_string());
        remove_if_there(&path).at("delete", &path)?;
    }
    Ok(())
}

fn write_durably(path: &Path, contents: &[u8]) -> Result<(), SpoolError> {
    let draft = path.with_extension("draft");
    let written = (|| {
        let mut file = File::create(&draft).at("create", &draft)?;
        file.write_all(contents).at("write", &draft)?;
        file.sync_data().at("sync", &draft)?;
        fs::rename(&draft, path).at("rename", &draft)
    })();
    if written.is_err() {
        // Nobody asks for a draft; on a full disk it stands in the way of others.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn sync_directory(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|directory| directory.sync_all()).at("sync", path)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
