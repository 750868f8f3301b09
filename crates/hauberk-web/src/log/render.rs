//! Log text as HTML: escaped, with the colours that compilers print.

use std::fmt::Write;

/// An escape sequence longer than this is shown as text.
const LONGEST_SEQUENCE: usize = 256;
/// Text is looked at in runs of so many bytes, so that junk costs no more than text.
const LONGEST_RUN: usize = 1024;

/// Turns log bytes, cut anywhere, into HTML. Each piece of HTML is whole in itself.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    style: Style,
    /// The beginning of something that is not all there: a character, an escape sequence, a line end.
    held: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Style {
    bold: bool,
    faint: bool,
    underline: bool,
    foreground: Option<u8>,
    background: Option<u8>,
}

/// What stands at the beginning of some bytes.
enum Token<'a> {
    /// Plain text.
    Text(&'a str),
    /// Bytes to show by their numbers.
    Raw(&'a [u8]),
    /// Characters that would reorder or hide what is around them.
    Hidden(char, usize),
    /// The end of a line, in any spelling.
    LineEnd(usize),
    /// A change of colour: its parameters.
    Colour(&'a str, usize),
    /// Something else for terminals.
    Ignored(usize),
    /// Not all there.
    Cut,
}

impl Renderer {
    /// Tells how many bytes were taken and not rendered yet.
    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Appends the HTML of `bytes` to `html`.
    pub(crate) fn render(&mut self, bytes: &[u8], html: &mut String) {
        if self.held.is_empty() {
            self.run(bytes, false, html);
        } else {
            let mut whole = std::mem::take(&mut self.held);
            whole.extend_from_slice(bytes);
            self.run(&whole, false, html);
        }
    }

    /// Appends what was held back: nothing follows.
    pub(crate) fn finish(&mut self, html: &mut String) {
        let held = std::mem::take(&mut self.held);
        self.run(&held, true, html);
    }

    fn run(&mut self, mut bytes: &[u8], last: bool, html: &mut String) {
        if bytes.is_empty() {
            return;
        }
        self.style.open(html);
        while !bytes.is_empty() {
            let used = match token(bytes) {
                Token::Text(text) => {
                    escape(text, html);
                    text.len()
                }
                Token::Raw(raw) => {
                    show_raw(raw, html);
                    raw.len()
                }
                Token::Hidden(character, length) => {
                    let number = u32::from(character);
                    let _ = write!(html, "<span class=\"raw\">\\u{{{number:x}}}</span>");
                    length
                }
                Token::LineEnd(length) => {
                    html.push('\n');
                    length
                }
                Token::Colour(parameters, length) => {
                    self.style.close(html);
                    self.style.change(parameters);
                    self.style.open(html);
                    length
                }
                Token::Ignored(length) => length,
                Token::Cut if last && bytes == b"\r" => {
                    html.push('\n');
                    1
                }
                Token::Cut if last => {
                    show_raw(&bytes[..1], html);
                    1
                }
                Token::Cut => {
                    self.held = bytes.to_vec();
                    break;
                }
            };
            bytes = &bytes[used..];
        }
        self.style.close(html);
    }
}

impl Style {
    fn open(self, html: &mut String) {
        if self == Self::default() {
            return;
        }
        html.push_str("<span class=\"");
        let mut separator = "";
        for (is_set, class) in [(self.bold, "bo"), (self.faint, "fa"), (self.underline, "un")] {
            if is_set {
                html.push_str(separator);
                html.push_str(class);
                separator = " ";
            }
        }
        for (colour, class) in [(self.foreground, 'f'), (self.background, 'b')] {
            if let Some(colour) = colour {
                let _ = write!(html, "{separator}{class}{colour}");
                separator = " ";
            }
        }
        html.push_str("\">");
    }

    fn close(self, html: &mut String) {
        if self != Self::default() {
            html.push_str("</span>");
        }
    }

    /// Applies the parameters of `ESC [ … m`.
    fn change(&mut self, parameters: &str) {
        let mut numbers = parameters.split([';', ':']).map(|number| number.parse::<u16>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.faint = true,
                4 => self.underline = true,
                22 => (self.bold, self.faint) = (false, false),
                24 => self.underline = false,
                30..=37 => self.foreground = Some((number - 30) as u8),
                90..=97 => self.foreground = Some((number - 82) as u8),
                39 => self.foreground = None,
                40..=47 => self.background = Some((number - 40) as u8),
                100..=107 => self.background = Some((number - 92) as u8),
                49 => self.background = None,
                38 | 48 => {
                    let colour = extended_colour(&mut numbers);
                    match number {
                        38 => self.foreground = colour,
                        _ => self.background = colour,
                    }
                }
                _ => {}
            }
        }
    }
}

/// Reads `5;N` or `2;R;G;B`; of these, only the sixteen named colours are shown.
fn extended_colour(numbers: &mut impl Iterator<Item = u16>) -> Option<u8> {
    match numbers.next() {
        Some(5) => numbers.next().filter(|number| *number < 16).map(|number| number as u8),
        Some(2) => {
            numbers.by_ref().take(3).for_each(drop);
            None
        }
        _ => None,
    }
}

fn token(bytes: &[u8]) -> Token<'_> {
    match bytes {
        [b'\n', ..] => Token::LineEnd(1),
        [b'\r', b'\n', ..] => Token::LineEnd(2),
        [b'\r'] => Token::Cut,
        [b'\r', ..] => Token::LineEnd(1),
        [0x1b, rest @ ..] => match escape_sequence(&rest[..rest.len().min(LONGEST_SEQUENCE)]) {
            Some(token) => token,
            None if rest.len() < LONGEST_SEQUENCE => Token::Cut,
            None => Token::Raw(&bytes[..1]),
        },
        [0..=8 | 0x0b..=0x1f | 0x7f, ..] => Token::Raw(&bytes[..1]),
        _ => text(bytes),
    }
}

