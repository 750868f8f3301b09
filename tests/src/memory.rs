//! Control groups of memory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::wait::{Deadline, wait_for};

/// A control group that counts the memory of its processes, and may limit it.
///
/// It goes when it is dropped, which waits for its processes: make it before the machines whose processes it is for.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    /// The hierarchy is that of the controller of memory alone.
    is_alone: bool,
}

impl MemoryGroup {
    /// Makes one without a limit; nothing where the kernel has no controller of memory, or it may not be used here.
    ///
    /// # Errors
    /// The kernel's files cannot be read.
    pub fn create(name: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let mount_point = |kind: &str, option: Option<&str>| {
            mounts.lines().find_map(|line| {
                let (mount, rest) = line.split_once(" - ")?;
                let mut rest = rest.split(' ');
                let is_kind = rest.next() == Some(kind);
                let options = rest.nth(1)?;
                let has = option.is_none_or(|option| options.split(',').any(|it| it == option));
                (is_kind && has).then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
            })
        };
        let name = format!("hauberk-{}-{name}", std::process::id());
        let group = match (mount_point("cgroup", Some("memory")), mount_point("cgroup2", None)) {
            (Some(point), _) => {
                let groups = fs::read_to_string("/proc/self/cgroup").context("reading the own group")?;
                let own = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
                let own = point.join(own.unwrap_or_default().trim_start_matches('/'));
                Self { directory: own.join(name), is_alone: true }
            }
            (None, Some(point)) => {
                // What is refused shows below.
                let _ = fs::write(point.join("cgroup.subtree_control"), "+memory");
                Self { directory: point.join(name), is_alone: false }
            }
            (None, None) => return Ok(None),
        };
        let is_usable = fs::create_dir(&group.directory).is_ok() && group.limit_file().exists();
        Ok(is_usable.then_some(group))
    }

    /// Lets its processes have so many bytes.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        write(&self.limit_file(), &bytes.to_string())?;
        let swap = self.directory.join(if self.is_alone {
            "memory.memsw.limit_in_bytes"
        } else {
            "memory.swap.max"
        });
        if swap.exists() {
            write(&swap, &if self.is_alone { bytes } else { 0 }.to_string())?;
        }
        Ok(())
    }

    /// Takes a process in, and what it starts from now on.
    ///
    /// # Errors
    /// There is no such process.
    pub fn add(&self, process: u32) -> Result<()> {
        write(&self.directory.join("cgroup.procs"), &process.to_string())
    }

    /// Counts its processes that were killed because there was no memory left.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn kills(&self) -> Result<u64> {
        let file = self.directory.join(if self.is_alone { "memory.oom_control" } else { "memory.events" });
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.with_context(|| format!("{} says {text:?}", file.display()))
    }

    fn limit_file(&self) -> PathBuf {
        self.directory.join(if self.is_alone { "memory.limit_in_bytes" } else { "memory.max" })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Where it was not usable there is nothing to remove.
        if self.directory.exists() {
            let _ = wait_for("the group of memory is empty", Deadline::seconds(10), || {
                Ok(fs::remove_dir(&self.directory).is_ok().then_some(()))
            });
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {text} to {}", file.display()))
}
