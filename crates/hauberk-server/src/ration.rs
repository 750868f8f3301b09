//! What peers send that is no message, or of no known kind: counted, and told in a log line now and then.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::warn;

/// A line about the same peer is written at most so often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Peers that are remembered; beyond them, those that were told about long enough ago are forgotten.
const PEERS: usize = 1024;

/// An error with its cause, in a line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Counts what came from peers in vain, and rations the lines about it: whoever floods a port does not flood the log.
#[derive(Debug, Default)]
pub(crate) struct Ration {
    total: u64,
    peers: HashMap<Option<IpAddr>, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Kept back since.
    silent: u64,
}

impl Ration {
    /// Counts one more from `peer`, and tells about it if that peer was not told about a moment ago.
    pub(crate) fn count(&mut self, peer: Option<IpAddr>, now: Instant, what: &dyn fmt::Display) {
        if let Some(silent) = self.admit(peer, now) {
            let peer = peer.map_or_else(|| "a peer".to_owned(), |peer| peer.to_string());
            warn!(
                peer.address = peer,
                messages.ignored = self.total,
                messages.untold = silent,
                "ignored what {peer} sent: {what}"
            );
        }
    }

    /// Counts one more; gives how many were kept back before it when it may be told.
    fn admit(&mut self, peer: Option<IpAddr>, now: Instant) -> Option<u64> {
        self.total += 1;
        if let Some(told) = self.peers.get_mut(&peer) {
            if now.saturating_duration_since(told.at) < INTERVAL {
                told.silent += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.silent));
        }
        if self.peers.len() >= PEERS {
            self.peers.retain(|_, told| now.saturating_duration_since(told.at) < INTERVAL);
        }
        // Many new peers at once: they are counted only.
        if self.peers.len() >= PEERS {
            return None;
        }
        self.peers.insert(peer, Told { at: now, silent: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_flood_is_counted_and_told_once_a_minute() {
        let (mut ration, begin) = (Ration::default(), Instant::now());
        assert_eq!(ration.admit(peer(1), begin), Some(0));
        for second in 0..60 {
            assert_eq!(ration.admit(peer(1), begin + Duration::from_secs(second)), None);
        }
        assert_eq!(ration.admit(peer(2), begin), Some(0));
        assert_eq!(ration.admit(None, begin), Some(0));
        assert_eq!(ration.admit(peer(1), begin + INTERVAL), Some(60));
        assert_eq!(ration.total, 64);
    }

    #[test]
    fn peers_are_not_remembered_without_bound() {
        let (mut ration, begin) = (Ration::default(), Instant::now());
        for number in 0..5000 {
            ration.admit(peer(number), begin);
        }
        assert_eq!((ration.peers.len(), ration.total), (PEERS, 5000));
        assert_eq!(ration.admit(peer(7000), begin + INTERVAL), Some(0));
        assert_eq!(ration.peers.len(), 1);
    }
}
