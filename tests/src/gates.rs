//! Gates: where a builder waits until the test lets it go on.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::wait::{Deadline, wait_for};

/// A directory that builders see as `/gates`. See [`jobs`](crate::jobs) for the builders' side.
#[derive(Debug)]
pub struct Gates {
    directory: PathBuf,
}

impl Gates {
    /// Makes the directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Gives the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells how often a builder has come to this gate.
    pub fn arrivals(&self, gate: &str) -> usize {
        fs::read_to_string(self.directory.join(format!("{gate}.reached")))
            .map_or(0, |text| text.lines().count())
    }

    /// Waits until builders have come to this gate so many times.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_for_arrivals(&self, gate: &str, count: usize, deadline: Deadline) -> Result<()> {
        wait_for(&format!("a builder comes to gate {gate} for the {count}. time"), deadline, || {
            Ok((self.arrivals(gate) >= count).then_some(()))
        })
    }

    /// Lets builders pass, now and later.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(&self, gate: &str) -> Result<()> {
        fs::write(self.directory.join(format!("{gate}.open")), "")
            .with_context(|| format!("opening gate {gate}"))
    }

    /// Lets builders wait again, from now on.
    ///
    /// # Errors
    /// The gate is not open.
    pub fn close(&self, gate: &str) -> Result<()> {
        fs::remove_file(self.directory.join(format!("{gate}.open")))
            .with_context(|| format!("closing gate {gate}"))
    }
}
