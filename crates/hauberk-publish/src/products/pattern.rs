//! Which files of an output are meant.

use std::{fmt, str::FromStr};

/// Longest pattern, in bytes.
const MAX_LENGTH: usize = 1024;

/// A path inside an output, whose components may have wild cards: `*` stands for any characters, `?` for one. Neither stands for a `/`, nor
/// for a `.` at the beginning of a name. The empty pattern is the output itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    components: Vec<String>,
}

/// Why a text is no [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long.
    #[error("is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It begins or ends with a slash, or has two in a row.
    #[error("is not a relative path: it has an empty component")]
    Empty,
    /// It leads out of the output, or says nothing.
    #[error("has a component `.` or `..`")]
    Dots,
    /// It has characters that no name has.
    #[error("has a control character")]
    Control,
}

impl Pattern {
    /// Gives its components, from the output downwards.
    pub fn components(&self) -> &[String] {
        &self.components
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_LENGTH {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        if text.is_empty() {
            return Ok(Self { components: Vec::new() });
        }
        let components: Vec<String> = text.split('/').map(str::to_owned).collect();
        if components.iter().any(String::is_empty) {
            return Err(PatternError::Empty);
        }
        if components.iter().any(|component| component == "." || component == "..") {
            return Err(PatternError::Dots);
        }
        Ok(Self { components })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.components.join("/"))
    }
}

/// Tells whether a name is one that a component means. A name that is no text is meant by none.
pub(super) fn matches(component: &str, name: &[u8]) -> bool {
    if component.as_bytes() == name {
        return true;
    }
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if name.starts_with('.') && !component.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = component.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut reached) = (0, 0);
    // Where the last star stands, and how far the name went when it was met: it takes one character more each time.
    let mut star: Option<(usize, usize)> = None;
    while reached < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, reached));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[reached] => {
                at += 1;
                reached += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                reached = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_inside_the_output() {
        for text in ["", "a", "iso/*.iso", "share/doc/a b/??", "...", "a*b/..c"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for (text, wanted) in [
            ("/etc/passwd", PatternError::Empty),
            ("a/", PatternError::Empty),
            ("a//b", PatternError::Empty),
            ("..", PatternError::Dots),
            ("a/../../b", PatternError::Dots),
            ("./a", PatternError::Dots),
            ("a\n", PatternError::Control),
            ("a\0", PatternError::Control),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(wanted), "{text:?}");
        }
        assert_eq!("x".repeat(MAX_LENGTH + 1).parse::<Pattern>(), Err(PatternError::TooLong));
    }

    #[test]
    fn wild_cards() {
        for (component, name, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "anything", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("?", "\u{e9}", true),
            ("?", "", false),
            ("*.iso", "a.iso", true),
            ("*.iso", ".iso", false),
            ("*.iso", "a.iso.sha256", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("**", "x", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
        ] {
            assert_eq!(matches(component, name.as_bytes()), expected, "{component} {name}");
        }
        assert!(!matches("*", b"\xff"));
        // No time is lost on a pattern of stars.
        assert!(!matches(&"*a".repeat(50), ("a".repeat(200) + "b").as_bytes()));
    }
}
