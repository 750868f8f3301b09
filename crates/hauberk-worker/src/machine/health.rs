//! The state of the machine: load, pressure, memory and disks, and the proof of a full disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hauberk_protocol::proto::Load;
use nix::sys::statvfs::statvfs;

/// A file system with less free space than this is full. What a builder could not write fits there no more, and the little that
/// a failing one leaves behind may.
const FULL: u64 = 8 << 20;

/// How fast a builder may fill a disk, in bytes per second.
const FASTEST: f64 = 1e9;

/// The shortest and the longest pause between two looks at the disks.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(500);

/// The file systems whose free space counts.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    /// A directory on the store's.
    pub(crate) store: PathBuf,
    /// A directory on the one that builders run in.
    pub(crate) build: PathBuf,
}

/// What was seen of the machine while an attempt ran.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    disks: Disks,
    full: Option<String>,
}

impl Disks {
    /// Measures the machine for a heartbeat.
    pub(crate) fn load(&self) -> Load {
        Load {
            load1_centi: read("/proc/loadavg").and_then(|text| load1_centi(&text)).unwrap_or(0),
            cpu_pressure: pressure("cpu"),
            memory_pressure: pressure("memory"),
            io_pressure: pressure("io"),
            memory_available_bytes: memory("MemAvailable:").unwrap_or(0),
            store_free_bytes: free(&self.store).map_or(0, |free| free.bytes),
            build_free_bytes: free(&self.build).map_or(0, |free| free.bytes),
            shortage: String::new(),
        }
    }

    /// Begins to watch on behalf of an attempt.
    pub(crate) fn witness(&self) -> Witness {
        Witness { disks: self.clone(), full: None }
    }
}

impl Witness {
    /// Looks at the disks. A failed builder's files are deleted before its failure is told, so that a full disk has to be seen
    /// while it is full. Gives the time after which it is worth to look again: a disk that is nearly full may be full soon.
    pub(crate) fn look(&mut self) -> Duration {
        if self.full.is_some() {
            return SELDOM;
        }
        let mut least = u64::MAX;
        for (name, path) in [("store", &self.disks.store), ("build directory", &self.disks.build)] {
            let Some(free) = free(path) else { continue };
            least = least.min(free.bytes);
            if free.is_full() {
                self.full = Some(format!(
                    "the disk of the {name} was full: {} MiB and {} files were free",
                    free.bytes >> 20,
                    free.files.map_or_else(|| "any number of".to_owned(), |files| files.to_string())
                ));
                return SELDOM;
            }
        }
        Duration::from_secs_f64(least as f64 / FASTEST).clamp(OFTEN, SELDOM)
    }

    /// Tells how the disk was found full, if it was.
    pub(crate) fn disk_full(&self) -> Option<&str> {
        self.full.as_deref()
    }
}

/// Bytes of memory of the machine.
pub(crate) fn memory_bytes() -> u64 {
    memory("MemTotal:").unwrap_or(0)
}

/// Bytes of memory that builds can have.
pub(super) fn memory_available() -> Option<u64> {
    memory("MemAvailable:")
}

/// Bytes that are left on the file system of `path`.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    free(path).map(|free| free.bytes)
}

struct Free {
    bytes: u64,
    /// `None` where the file system does not count files.
    files: Option<u64>,
}

impl Free {
    fn is_full(&self) -> bool {
        self.bytes < FULL || self.files.is_some_and(|files| files < 16)
    }
}

fn free(path: &Path) -> Option<Free> {
    let seen = statvfs(path).ok()?;
    let files = (seen.files() > 0).then_some(seen.files_available());
    Some(Free { bytes: seen.blocks_available().saturating_mul(seen.fragment_size()), files })
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number of `/proc/loadavg`, times 100.
fn load1_centi(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths = rest.get(..2)?.parse::<u32>().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)
}

/// The pressure on `cpu`, `memory` or `io` in the last 10 s, in hundredths of a percent.
pub(super) fn pressure(resource: &str) -> Option<u32> {
    read_pressure(resource).ok()
}

/// As [`pressure`], with the reason why it cannot be told.
pub(super) fn read_pressure(resource: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/pressure/{resource}"))?;
    some_avg10(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no line `some avg10=…`"))
}

/// The `avg10` of the line `some`, times 100.
fn some_avg10(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    load1_centi(line.split(' ').find_map(|field| field.strip_prefix("avg10="))?)
}

fn memory(key: &str) -> Option<u64> {
    kibibytes(&read("/proc/meminfo")?, key)
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number in the line of a file of the kernel that begins with `key`.
pub(super) fn counter(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(load1_centi("12.34 0.50 0.10 1/200 4711\n"), Some(1234));
        assert_eq!(load1_centi("junk"), None);
        let psi = "some avg10=1.53 avg60=0.87 avg300=0.20 total=31337\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(some_avg10(psi), Some(153));
        assert_eq!(some_avg10("full avg10=1.00\n"), None);
        let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:   8192 kB\n";
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(8192 * 1024));
        assert_eq!(kibibytes(meminfo, "Swap:"), None);
        assert_eq!(counter("pgpgin 1\noom_kill_disable 5\noom_kill 3\n", "oom_kill"), Some(3));
    }

    #[test]
    fn this_machine_has_load_and_space() {
        let disks = Disks { store: "/".into(), build: "/tmp".into() };
        let load = disks.load();
        assert!(load.memory_available_bytes > 0 && load.store_free_bytes > 0);
        assert!(memory_bytes() >= load.memory_available_bytes);
        let mut witness = disks.witness();
        let _ = witness.look();
        assert_eq!(witness.disk_full(), None);
    }

    #[test]
    fn a_file_system_without_a_count_of_files_is_not_full_by_it() {
        assert!(!Free { bytes: FULL, files: None }.is_full());
        assert!(Free { bytes: FULL - 1, files: None }.is_full());
        assert!(Free { bytes: FULL, files: Some(0) }.is_full());
    }
}
