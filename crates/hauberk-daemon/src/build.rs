//! Requests to build, and what comes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use hauberk_store::{DrvPath, OutputName, StorePath};

use crate::failure::FailureReason;

/// Outputs of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputSelection {
    /// All it has.
    All,
    /// These; at least one.
    Named(BTreeSet<OutputName>),
}

/// What to make valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BuildTarget {
    /// Outputs of a derivation: built, or substituted where that is allowed.
    Derivation {
        /// The derivation, which must be valid.
        derivation: DrvPath,
        /// Which of its outputs.
        outputs: OutputSelection,
    },
    /// A path as such, which can only be substituted.
    Path(StorePath),
}

impl BuildTarget {
    /// Asks for all outputs of `derivation`.
    pub const fn all(derivation: DrvPath) -> Self {
        Self::Derivation { derivation, outputs: OutputSelection::All }
    }

    /// Gives the derivation, if it is one that is asked for.
    pub const fn derivation(&self) -> Option<&DrvPath> {
        match self {
            Self::Derivation { derivation, .. } => Some(derivation),
            Self::Path(_) => None,
        }
    }
}

impl fmt::Display for BuildTarget {
    /// Writes `PATH`, `DRV!*` or `DRV!NAME,NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Derivation { derivation, outputs: OutputSelection::All } => write!(f, "{derivation}!*"),
            Self::Derivation { derivation, outputs: OutputSelection::Named(names) } => {
                derivation.fmt(f)?;
                for (index, name) in names.iter().enumerate() {
                    write!(f, "{}{name}", if index == 0 { '!' } else { ',' })?;
                }
                Ok(())
            }
        }
    }
}

/// How to build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BuildMode {
    /// Makes valid what is not.
    #[default]
    Normal,
    /// Makes anew what is damaged.
    Repair,
    /// Builds what is valid once more and compares.
    Check,
}

impl BuildMode {
    /// Gives the number on the wire.
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Normal => 0,
            Self::Repair => 1,
            Self::Check => 2,
        }
    }
}

/// How a target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuildStatus {
    /// Built here, just now.
    Built,
    /// Fetched from a substitute server, just now.
    Substituted,
    /// Was valid before, or became so by another client.
    AlreadyValid,
    /// The builder failed: exit code or signal.
    PermanentFailure,
    /// The derivation is not one the daemon takes.
    InputRejected,
    /// The builder succeeded but an output is missing, forbidden or has another hash than was fixed.
    OutputRejected,
    /// Failed by something that may pass.
    TransientFailure,
    /// Failed before; the daemon remembers failures.
    CachedFailure,
    /// Ran longer than allowed.
    TimedOut,
    /// Printed nothing for longer than allowed.
    Silent,
    /// Printed more than allowed.
    LogLimitExceeded,
    /// Gave another result than before.
    NotDeterministic,
    /// Something it needs failed.
    DependencyFailed,
    /// No substitute server has it.
    NoSubstituters,
    /// Was stopped, or never begun because another target failed.
    Cancelled,
    /// Failed otherwise; the message tells.
    Misc,
}

impl BuildStatus {
    /// Tells whether the outputs are valid now.
    pub const fn is_success(self) -> bool {
        match self {
            Self::Built | Self::Substituted | Self::AlreadyValid => true,
            Self::PermanentFailure
            | Self::InputRejected
            | Self::OutputRejected
            | Self::TransientFailure
            | Self::CachedFailure
            | Self::TimedOut
            | Self::Silent
            | Self::LogLimitExceeded
            | Self::NotDeterministic
            | Self::DependencyFailed
            | Self::NoSubstituters
            | Self::Cancelled
            | Self::Misc => false,
        }
    }
}

/// What came of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildResult {
    /// What was asked for.
    pub target: BuildTarget,
    /// How it ended.
    pub status: BuildStatus,
    /// Why it failed, as far as the daemon's words tell.
    pub reason: Option<FailureReason>,
    /// The daemon's words about a failure, without colour codes; empty on success.
    pub message: String,
    /// How often it was built in this request.
    pub times_built: u32,
    /// When the builder was started, in Unix seconds, if it was and the daemon tells.
    pub start_time: Option<u64>,
    /// When the builder ended, in Unix seconds, if it did by itself and the daemon tells.
    pub stop_time: Option<u64>,
    /// Processor time in user mode, if the daemon measures it.
    pub cpu_user: Option<Duration>,
    /// Processor time in kernel mode, if the daemon measures it.
    pub cpu_system: Option<Duration>,
    /// The outputs by name; empty for a failure.
    pub outputs: BTreeMap<OutputName, StorePath>,
}

impl BuildResult {
    /// Starts a result that says nothing but how `target` ended.
    pub const fn new(target: BuildTarget, status: BuildStatus) -> Self {
        Self {
            target,
            status,
            reason: None,
            message: String::new(),
            times_built: 0,
            start_time: None,
            stop_time: None,
            cpu_user: None,
            cpu_system: None,
            outputs: BTreeMap::new(),
        }
    }
}
