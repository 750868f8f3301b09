//! S-expressions as libgcrypt reads and writes them: what Guix's keys, ACLs and signatures are made of.

use std::fmt;

use zeroize::Zeroize;

/// Longest text read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// Most lists inside each other.
pub const MAX_DEPTH: usize = 64;

/// A list or an atom, which is a string of bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Sexp {
    /// Bytes.
    Atom(Vec<u8>),
    /// Any number of expressions.
    List(Vec<Sexp>),
}

/// Why bytes are not an S-expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SexpError {
    /// There are more than [`MAX_SIZE`] bytes.
    #[error("S-expression is too long")]
    TooLong,
    /// Lists are inside each other too deeply.
    #[error("S-expression has more than {MAX_DEPTH} levels")]
    TooDeep,
    /// The text ends inside a list or a string, or is empty.
    #[error("S-expression ends early")]
    Truncated,
    /// A byte may not stand where it does.
    #[error("unexpected byte at {offset} of the S-expression")]
    Unexpected {
        /// Where, from 0.
        offset: usize,
    },
    /// Something follows the expression.
    #[error("text after the S-expression at byte {offset}")]
    Trailing {
        /// Where, from 0.
        offset: usize,
    },
}

impl Sexp {
    /// Makes a list.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// Makes an atom.
    pub fn atom(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Atom(bytes.into())
    }

    /// Reads one list in the canonical or the advanced form, or a mixture; white space may surround it.
    ///
    /// # Errors
    /// Any other text, one too long or too deep.
    pub fn parse(bytes: &[u8]) -> Result<Self, SexpError> {
        if bytes.len() > MAX_SIZE {
            return Err(SexpError::TooLong);
        }
        let mut reader = Reader { bytes, offset: 0 };
        reader.skip_space();
        match reader.next_byte()? {
            b'(' => {}
            _ => return Err(SexpError::Unexpected { offset: reader.offset - 1 }),
        }
        let list = reader.list(1)?;
        reader.skip_space();
        if reader.offset < bytes.len() {
            return Err(SexpError::Trailing { offset: reader.offset });
        }
        Ok(list)
    }

    /// Reads a text each of whose characters stands for one byte.
    ///
    /// # Errors
    /// As [`Self::parse`], and a character above U+00FF.
    pub fn parse_text(text: &str) -> Result<Self, SexpError> {
        let mut bytes = Vec::with_capacity(text.len());
        for (offset, c) in text.chars().enumerate() {
            bytes.push(u8::try_from(u32::from(c)).map_err(|_| SexpError::Unexpected { offset })?);
        }
        let sexp = Self::parse(&bytes);
        bytes.zeroize();
        sexp
    }

