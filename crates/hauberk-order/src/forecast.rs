//! When a build will begin and end, by what is known.

use std::time::Duration;

use crate::Estimate;

/// What lies before the end of a build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// The time until all it needs can be there if slots were never short: the longest chain of unfinished builds below it.
    pub chain: Duration,
    /// Slot time of all that is to be given out before it, with what the builds that run still take.
    pub ahead: Duration,
    /// Slots that work on that; at least a part of one.
    pub slots: f64,
    /// How long it takes itself.
    pub own: Estimate,
}

/// A time from now on, and how far it may be off: at least eight of ten lie between `earliest` and `latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The most likely.
    pub likely: Duration,
    /// Few are sooner ...
    pub earliest: Duration,
    /// ... or later.
    pub latest: Duration,
}

/// When a build will begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Its beginning.
    pub start: Span,
    /// Its end.
    pub end: Span,
}

/// The parts of a wait that few builds begin before, and the multiples that few begin after, for what they need and for a slot.
///
/// Chains take other times than was expected, which evens out along them, and may have to wait for slots themselves. A wait for a slot is
/// shorter where what is ahead has to wait for its own inputs, and much longer where evaluations keep coming whose builds go before. They
/// are what covers at least eight ends of ten in the replays (`hauberk-loadgen replay`), with one evaluation and with more that come all
/// the time, of which a forecast cannot know.
const CHAIN: (f64, f64) = (0.65, 1.6);
const QUEUE: (f64, f64) = (0.35, 3.0);

impl Outlook {
    /// Forecasts when the build begins and ends. Its wait is for what it needs, or for a slot, whichever takes longer.
    pub fn forecast(&self) -> Forecast {
        // A queue that nobody would live to see the end of is as long as any.
        let times = |wait: Duration, factor: f64| {
            Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(Duration::MAX)
        };
        let queue = times(self.ahead, 1.0 / self.slots.max(0.01));
        let likely = self.chain.max(queue);
        let start = Span {
            likely,
            earliest: times(self.chain, CHAIN.0).max(times(queue, QUEUE.0)),
            latest: times(self.chain, CHAIN.1).max(times(queue, QUEUE.1)),
        };
        let end = Span {
            likely: start.likely.saturating_add(self.own.duration),
            earliest: start.earliest.saturating_add(self.own.shortest.min(self.own.duration)),
            latest: start.latest.saturating_add(self.own.longest.max(self.own.duration)),
        };
        Forecast { start, end }
    }
}

/// What a build that runs for so long still takes, if it was expected to take so long. One that is late is believed to take some more:
/// the later, the longer.
pub fn remaining(expected: Duration, elapsed: Duration) -> Duration {
    expected.saturating_sub(elapsed).max(elapsed.max(expected).mul_f64(0.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Basis;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_wait_is_for_inputs_or_for_a_slot_whichever_is_longer() {
        let own = Estimate {
            duration: seconds(100),
            shortest: seconds(50),
            longest: seconds(200),
            basis: Basis::SameVersion,
        };
        let outlook = Outlook { chain: seconds(10), ahead: seconds(400), slots: 4.0, own };
        let Forecast { start, end } = outlook.forecast();
        assert_eq!((start.likely, end.likely), (seconds(100), seconds(200)));
        assert!(start.earliest < start.likely && start.likely < start.latest);
        assert!(end.earliest < end.likely && end.likely < end.latest);
        let inputs = Outlook { chain: seconds(1000), ..outlook }.forecast();
        assert_eq!(inputs.start.likely, seconds(1000));
        // A chain is a bound below, however long the queue may become.
        assert!(inputs.start.earliest > start.earliest && inputs.start.earliest < seconds(1000));
        let endless = Outlook { ahead: Duration::MAX, slots: 0.0, ..outlook }.forecast();
        assert!(endless.end.earliest <= endless.end.likely && endless.end.likely <= endless.end.latest);
    }

    #[test]
    fn what_is_late_takes_some_more() {
        assert_eq!(remaining(seconds(100), seconds(30)), seconds(70));
        assert_eq!(remaining(seconds(100), seconds(95)), seconds(10));
        assert_eq!(remaining(seconds(100), seconds(400)), seconds(40));
    }
}
