//! Why a build failed, read from the words of either daemon.

use std::fmt;

use hauberk_store::DrvPath;

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The builder ended with this code.
    ExitCode(i32),
    /// The builder was killed by this signal.
    Signal(i32),
    /// The build ran longer than allowed.
    TimedOut,
    /// The build printed nothing for longer than allowed.
    Silent,
    /// The build printed more than allowed.
    LogLimit,
    /// An output does not have the hash that was fixed.
    HashMismatch,
    /// The outputs of two builds differ.
    NotDeterministic,
    /// The builder ended well but left an output out.
    OutputMissing,
    /// Something it needs could not be built.
    Dependency,
    /// It failed before, and the daemon remembers failures.
    Cached,
    /// This machine is not of the system, or has not the features, that the derivation asks for.
    Platform,
    /// Something else; the daemon's words tell.
    Other,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimedOut => f.write_str("time limit"),
            Self::Silent => f.write_str("silence limit"),
            Self::LogLimit => f.write_str("log size limit"),
            Self::HashMismatch => f.write_str("hash mismatch"),
            Self::NotDeterministic => f.write_str("not deterministic"),
            Self::OutputMissing => f.write_str("output missing"),
            Self::Dependency => f.write_str("dependency failed"),
            Self::Cached => f.write_str("failed before"),
            Self::Platform => f.write_str("system or features not available"),
            Self::Other => f.write_str("other failure"),
        }
    }
}

/// Gives the number that begins `text`.
fn leading_number(text: &str) -> Option<i32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Gives the number behind `mark` in `text`.
pub(crate) fn number_after(text: &str, mark: &str) -> Option<i32> {
    leading_number(text.split_once(mark)?.1)
}

impl FailureReason {
    /// Reads the reason from a daemon's message without colour codes, or nothing where it tells of no failure it knows.
    ///
    /// Only the first line counts, and in newer versions of Nix, whose first line names the derivation, the one below it: further
    /// ones may quote the end of the build's log, which can say anything.
    pub fn from_message(message: &str) -> Option<Self> {
        let mut lines = message.trim_start().lines();
        let first = lines.next()?;
        let line = match first.starts_with("Cannot build ") {
            true => lines.next()?.trim_start().strip_prefix("Reason: ")?,
            false => first,
        };
        let has = |mark: &str| line.contains(mark);
        Some(if has("of silence") {
            Self::Silent
        } else if has("timed out") {
            Self::TimedOut
        } else if has("bytes of log output") || has("log limit") {
            Self::LogLimit
        } else if has("hash mismatch") {
            Self::HashMismatch
        } else if has("may not be deterministic")
            || has("differs from previous round")
            || has("differs; rerun")
        {
            Self::NotDeterministic
        } else if has("failed to produce output path") {
            Self::OutputMissing
        } else if has("dependencies of derivation")
            || has("dependencies couldn't be built")
            || has("dependency failed")
            || has("dependencies failed")
        {
            Self::Dependency
        } else if has("platform mismatch")
            || has("missing system features")
            || has("system or feature not available")
        {
            Self::Platform
        } else if has("cached") && has("failed") {
            Self::Cached
        } else if let Some(code) = number_after(line, "failed with exit code ") {
            Self::ExitCode(code)
        } else if let Some(number) = number_after(line, "due to signal ") {
            Self::Signal(number)
        } else {
            return None;
        })
    }
}

/// Finds the first derivation a message names, whatever it is quoted by.
pub(crate) fn named_derivation(message: &str) -> Option<DrvPath> {
    let line = message.lines().next()?;
    let end = line.find(".drv")? + ".drv".len();
    let start =
        line[..end].rfind(|c: char| c.is_whitespace() || matches!(c, '\'' | '`' | '"' | '‘' | '’' | '“'));
    let start = start.map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
    DrvPath::parse(&line[start..end]).ok()
}

/// Removes terminal control sequences (`ESC [ … letter`, `ESC ] … BEL`) and carriage returns, which colour the daemon's words.
pub fn strip_ansi(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/gnu/store/cipnmx6896yfm452xihmjz91c809c9bp-cap-faila.drv";

    #[test]
    fn reasons_of_both_worlds() {
        let check = |message: &str, reason: Option<FailureReason>| {
            assert_eq!(FailureReason::from_message(message), reason, "{message}");
        };
        check(&format!("builder for `{DRV}' failed with exit code 3"), Some(FailureReason::ExitCode(3)));
        check(
            &format!("builder for '{DRV}' failed with exit code 3;\nlast 1 log lines:\n> timed out"),
            Some(FailureReason::ExitCode(3)),
        );
        check(
            &format!("builder for '{DRV}' failed due to signal 11 (Segmentation fault)"),
            Some(FailureReason::Signal(11)),
        );
        check(
            &format!("building of `{DRV}' timed out after 2 seconds of silence"),
            Some(FailureReason::Silent),
        );
        check(&format!("building of '{DRV}' timed out after 4 seconds"), Some(FailureReason::TimedOut));
        check(
            &format!("'{DRV}' killed after writing more than 100 bytes of log output"),
            Some(FailureReason::LogLimit),
        );
        check(
            &format!("hash mismatch in fixed-output derivation '{DRV}':"),
            Some(FailureReason::HashMismatch),
        );
        check(
            &format!("derivation `{DRV}' may not be deterministic: output `x' differs"),
            Some(FailureReason::NotDeterministic),
        );
        check(
            &format!("builder for `{DRV}' failed to produce output path `x'"),
            Some(FailureReason::OutputMissing),
        );
        check(
            &format!("cannot build derivation `{DRV}': 1 dependencies couldn't be built"),
            Some(FailureReason::Dependency),
        );
        check(
            &format!("1 dependencies of derivation '{DRV}' failed to build"),
            Some(FailureReason::Dependency),
        );
        let newer = |reason: &str| {
            format!("Cannot build '{DRV}'.\nReason: {reason}\nOutput paths:\n  x\n> timed out")
        };
        check(&newer("builder failed with exit code 3."), Some(FailureReason::ExitCode(3)));
        check(
            &newer("builder failed due to signal 11 (Segmentation fault)."),
            Some(FailureReason::Signal(11)),
        );
        check(&newer("1 dependency failed."), Some(FailureReason::Dependency));
        check(&newer("2 dependencies failed."), Some(FailureReason::Dependency));
        check(&newer("platform mismatch"), Some(FailureReason::Platform));
        check(&newer("something new"), None);
        check(&format!("Cannot build '{DRV}'."), None);
        check("the disk is full", None);
        check("", None);
    }

    #[test]
    fn finds_the_derivation_in_any_quotes() {
        for (open, close) in [("`", "'"), ("'", "'"), ("‘", "’"), ("\"", "\""), ("", "")] {
            let message = format!("builder for {open}{DRV}{close} failed");
            assert_eq!(
                named_derivation(&message).map(|drv| drv.to_string()).as_deref(),
                Some(DRV),
                "{message}"
            );
        }
        assert_eq!(named_derivation("no .drv here"), None);
        assert_eq!(named_derivation(""), None);
    }

    #[test]
    fn colours_are_removed() {
        assert_eq!(strip_ansi("\u{1b}[31;1merror:\u{1b}[0m x\r\n"), "error: x\n");
        assert_eq!(strip_ansi("a\u{1b}]8;;http://x\u{7}b\u{1b}"), "ab");
        assert_eq!(strip_ansi("\u{1b}["), "");
    }
}