    /// Gives the bytes of an atom.
    pub fn as_atom(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(bytes) => Some(bytes),
            Self::List(_) => None,
        }
    }

    /// Gives the items of a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::Atom(_) => None,
            Self::List(items) => Some(items),
        }
    }

    /// Finds the first list, this one or one inside, at any depth, that begins with the atom `token`.
    pub fn find(&self, token: &str) -> Option<&Self> {
        let items = self.as_list()?;
        if items.first().and_then(Self::as_atom) == Some(token.as_bytes()) {
            return Some(self);
        }
        items.iter().find_map(|item| item.find(token))
    }

    /// Finds the list that begins with `token`, and gives the atom in it at `index`, counted from 0 at the token.
    pub fn find_atom(&self, token: &str, index: usize) -> Option<&[u8]> {
        self.find(token)?.as_list()?.get(index)?.as_atom()
    }

    /// Writes the canonical form: lengths and bytes, no white space.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_canonical(&mut bytes);
        bytes
    }

    fn write_canonical(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Atom(atom) => {
                // libgcrypt reads no `0:`.
                match atom.len() {
                    0 => bytes.extend_from_slice(b"\"\""),
                    length => bytes.extend_from_slice(format!("{length}:").as_bytes()),
                }
                bytes.extend_from_slice(atom);
            }
            Self::List(items) => {
                bytes.push(b'(');
                items.iter().for_each(|item| item.write_canonical(bytes));
                bytes.push(b')');
            }
        }
    }

    /// Writes the advanced form in libgcrypt's layout, with a line end after it.
    pub fn to_advanced(&self) -> Vec<u8> {
        // Room for everything from the start, so that no secret is left behind in a buffer outgrown.
        let mut bytes = Vec::with_capacity(self.advanced_bound(0));
        self.write_advanced(&mut bytes, 0, None);
        bytes.push(b'\n');
        bytes
    }

    /// Gives the advanced form as text, each byte written as the character of that number.
    pub fn to_advanced_text(&self) -> String {
        let mut bytes = self.to_advanced();
        let mut text = String::with_capacity(bytes.len() * 2);
        text.extend(bytes.iter().map(|&byte| char::from(byte)));
        bytes.zeroize();
        text
    }

    fn advanced_bound(&self, depth: usize) -> usize {
        match self {
            Self::Atom(bytes) => bytes.len() * 4 + 3,
            Self::List(items) => {
                2 * (depth + 2) + items.iter().map(|item| item.advanced_bound(depth + 1)).sum::<usize>()
            }
        }
    }

    /// Writes this expression, which stands in `depth` lists and before `next`.
    ///
    /// A list begins a line of its own, and so does whatever follows it.
    fn write_advanced(&self, bytes: &mut Vec<u8>, depth: usize, next: Option<&Self>) {
        match self {
            Self::Atom(atom) => {
                write_atom(bytes, atom);
                if next.is_some() {
                    bytes.push(b' ');
                }
            }
            Self::List(items) => {
                if depth > 0 {
                    new_line(bytes, depth);
                }
                bytes.push(b'(');
                for (index, item) in items.iter().enumerate() {
                    item.write_advanced(bytes, depth + 1, items.get(index + 1));
                }
                bytes.push(b')');
                if depth > 0 && !matches!(next, Some(Self::List(_))) {
                    new_line(bytes, depth);
                }
            }
        }
    }
}

impl Zeroize for Sexp {
    fn zeroize(&mut self) {
        match self {
            Self::Atom(bytes) => bytes.zeroize(),
            Self::List(items) => items.iter_mut().for_each(Zeroize::zeroize),
        }
    }
}

impl fmt::Debug for Sexp {
    /// Shows the shape and the tokens; other atoms, which may be secret, only by their length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom(bytes) => match encoding(bytes) {
                Encoding::Token => f.write_str(&String::from_utf8_lossy(bytes)),
                _ => write!(f, "<{} bytes>", bytes.len()),
            },
            Self::List(items) => {
                f.write_str("(")?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index > 0 { " " } else { "" })?;
                    item.fmt(f)?;
                }
                f.write_str(")")
            }
        }
    }
}

fn new_line(bytes: &mut Vec<u8>, indent: usize) {
    bytes.push(b'\n');
    bytes.resize(bytes.len() + indent, b' ');
}

/// How libgcrypt chooses to write an atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Hex,
    Quoted,
    Token,
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_' | b':' | b'*' | b'+' | b'=')
}

/// Chooses as libgcrypt does: textual bytes are written as text, even in what is a number.
///
/// A zero byte that is not the first counts as textual there, because it ends the C string of the exceptions.
fn encoding(bytes: &[u8]) -> Encoding {
    let Some(&first) = bytes.first() else { return Encoding::Quoted };
    if first & 0x80 != 0 || first == 0 {
        return Encoding::Hex;
    }
    let textual = |&byte: &u8| {
        !(byte < 0x20 || (0x7f..=0xa0).contains(&byte))
            || matches!(byte, 0 | 8 | b'\t' | 11 | b'\n' | 12 | b'\r' | b'"' | b'\'' | b'\\')
    };
    if !bytes.iter().all(textual) {
        Encoding::Hex
    } else if !first.is_ascii_digit() && bytes.iter().all(|&byte| byte == 0 || is_token_byte(byte)) {
        Encoding::Token
    } else {
        Encoding::Quoted
    }
}

