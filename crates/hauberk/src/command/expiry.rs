//! How long things are kept.

use std::time::Duration;

/// How long something is kept; `None` is for ever.
pub(crate) type Expiry = Option<Duration>;

/// Reads a number with a unit, or `never`.
pub(crate) fn parse_expiry(text: &str) -> Result<Expiry, String> {
    const HOUR: u64 = 60 * 60;
    if text == "never" {
        return Ok(None);
    }
    let wrong = || "give a number above 0 with `h`, `d`, `w` or `m`, such as `90d`, or `never`".to_owned();
    let unit = match text.chars().next_back() {
        Some('h') => HOUR,
        Some('d') => 24 * HOUR,
        Some('w') => 7 * 24 * HOUR,
        Some('m') => 30 * 24 * HOUR,
        _ => return Err(wrong()),
    };
    let number = text[..text.len() - 1].parse::<u32>().ok().filter(|&number| number > 0).ok_or_else(wrong)?;
    Ok(Some(Duration::from_secs(u64::from(number) * unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_logs_are_kept() {
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3600)));
        for (text, expected) in [
            ("1h", hours(1)),
            ("90d", hours(90 * 24)),
            ("2w", hours(14 * 24)),
            ("6m", hours(180 * 24)),
            ("never", Ok(None)),
        ] {
            assert_eq!(parse_expiry(text), expected, "{text}");
        }
        for text in ["", "d", "0d", "6", "-1d", "6 months", "99999999999d", "6\u{e9}"] {
            assert!(parse_expiry(text).is_err(), "{text}");
        }
    }
}