/// Reads an escape sequence after its ESC; `None`: it is not all there.
fn escape_sequence(rest: &[u8]) -> Option<Token<'_>> {
    match rest {
        [] => None,
        [b'[', body @ ..] => {
            let end = body.iter().position(|byte| !matches!(byte, 0x20..=0x3f))?;
            let length = 1 + 1 + end + 1;
            match body[end] {
                b'm' => Some(
                    std::str::from_utf8(&body[..end])
                        .map_or(Token::Ignored(length), |parameters| Token::Colour(parameters, length)),
                ),
                0x40..=0x7e => Some(Token::Ignored(length)),
                // Not a sequence after all: leave out what looked like one.
                _ => Some(Token::Ignored(length - 1)),
            }
        }
        // Titles, links: up to BEL or ESC \.
        [b']', body @ ..] => {
            let end = body.iter().position(|byte| matches!(byte, 0x07 | 0x1b | b'\n'))?;
            match body[end..] {
                [0x07, ..] => Some(Token::Ignored(1 + 1 + end + 1)),
                [0x1b, b'\\', ..] => Some(Token::Ignored(1 + 1 + end + 2)),
                [0x1b] => None,
                _ => Some(Token::Ignored(1 + 1 + end)),
            }
        }
        [b'(' | b')' | b'#', _, ..] => Some(Token::Ignored(3)),
        [b'(' | b')' | b'#'] => None,
        [0x20..=0x7e, ..] => Some(Token::Ignored(2)),
        _ => Some(Token::Ignored(1)),
    }
}

/// Reads text up to the next byte that is something else; the first byte is text or not UTF-8.
fn text(bytes: &[u8]) -> Token<'_> {
    let end = bytes
        .iter()
        .take(LONGEST_RUN)
        .position(|byte| matches!(byte, 0..=8 | 0x0a..=0x1f | 0x7f))
        .unwrap_or(bytes.len().min(LONGEST_RUN));
    let run = &bytes[..end];
    let valid = match std::str::from_utf8(run) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&run[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return match error.error_len() {
                Some(length) => Token::Raw(&run[..length]),
                // A character whose rest may come, unless something else follows already.
                None if end == bytes.len() => Token::Cut,
                None => Token::Raw(run),
            };
        }
    };
    match valid.char_indices().find(|(_, character)| is_hidden(*character)) {
        Some((0, character)) => Token::Hidden(character, character.len_utf8()),
        Some((at, _)) => Token::Text(&valid[..at]),
        None => Token::Text(valid),
    }
}

