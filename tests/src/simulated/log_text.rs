//! What simulated builders write.

use std::fmt::Write as _;

use super::Random;

/// One of so many attempts writes a long log.
const LONG_ONE_IN: u64 = 50;

/// The log of one attempt: numbered lines that follow from the attempt's number alone. Most are short; one in fifty has some megabytes
/// that do not become much less by compression, so that it is on its way for a while, in many pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText(String);

impl LogText {
    /// What the builder of this attempt writes from its begin to its end.
    pub fn of(attempt: i64) -> Self {
        let number = attempt.unsigned_abs();
        let mut text = String::new();
        if number % LONG_ONE_IN == 17 {
            let bytes = (1 + number / LONG_ONE_IN % 2) << 20;
            write_noise(&mut text, attempt, usize::try_from(bytes).unwrap_or_default());
        }
        let lines = 3 + number % 40;
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

/// Writes lines of letters and digits in no order.
fn write_noise(text: &mut String, attempt: i64, bytes: usize) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = Random::new(attempt.unsigned_abs());
    let mut line = 0;
    while text.len() < bytes {
        line += 1;
        let _ = write!(text, "attempt {attempt} has much to say, {line}: ");
        for _ in 0..8 {
            let number = random.number();
            text.extend((0..10).map(|place| char::from(LETTERS[(number >> (6 * place)) as usize & 63])));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_and_are_known_by_their_beginning() {
        let text = LogText::of(18);
        let (first, second) = text.halves();
        assert_eq!(format!("{first}{second}"), text.whole());
        assert!(!first.is_empty() && first.ends_with('\n') && second.ends_with('\n'));
        assert_ne!(text, LogText::of(58));
        for beginning in ["", first, text.whole()] {
            assert!(text.begins_as(beginning));
            assert!(text.begins_as(&format!("{beginning}hauberk: the worker was restarted\n")));
            assert!(!text.begins_as(&format!("{beginning}something else\n")));
        }
        assert!(!text.begins_as(second));
    }

    #[test]
    fn few_are_long() {
        let lengths: Vec<usize> = (1..=150).map(|attempt| LogText::of(attempt).whole().len()).collect();
        let long: Vec<usize> = lengths.iter().copied().filter(|length| *length >= 1 << 20).collect();
        assert_eq!(long.iter().map(|length| length >> 20).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(lengths.iter().all(|length| *length < 4 << 10 || *length >= 1 << 20));
    }
}
