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

/// A time from now on, and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The most likely.
    pub likely: Duration,
    /// Seldom is it sooner ...
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

/// The part of the wait that a build seldom begins before, and the multiple that it seldom begins after: what runs, and what is ahead,
/// takes other times than was expected, and other work comes in between.
const SOONER: f64 = 0.7;
const LATER: f64 = 1.4;

impl Outlook {
    /// Forecasts when the build begins and ends. Its wait is for what it needs, or for a slot, whichever takes longer.
    pub fn forecast(&self) -> Forecast {
        let queue = self.ahead.div_f64(self.slots.max(0.01));
        let likely = self.chain.max(queue);
        let start = Span { likely, earliest: likely.mul_f64(SOONER), latest: likely.mul_f64(LATER) };
        let end = Span {
            likely: start.likely + self.own.duration,
            earliest: start.earliest + self.own.shortest.min(self.own.duration),
            latest: start.latest + self.own.longest.max(self.own.duration),
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
    }

    #[test]
    fn what_is_late_takes_some_more() {
        assert_eq!(remaining(seconds(100), seconds(30)), seconds(70));
        assert_eq!(remaining(seconds(100), seconds(95)), seconds(10));
        assert_eq!(remaining(seconds(100), seconds(400)), seconds(40));
    }
}
