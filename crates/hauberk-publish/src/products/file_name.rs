//! The names that products are downloaded under, in URLs and heads.

use std::fmt::Write;

/// Longest name, in bytes.
const MAX_LENGTH: usize = 255;

/// Gives the name that a product is downloaded under: that of the file, without what names in URLs and heads may not have, and for the archive of a
/// directory with what tells so.
pub fn download_name(name: &str, directory: bool) -> String {
    const ENDING: &str = ".tar";
    let mut plain: String = name.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }).collect();
    let mut length = plain.len().min(MAX_LENGTH - ENDING.len());
    while !plain.is_char_boundary(length) {
        length -= 1;
    }
    plain.truncate(length);
    if directory {
        plain.push_str(ENDING);
    }
    plain
}

/// Gives a file's name as a component of a URL.
pub fn encode_file_name(name: &str) -> String {
    encode(name, b"-._~+")
}

/// Reads a file's name from a component of a URL; nothing for what is none.
pub(crate) fn parse_file_name(component: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(component.len().min(MAX_LENGTH));
    let mut rest = component.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            bytes.push(u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let plain = !name.is_empty() && name.len() <= MAX_LENGTH && !matches!(name.as_str(), "." | "..");
    (plain && !name.contains('/') && !name.chars().any(char::is_control)).then_some(name)
}

/// Gives the value of `Content-Disposition` that has a client keep what it gets, under this name (RFC 6266).
pub fn attachment(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !"\"\\%;".contains(c) || c == ' ' { c } else { '_' };
    let fallback: String = name.chars().map(plain).collect();
    if fallback == name {
        return format!("attachment; filename=\"{name}\"");
    }
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{}", encode(name, b"!#$&+-.^_`|~"))
}

/// Encodes all but letters, digits and `plain`.
fn encode(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_in_urls() {
        for name in ["a.iso", "a b+c.tar", "gr\u{fc}n%.txt", "a\"b\\c", "#?&"] {
            let encoded = encode_file_name(name);
            assert!(encoded.is_ascii() && !encoded.contains(['/', '?', '#', ' ', '"']), "{encoded}");
            assert_eq!(parse_file_name(&encoded).as_deref(), Some(name));
        }
        for wrong in ["", ".", "..", "a%2fb", "a/b", "%00", "%0a", "%", "%4", "%zz", "%ff", &"a".repeat(256)]
        {
            assert_eq!(parse_file_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_name_can_be_downloaded_under() {
        for (name, directory, expected) in
            [("a.iso", false, "a.iso"), ("doc", true, "doc.tar"), ("a\nb\u{7f}", false, "a_b_")]
        {
            assert_eq!(download_name(name, directory), expected);
        }
        for long in ["\u{fffd}".repeat(255), "x".repeat(255)] {
            let name = download_name(&long, true);
            assert_eq!(parse_file_name(&encode_file_name(&name)), Some(name));
        }
    }

    #[test]
    fn clients_are_told_a_name_they_can_read() {
        assert_eq!(attachment("a b-1.0.iso"), "attachment; filename=\"a b-1.0.iso\"");
        assert_eq!(
            attachment("gr\u{fc}n\".txt"),
            "attachment; filename=\"gr_n_.txt\"; filename*=UTF-8''gr%C3%BCn%22.txt"
        );
        assert!(!attachment("a\r\nset-cookie: x").contains(['\r', '\n']));
    }
}
