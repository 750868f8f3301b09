//! How times, sizes and states are written on pages.

use std::fmt;

use askama::filters::HtmlSafe;
use hauberk_database::BuildState;
use hauberk_database::pages::{EvaluationStatus, StatusCounts};
use jiff::Timestamp;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment as people say it, with the exact time for those who look closer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ago {
    at: Timestamp,
    now: Timestamp,
}

impl HtmlSafe for Ago {}

/// Gives a moment as people say it.
pub(crate) fn ago(at: &Timestamp) -> Ago {
    Ago { at: *at, now: Timestamp::now() }
}

impl fmt::Display for Ago {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, exact) = (self.at, self.at.strftime("%Y-%m-%d %H:%M:%S"));
        write!(formatter, "<time datetime=\"{at:.0}\" title=\"{exact} UTC\">")?;
        let seconds = self.now.as_second() - at.as_second();
        match seconds.abs() {
            0..5 => formatter.write_str("just now")?,
            distance if distance < 2 * DAY => {
                let words = rough(distance);
                if seconds < 0 {
                    write!(formatter, "in {words}")?;
                } else {
                    write!(formatter, "{words} ago")?;
                }
            }
            _ => write!(formatter, "{}", at.strftime("%Y-%m-%d"))?,
        }
        formatter.write_str("</time>")
    }
}

/// Writes a moment exactly, in UTC.
pub(crate) fn exact(at: &Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn rough(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / MINUTE),
        _ => format!("{} h", seconds / HOUR),
    }
}

/// How long something has lasted by now. The page's script keeps it going.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since(Timestamp, Timestamp);

impl HtmlSafe for Since {}

/// Tells how long something has lasted by now.
pub(crate) fn since(at: &Timestamp) -> Since {
    Since(*at, Timestamp::now())
}

impl fmt::Display for Since {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at, now) = self;
        let exact = at.strftime("%Y-%m-%d %H:%M:%S");
        let seconds = (now.as_second() - at.as_second()).max(0);
        let (begin, words) = (at.as_second(), lasting(seconds));
        write!(
            formatter,
            "<span class=\"since\" data-since=\"{begin}\" title=\"since {exact} UTC\">{words}</span>"
        )
    }
}

/// Writes a number of seconds.
fn lasting(seconds: i64) -> String {
    match seconds {
        ..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min {:02} s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{} h {:02} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {:02} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// Writes how long it was from one moment to another.
pub(crate) fn between(from: &Timestamp, to: &Timestamp) -> String {
    milliseconds(&(to.as_millisecond() - from.as_millisecond()))
}

/// Writes a number of milliseconds.
pub(crate) fn milliseconds(milliseconds: &i64) -> String {
    match (*milliseconds).max(0) {
        short @ ..10_000 => format!("{}.{} s", short / 1000, short % 1000 / 100),
        long => lasting(long / 1000),
    }
}

/// Writes a limit in seconds, of which 0 is none.
pub(crate) fn limit(seconds: &i32) -> String {
    match *seconds {
        ..=0 => "none".to_owned(),
        seconds => {
            let text = lasting(i64::from(seconds));
            let short =
                text.strip_suffix(" 00 s").or(text.strip_suffix(" 00 min")).or(text.strip_suffix(" 00 h"));
            short.unwrap_or(&text).to_owned()
        }
    }
}

/// Writes a number of bytes.
pub(crate) fn bytes(bytes: &i64) -> String {
    let mut rest = (*bytes).max(0) as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while rest >= 1024.0 {
        let Some(next) = units.next() else { break };
        rest /= 1024.0;
        unit = next;
    }
    if unit == "B" || rest >= 100.0 { format!("{rest:.0} {unit}") } else { format!("{rest:.1} {unit}") }
}

/// Writes a number with a thin space between thousands.
pub(crate) fn number(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len());
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.as_bytes()[at - 1] != b'-' {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A word with a colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    class: &'static str,
    words: &'static str,
}

impl HtmlSafe for Tag {}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, words } = self;
        write!(formatter, "<span class=\"tag {class}\">{words}</span>")
    }
}

/// Gives the state of a build in words.
pub(crate) fn state(state: &BuildState) -> Tag {
    let (class, words) = match state {
        BuildState::Staged => ("wait", "being recorded"),
        BuildState::Held => ("wait", "held back"),
        BuildState::Waiting => ("wait", "waiting for inputs"),
        BuildState::Deferred => ("wait", "deferred"),
        BuildState::Ready => ("ready", "ready"),
        BuildState::Assigned => ("run", "assigned"),
        BuildState::Running => ("run", "building"),
        BuildState::Built => ("run", "built, not fetched yet"),
        BuildState::Fetching => ("run", "fetching outputs"),
        BuildState::Succeeded => ("ok", "succeeded"),
        BuildState::Failed => ("bad", "failed"),
        BuildState::FailedDependency => ("dep", "failed dependency"),
        BuildState::FailedOther => ("other", "failed by the farm"),
        BuildState::Canceled => ("off", "canceled"),
    };
    Tag { class, words }
}

/// Gives the status of an evaluation in words.
pub(crate) fn evaluation(status: &EvaluationStatus) -> Tag {
    let class = match status {
        EvaluationStatus::Started => "run",
        EvaluationStatus::Succeeded => "ok",
        EvaluationStatus::Failed => "bad",
        EvaluationStatus::Aborted => "off",
    };
    Tag { class, words: status.as_str() }
}

