//! The heart: shows that this server lives, watches whether the others do, and takes over what dead ones have left.
//!
//! Each start of a server counts in its row, which tells its lease as well. Whoever sees that another's number has not changed for two
//! leases, of its own or of that start, whichever is longer, by its own monotonic clock and only by time in which it looked itself, ends that
//! start; from then on every write of it comes to nothing. Open attempts of starts that are over, whether they were ended or ended in
//! order, belong to the first server that asks for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hauberk_database::attempts::{self, OpenAttempt};
use hauberk_database::servers::{self, Peer};
use hauberk_database::{Database, DatabaseError, Epoch, ServerId};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::ServerError;
use crate::outcome::farm_faults;

/// The longest time between two beats.
const LONGEST_BEAT: Duration = Duration::from_secs(10);
/// The shortest.
const SHORTEST_BEAT: Duration = Duration::from_millis(250);

/// Whether other servers may have closed this start, and taken over what it had. Clones share the answer.
#[derive(Debug, Clone)]
pub(crate) struct Company(Arc<Looks>);

#[derive(Debug)]
struct Looks {
    /// Others have been seen.
    seen: AtomicBool,
    /// When they were last looked for, in milliseconds of [`uptime`].
    last: AtomicU64,
    /// Nobody closes a start that it has not seen standing still for so long.
    patience: Duration,
}

impl Company {
    /// Of a server with this lease that begins now.
    pub(crate) fn new(lease: Duration) -> Self {
        let last = AtomicU64::new(millis(uptime()));
        Self(Arc::new(Looks { seen: AtomicBool::new(false), last, patience: lease }))
    }

    /// Tells whether others may have come into what this server has: they have been seen since its start, or not been looked for lately.
    pub(crate) fn is_there(&self) -> bool {
        let Looks { seen, last, patience } = &*self.0;
        seen.load(Ordering::Relaxed)
            || millis(uptime()).saturating_sub(last.load(Ordering::Relaxed)) > millis(*patience)
    }

    /// Another server has been heard of.
    pub(crate) fn heard(&self) {
        self.0.seen.store(true, Ordering::Relaxed);
    }

    /// Takes what a look that began at `began` has shown.
    fn looked(&self, began: Duration, others: bool) {
        self.0.last.store(millis(began), Ordering::Relaxed);
        if others {
            self.0.seen.store(true, Ordering::Relaxed);
        }
    }
}

/// How long the machine has run, and slept: other servers' clocks go on while this one's machine sleeps.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// See the module's description.
pub(crate) struct Heart {
    /// Where servers are recorded.
    pub(crate) database: Database,
    /// This server.
    pub(crate) server: ServerId,
    /// This start of it.
    pub(crate) epoch: Epoch,
    /// Its name.
    pub(crate) name: String,
    /// A server that stood still for two of these, and for two of its own, is dead.
    pub(crate) lease: Duration,
    /// Told whether there are others.
    pub(crate) company: Company,
}

impl Heart {
    /// Beats until `stop`, or until this start is over. What is taken over goes to `heirs`.
    pub(crate) async fn run(
        self,
        heirs: UnboundedSender<Vec<OpenAttempt>>,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let period = (self.lease / 4).clamp(SHORTEST_BEAT, LONGEST_BEAT);
        let mut watch = Watch::new(self.lease, 2 * period);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            match self.beat(&mut watch).await {
                Ok(Beat::Over(error)) => return Err(error),
                Ok(Beat::Lives(inherited)) if inherited.is_empty() => {}
                Ok(Beat::Lives(inherited)) => {
                    // The dispatcher ends only with the server.
                    let _ = heirs.send(inherited);
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot show that this server lives");
                    // Nor could the others.
                    watch.forget();
                }
            }
        }
    }

    async fn beat(&self, watch: &mut Watch) -> Result<Beat, DatabaseError> {
        let client = self.database.client().await?;
        if !servers::beat(&client, self.epoch).await? {
            let name = self.name.clone();
            let superseded = servers::is_superseded(&client, self.server, self.epoch).await?;
            return Ok(Beat::Over(if superseded {
                ServerError::Superseded { name }
            } else {
                ServerError::TakenOver { name }
            }));
        }
        let began = uptime();
        let peers = servers::watch(&client, self.server).await?;
        self.company.looked(began, !peers.is_empty());
        for dead in watch.look(peers, Instant::now()) {
            if servers::close(&client, &dead).await? {
                warn!(
                    server.name = %dead.name, server.epoch = %dead.epoch,
                    "server {} stood still for {} s: others take over what it had", dead.name, watch.patience(&dead).as_secs()
                );
            }
        }
        let taken = servers::take_over(&client, self.epoch).await?;
        if taken.is_empty() {
            return Ok(Beat::Lives(Vec::new()));
        }
        info!(attempts.open = taken.len(), "took over {} attempts of another server", taken.len());
        let mut open = attempts::open(&client, self.epoch, &farm_faults()).await?;
        open.retain(|open| taken.contains(&open.attempt));
        Ok(Beat::Lives(open))
    }
}