fn write_atom(out: &mut Vec<u8>, bytes: &[u8]) {
    match encoding(bytes) {
        Encoding::Token => out.extend_from_slice(bytes),
        Encoding::Hex => {
            out.push(b'#');
            for byte in bytes {
                out.extend([byte >> 4, byte & 15].map(hex_digit));
            }
            out.push(b'#');
        }
        Encoding::Quoted => {
            out.push(b'"');
            for &byte in bytes {
                let escape = match byte {
                    8 => b'b',
                    b'\t' => b't',
                    11 => b'v',
                    b'\n' => b'n',
                    12 => b'f',
                    b'\r' => b'r',
                    b'"' | b'\'' | b'\\' => byte,
                    0..0x20 | 0x7f..=0xa0 => {
                        out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                        continue;
                    }
                    _ => {
                        out.push(byte);
                        continue;
                    }
                };
                out.extend([b'\\', escape]);
            }
            out.push(b'"');
        }
    }
}

/// Gives an upper-case hexadecimal digit without a branch or a look-up, for secrets are written with it.
const fn hex_digit(nibble: u8) -> u8 {
    // 7 is the distance from '9' + 1 to 'A'; the subtraction's sign bits select it for 10 and more.
    b'0' + nibble + (((9_u8.wrapping_sub(nibble) as i8) >> 7) as u8 & 7)
}