/// Gives the end of an attempt (`attempts.class`) in words. Red is the package's fault, orange the farm's.
pub(crate) fn outcome(class: &str) -> Tag {
    let (class, words) = match class {
        "succeeded" => ("ok", "succeeded"),
        "build_failed" => ("bad", "build failed"),
        "timed_out" => ("bad", "ran into its timeout"),
        "silent" => ("bad", "silent for too long"),
        "log_limit" => ("bad", "log too long"),
        "output_limit" => ("bad", "output too large"),
        "not_deterministic" => ("bad", "not deterministic"),
        "missing_inputs" => ("other", "inputs missing"),
        "transfer" => ("other", "transfer failed"),
        "disk_full" => ("other", "disk full"),
        "out_of_memory" => ("other", "out of memory"),
        "daemon" => ("other", "build daemon failed"),
        "worker_lost" => ("other", "worker lost"),
        "declined" => ("off", "declined by the worker"),
        "canceled" => ("off", "canceled"),
        "superseded" => ("off", "superseded"),
        _ => ("off", "ended"),
    };
    Tag { class, words }
}

/// Gives the first characters of a commit.
pub(crate) fn short(revision: &str) -> &str {
    revision.get(..10).unwrap_or(revision)
}

/// Writes a hash as Nix does (SRI).
pub(crate) fn nar_hash(hash: &[u8; 32]) -> String {
    hauberk_store::Hash::new(hauberk_store::hash::Algorithm::Sha256, hash)
        .map_or_else(String::new, |hash| hash.to_sri())
}

/// Writes text as one segment of an address.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~+@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The counts of an evaluation as a bar with numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bar {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
struct Part {
    class: &'static str,
    words: &'static str,
    count: u64,
    /// Percent of the bar.
    width: f64,
}

impl Bar {
    /// Makes the bar; it is empty without jobs.
    pub(crate) fn new(counts: &StatusCounts) -> Self {
        let total = counts.total() as f64;
        let parts = [
            ("ok", "succeeded", counts.succeeded),
            ("bad", "failed", counts.failed),
            ("dep", "failed dependency", counts.failed_dependency),
            ("other", "failed by the farm", counts.failed_other),
            ("off", "canceled", counts.canceled),
            ("run", "building", counts.active),
            ("wait", "scheduled", counts.scheduled),
        ];
        let parts = parts
            .into_iter()
            .filter(|(_, _, count)| *count > 0)
            .map(|(class, words, count)| Part { class, words, count, width: count as f64 * 100.0 / total })
            .collect();
        Self { parts }
    }
}

impl HtmlSafe for Bar {}

impl fmt::Display for Bar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return formatter.write_str("<span class=\"none\">no jobs</span>");
        }
        formatter.write_str(
            "<svg class=\"bar\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        )?;
        let mut x = 0.0;
        for Part { class, width, .. } in &self.parts {
            write!(formatter, "<rect class=\"{class}\" x=\"{x:.2}\" width=\"{width:.2}\" height=\"4\"/>")?;
            x += width;
        }
        formatter.write_str("</svg><span class=\"counts\">")?;
        for (at, Part { class, words, count, .. }) in self.parts.iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            let count = number(*count);
            write!(formatter, "{separator}<span class=\"count {class}\">{count} {words}</span>")?;
        }
        formatter.write_str("</span>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn moments_read_well() {
        let check = |distance: i64, expected: &str| {
            let text = Ago { at: at(1_000_000_000 - distance), now: at(1_000_000_000) }.to_string();
            assert!(text.contains(&format!(">{expected}<")), "{distance}: {text}");
        };
        check(0, "just now");
        check(59, "59 s ago");
        check(150, "2 min ago");
        check(3 * HOUR, "3 h ago");
        check(-90, "in 90 s");
        check(30 * DAY, "2001-08-10");
        assert_eq!(
            Ago { at: at(0), now: at(10) }.to_string(),
            "<time datetime=\"1970-01-01T00:00:00Z\" title=\"1970-01-01 00:00:00 UTC\">10 s ago</time>"
        );
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(milliseconds(&1234), "1.2 s");
        assert_eq!(milliseconds(&61_000), "1 min 01 s");
        assert_eq!(milliseconds(&3_720_000), "1 h 02 min");
        assert_eq!(milliseconds(&(100 * 3_600_000)), "4 d 04 h");
        assert_eq!(limit(&0), "none");
        assert_eq!(limit(&3600), "1 h");
        assert_eq!(limit(&5400), "1 h 30 min");
        assert_eq!(bytes(&0), "0 B");
        assert_eq!(bytes(&1536), "1.5 KiB");
        assert_eq!(bytes(&(300 << 20)), "300 MiB");
        assert_eq!(number(7), "7");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(segment("a b/\u{fc}"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn a_bar_has_a_part_for_each_number() {
        let bar = Bar::new(&StatusCounts { succeeded: 3, failed: 1, ..StatusCounts::default() }).to_string();
        assert!(bar.contains("<rect class=\"ok\" x=\"0.00\" width=\"75.00\""), "{bar}");
        assert!(bar.contains("<rect class=\"bad\" x=\"75.00\" width=\"25.00\""), "{bar}");
        assert!(bar.contains(">3 succeeded</span> <span class=\"count bad\">1 failed</span>"), "{bar}");
        assert!(Bar::new(&StatusCounts::default()).to_string().contains("no jobs"));
    }
}
