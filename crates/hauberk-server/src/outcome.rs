//! What an attempt's end means: whose fault it was, and what becomes of the build.

use hauberk_database::dispatch::{AttemptClass, Consequence};
use hauberk_protocol::proto::{DeclineReason, Outcome};

/// How often and after what delays a build is tried again when the farm was at fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub tries: u16,
    /// Seconds before the first of them.
    pub first_delay: f64,
    /// What the delay is multiplied with each time, up to an hour.
    pub factor: f64,
}

impl Default for RetryPolicy {
    /// Three more tries: after 2 s, 16 s and about two minutes.
    fn default() -> Self {
        Self { tries: 3, first_delay: 2.0, factor: 8.0 }
    }
}

/// No delay is longer, in seconds, unless the first is.
const LONGEST_DELAY: f64 = 3600.0;

impl RetryPolicy {
    /// Gives the seconds before the next try of a build that has failed so often before.
    fn delay(&self, earlier: u16) -> f64 {
        let grown = self.first_delay * self.factor.powi(i32::from(earlier));
        grown.min(LONGEST_DELAY.max(self.first_delay))
    }

    /// Gives the longest delay there is, in seconds.
    pub(crate) fn longest_delay(&self) -> f64 {
        self.delay(self.tries.saturating_sub(1))
    }

    /// Decides about a build that has failed `earlier_faults` times before by the farm's fault, and now did so again.
    pub(crate) fn after_farm_fault(&self, earlier_faults: i16) -> Consequence {
        let earlier = u16::try_from(earlier_faults).unwrap_or(0);
        if earlier >= self.tries {
            Consequence::FailOther
        } else {
            Consequence::Retry { delay: self.delay(earlier) }
        }
    }
}

/// Whose fault the end of an attempt was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It succeeded.
    None,
    /// The package's: another try would end the same way.
    Package,
    /// The farm's: another try, elsewhere, may do better.
    Farm,
    /// Nobody's: it was stopped on purpose.
    Nobody,
}

/// Tells whose fault the end of an attempt was.
pub(crate) fn fault(class: AttemptClass) -> Fault {
    match class {
        AttemptClass::Succeeded => Fault::None,
        AttemptClass::BuildFailed
        | AttemptClass::TimedOut
        | AttemptClass::Silent
        | AttemptClass::LogLimit
        | AttemptClass::OutputLimit
        | AttemptClass::NotDeterministic => Fault::Package,
        AttemptClass::MissingInputs
        | AttemptClass::Transfer
        | AttemptClass::DiskFull
        | AttemptClass::OutOfMemory
        | AttemptClass::Daemon
        | AttemptClass::WorkerLost
        | AttemptClass::Declined => Fault::Farm,
        AttemptClass::Canceled | AttemptClass::Superseded => Fault::Nobody,
    }
}

/// All ends that are the farm's fault.
pub(crate) fn farm_faults() -> Vec<AttemptClass> {
    AttemptClass::ALL.iter().copied().filter(|class| fault(*class) == Fault::Farm).collect()
}

/// Tells what becomes of a build when an attempt of it ended as `class`. Success has no consequence of this kind: it is
/// decided when the outputs have been fetched.
pub(crate) fn consequence(class: AttemptClass, earlier_faults: i16, policy: &RetryPolicy) -> Consequence {
    match fault(class) {
        Fault::Package => Consequence::Fail,
        Fault::Farm => policy.after_farm_fault(earlier_faults),
        Fault::Nobody | Fault::None => Consequence::Ready,
    }
}

/// Reads what a worker reports. `None` for success, which is not an end yet, and for outcomes of a newer protocol.
pub(crate) fn class_of(outcome: Outcome) -> Option<AttemptClass> {
    match outcome {
        Outcome::Unspecified | Outcome::Succeeded => None,
        Outcome::BuildFailed => Some(AttemptClass::BuildFailed),
        Outcome::TimedOut => Some(AttemptClass::TimedOut),
        Outcome::Silent => Some(AttemptClass::Silent),
        Outcome::LogLimit => Some(AttemptClass::LogLimit),
        Outcome::OutputLimit => Some(AttemptClass::OutputLimit),
        Outcome::NotDeterministic => Some(AttemptClass::NotDeterministic),
        Outcome::MissingInputs => Some(AttemptClass::MissingInputs),
        Outcome::Transfer => Some(AttemptClass::Transfer),
        Outcome::DiskFull => Some(AttemptClass::DiskFull),
        Outcome::OutOfMemory => Some(AttemptClass::OutOfMemory),
        Outcome::Daemon => Some(AttemptClass::Daemon),
        Outcome::Canceled => Some(AttemptClass::Canceled),
    }
}

/// Reads why a worker declined: whether that was the farm's fault, or just bad timing.
pub(crate) fn class_of_decline(reason: DeclineReason) -> AttemptClass {
    match reason {
        DeclineReason::NoSlot | DeclineReason::Leaving => AttemptClass::Canceled,
        DeclineReason::LowDisk => AttemptClass::DiskFull,
        DeclineReason::InputDiffers | DeclineReason::Unsupported | DeclineReason::Unspecified => {
            AttemptClass::Declined
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_fault_is_final_and_the_farms_is_tried_again_with_growing_delay() {
        let policy = RetryPolicy::default();
        for class in AttemptClass::ALL {
            let decided: Vec<_> = (0..5).map(|faults| consequence(*class, faults, &policy)).collect();
            match fault(*class) {
                Fault::Package => assert!(decided.iter().all(|c| *c == Consequence::Fail), "{class}"),
                Fault::Farm => assert_eq!(
                    decided,
                    [
                        Consequence::Retry { delay: 2.0 },
                        Consequence::Retry { delay: 16.0 },
                        Consequence::Retry { delay: 128.0 },
                        Consequence::FailOther,
                        Consequence::FailOther,
                    ],
                    "{class}"
                ),
                Fault::Nobody | Fault::None => {
                    assert!(decided.iter().all(|c| *c == Consequence::Ready), "{class}");
                }
            }
        }
    }

    #[test]
    fn no_delay_is_longer_than_an_hour_or_the_first() {
        let longest =
            |tries, first_delay| RetryPolicy { tries, first_delay, ..RetryPolicy::default() }.longest_delay();
        assert_eq!(longest(0, 2.0), 2.0);
        assert_eq!(longest(3, 2.0), 128.0);
        assert_eq!(longest(100, 2.0), 3600.0);
        assert_eq!(longest(3, 7200.0), 7200.0);
    }

    #[test]
    fn a_worker_cannot_report_what_only_the_server_can_know() {
        for number in 0..100 {
            if let Ok(outcome) = Outcome::try_from(number) {
                let class = class_of(outcome);
                assert!(!matches!(
                    class,
                    Some(AttemptClass::WorkerLost | AttemptClass::Superseded | AttemptClass::Succeeded)
                ));
            }
        }
    }
}
