//! The directory a laboratory lives in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

/// Where laboratories are made: a short path (sockets may have 107 bytes) that other users can pass, and that is a disk.
const PLACE: &str = "/var/tmp";
/// What their names begin with; the process id and a number follow.
const PREFIX: &str = "hauberk-lab-";

/// A directory that is removed when its owner ends; those of owners that were killed are removed by the next one.
#[derive(Debug)]
pub struct LabDirectory {
    path: PathBuf,
    keep: bool,
}

impl LabDirectory {
    /// Makes a new one. With `HAUBERK_LAB_KEEP` in the environment it stays, for a look at the logs.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(PLACE).join(format!("{PREFIX}{}-{number}", std::process::id()));
        // A process id comes round again.
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { path, keep: std::env::var_os("HAUBERK_LAB_KEEP").is_some() })
    }

    /// Gives its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the path of `name` in it, made as a directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for LabDirectory {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("the laboratory stays in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn remove_stale() {
    let Ok(entries) = fs::read_dir(PLACE) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        if let Some(owner) = owner
            && owner.parse::<u32>().is_ok()
            && !Path::new("/proc").join(owner).exists()
            && std::env::var_os("HAUBERK_LAB_KEEP").is_none()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
