//! The directory of a laboratory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A directory on disk that goes with its owner, passable for the user that PostgreSQL runs as.
#[derive(Debug)]
pub(crate) struct LabDirectory {
    path: PathBuf,
    /// Removes it; none when it is to stay.
    guard: Option<TempDir>,
}

impl LabDirectory {
    /// Makes one in `parent`. With `keep` it stays, for a look at logs and data.
    pub(crate) fn create(parent: &Path, keep: bool) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("hauberk-load-").tempdir_in(parent);
        let made = made.with_context(|| format!("making a directory in {}", parent.display()))?;
        fs::set_permissions(made.path(), Permissions::from_mode(0o755))
            .with_context(|| format!("opening {} to PostgreSQL's user", made.path().display()))?;
        if keep {
            return Ok(Self { path: made.keep(), guard: None });
        }
        Ok(Self { path: made.path().to_owned(), guard: Some(made) })
    }

    /// Gives its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it and gives its path.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for LabDirectory {
    fn drop(&mut self) {
        if self.guard.is_none() {
            crate::progress(format_args!("the laboratory stays in {}", self.path.display()));
        }
    }
}
