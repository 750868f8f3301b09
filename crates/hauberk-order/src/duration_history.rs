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
    /// Of ten builds about one takes less than this ...
    pub shortest: Duration,
    /// ... and about one more than this.
    pub longest: Duration,
    /// What it rests on.
    pub basis: Basis,
}

/// What the builds have in common whose durations are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Their name, whole or cut at a part of its version.
    Name,
    /// The end of their names.
    Kind,
    /// Their system only.
    System,
}

/// Builds whose durations are kept together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Likeness {
    /// Their system.
    pub system: String,
    /// What else they have in common.
    pub scope: Scope,
    /// The name or its end; empty for all of a system.
    pub text: String,
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

    /// Estimates by what is here. Nothing when nothing is.
    fn estimate(&self, basis: Basis) -> Option<Estimate> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let (first, last) = (sorted.first()?, sorted.last()?);
        let duration = sorted[(sorted.len() - 1) / 2];
        // Few durations tell little of how far others lie from them; neither do builds that are less alike.
        let widen = basis.spread() * if sorted.len() < 3 { 1.5 } else { 1.0 };
        let shortest = first.div_f64(widen);
        let longest = last.mul_f64(widen).min(LONGEST.max(*last));
        Some(Estimate { duration, shortest, longest, basis })
    }
}

impl Basis {
    /// The factor by which durations lie beyond those that are known.
    fn spread(self) -> f64 {
        match self {
            Self::SameVersion => 1.15,
            Self::OtherVersion(1) => 1.3,
            Self::OtherVersion(_) => 1.6,
            Self::SameKind => 3.0,
            Self::System | Self::Nothing => 5.0,
        }
    }
}

/// How long builds took, by name and system. Fed with the ends of attempts, oldest first.
#[derive(Debug, Default)]
pub struct DurationHistory {
    known: HashMap<Likeness, Recent>,
}

/// What a build takes of which nothing is known: as good as any while all are unknown, since then the depth of the chain decides.
const UNKNOWN: Duration = Duration::from_secs(60);
/// Few builds take longer.
const LONGEST: Duration = Duration::from_secs(8 * 3600);

impl DurationHistory {
    /// Gives all likenesses by which a build of this name (with version) is compared, the most alike first.
    pub fn likenesses(system: &str, name: &str) -> Vec<Likeness> {
        let of = |scope, text: &str| Likeness { system: system.to_owned(), scope, text: text.to_owned() };
        let mut all: Vec<_> = likenesses(name).map(|text| of(Scope::Name, text)).collect();
        all.extend(kind(name).map(|text| of(Scope::Kind, text)));
        all.push(of(Scope::System, ""));
        all
    }

    /// Takes durations that were kept elsewhere, oldest first, in place of what is known of a likeness.
    pub fn restore(&mut self, likeness: Likeness, durations: impl IntoIterator<Item = Duration>) {
        let mut recent = Recent::default();
        durations.into_iter().for_each(|duration| recent.push(duration));
        self.known.insert(likeness, recent);
    }

    /// Gives all that is known, to be kept elsewhere; durations oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (&Likeness, impl Iterator<Item = Duration>)> {
        self.known.iter().map(|(likeness, recent)| (likeness, recent.0.iter().copied()))
    }

    /// Notes how long a build of this name (with version) took on this system.
    pub fn record(&mut self, system: &str, name: &str, duration: Duration) {
        for likeness in Self::likenesses(system, name) {
            self.known.entry(likeness).or_default().push(duration);
        }
    }

    /// Estimates how long a build of this name (with version) takes on this system.
    pub fn estimate(&self, system: &str, name: &str) -> Estimate {
        let mut cut = 0_u8;
        for likeness in Self::likenesses(system, name) {
            let basis = match likeness.scope {
                Scope::Name if cut == 0 => Basis::SameVersion,
                Scope::Name => Basis::OtherVersion(cut),
                Scope::Kind => Basis::SameKind,
                Scope::System => Basis::System,
            };
            cut = cut.saturating_add(1);
            if let Some(estimate) = self.known.get(&likeness).and_then(|recent| recent.estimate(basis)) {
                return estimate;
            }
        }
        let (shortest, longest) = (Duration::ZERO, LONGEST);
        Estimate { duration: UNKNOWN, shortest, longest, basis: Basis::Nothing }
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
            let Estimate { duration, basis, .. } = history.estimate("x86_64-linux", name);
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

    #[test]
    fn the_interval_is_wider_the_less_is_known() {
        let mut history = DurationHistory::default();
        for took in [90, 100, 110] {
            history.record("x86_64-linux", "gcc-12.1.0", seconds(took));
        }
        let width = |name| {
            let Estimate { shortest, longest, duration, .. } = history.estimate("x86_64-linux", name);
            assert!(shortest < duration && duration < longest);
            longest.as_secs_f64() / shortest.as_secs_f64()
        };
        assert!(width("gcc-12.1.0") < width("gcc-12.1.1"));
        assert!(width("gcc-12.1.1") < width("gcc-13.1.0"));
        assert!(width("gcc-13.1.0") < width("zlib-1"));
    }

    #[test]
    fn what_was_kept_elsewhere_counts_as_if_it_had_been_recorded_here() {
        let mut history = DurationHistory::default();
        history.record("x86_64-linux", "a-1.tar.gz", seconds(2));
        history.record("x86_64-linux", "a-1.tar.gz", seconds(4));
        let mut copy = DurationHistory::default();
        for (likeness, durations) in history.entries() {
            copy.restore(likeness.clone(), durations);
        }
        for name in ["a-1.tar.gz", "a-2", "b-1.tar.gz", "c"] {
            assert_eq!(copy.estimate("x86_64-linux", name), history.estimate("x86_64-linux", name));
        }
    }
}
