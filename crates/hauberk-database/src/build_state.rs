//! What state a build is in, and how the JSON API numbers it.

use crate::text_column::text_enum;

text_enum! {
    /// The state of a build (`builds.state`).
    BuildState {
        /// Recorded by an evaluation that is not published yet.
        Staged = "staged",
        /// An operator keeps it back.
        Held = "held",
        /// Some of its dependencies have not succeeded.
        Waiting = "waiting",
        /// To be tried again, but not before a moment.
        Deferred = "deferred",
        /// For a worker to take.
        Ready = "ready",
        /// Given to a worker that has not said yet that it began.
        Assigned = "assigned",
        /// A worker builds it.
        Running = "running",
        /// Built, on the worker's word.
        Built = "built",
        /// Its outputs are under way to the server.
        Fetching = "fetching",
        /// Its outputs are in the farm's cache, signature and hash checked.
        Succeeded = "succeeded",
        /// The package's fault.
        Failed = "failed",
        /// Something it needs failed.
        FailedDependency = "failed_dependency",
        /// The farm's fault, and the tries are used up.
        FailedOther = "failed_other",
        /// Nobody wants it any more.
        Canceled = "canceled",
    }
}

/// How Cuirass and Hydra number the state of a build in their APIs (`builds.status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum BuildStatus {
    /// A worker has it, and has not begun.
    Submitted = -3,
    /// It waits.
    Scheduled = -2,
    /// A worker is at it.
    Started = -1,
    /// Done.
    Succeeded = 0,
    /// The package's fault.
    Failed = 1,
    /// Something it needs failed.
    FailedDependency = 2,
    /// The farm's fault.
    FailedOther = 3,
    /// Canceled.
    Canceled = 4,
}

impl BuildStatus {
    /// Every status, in the order of its number.
    pub const ALL: &'static [Self] = &[
        Self::Submitted,
        Self::Scheduled,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::FailedDependency,
        Self::FailedOther,
        Self::Canceled,
    ];

    /// Gives the number.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// Finds the status of a number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.number() == number)
    }

    /// Gives the word for pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Scheduled => "scheduled",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::FailedDependency => "failed dependency",
            Self::FailedOther => "failed other",
            Self::Canceled => "canceled",
        }
    }
}

impl std::fmt::Display for BuildStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl BuildState {
    /// Tells how the APIs number this state; the column `builds.status` is computed the same way.
    pub const fn status(self) -> BuildStatus {
        match self {
            Self::Staged | Self::Held | Self::Waiting | Self::Deferred | Self::Ready => {
                BuildStatus::Scheduled
            }
            Self::Assigned => BuildStatus::Submitted,
            Self::Running | Self::Built | Self::Fetching => BuildStatus::Started,
            Self::Succeeded => BuildStatus::Succeeded,
            Self::Failed => BuildStatus::Failed,
            Self::FailedDependency => BuildStatus::FailedDependency,
            Self::FailedOther => BuildStatus::FailedOther,
            Self::Canceled => BuildStatus::Canceled,
        }
    }

    /// Tells whether nothing more happens to the build by itself.
    pub const fn is_final(self) -> bool {
        self.status().number() >= 0
    }

    /// Tells whether an attempt is open.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Assigned | Self::Running | Self::Built | Self::Fetching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back() {
        for state in BuildState::ALL {
            assert_eq!(state.as_str().parse::<BuildState>().as_ref(), Ok(state));
            assert_eq!(BuildStatus::from_number(state.status().number()), Some(state.status()));
        }
        assert!("cancelled".parse::<BuildState>().is_err());
        assert_eq!(BuildStatus::from_number(5), None);
    }
}