/// Gives the value of a hexadecimal digit, without a branch or a look-up on it.
fn hex_value(digit: u8) -> Option<u8> {
    let in_range = |low: u8, high: u8| {
        // All ones when `low <= digit <= high`.
        let below = (i16::from(digit) - i16::from(low)) >> 8;
        let above = (i16::from(high) - i16::from(digit)) >> 8;
        (!(below | above)) as u8
    };
    let (number, upper, lower) = (in_range(b'0', b'9'), in_range(b'A', b'F'), in_range(b'a', b'f'));
    let value = (digit.wrapping_sub(b'0') & number)
        | (digit.wrapping_sub(b'A' - 10) & upper)
        | (digit.wrapping_sub(b'a' - 10) & lower);
    (number | upper | lower != 0).then_some(value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn next_byte(&mut self) -> Result<u8, SexpError> {
        let byte = self.bytes.get(self.offset).copied().ok_or(SexpError::Truncated)?;
        self.offset += 1;
        Ok(byte)
    }

    fn unexpected<T>(&self) -> Result<T, SexpError> {
        Err(SexpError::Unexpected { offset: self.offset - 1 })
    }

    fn skip_space(&mut self) {
        while self.bytes.get(self.offset).is_some_and(|byte| is_space(*byte)) {
            self.offset += 1;
        }
    }

    /// Reads items up to the closing parenthesis; the opening one has been read.
    fn list(&mut self, depth: usize) -> Result<Sexp, SexpError> {
        if depth > MAX_DEPTH {
            return Err(SexpError::TooDeep);
        }
        let mut items = Vec::new();
        loop {
            self.skip_space();
            match self.next_byte()? {
                b')' => return Ok(Sexp::List(items)),
                b'(' => items.push(self.list(depth + 1)?),
                first => items.push(Sexp::Atom(self.atom(first)?)),
            }
        }
    }

    fn atom(&mut self, first: u8) -> Result<Vec<u8>, SexpError> {
        match first {
            b'"' => self.quoted(),
            b'#' => self.hex(),
            b'|' => self.base64(),
            b'0'..=b'9' => self.counted(first),
            first if is_token_byte(first) => {
                let begin = self.offset - 1;
                // libgcrypt writes and reads a zero byte in a token.
                let inside = |byte: &u8| *byte == 0 || is_token_byte(*byte);
                while self.bytes.get(self.offset).is_some_and(inside) {
                    self.offset += 1;
                }
                Ok(self.bytes[begin..self.offset].to_vec())
            }
            _ => self.unexpected(),
        }
    }

    /// Reads `LENGTH:BYTES`, or another form with its length in front, which must be right.
    fn counted(&mut self, first: u8) -> Result<Vec<u8>, SexpError> {
        if first == b'0' {
            return self.unexpected();
        }
        let mut length = usize::from(first - b'0');
        loop {
            match self.next_byte()? {
                digit @ b'0'..=b'9' => {
                    length = length * 10 + usize::from(digit - b'0');
                    if length > MAX_SIZE {
                        return Err(SexpError::TooLong);
                    }
                }
                b':' => {
                    let end = self.offset + length;
                    let bytes = self.bytes.get(self.offset..end).ok_or(SexpError::Truncated)?;
                    self.offset = end;
                    return Ok(bytes.to_vec());
                }
                form @ (b'"' | b'#' | b'|') => {
                    let bytes = self.atom(form)?;
                    return if bytes.len() == length { Ok(bytes) } else { self.unexpected() };
                }
                _ => return self.unexpected(),
            }
        }
    }

    fn hex(&mut self) -> Result<Vec<u8>, SexpError> {
        let mut bytes = Vec::with_capacity(self.length_until(b'#') / 2);
        loop {
            let high = loop {
                match self.next_byte()? {
                    b'#' => return Ok(bytes),
                    byte if is_space(byte) => {}
                    byte => break byte,
                }
            };
            let Some(high) = hex_value(high) else { return self.unexpected() };
            let low = loop {
                match self.next_byte()? {
                    byte if is_space(byte) => {}
                    byte => break byte,
                }
            };
            let Some(low) = hex_value(low) else { return self.unexpected() };
            bytes.push(high << 4 | low);
        }
    }

    fn base64(&mut self) -> Result<Vec<u8>, SexpError> {
        let (mut bytes, mut bits, mut count) = (Vec::with_capacity(self.length_until(b'|')), 0_u32, 0);
        let (mut padded, mut digits) = (false, 0_usize);
        loop {
            let value = match self.next_byte()? {
                b'|' if digits.is_multiple_of(4) => return Ok(bytes),
                byte if is_space(byte) => continue,
                b'=' => {
                    padded = true;
                    digits += 1;
                    continue;
                }
                _ if padded => return self.unexpected(),
                byte @ b'A'..=b'Z' => byte - b'A',
                byte @ b'a'..=b'z' => byte - b'a' + 26,
                byte @ b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return self.unexpected(),
            };
            bits = bits << 6 | u32::from(value);
            digits += 1;
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
                bits &= (1 << count) - 1;
            }
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, SexpError> {
        let mut bytes = Vec::with_capacity(self.length_until(b'"'));
        loop {
            match self.next_byte()? {
                b'"' => return Ok(bytes),
                b'\\' => {
                    if let Some(byte) = self.escape()? {
                        bytes.push(byte);
                    }
                }
                byte => bytes.push(byte),
            }
        }
    }

    /// Reads what follows a backslash; an escaped line end is nothing.
    fn escape(&mut self) -> Result<Option<u8>, SexpError> {
        let byte = match self.next_byte()? {
            b'b' => 8,
            b't' => b'\t',
            b'v' => 11,
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            byte @ (b'"' | b'\'' | b'\\') => byte,
            first @ b'0'..=b'7' => {
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    match self.next_byte()? {
                        digit @ b'0'..=b'7' => value = value * 8 + u32::from(digit - b'0'),
                        _ => return self.unexpected(),
                    }
                }
                (value & 0xff) as u8
            }
            b'x' => {
                let mut value = 0;
                for _ in 0..2 {
                    let digit = self.next_byte()?;
                    let Some(digit) = hex_value(digit) else { return self.unexpected() };
                    value = value << 4 | digit;
                }
                value
            }
            end @ (b'\r' | b'\n') => {
                let other = if end == b'\r' { b'\n' } else { b'\r' };
                if self.bytes.get(self.offset) == Some(&other) {
                    self.offset += 1;
                }
                return Ok(None);
            }
            _ => return self.unexpected(),
        };
        Ok(Some(byte))
    }

    /// Bounds the bytes up to `end`, so that one allocation is enough.
    fn length_until(&self, end: u8) -> usize {
        let rest = &self.bytes[self.offset..];
        memchr::memchr(end, rest).unwrap_or(rest.len())
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 11 | 12 | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sexp() -> impl Strategy<Value = Sexp> {
        let atom = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[ -~\\n\\t]{0,20}".prop_map(String::into_bytes),
            "[a-z][a-z0-9-]{0,10}".prop_map(String::into_bytes),
        ];
        let leaf = prop_oneof![atom.prop_map(Sexp::Atom), Just(Sexp::List(vec![]))];
        leaf.prop_recursive(5, 30, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Sexp::List))
            .prop_map(|sexp| match sexp {
                atom @ Sexp::Atom(_) => Sexp::list([atom]),
                list @ Sexp::List(_) => list,
            })
    }

    #[test]
    fn every_spelling_of_one_atom() {
        for text in [
            "(abc)",
            "(3:abc)",
            "(#616263#)",
            "(\"abc\")",
            "(|YWJj|)",
            "( abc )\n",
            "(# 61 6\n2 63 #)",
            "(3#616263#)",
            "(3\"abc\")",
            "(\"\\x61\\142\\\nc\")",
            "(|YW Jj|)",
        ] {
            assert_eq!(Sexp::parse(text.as_bytes()), Ok(Sexp::list([Sexp::atom("abc")])), "{text}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "abc",
            "(",
            "(()",
            ")",
            "(a))",
            "(a)(b)",
            "(a) b",
            "(#6#)",
            "(#6g#)",
            "(\"abc)",
            "(\"\\q\")",
            "(\"\\08\")",
            "(4:abc)",
            "(03:abc)",
            "(0:)",
            "(|YWJ|)",
            "(2\"abc\")",
            "(%)",
            "(3abc)",
            "(|YWJj)",
            "(\u{e9})",
        ] {
            assert!(Sexp::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Sexp::parse("(".repeat(MAX_DEPTH + 1).as_bytes()), Err(SexpError::TooDeep));
        assert_eq!(Sexp::parse_text("(\u{100})"), Err(SexpError::Unexpected { offset: 1 }));
        assert_eq!(Sexp::parse(b"(99999999999999999999:a)"), Err(SexpError::TooLong));
    }

    #[test]
    fn the_layout_is_libgcrypts() {
        let text = "(public-key \n (ecc \n  (curve Ed25519)\n  (q #00#)\n  )\n )\n";
        assert_eq!(Sexp::parse(text.as_bytes()).unwrap().to_advanced(), text.as_bytes());
    }

    #[test]
    fn text_is_written_as_text() {
        let check = |bytes: &[u8], text: &str| {
            assert_eq!(Sexp::list([Sexp::atom(bytes)]).to_advanced_text(), format!("({text})\n"));
        };
        check(b"", "\"\"");
        check(b"token-1", "token-1");
        check(b"1token", "\"1token\"");
        check(b"a b", "\"a b\"");
        check(b"a\0b!", "\"a\\x00b!\"");
        check(b"\0ab", "#006162#");
        check(b"\xe9ab", "#E96162#");
        check(b"ab\xe9", "\"ab\u{e9}\"");
        check(b"ab\x80", "#616280#");
        check(b"\x08\t\x0b\n\x0c\r\"'\\", "\"\\b\\t\\v\\n\\f\\r\\\"\\'\\\\\"");
    }

    #[test]
    fn digits_without_branches() {
        for value in 0..16 {
            let digit = hex_digit(value);
            assert_eq!(char::from(digit).to_digit(16), Some(u32::from(value)));
            assert!(digit.is_ascii_digit() || digit.is_ascii_uppercase());
        }
        for byte in 0..=255_u8 {
            let value = char::from(byte).to_digit(16).map(|value| value as u8);
            assert_eq!(hex_value(byte), value, "{byte}");
        }
    }

    proptest! {
        #[test]
        fn canonical_form_round_trips(sexp in sexp()) {
            prop_assert_eq!(Sexp::parse(&sexp.to_canonical()), Ok(sexp));
        }

        #[test]
        fn advanced_form_round_trips(sexp in sexp()) {
            prop_assert_eq!(Sexp::parse(&sexp.to_advanced()), Ok(sexp.clone()));
            prop_assert_eq!(Sexp::parse_text(&sexp.to_advanced_text()), Ok(sexp));
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>, text in "[()\"#|\\\\x0-9a-f: ]{0,60}") {
            let _ = Sexp::parse(&junk);
            let _ = Sexp::parse(text.as_bytes());
        }
    }
}
