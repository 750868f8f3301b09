//! One event.

use hauberk_store::{DrvPath, StorePath};

use crate::failure::FailureReason;

/// Something a daemon told while it worked.
///
/// Bytes of builders and daemons are given as they came; they need not be UTF-8, and a single line may be megabytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEvent<'a> {
    /// A builder was started.
    BuildStarted {
        /// What it builds.
        derivation: &'a DrvPath,
        /// The machine it was handed to, if not this one (Nix).
        machine: Option<&'a str>,
        /// The file the daemon keeps the log in (Guix).
        log_file: Option<&'a str>,
    },
    /// A builder printed. The bytes can be appended to a log as they are: a line a Nix daemon sends has got its line feed
    /// back, a chunk of a Guix daemon may end in mid-line.
    BuildOutput {
        /// Whose output it is, if the daemon tells.
        derivation: Option<&'a DrvPath>,
        /// The output.
        bytes: &'a [u8],
    },
    /// A builder went into its next phase (Nix).
    Phase {
        /// Whose phase it is.
        derivation: Option<&'a DrvPath>,
        /// Its name, such as `configurePhase`.
        name: &'a str,
    },
    /// A build waits: for another client's lock, or for a free slot.
    Waiting {
        /// The daemon's words.
        text: &'a str,
    },
    /// A build is over; how it ended is told later or in the results (Nix).
    BuildStopped {
        /// What was built.
        derivation: &'a DrvPath,
    },
    /// A build ended well.
    BuildSucceeded {
        /// What was built.
        derivation: &'a DrvPath,
    },
    /// A build failed.
    BuildFailed {
        /// What was to be built.
        derivation: &'a DrvPath,
        /// Why.
        reason: &'a FailureReason,
        /// The daemon's words, without colour codes; may be empty.
        message: &'a str,
    },
    /// A path is being fetched.
    SubstitutionStarted {
        /// The path.
        path: &'a StorePath,
        /// Where from, if told.
        from: Option<&'a str>,
    },
    /// So much of a path is fetched.
    SubstitutionProgress {
        /// The path, if told.
        path: Option<&'a StorePath>,
        /// The URL, if told.
        url: Option<&'a str>,
        /// Bytes so far.
        done: u64,
        /// Bytes expected, if known.
        total: Option<u64>,
    },
    /// The fetching of a path is over; a Nix daemon does not tell at this place how it ended.
    SubstitutionStopped {
        /// The path.
        path: &'a StorePath,
    },
    /// A path was fetched (Guix).
    SubstitutionSucceeded {
        /// The path.
        path: &'a StorePath,
    },
    /// A path could not be fetched (Guix).
    SubstitutionFailed {
        /// The path.
        path: &'a StorePath,
        /// The daemon's words; may be empty.
        message: &'a str,
    },
    /// What was built or fetched has another hash than was fixed or promised (Guix).
    HashMismatch {
        /// The path.
        path: &'a StorePath,
        /// The hash function.
        algorithm: &'a str,
        /// The hash wanted, as the daemon spells it.
        expected: &'a str,
        /// The hash found.
        actual: &'a str,
    },
    /// The daemon's own words.
    Message {
        /// 0 errors, 1 warnings, 3 what it does, up to 7; a Guix daemon gives no level, which counts as 3.
        level: u8,
        /// The words, colour codes and all, with a line end where they had one.
        bytes: &'a [u8],
    },
}
