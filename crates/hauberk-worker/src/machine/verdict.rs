//! What a daemon's word about a build means for the farm.

use hauberk_daemon::{BuildResult, BuildStatus, FailureReason};
use hauberk_protocol::proto::Outcome;

/// A failure, or the two ways to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Built just now.
    Built,
    /// The outputs were there, or came from elsewhere.
    AlreadyValid,
    /// It failed so.
    Failed(Outcome),
}

/// Judges a result. A builder that failed while the disk was full or memory was exhausted is not to blame: only the
/// state of the machine counts for that, never what is written in a log.
pub(crate) fn judge(result: &BuildResult, disk_full: bool, out_of_memory: bool) -> Verdict {
    use BuildStatus as S;
    let by_machine = |otherwise| {
        Verdict::Failed(if disk_full {
            Outcome::DiskFull
        } else if out_of_memory {
            Outcome::OutOfMemory
        } else {
            otherwise
        })
    };
    match result.status {
        S::Built => Verdict::Built,
        S::AlreadyValid | S::Substituted => Verdict::AlreadyValid,
        S::PermanentFailure => match result.reason {
            Some(FailureReason::TimedOut) => Verdict::Failed(Outcome::TimedOut),
            Some(FailureReason::Silent) => Verdict::Failed(Outcome::Silent),
            Some(FailureReason::LogLimit) => Verdict::Failed(Outcome::LogLimit),
            Some(FailureReason::NotDeterministic) => Verdict::Failed(Outcome::NotDeterministic),
            Some(FailureReason::Dependency) => Verdict::Failed(Outcome::MissingInputs),
            _ => by_machine(Outcome::BuildFailed),
        },
        S::InputRejected if result.reason == Some(FailureReason::Platform) => {
            Verdict::Failed(Outcome::Daemon)
        }
        S::CachedFailure | S::InputRejected => Verdict::Failed(Outcome::BuildFailed),
        S::OutputRejected => by_machine(Outcome::BuildFailed),
        S::TimedOut => Verdict::Failed(Outcome::TimedOut),
        S::Silent => Verdict::Failed(Outcome::Silent),
        S::LogLimitExceeded => Verdict::Failed(Outcome::LogLimit),
        S::NotDeterministic => Verdict::Failed(Outcome::NotDeterministic),
        S::DependencyFailed | S::NoSubstituters => Verdict::Failed(Outcome::MissingInputs),
        S::TransientFailure | S::Cancelled => by_machine(Outcome::Daemon),
        S::Misc => by_machine(match result.reason {
            Some(FailureReason::ExitCode(_) | FailureReason::Signal(_) | FailureReason::HashMismatch) => {
                Outcome::BuildFailed
            }
            _ => Outcome::Daemon,
        }),
    }
}

/// The exit status of the builder, or 128 + signal, where the daemon told it.
pub(crate) fn exit_status(result: &BuildResult) -> Option<i32> {
    match result.reason {
        Some(FailureReason::ExitCode(code)) => Some(code),
        Some(FailureReason::Signal(number)) => number.checked_add(128),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hauberk_daemon::BuildTarget;
    use hauberk_store::DrvPath;

    use super::*;

    fn result(status: BuildStatus, reason: Option<FailureReason>) -> BuildResult {
        let drv = DrvPath::parse("/nix/store/00000000000000000000000000000000-x.drv").unwrap();
        BuildResult { reason, ..BuildResult::new(BuildTarget::all(drv), status) }
    }

    #[test]
    fn every_status_has_its_meaning() {
        use BuildStatus as S;
        use FailureReason as R;
        let failed = Verdict::Failed;
        for (status, reason, expected) in [
            (S::Built, None, Verdict::Built),
            (S::AlreadyValid, None, Verdict::AlreadyValid),
            (S::Substituted, None, Verdict::AlreadyValid),
            (S::PermanentFailure, Some(R::ExitCode(3)), failed(Outcome::BuildFailed)),
            (S::PermanentFailure, None, failed(Outcome::BuildFailed)),
            (S::PermanentFailure, Some(R::TimedOut), failed(Outcome::TimedOut)),
            (S::PermanentFailure, Some(R::Silent), failed(Outcome::Silent)),
            (S::PermanentFailure, Some(R::Dependency), failed(Outcome::MissingInputs)),
            (S::OutputRejected, None, failed(Outcome::BuildFailed)),
            (S::InputRejected, None, failed(Outcome::BuildFailed)),
            (S::InputRejected, Some(R::Platform), failed(Outcome::Daemon)),
            (S::CachedFailure, None, failed(Outcome::BuildFailed)),
            (S::TimedOut, None, failed(Outcome::TimedOut)),
            (S::Silent, None, failed(Outcome::Silent)),
            (S::LogLimitExceeded, None, failed(Outcome::LogLimit)),
            (S::NotDeterministic, None, failed(Outcome::NotDeterministic)),
            (S::DependencyFailed, None, failed(Outcome::MissingInputs)),
            (S::NoSubstituters, None, failed(Outcome::MissingInputs)),
            (S::TransientFailure, None, failed(Outcome::Daemon)),
            (S::Cancelled, None, failed(Outcome::Daemon)),
            (S::Misc, None, failed(Outcome::Daemon)),
            (S::Misc, Some(R::ExitCode(1)), failed(Outcome::BuildFailed)),
        ] {
            assert_eq!(
                judge(&result(status, reason.clone()), false, false),
                expected,
                "{status:?} {reason:?}"
            );
        }
    }

    #[test]
    fn the_machine_takes_the_blame_only_for_failures_it_can_cause() {
        use BuildStatus as S;
        for (status, full, memory) in [
            (S::PermanentFailure, Outcome::DiskFull, Outcome::OutOfMemory),
            (S::OutputRejected, Outcome::DiskFull, Outcome::OutOfMemory),
            (S::Misc, Outcome::DiskFull, Outcome::OutOfMemory),
            (S::TimedOut, Outcome::TimedOut, Outcome::TimedOut),
            (S::DependencyFailed, Outcome::MissingInputs, Outcome::MissingInputs),
        ] {
            assert_eq!(judge(&result(status, None), true, false), Verdict::Failed(full), "{status:?}");
            assert_eq!(judge(&result(status, None), false, true), Verdict::Failed(memory), "{status:?}");
        }
        assert_eq!(judge(&result(S::Built, None), true, true), Verdict::Built);
    }

    #[test]
    fn exit_statuses_are_as_a_shell_has_them() {
        let check = |reason, expected| {
            assert_eq!(exit_status(&result(BuildStatus::PermanentFailure, reason)), expected);
        };
        check(Some(FailureReason::ExitCode(3)), Some(3));
        check(Some(FailureReason::Signal(11)), Some(139));
        check(None, None);
    }
}