enum Beat {
    /// All is well; these attempts are this server's now.
    Lives(Vec<OpenAttempt>),
    /// This start is over.
    Over(ServerError),
}

/// How long other servers have stood still.
#[derive(Debug)]
struct Watch {
    /// Of this server.
    lease: Duration,
    /// A longer pause between two looks is this server's own.
    standstill: Duration,
    looked: Option<Instant>,
    /// The last beat seen of each start, and since when.
    seen: HashMap<Epoch, (i64, Instant)>,
}

impl Watch {
    fn new(lease: Duration, standstill: Duration) -> Self {
        Self { lease, standstill, looked: None, seen: HashMap::new() }
    }

    /// Gives everybody as much time as at the beginning.
    fn forget(&mut self) {
        self.seen.clear();
    }

    /// How long a start may stand still: the longer its lease is, the more slowly it counts.
    fn patience(&self, peer: &Peer) -> Duration {
        2 * self.lease.max(peer.lease)
    }

    /// Takes the starts that are not over; gives those that stood still for too long.
    fn look(&mut self, peers: Vec<Peer>, now: Instant) -> Vec<Peer> {
        let paused = self
            .looked
            .replace(now)
            .is_some_and(|last| now.saturating_duration_since(last) > self.standstill);
        if paused {
            self.forget();
        }
        self.seen.retain(|epoch, _| peers.iter().any(|peer| peer.epoch == *epoch));
        let mut dead = Vec::new();
        for peer in peers {
            let patience = self.patience(&peer);
            let (beat, since) = self.seen.entry(peer.epoch).or_insert((peer.beat, now));
            if *beat != peer.beat {
                (*beat, *since) = (peer.beat, now);
            } else if now.saturating_duration_since(*since) >= patience {
                dead.push(peer);
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(epoch: i64, beat: i64) -> Peer {
        let lease = Duration::from_secs(5);
        Peer { epoch: Epoch::new(epoch), beat, lease, name: format!("server-{epoch}") }
    }

    #[test]
    fn a_server_is_dead_when_its_beat_stood_still_for_the_whole_patience() {
        let second = Duration::from_secs(1);
        let (mut watch, begin) = (Watch::new(5 * second, 3 * second), Instant::now());
        let mut dead = Vec::new();
        // The first counts on, the second stops at 5.
        for at in 0..=15 {
            let peers = vec![peer(1, i64::from(at)), peer(2, i64::from(at.min(5)))];
            dead = watch.look(peers, begin + at * second);
            assert!(dead.is_empty() || at == 15, "{at}: {dead:?}");
        }
        assert_eq!(dead, [peer(2, 5)]);
    }

    #[test]
    fn others_may_be_there_once_they_were_seen_or_have_not_been_looked_for() {
        let hour = Duration::from_secs(3600);
        let company = Company::new(hour);
        assert!(!company.is_there());
        company.looked(uptime(), true);
        company.looked(uptime(), false);
        assert!(company.is_there(), "those that left may come back");
        let company = Company::new(Duration::ZERO);
        company.looked(uptime().saturating_sub(Duration::from_secs(1)), false);
        assert!(company.is_there());
    }

    #[test]
    fn a_server_with_a_longer_lease_may_stand_still_for_two_of_them() {
        let second = Duration::from_secs(1);
        let (mut watch, begin) = (Watch::new(second, 3 * second), Instant::now());
        let slow = |beat| Peer { lease: 30 * second, ..peer(2, beat) };
        for at in 0..=62 {
            // It counts once in ten seconds, and no more after two.
            let dead = watch.look(vec![slow(i64::from(at / 10).min(2))], begin + at * second);
            assert!(dead.is_empty(), "{at}");
        }
        for at in 63..80 {
            assert!(watch.look(vec![slow(2)], begin + at * second).is_empty(), "{at}");
        }
        assert_eq!(watch.look(vec![slow(2)], begin + 80 * second), [slow(2)]);
        // Nor is one with a shorter lease dead before this one's own time is over.
        let mut watch = Watch::new(30 * second, 13 * second);
        for at in 0..60 {
            assert!(watch.look(vec![peer(1, 1)], begin + at * second).is_empty(), "{at}");
        }
        assert_eq!(watch.look(vec![peer(1, 1)], begin + 60 * second).len(), 1);
    }

    #[test]
    fn who_stood_still_itself_begins_to_count_anew() {
        let second = Duration::from_secs(1);
        let (mut watch, begin) = (Watch::new(5 * second, 3 * second), Instant::now());
        for at in 0..9 {
            assert_eq!(watch.look(vec![peer(1, 7)], begin + at * second), []);
        }
        // Stopped for a minute: the other may have been as well.
        for at in 68..78 {
            assert_eq!(watch.look(vec![peer(1, 7)], begin + at * second), [], "{at}");
        }
        assert_eq!(watch.look(vec![peer(1, 7)], begin + 78 * second).len(), 1);
        watch.forget();
        assert_eq!(watch.look(vec![peer(1, 7)], begin + 79 * second), []);
    }
}
