//! How times, numbers and words of others are written for people.

use hauberk_database::BuildId;
use jiff::Timestamp;
use serde::Serializer;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Replaces characters that could steer a terminal, or reorder what it shows.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |character: char| {
        let reorders =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders { '?' } else { character }
    };
    text.chars().map(harmless).collect()
}

/// Writes how long ago a moment was, roughly.
pub(crate) fn ago(at: Option<Timestamp>) -> String {
    let Some(at) = at else { return "-".to_owned() };
    let seconds = Timestamp::now().as_second() - at.as_second();
    match seconds {
        ..0 => format!("in {}", rough(-seconds)),
        _ => format!("{} ago", rough(seconds)),
    }
}

fn rough(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / MINUTE),
        7200..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

/// Writes a moment exactly, in UTC.
pub(crate) fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Writes a moment for programs, as RFC 3339 has it.
pub(crate) fn at<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Writes a moment that may be missing for programs.
pub(crate) fn maybe_at<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

/// Writes a number of bytes in the unit that suits it.
pub(crate) fn bytes(bytes: i64) -> String {
    let mut rest = bytes.max(0) as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            let decimals = usize::from(unit != "B" && rest < 100.0);
            return format!("{rest:.decimals$} {unit}");
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TiB")
}

/// Says how many builds there are of a kind, with their ids as long as there are few.
pub(crate) fn counted(ids: &[BuildId]) -> String {
    const FEW: usize = 10;
    let mut text = count(ids.len(), "build");
    let listed: Vec<String> = ids.iter().take(FEW).map(BuildId::to_string).collect();
    if !listed.is_empty() {
        let more = if ids.len() > FEW { ", …" } else { "" };
        text.push_str(&format!(" ({}{more})", listed.join(", ")));
    }
    text
}

/// Says how many there are of something.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_builds_are_named_and_many_counted() {
        assert_eq!(counted(&[]), "0 builds");
        assert_eq!(counted(&[BuildId::new(7)]), "1 build (7)");
        let many: Vec<BuildId> = (1..=12).map(BuildId::new).collect();
        assert_eq!(counted(&many), "12 builds (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)");
    }

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        let written = [0, 1023, 1024, 210 << 20, 70 << 30, 3 << 40].map(bytes);
        assert_eq!(written, ["0 B", "1023 B", "1.0 KiB", "210 MiB", "70.0 GiB", "3.0 TiB"]);
    }

    #[test]
    fn moments_are_rough() {
        let seconds_ago = |seconds| ago(Timestamp::from_second(Timestamp::now().as_second() - seconds).ok());
        assert_eq!(seconds_ago(119), "119 s ago");
        assert_eq!(seconds_ago(7000), "116 min ago");
        assert_eq!(seconds_ago(200_000), "2 d ago");
        assert_eq!(ago(None), "-");
    }
}
