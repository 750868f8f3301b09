//! How much memory a build uses: what its processes have together, looked at again and again.
//!
//! A build daemon gives each connection a process of its own, from which it starts the builders, whatever namespaces and control groups they
//! get. No privilege is needed to see that, and what each process has. So the connection of an attempt is made while nobody else of this
//! worker looks on, and the daemon's new child is the one that serves it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hauberk_daemon::{ConnectOptions, Connection, DaemonAddress, DaemonError};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::processes::{Process, ProcessId, ProcessTable, SharedTable, own_memory};

/// How often an attempt connects anew when somebody else connected in the same moment.
const TRIES: usize = 5;

/// The pause before the first look at a build, which may be short, and the longest between two.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Tells the processes of different connections apart.
#[derive(Debug, Default)]
pub(super) struct Memory {
    table: Arc<SharedTable>,
    /// Held while a connection is made whose process is to be known.
    connecting: Mutex<()>,
}

/// Measures the build of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    table: Arc<SharedTable>,
    builders: Builders,
    peak: u64,
}

impl Memory {
    /// Connects, and finds the process that serves the connection, where it can be known.
    ///
    /// # Errors
    /// As for [`Connection::connect`].
    pub(super) async fn connect(
        &self,
        address: &DaemonAddress,
        options: &ConnectOptions,
    ) -> Result<(Connection<UnixStream>, Option<ProcessId>), DaemonError> {
        let _alone = self.connecting.lock().await;
        let mut tries = 1;
        loop {
            let before = self.look(Duration::ZERO).await;
            let connection = Connection::connect(address, options).await?;
            let (Some(before), Some(listener)) = (before, connection.listener()) else {
                return Ok((connection, None));
            };
            let Some(after) = self.look(Duration::ZERO).await else { return Ok((connection, None)) };
            match serving(&before, &after, listener).as_slice() {
                [] => return Ok((connection, None)),
                [one] => return Ok((connection, Some(*one))),
                // Another client's connection was made in between.
                _ if tries < TRIES => tries += 1,
                _ => return Ok((connection, None)),
            }
        }
    }

    /// Begins to measure what the process of a connection starts from now on.
    pub(super) async fn meter(&self, serving: ProcessId) -> Option<Meter> {
        let table = self.look(Duration::ZERO).await?;
        Some(Meter {
            table: Arc::clone(&self.table),
            builders: Builders::before_build(serving, &table),
            peak: 0,
        })
    }

    async fn look(&self, age: Duration) -> Option<Arc<ProcessTable>> {
        look(&self.table, age).await
    }
}

async fn look(table: &Arc<SharedTable>, age: Duration) -> Option<Arc<ProcessTable>> {
    let table = Arc::clone(table);
    tokio::task::spawn_blocking(move || table.within(age)).await.ok().flatten()
}

