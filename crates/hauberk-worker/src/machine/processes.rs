//! The processes of the machine, as `/proc` shows them to everybody.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most processes of a machine that are looked at.
const MOST: usize = 65_536;

/// One process: its number, and the clock tick since boot in which it began, as numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ProcessId {
    pub(super) pid: u32,
    pub(super) began: u64,
}

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: ProcessId,
    pub(super) parent: u32,
    /// The name of its program, of at most 15 bytes.
    pub(super) name: String,
}

/// All processes of one moment, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessTable(HashMap<u32, Process>);

impl ProcessTable {
    /// Reads `/proc`. Nothing if it cannot be read, or if there are too many processes.
    pub(super) fn read() -> Option<Self> {
        let mut table = HashMap::new();
        for entry in fs::read_dir("/proc").ok()? {
            let Ok(entry) = entry else { continue };
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if table.len() == MOST {
                return None;
            }
            // One that has ended meanwhile is none.
            if let Some(process) =
                fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| parse(pid, &stat))
            {
                table.insert(pid, process);
            }
        }
        Some(Self(table))
    }

    /// Makes a table of these.
    #[cfg(test)]
    pub(super) fn of(processes: impl IntoIterator<Item = Process>) -> Self {
        Self(processes.into_iter().map(|process| (process.id.pid, process)).collect())
    }

    /// Gives the process with a number.
    pub(super) fn get(&self, pid: u32) -> Option<&Process> {
        self.0.get(&pid)
    }

    /// Tells whether this very process is there.
    pub(super) fn contains(&self, id: ProcessId) -> bool {
        self.0.get(&id.pid).is_some_and(|process| process.id == id)
    }

    /// Gives all of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.0.values()
    }
}

/// The table for all who look: it is read anew only for somebody who wants a newer one than there is.
#[derive(Debug, Default)]
pub(super) struct SharedTable(Mutex<Option<(Instant, Arc<ProcessTable>)>>);

impl SharedTable {
    /// Gives a table that is not older than `age`.
    pub(super) fn within(&self, age: Duration) -> Option<Arc<ProcessTable>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, table)) = &*kept
            && read.elapsed() <= age
        {
            return Some(Arc::clone(table));
        }
        let now = Instant::now();
        let table = Arc::new(ProcessTable::read()?);
        *kept = Some((now, Arc::clone(&table)));
        Some(table)
    }
}

/// Gives the memory of its own that a process has in bytes: anonymous and shared memory, also what is swapped out, but not pages of files.
pub(super) fn own_memory(pid: u32) -> Option<u64> {
    own_memory_of(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn own_memory_of(status: &str) -> Option<u64> {
    let mut sum = None;
    for line in status.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if matches!(key, "RssAnon" | "RssShmem" | "VmSwap") {
            let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            sum = Some(kibibytes.checked_mul(1024)?.checked_add(sum.unwrap_or(0))?);
        }
    }
    sum
}

/// Reads `/proc/PID/stat`. The name stands in parentheses and may have any bytes in it, also parentheses.
fn parse(pid: u32, stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let began = fields.nth(17)?.parse().ok()?;
    Some(Process { id: ProcessId { pid, began }, parent, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = b"4711 (a) b (c) S 4700 4711 4711 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let process = parse(4711, stat).unwrap();
        assert_eq!((process.parent, process.id.began, process.name.as_str()), (4700, 98765, "a) b (c"));
        for junk in [&b""[..], b"1 (", b"1 ()", b"1 )(", b"1 (x) S", b"1 (x) S y 1"] {
            assert_eq!(parse(1, junk), None);
        }
        let status = "Name:\tcat\nVmHWM:\t  999 kB\nRssAnon:\t  16 kB\nRssFile:\t  4 kB\nRssShmem:\t  1 kB\nVmSwap:\t  2 kB\n";
        assert_eq!(own_memory_of(status), Some(19 * 1024));
        assert_eq!(own_memory_of("Name:\tkthreadd\nState:\tS (sleeping)\n"), None);
        assert_eq!(own_memory_of("RssAnon:\tmany kB\n"), None);
    }

    #[test]
    fn this_process_and_its_parent_are_there() {
        let shared = SharedTable::default();
        let table = shared.within(Duration::ZERO).unwrap();
        let this = table.get(std::process::id()).unwrap();
        assert_eq!(this.parent, std::os::unix::process::parent_id());
        assert!(table.contains(this.id) && table.get(this.parent).is_some());
        assert!(own_memory(std::process::id()).unwrap() > 0);
        assert!(Arc::ptr_eq(&table, &shared.within(Duration::from_secs(3600)).unwrap()));
    }
}
