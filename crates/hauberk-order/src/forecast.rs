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
    /// The part of `ahead` that waits for nothing but slots: what runs, and what is ready.
    pub ready_ahead: Duration,
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

/// The part of the wait for what it needs that few builds begin before, and the multiple that few begin after. Chains take other times than
/// was expected, which evens out along them, and may have to wait for slots themselves.
///
/// These and the following cover at least eight ends of ten in each of the replays (`hauberk-loadgen replay`), with one evaluation and with
/// more that come all the time, of which a forecast cannot know.
const CHAIN: (f64, f64) = (0.6, 1.6);
/// The parts of the wait for a slot that few builds begin before: of the time for what is ready, and of the time for the rest. Where slots are
/// many, what is ahead and has to wait for its own inputs is overtaken by what has not.
const QUEUE_EARLIEST: (f64, f64) = (0.8, 0.05);
/// The multiple of the wait for a slot that few builds begin after. It is much longer where evaluations keep coming whose builds go before.
const QUEUE_LATEST: f64 = 3.0;

impl Outlook {
    /// Forecasts when the build begins and ends. Its wait is for what it needs, or for a slot, whichever takes longer.
    pub fn forecast(&self) -> Forecast {
        // A queue that nobody would live to see the end of is as long as any.
        let times = |wait: Duration, factor: f64| {
            Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(Duration::MAX)
        };
        let queue = times(self.ahead, 1.0 / self.slots.max(0.01));
        let ready = times(self.ready_ahead, 1.0 / self.slots.max(0.01)).min(queue);
        let queue_earliest =
            times(ready, QUEUE_EARLIEST.0).saturating_add(times(queue - ready, QUEUE_EARLIEST.1));
        let likely = self.chain.max(queue);
        let start = Span {
            likely,
            earliest: times(self.chain, CHAIN.0).max(queue_earliest),
            latest: times(self.chain, CHAIN.1).max(times(queue, QUEUE_LATEST)),
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
        let (ahead, ready_ahead) = (seconds(400), seconds(200));
        let outlook = Outlook { chain: seconds(10), ahead, ready_ahead, slots: 4.0, own };
        let Forecast { start, end } = outlook.forecast();
        assert_eq!((start.likely, end.likely), (seconds(100), seconds(200)));
        assert!(start.earliest < start.likely && start.likely < start.latest);
        assert!(end.earliest < end.likely && end.likely < end.latest);
        // What is ready before it takes slots; what waits for inputs may not.
        let ready = Outlook { ready_ahead: ahead, ..outlook }.forecast();
        assert!(ready.start.earliest > start.earliest && ready.start.likely == start.likely);
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
