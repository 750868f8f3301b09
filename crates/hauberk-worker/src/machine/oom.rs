//! Whether the kernel has killed for want of memory, where that may have hit a build.
//!
//! A builder that is killed so, or that fails because a process of its own was, is not to blame. The kernel counts such kills for each
//! control group, before it sends the signal: builders are in the group of the daemon's process that starts them, and anybody may read
//! its count. Where that cannot be known (no process is known that serves the attempt, or no controller of memory counts there), the count
//! of the whole machine stands in, which may be of somebody else's processes.

use std::fs;
use std::path::{Path, PathBuf};

use super::health::counter;
use super::processes::ProcessId;

/// The word for such kills in the kernel's files.
const KEY: &str = "oom_kill";

/// A Nix daemon that gives each builder a control group puts itself into one of this name, beside them.
const BESIDE_BUILDERS: &str = "nix-daemon";

/// The kills that there were at a moment.
#[derive(Debug)]
pub(super) struct OomKills {
    machine: Option<u64>,
    /// The file of the builders' group, and its count.
    group: Option<(PathBuf, u64)>,
}

impl OomKills {
    /// Counts them now, for what a process of the build daemon starts from now on.
    pub(super) fn now(serving: Option<ProcessId>) -> Self {
        let group = serving.and_then(|id| group_file(id.pid)).and_then(|file| {
            let count = count(&file)?;
            Some((file, count))
        });
        Self { machine: count(Path::new("/proc/vmstat")), group }
    }

    /// Tells whether there are more of them by now.
    pub(super) fn are_more(&self) -> bool {
        // A group that is gone, as of a daemon that was stopped because of it, tells nothing any more.
        if let Some((file, before)) = &self.group
            && let Some(now) = count(file)
        {
            return now > *before;
        }
        match (self.machine, count(Path::new("/proc/vmstat"))) {
            (Some(before), Some(now)) => now > before,
            _ => false,
        }
    }
}

fn count(file: &Path) -> Option<u64> {
    counter(&fs::read_to_string(file).ok()?, KEY)
}

/// Finds the file that counts the kills in a process's control group.
fn group_file(pid: u32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    match group(&groups, &mounts)? {
        Group::Own(directory) => Some(directory.join("memory.oom_control")),
        Group::Unified { directory, mount_point } => {
            // Those below are counted along. Where no controller of memory is on, one farther up may be.
            let above = directory.ancestors().take_while(|above| above.starts_with(&mount_point));
            above.map(|above| above.join("memory.events")).find(|file| file.exists())
        }
    }
}

/// Where a process's memory is counted.
#[derive(Debug, PartialEq, Eq)]
enum Group {
    /// In a hierarchy of the controller of memory alone, without those below.
    Own(PathBuf),
    /// In the hierarchy of all controllers.
    Unified { directory: PathBuf, mount_point: PathBuf },
}

/// Reads it from `/proc/PID/cgroup` and `/proc/self/mountinfo`.
fn group(groups: &str, mounts: &str) -> Option<Group> {
    let path_of = |wanted: fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then_some(path)
        })
    };
    if let Some(path) = path_of(|controllers| controllers.split(',').any(|name| name == "memory")) {
        let is_memory =
            |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|it| it == "memory");
        return Some(Group::Own(mounted(path, mounts, is_memory)?.0));
    }
    let (mut directory, mount_point) = mounted(path_of(str::is_empty)?, mounts, |kind, _| kind == "cgroup2")?;
    if directory.file_name().is_some_and(|name| name == BESIDE_BUILDERS) && directory != mount_point {
        directory.pop();
    }
    Some(Group::Unified { directory, mount_point })
}

/// Finds where a group lies, and the mount point of its hierarchy, which is told by the kind of the file system and its options.
fn mounted(path: &str, mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    // Of processes outside of what this one may see, it begins with `/..`.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        if !is_it(kind.next()?, kind.nth(1)?) {
            return None;
        }
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, Path::new(mount.next()?));
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some((
            if below.as_os_str().is_empty() { point.to_owned() } else { point.join(below) },
            point.to_owned(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    const NEW: &str = "29 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_group_of_a_daemon_is_found_in_either_hierarchy() {
        let unified = |directory: &str| {
            Some(Group::Unified { directory: directory.into(), mount_point: "/sys/fs/cgroup".into() })
        };
        assert_eq!(
            group("9:name=systemd:/\n4:memory:/system.slice/nix-daemon.service\n2:cpu:/\n0::/\n", OLD),
            Some(Group::Own("/sys/fs/cgroup/memory/system.slice/nix-daemon.service".into()))
        );
        assert_eq!(group("4:memory:/\n0::/x\n", OLD), Some(Group::Own("/sys/fs/cgroup/memory".into())));
        assert_eq!(
            group("0::/system.slice/nix-daemon.service\n", NEW),
            unified("/sys/fs/cgroup/system.slice/nix-daemon.service")
        );
        assert_eq!(group("0::/\n", NEW), unified("/sys/fs/cgroup"));
        // Builders have groups beside the daemon's.
        assert_eq!(
            group("0::/system.slice/nix-daemon.service/nix-daemon\n", NEW),
            unified("/sys/fs/cgroup/system.slice/nix-daemon.service")
        );
        // A container that sees a part of the hierarchy.
        let part = "29 22 0:25 /pod/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(group("0::/pod/a/b\n", part), unified("/sys/fs/cgroup/b"));
        for (groups, mounts) in [("0::/pod/b\n", part), ("0::/../b\n", NEW), ("", NEW), ("0::/\n", "")] {
            assert_eq!(group(groups, mounts), None, "{groups} {mounts}");
        }
    }

    #[test]
    fn what_cannot_be_counted_did_not_happen_and_the_group_decides() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        fs::write(&file, "low 0\noom 4\noom_kill 3\noom_group_kill 0\n").unwrap();
        assert_eq!(count(&file), Some(3));
        // The machine had some meanwhile, elsewhere.
        let kills = OomKills { machine: Some(0), group: Some((file.clone(), 3)) };
        assert!(!kills.are_more());
        fs::write(&file, "low 0\noom 5\noom_kill 4\noom_group_kill 0\n").unwrap();
        assert!(kills.are_more());
        fs::remove_file(&file).unwrap();
        let kills = OomKills { machine: None, ..kills };
        assert!(!kills.are_more());
        assert!(!OomKills::now(None).are_more() || count(Path::new("/proc/vmstat")).is_some());
    }

    #[test]
    fn this_process_is_in_a_group_or_the_machine_counts() {
        let own = ProcessId { pid: std::process::id(), began: 0 };
        let kills = OomKills::now(Some(own));
        assert!(kills.machine.is_some() || kills.group.is_some(), "{kills:?}");
    }
}
