//! What simulated builders write.

use std::fmt::Write as _;

/// The log of one attempt: numbered lines that follow from the attempt's number alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText(String);

impl LogText {
    /// What the builder of this attempt writes from its begin to its end.
    pub fn of(attempt: i64) -> Self {
        let lines = 3 + attempt.unsigned_abs() % 40;
        let mut text = String::new();
        for line in 1..=lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "attempt {attempt} says line {line} of {lines}");
        }
        Self(text)
    }

    /// The whole of it.
    pub fn whole(&self) -> &str {
        &self.0
    }

    /// What is written before the builder waits, and the rest.
    pub fn halves(&self) -> (&str, &str) {
        let middle = self.0[..self.0.len() / 2].rfind('\n').map_or(0, |end| end + 1);
        self.0.split_at(middle)
    }

    /// Tells whether `text` is what a builder wrote that was stopped: a beginning, and remarks of the worker.
    pub fn begins_as(&self, text: &str) -> bool {
        let own = text.find("hauberk: ").map_or(text, |remark| &text[..remark]);
        let remarks = &text[own.len()..];
        self.0.starts_with(own) && remarks.lines().all(|line| line.starts_with("hauberk: "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_and_are_known_by_their_beginning() {
        let text = LogText::of(17);
        let (first, second) = text.halves();
        assert_eq!(format!("{first}{second}"), text.whole());
        assert!(!first.is_empty() && first.ends_with('\n') && second.ends_with('\n'));
        assert_ne!(text, LogText::of(57));
        for beginning in ["", first, text.whole()] {
            assert!(text.begins_as(beginning));
            assert!(text.begins_as(&format!("{beginning}hauberk: the worker was restarted\n")));
            assert!(!text.begins_as(&format!("{beginning}something else\n")));
        }
        assert!(!text.begins_as(second));
    }
}
