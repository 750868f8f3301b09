//! How thoroughly faults are tried.

/// Gives the number of rounds: few in an ordinary run, many with `HAUBERK_FAULTS=full` in the environment.
pub(crate) fn rounds(short: u64, full: u64) -> u64 {
    if std::env::var("HAUBERK_FAULTS").is_ok_and(|form| form == "full") { full } else { short }
}
