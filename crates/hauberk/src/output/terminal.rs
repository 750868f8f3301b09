//! Text of builders on its way to a terminal.

/// Takes out of a log what could do more to a terminal than colour it. Keeps its place between pieces of text.
#[derive(Debug, Default)]
pub(crate) struct Harmless {
    /// An escape sequence that has begun.
    held: Vec<u8>,
}

/// A colour is shorter than this.
const LONGEST: usize = 24;
const ESCAPE: u8 = 0x1b;

impl Harmless {
    /// Gives what of `text` may be shown.
    pub(crate) fn filter(&mut self, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(text.len());
        for &byte in text {
            if self.held.is_empty() {
                match byte {
                    ESCAPE => self.held.push(byte),
                    b'\n' | b'\t' | 0x20..=0x7e | 0x80.. => shown.push(byte),
                    // A carriage return hides what was written before it.
                    b'\r' => {}
                    _ => shown.push(b'?'),
                }
                continue;
            }
            self.held.push(byte);
            match (self.held.len(), byte) {
                (2, b'[') => {}
                (3.., b'0'..=b'9' | b';') if self.held.len() < LONGEST => {}
                (3.., b'm') => shown.append(&mut self.held),
                // No colour: all of it is left out.
                (2, _) | (3.., b'@'..=b'~') => self.held.clear(),
                (LONGEST.., _) => self.held.clear(),
                _ => {}
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_and_the_rest_of_what_steers_goes() {
        let check = |text: &[u8], expected: &[u8]| {
            assert_eq!(Harmless::default().filter(text), expected);
            // However it is cut.
            let mut harmless = Harmless::default();
            let pieces: Vec<u8> = text.iter().flat_map(|byte| harmless.filter(&[*byte])).collect();
            assert_eq!(pieces, expected);
        };
        check("plain ü\n".as_bytes(), "plain ü\n".as_bytes());
        check(b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m");
        check(b"a\x1b[2Jb\x1b]0;title\x07c\rd", b"ab0;title?cd");
        check(b"\x1b[?25lx", b"x");
        let mut endless = b"\x1b[".to_vec();
        endless.extend(std::iter::repeat_n(b'1', 1000));
        assert!(Harmless::default().filter(&endless).len() < 1000);
    }
}