impl Meter {
    /// Looks at the build's processes until the future is dropped.
    pub(super) async fn watch(&mut self) -> std::convert::Infallible {
        let mut pause = FIRST;
        loop {
            tokio::time::sleep(pause).await;
            if let Some(table) = look(&self.table, pause / 2).await {
                let members = self.builders.members(&table);
                let sum = tokio::task::spawn_blocking(move || {
                    members.iter().filter_map(|pid| own_memory(*pid)).fold(0, u64::saturating_add)
                });
                self.peak = self.peak.max(sum.await.unwrap_or(0));
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Gives the most that was seen, in bytes; 0 if nothing was.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }
}

/// The processes of a build.
#[derive(Debug)]
struct Builders {
    serving: ProcessId,
    /// What the daemon's process had started before, as substituters of a Guix daemon.
    others: HashSet<ProcessId>,
    /// What belonged to the build at the last look. A process whose parent has ended gets another one, and stays.
    seen: HashSet<ProcessId>,
}

impl Builders {
    fn before_build(serving: ProcessId, table: &ProcessTable) -> Self {
        let mut builders = Self { serving, others: HashSet::new(), seen: HashSet::new() };
        let _ = builders.members(table);
        builders.others = std::mem::take(&mut builders.seen);
        builders
    }

    /// Gives the numbers of the build's processes.
    fn members(&mut self, table: &ProcessTable) -> Vec<u32> {
        self.seen.retain(|id| table.contains(*id));
        // Without the connection's own process no new ones come, but those that were seen may last.
        let mut parents: HashSet<u32> = self.seen.iter().map(|id| id.pid).collect();
        if table.contains(self.serving) {
            parents.insert(self.serving.pid);
        }
        loop {
            let before = self.seen.len();
            for process in table.iter() {
                let id = process.id;
                if parents.contains(&process.parent) && !self.others.contains(&id) && self.seen.insert(id) {
                    parents.insert(id.pid);
                }
            }
            if self.seen.len() == before {
                return self.seen.iter().map(|id| id.pid).collect();
            }
        }
    }
}

/// Gives the processes that may serve a connection which was made between two looks, when `listener` opened the daemon's socket: new children of
/// the daemon. The socket may have been opened by a supervisor, which started the daemon.
fn serving(before: &ProcessTable, after: &ProcessTable, listener: u32) -> Vec<ProcessId> {
    let is_listening = |process: &Process| match after.get(listener) {
        Some(opener) if is_daemon(opener) => process.id.pid == listener,
        Some(_) => process.parent == listener && is_daemon(process),
        None => false,
    };
    let new = after.iter().filter(|process| !before.contains(process.id));
    new.filter(|process| after.get(process.parent).is_some_and(is_listening))
        .map(|process| process.id)
        .collect()
}

/// Tells whether a process runs a build daemon, going by its name.
fn is_daemon(process: &Process) -> bool {
    ["nix", "guix", "lix"].iter().any(|name| process.name.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, name: &str) -> Process {
        Process { id: ProcessId { pid, began: u64::from(pid) * 10 }, parent, name: name.to_owned() }
    }

    fn table(of: &[(u32, u32, &str)]) -> ProcessTable {
        ProcessTable::of(of.iter().map(|(pid, parent, name)| process(*pid, *parent, name)))
    }

    #[test]
    fn the_daemons_new_child_serves() {
        let check = |before: &[(u32, u32, &str)], after: &[(u32, u32, &str)], listener, expected: &[u32]| {
            let mut found: Vec<u32> =
                serving(&table(before), &table(after), listener).iter().map(|id| id.pid).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{after:?}");
        };
        let own = [(1, 0, "systemd"), (10, 1, "nix-daemon"), (11, 10, "nix-daemon"), (12, 11, "bash")];
        let with = |more: &[(u32, u32, &'static str)]| [&own[..], more].concat();
        check(&own, &with(&[(13, 10, "nix-daemon")]), 10, &[13]);
        // A new builder of another connection, or a process of somebody else.
        check(&own, &with(&[(13, 10, "nix-daemon"), (14, 11, "bash"), (15, 1, "cron")]), 10, &[13]);
        check(&own, &with(&[(13, 10, "nix-daemon"), (14, 10, "nix-daemon")]), 10, &[13, 14]);
        // systemd opened the socket.
        check(&own, &with(&[(13, 10, "nix-daemon"), (14, 1, "nix-daemon"), (15, 1, "systemd")]), 1, &[13]);
        // It started the daemon only now.
        check(
            &[(1, 0, "systemd")],
            &[(1, 0, "systemd"), (10, 1, ".guix-daemon-re"), (11, 10, ".guix-daemon-re")],
            1,
            &[11],
        );
        // Whoever opened the socket cannot be seen from here.
        check(&own, &with(&[(13, 10, "nix-daemon")]), 0, &[]);
        check(&own, &own, 10, &[]);
    }

    #[test]
    fn a_build_is_what_descends_from_its_connection_since_it_began() {
        let base = [
            (10, 1, "guix-daemon"),
            (11, 10, "guix-daemon"),
            (12, 11, "guix substitute"),
            (20, 10, "guix-daemon"),
        ];
        let serving = process(11, 10, "").id;
        let mut builders = Builders::before_build(serving, &table(&base));
        let mut members = |more: &[(u32, u32, &'static str)]| {
            let mut found = builders.members(&table(&[&base[..], more].concat()));
            found.sort_unstable();
            found
        };
        assert!(members(&[]).is_empty());
        let other = (21, 20, "bash");
        assert_eq!(members(&[other, (13, 11, "bash"), (14, 13, "make"), (15, 14, "cc1")]), [13, 14, 15]);
        // The make has ended, and its child has got another parent; what that starts belongs to the build, too.
        assert_eq!(members(&[other, (13, 11, "bash"), (15, 1, "cc1"), (16, 15, "as")]), [13, 15, 16]);
        assert!(members(&[other]).is_empty());
    }
}
