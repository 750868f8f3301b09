//! What a run costs: processor time of each part, commits and write-ahead log of the database.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use hauberk_database::Database;
use serde_json::{Map, Value};

use crate::figure::rounded;

/// Clock ticks of `/proc/PID/stat` in a second; the same on every Linux.
const TICKS: f64 = 100.0;

/// Counters at a moment.
#[derive(Debug)]
pub(crate) struct Usage {
    at: Instant,
    server: f64,
    postgres: f64,
    loadgen: f64,
    commits: i64,
    wal_bytes: i64,
    wal_syncs: i64,
}

impl Usage {
    /// Reads the counters.
    pub(crate) async fn read(server: u32, postgres: u32, database: &Database) -> Result<Self> {
        let row = database
            .client()
            .await?
            .query_one(
                "select (select xact_commit from pg_stat_database where datname = current_database()),
                        (select wal_bytes::bigint from pg_stat_wal), (select wal_sync from pg_stat_wal)",
                &[],
            )
            .await
            .context("reading PostgreSQL's counters")?;
        Ok(Self {
            at: Instant::now(),
            server: Process::read(server).map_or(0.0, |process| process.own),
            postgres: family_seconds(postgres),
            loadgen: Process::read(std::process::id()).map_or(0.0, |process| process.own),
            commits: row.get(0),
            wal_bytes: row.get(1),
            wal_syncs: row.get(2),
        })
    }

    /// Notes what was used since `before`.
    pub(crate) fn since(&self, before: &Self, parameters: &mut Map<String, Value>) {
        let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
        note("wall_seconds", rounded((self.at - before.at).as_secs_f64(), 3).into());
        note("cpu_seconds_server", rounded(self.server - before.server, 2).into());
        note("cpu_seconds_postgres", rounded(self.postgres - before.postgres, 2).into());
        note("cpu_seconds_loadgen", rounded(self.loadgen - before.loadgen, 2).into());
        note("postgres_commits", (self.commits - before.commits).into());
        note("postgres_wal_bytes", (self.wal_bytes - before.wal_bytes).into());
        note("postgres_wal_syncs", (self.wal_syncs - before.wal_syncs).into());
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// All that is resident, shared pages of files too.
    pub(crate) resident: u64,
    /// Its own: heaps and stacks.
    pub(crate) anonymous: u64,
    /// The most that was resident since its start.
    pub(crate) peak: u64,
}

impl Memory {
    /// Reads it.
    pub(crate) fn read(id: u32) -> Result<Self> {
        let path = format!("/proc/{id}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Self::parse(&status).with_context(|| format!("{path} does not tell of memory"))
    }

    /// Reads the lines of proc_pid_status(5).
    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        };
        Some(Self { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")?, peak: bytes("VmHWM")? })
    }
}

/// Processor seconds that a process has used so far.
pub(crate) fn processor_seconds(id: u32) -> Result<f64> {
    let process = Process::read(id).with_context(|| format!("process {id} has ended"))?;
    Ok(process.own)
}

/// Seconds of processor time, of a process and of its children that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Process {
    parent: u32,
    own: f64,
    waited: f64,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// Reads a line of proc_pid_stat(5).
    fn parse(stat: &str) -> Option<Self> {
        let (_, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let seconds = |place: usize| fields.get(place)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(11)? + seconds(12)?,
            waited: seconds(13)? + seconds(14)?,
        })
    }
}

/// Processor time of a process, its children, and the children it has waited for.
fn family_seconds(parent: u32) -> f64 {
    let mut seconds = Process::read(parent).map_or(0.0, |process| process.own + process.waited);
    let Ok(entries) = fs::read_dir("/proc") else { return seconds };
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = id.and_then(Process::read)
            && process.parent == parent
        {
            seconds += process.own;
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_kernel_is_read_whatever_the_name_of_the_program() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 20 5 20 0 9 0 1 2 3";
        assert_eq!(Process::parse(line), Some(Process { parent: 7, own: 2.0, waited: 0.25 }));
        assert_eq!(Process::parse("42 (a) S"), None);
        assert!(Process::read(std::process::id()).is_some());
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    30 kB\nVmRSS:\t    20 kB\nRssAnon:\t     5 kB\n";
        let memory = Memory { resident: 20 << 10, anonymous: 5 << 10, peak: 30 << 10 };
        assert_eq!(Memory::parse(status), Some(memory));
        assert_eq!(Memory::parse("Name:\tx\n"), None);
        assert!(Memory::read(std::process::id()).unwrap().resident > 0);
    }
}
