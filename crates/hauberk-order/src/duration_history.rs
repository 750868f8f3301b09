//! How long builds took, and how long one will take.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// Builds of the same name and version.
    SameVersion,
    /// Builds of other versions; the number tells how many parts of the version were left out of account.
    OtherVersion(u8),
    /// Builds whose names end alike: sources, checkouts and the like.
    SameKind,
    /// All builds of the system.
    System,
    /// Nothing is known.
    Nothing,
}

/// How long a build will take, by what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The most likely duration.
    pub duration: Duration,
    /// What it rests on.
    pub basis: Basis,
}

/// The last durations of one kind of builds.
#[derive(Debug, Default)]
struct Recent(VecDeque<Duration>);

impl Recent {
    /// A median of so many follows a change soon and is not moved by one outlier.
    const KEPT: usize = 7;

    fn push(&mut self, duration: Duration) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }
}

/// How long builds took, by name and system. Fed with the ends of attempts, oldest first.
#[derive(Debug, Default)]
pub struct DurationHistory {
    /// By system and name, the name cut at every part of its version.
    names: HashMap<String, HashMap<String, Recent>>,
    kinds: HashMap<String, HashMap<String, Recent>>,
    systems: HashMap<String, Recent>,
}

/// What a build takes of which nothing is known: as good as any while all are unknown, since then the depth of the chain decides.
const UNKNOWN: Duration = Duration::from_secs(60);

impl DurationHistory {
    /// Notes how long a build of this name (with version) took on this system.
    pub fn record(&mut self, system: &str, name: &str, duration: Duration) {
        let names = self.names.entry(system.to_owned()).or_default();
        for likeness in likenesses(name) {
            names.entry(likeness.to_owned()).or_default().push(duration);
        }
        if let Some(kind) = kind(name) {
            let kinds = self.kinds.entry(system.to_owned()).or_default();
            kinds.entry(kind.to_owned()).or_default().push(duration);
        }
        self.systems.entry(system.to_owned()).or_default().push(duration);
    }

    /// Estimates how long a build of this name (with version) takes on this system.
    pub fn estimate(&self, system: &str, name: &str) -> Estimate {
        if let Some(names) = self.names.get(system) {
            for (cut, likeness) in (0_u8..).zip(likenesses(name)) {
                if let Some(duration) = names.get(likeness).and_then(Recent::median) {
                    let basis = if cut == 0 { Basis::SameVersion } else { Basis::OtherVersion(cut) };
                    return Estimate { duration, basis };
                }
            }
        }
        let of_kind = || self.kinds.get(system)?.get(kind(name)?)?.median();
        if let Some(duration) = of_kind() {
            return Estimate { duration, basis: Basis::SameKind };
        }
        match self.systems.get(system).and_then(Recent::median) {
            Some(duration) => Estimate { duration, basis: Basis::System },
            None => Estimate { duration: UNKNOWN, basis: Basis::Nothing },
        }
    }
}

/// The names that a build is compared by, the most alike first: `gcc-12.3.0`, `gcc-12.3`, `gcc-12`, `gcc`.
fn likenesses(name: &str) -> impl Iterator<Item = &str> {
    let version = version_at(name);
    let mut end = Some(name.len());
    std::iter::from_fn(move || {
        let likeness = &name[..end?];
        end = match version {
            Some(version) if likeness.len() > version => {
                let rest = &likeness[version..];
                Some(rest.rfind(['.', '-', '_', '+']).map_or(version, |at| version + at).max(version))
            }
            _ => None,
        };
        Some(likeness.trim_end_matches('-'))
    })
}

/// Where the version begins: after the first dash that a digit follows.
fn version_at(name: &str) -> Option<usize> {
    let bytes = name.as_bytes();
    (1..bytes.len()).find(|at| bytes[at - 1] == b'-' && bytes[*at].is_ascii_digit())
}

/// What the end of a name tells of its kind: `.tar.gz`, `.patch`, `checkout`, `doc`.
fn kind(name: &str) -> Option<&str> {
    let version = version_at(name)?;
    let rest = &name[version..];
    // After the last part that has a digit.
    let digit = rest.rfind(|c: char| c.is_ascii_digit())?;
    let end = rest[digit..].find(['.', '-'])? + digit;
    Some(rest[end..].trim_start_matches('-')).filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn names_are_compared_from_the_whole_version_to_none() {
        let all = |name| likenesses(name).collect::<Vec<_>>();
        assert_eq!(all("gcc-12.3.0"), ["gcc-12.3.0", "gcc-12.3", "gcc-12", "gcc"]);
        assert_eq!(all("perl-test-2-1.0"), ["perl-test-2-1.0", "perl-test-2-1", "perl-test-2", "perl-test"]);
        assert_eq!(all("hello"), ["hello"]);
        assert_eq!(
            all("x-2.0-1.abcdef-checkout"),
            ["x-2.0-1.abcdef-checkout", "x-2.0-1.abcdef", "x-2.0-1", "x-2.0", "x-2", "x"]
        );
        assert_eq!(all(""), [""]);
        assert_eq!(all("a-1"), ["a-1", "a"]);
    }

    #[test]
    fn kinds_are_told_by_the_end_of_a_name() {
        assert_eq!(kind("hello-2.12.tar.gz"), Some(".tar.gz"));
        assert_eq!(kind("x-2.0-checkout"), Some("checkout"));
        assert_eq!(kind("hello-2.12"), None);
        assert_eq!(kind("hello"), None);
        assert_eq!(kind("fix-1.patch"), Some(".patch"));
    }

    #[test]
    fn the_most_alike_decides() {
        let mut history = DurationHistory::default();
        let estimate = |history: &DurationHistory, name| {
            let Estimate { duration, basis } = history.estimate("x86_64-linux", name);
            (duration.as_secs(), basis)
        };
        assert_eq!(estimate(&history, "gcc-12.3.0"), (60, Basis::Nothing));
        history.record("x86_64-linux", "gcc-12.1.0", seconds(3000));
        history.record("x86_64-linux", "gcc-11.1.0", seconds(2000));
        history.record("x86_64-linux", "a-1.tar.gz", seconds(2));
        assert_eq!(estimate(&history, "gcc-12.1.0"), (3000, Basis::SameVersion));
        assert_eq!(estimate(&history, "gcc-12.3.0"), (3000, Basis::OtherVersion(2)));
        assert_eq!(estimate(&history, "gcc-13.1.0"), (2000, Basis::OtherVersion(3)));
        assert_eq!(estimate(&history, "b-2.tar.gz"), (2, Basis::SameKind));
        assert_eq!(estimate(&history, "zlib-1"), (2000, Basis::System));
        assert_eq!(history.estimate("aarch64-linux", "gcc-12.1.0").basis, Basis::Nothing);
        for took in [10, 11, 12, 13, 14, 15, 16] {
            history.record("x86_64-linux", "gcc-12.1.0", seconds(took));
        }
        assert_eq!(estimate(&history, "gcc-12.1.0"), (13, Basis::SameVersion));
    }
}
