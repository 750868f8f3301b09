//! A git repository for the farm to watch.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::launch::Launch;

/// A git repository with one branch, `main`.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
}

impl Repository {
    /// Makes an empty one.
    ///
    /// # Errors
    /// Git is missing or fails.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let repository = Self { path: path.to_owned() };
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        Ok(repository)
    }

    /// Gives its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives its URL.
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Writes a file of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    /// Copies a directory's content into it.
    ///
    /// # Errors
    /// Something cannot be read or written.
    pub fn copy_from(&self, directory: &Path) -> Result<()> {
        copy_tree(directory, &self.path)
    }

    /// Commits everything and gives the revision.
    ///
    /// # Errors
    /// Git fails, for instance because nothing changed.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    fn git(&self, arguments: &[&str]) -> Result<String> {
        Launch::here("git")
            .args(arguments)
            .current_dir(&self.path)
            .env("HOME", &self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Laboratory")
            .env("GIT_AUTHOR_EMAIL", "laboratory@localhost")
            .env("GIT_COMMITTER_NAME", "Laboratory")
            .env("GIT_COMMITTER_EMAIL", "laboratory@localhost")
            .run()
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
