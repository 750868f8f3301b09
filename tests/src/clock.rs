//! Wall clocks that jump.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The libraries that stand between a program and its clock, the one for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A wall clock of its own for some processes, which can be moved while they run. Their other clocks (monotonic, boot) stay as they
/// are: that is what a machine's do when its wall clock is set.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    /// How far it is from the computer's, in seconds.
    file: PathBuf,
}

impl Clock {
    /// Makes a clock that goes as the computer's; its offset is kept in the file `NAME.clock` in `directory`.
    ///
    /// # Errors
    /// Debian's libfaketime is not installed, or the file cannot be written.
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        let library = fs::read_dir("/usr/lib")?
            .flatten()
            .map(|entry| entry.path().join(LIBRARY))
            .find(|path| path.is_file());
        let Some(library) = library else {
            bail!("there is no {LIBRARY} below /usr/lib: install Debian's faketime")
        };
        let clock = Self { library, file: directory.join(format!("{name}.clock")) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it to so many seconds after the computer's, or before it. Every process that has it sees that at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).with_context(|| format!("writing {}", new.display()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
        // In one step: whoever looks meanwhile sees the old time or the new one.
        fs::rename(&new, &self.file).with_context(|| format!("setting {}", self.file.display()))
    }

    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut environment = vec![
            ("LD_PRELOAD".into(), self.library.clone().into_os_string()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into_os_string()),
        ];
        for setting in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM"] {
            environment.push((setting.into(), "1".into()));
        }
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::LabDirectory, launch::Launch};

    #[test]
    fn a_program_sees_the_clock_jump() -> Result<()> {
        let directory = LabDirectory::create()?;
        let clock = Clock::create(directory.path(), "one")?;
        let date =
            || -> Result<i64> { Ok(Launch::here("date").arg("+%s").clock(&clock).run()?.trim().parse()?) };
        let began = date()?;
        clock.set(36_000)?;
        assert!(date()? >= began + 36_000);
        clock.set(-36_000)?;
        assert!(date()? < began);
        clock.set(0)?;
        assert!((began..began + 600).contains(&date()?));
        Ok(())
    }
}