/// Tells characters that reorder text or are not seen at all, and second-class control characters.
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn escape(text: &str, html: &mut String) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

fn show_raw(bytes: &[u8], html: &mut String) {
    html.push_str("<span class=\"raw\">");
    for byte in bytes {
        let _ = write!(html, "\\x{byte:02x}");
    }
    html.push_str("</span>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> String {
        let mut renderer = Renderer::default();
        let mut html = String::new();
        renderer.render(bytes, &mut html);
        renderer.finish(&mut html);
        html
    }

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(whole(bytes), expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn bytes_become_html() {
        check(b"plain\ttext\n", "plain\ttext\n");
        check(
            b"<script>alert(\"1\")</script> & 'x'",
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;",
        );
        check("gr\u{fc}n \u{2713}".as_bytes(), "gr\u{fc}n \u{2713}");
        check(
            b"bad \xff\xfe end",
            "bad <span class=\"raw\">\\xff</span><span class=\"raw\">\\xfe</span> end",
        );
        check(b"cut \xe2\x9c", "cut <span class=\"raw\">\\xe2</span><span class=\"raw\">\\x9c</span>");
        check(b"cut \xe2\x9c\n", "cut <span class=\"raw\">\\xe2\\x9c</span>\n");
        check(b"a\r\nb\rc\r", "a\nb\nc\n");
        check(b"nul\0bell\x07", "nul<span class=\"raw\">\\x00</span>bell<span class=\"raw\">\\x07</span>");
        check("a\u{202e}b".as_bytes(), "a<span class=\"raw\">\\u{202e}</span>b");
        check(b"", "");
    }

    #[test]
    fn colours_become_classes() {
        check(b"\x1b[1;31merror:\x1b[0m x", "<span class=\"bo f1\">error:</span> x");
        check(b"\x1b[32mgreen", "<span class=\"f2\">green</span>");
        check(b"\x1b[38;5;9mx\x1b[38;2;1;2;3my\x1b[mz", "<span class=\"f9\">x</span>yz");
        check(b"\x1b[97;41mx\x1b[39;49m", "<span class=\"f15 b1\">x</span>");
        check(b"\x1b[01;35m\x1b[Kwarning\x1b[m\x1b[K", "<span class=\"bo f5\">warning</span>");
        check(b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07.", "link.");
        check(b"\x1b[2K\x1b[1Gprogress\x1b(B", "progress");
        check(b"\x1b[<\"><b>", "&gt;");
    }

    #[test]
    fn an_endless_sequence_is_text() {
        let bytes = [b"\x1b]".as_slice(), &[b'x'; 2 * LONGEST_SEQUENCE]].concat();
        let html = whole(&bytes);
        assert!(html.starts_with("<span class=\"raw\">\\x1b</span>]xxx"), "{html}");
    }

    #[test]
    fn pieces_give_the_same_text_as_the_whole() {
        let bytes = "\u{1b}[1;31merr\u{fc}r\u{1b}[0m <a>\r\n\u{1b}]0;title\u{7}\u{2713}\r".as_bytes();
        let plain = |html: &str| html.replace("<span class=\"bo f1\">", "").replace("</span>", "");
        let expected = plain(&whole(bytes));
        for size in 1..bytes.len() {
            let mut renderer = Renderer::default();
            let mut html = String::new();
            let mut given = 0;
            for piece in bytes.chunks(size) {
                renderer.render(piece, &mut html);
                given += piece.len() as u64;
                assert!(renderer.held() <= given);
                assert_eq!(html.matches("<span").count(), html.matches("</span").count());
            }
            renderer.finish(&mut html);
            assert_eq!(plain(&html), expected, "{size}");
        }
    }
}
