//! Links that keep the outputs of attempts from being collected until the server has them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hauberk_daemon::{BuildDaemon, DaemonError};
use hauberk_store::StorePath;
use tracing::{debug, warn};

use crate::AttemptId;

/// Why outputs could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// The daemon does not keep them for now.
    #[error("the build daemon does not keep the outputs")]
    Keep(#[source] DaemonError),
    /// The link cannot be made.
    #[error("cannot make the link {}", link.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon does not take the link.
    #[error("the build daemon does not register {}", link.display())]
    Register {
        /// The link.
        link: PathBuf,
        /// What it said.
        #[source]
        source: DaemonError,
    },
}

/// A directory of links, `ATTEMPT-NAME`, each registered with the daemon as an indirect root.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    directory: PathBuf,
}

impl Roots {
    /// Opens the directory, which is made if needed.
    ///
    /// # Errors
    /// A directory that cannot be made or found.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        // The daemon follows the links by absolute paths.
        Ok(Self { directory: directory.canonicalize()? })
    }

    /// Keeps `outputs` on behalf of an attempt.
    pub(crate) async fn keep(
        &self,
        attempt: AttemptId,
        outputs: impl IntoIterator<Item = &StorePath>,
        daemon: &mut dyn BuildDaemon,
    ) -> Result<(), RootError> {
        for output in outputs {
            let link = self.directory.join(format!("{attempt}-{}", output.base_name()));
            match symlink(output.to_string(), &link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(RootError::Link { link, source: error });
                }
                _ => {}
            }
            if let Err(source) = daemon.add_indirect_root(&link).await {
                return Err(RootError::Register { link, source });
            }
        }
        Ok(())
    }

    /// Drops the links of `attempts`.
    pub(crate) fn release(&self, attempts: &[AttemptId]) {
        let attempts: BTreeSet<_> = attempts.iter().copied().collect();
        self.drop_links(|attempt| attempt.is_some_and(|attempt| attempts.contains(&attempt)));
    }

    /// Drops all links but those of `kept`.
    pub(crate) fn retain(&self, kept: &[AttemptId]) {
        let kept: BTreeSet<_> = kept.iter().copied().collect();
        self.drop_links(|attempt| attempt.is_none_or(|attempt| !kept.contains(&attempt)));
    }

    fn drop_links(&self, unwanted: impl Fn(Option<AttemptId>) -> bool) {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(%error, "cannot list {}: outputs are kept longer than needed", self.directory.display());
                return;
            }
        };
        for entry in entries.flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let name = entry.file_name();
            let attempt =
                name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok()).and_then(AttemptId::new);
            if is_link && unwanted(attempt) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => debug!("dropped the root {}", entry.path().display()),
                    Err(error) => warn!(%error, "cannot drop the root {}", entry.path().display()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn links_go_with_their_attempts_and_other_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let roots = Roots::open(directory.path()).unwrap();
        for name in ["1-a", "1-b", "12-a", "3-c", "stray"] {
            symlink("/nix/store/x", directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("4-file"), "").unwrap();
        let id = |number| AttemptId::new(number).unwrap();
        roots.release(&[id(1)]);
        assert_eq!(names(directory.path()), ["12-a", "3-c", "4-file", "stray"]);
        roots.retain(&[id(12)]);
        assert_eq!(names(directory.path()), ["12-a", "4-file"]);
    }
}
