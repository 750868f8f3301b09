//! Where log files are.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::decoder::DecodeError;

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The web process was not given the server's folder.
    #[error("this web process was started without `--cache`, the folder of the server that keeps the logs")]
    NoDirectory,
    /// Nothing was written yet, or the file was removed.
    #[error("there is no log file")]
    Missing,
    /// The row names a file outside of the folder.
    #[error("the log's path is not inside the folder of logs")]
    Outside,
    /// The file is not what the server writes.
    #[error("the log file is damaged")]
    Damaged(#[source] DecodeError),
    /// More text than anybody reads.
    #[error("the log is longer than {LONGEST_TEXT} bytes")]
    TooLong,
    /// The file cannot be read.
    #[error("cannot read the log file")]
    Read(#[source] io::Error),
}

/// Bytes of text after which a reader gives up: deflate makes a thousand bytes of one, so a small file can be endless.
pub(super) const LONGEST_TEXT: u64 = 8 << 30;

/// The folder `logs/` of a server, if this process may read it.
#[derive(Debug, Clone)]
pub struct LogDirectory(Option<PathBuf>);

impl LogDirectory {
    /// Takes a server's cache folder.
    pub fn new(cache: Option<&Path>) -> Self {
        Self(cache.map(|cache| cache.join("logs")))
    }

    /// Opens a log by the path in its row.
    ///
    /// # Errors
    /// [`LogError`]: there is no directory, no such file, or none inside of the directory.
    pub fn open(&self, path: &str) -> Result<File, LogError> {
        let directory = self.0.as_ref().ok_or(LogError::NoDirectory)?;
        let path = Path::new(path);
        let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
        if !inside || path.as_os_str().is_empty() {
            return Err(LogError::Outside);
        }
        let file = match File::open(directory.join(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LogError::Missing),
            Err(error) => return Err(LogError::Read(error)),
        };
        if !file.metadata().map_err(LogError::Read)?.is_file() {
            return Err(LogError::Outside);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_inside_the_folder_are_opened() {
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(cache.path().join("logs/ab")).unwrap();
        std::fs::write(cache.path().join("logs/ab/1.gz"), b"x").unwrap();
        std::fs::write(cache.path().join("secret"), b"x").unwrap();
        let logs = LogDirectory::new(Some(cache.path()));
        assert!(logs.open("ab/1.gz").is_ok());
        assert!(matches!(logs.open("ab/2.gz"), Err(LogError::Missing)));
        for path in ["../secret", "ab/../../secret", "/etc/passwd", "", "ab"] {
            assert!(matches!(logs.open(path), Err(LogError::Outside)), "{path}");
        }
        assert!(matches!(LogDirectory::new(None).open("ab/1.gz"), Err(LogError::NoDirectory)));
    }
}
