//! Finds the end of a NAR in a stream that does not announce its length.

use crate::{error::Violation, frame::code, wire::padding};

/// Longest token but the contents of files: names, targets, keywords.
const LONGEST_TOKEN: u64 = 4096;

/// Deepest directory.
const DEEPEST: u32 = 4096;

/// What the next token must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Magic,
    NodeOpen,
    TypeWord,
    Type,
    RegularField,
    ExecutableValue,
    ContentsWord,
    Contents,
    TargetWord,
    Target,
    NodeClose,
    EntryOrClose,
    EntryOpen,
    NameWord,
    Name,
    NodeWord,
    EntryClose,
    Nothing,
}

/// Where in a token the reading stands.
#[derive(Debug, Clone, Copy)]
enum Within {
    Length,
    Token { left: usize, padding: usize },
    Contents { left: u64, padding: usize },
    Padding { left: usize },
}

/// Why a stream is no NAR.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// The frame that reports an error stands where a token should begin; its code was consumed.
    ErrorFrame {
        consumed: usize,
    },
    Malformed(Violation),
}

/// Follows the structure of a NAR, in chunks of any size, and tells where it ends. Names and order are left to those who
/// unpack it.
#[derive(Debug)]
pub(crate) struct NarScanner {
    expect: Expect,
    within: Within,
    token: Vec<u8>,
    depth: u32,
}

fn malformed(reason: impl Into<String>) -> ScanError {
    ScanError::Malformed(Violation::Nar { reason: reason.into() })
}

impl NarScanner {
    pub(crate) fn new() -> Self {
        Self { expect: Expect::Magic, within: Within::Length, token: Vec::new(), depth: 0 }
    }

    /// Tells whether the end was reached.
    pub(crate) fn is_done(&self) -> bool {
        self.expect == Expect::Nothing && matches!(self.within, Within::Length)
    }

    /// Follows `bytes` and gives how many of them belong to the NAR: all, unless it ends within them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, ScanError> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let rest = &bytes[at..];
            match &mut self.within {
                Within::Length => {
                    let taken = (8 - self.token.len()).min(rest.len());
                    self.token.extend_from_slice(&rest[..taken]);
                    at += taken;
                    if let Ok(length) = <[u8; 8]>::try_from(self.token.as_slice()) {
                        self.token.clear();
                        self.begin(u64::from_le_bytes(length), at)?;
                    }
                }
                Within::Token { left, padding } => {
                    let taken = (*left).min(rest.len());
                    self.token.extend_from_slice(&rest[..taken]);
                    *left -= taken;
                    at += taken;
                    if *left == 0 {
                        self.within = pad(*padding);
                        self.step()?;
                    }
                }
                Within::Contents { left, padding } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.within = pad(*padding);
                        self.expect = Expect::NodeClose;
                    }
                }
                Within::Padding { left } => {
                    let taken = (*left).min(rest.len());
                    if rest[..taken].iter().any(|&byte| byte != 0) {
                        return Err(malformed("padding is not zero"));
                    }
                    *left -= taken;
                    at += taken;
                    if *left == 0 {
                        self.within = Within::Length;
                    }
                }
            }
        }
        Ok(at)
    }

    /// Begins a token of `length` bytes.
    fn begin(&mut self, length: u64, consumed: usize) -> Result<(), ScanError> {
        if self.expect == Expect::Contents {
            if length == 0 {
                self.expect = Expect::NodeClose;
            } else {
                self.within = Within::Contents { left: length, padding: padding(length) };
            }
            return Ok(());
        }
        if length == code::ERROR {
            return Err(ScanError::ErrorFrame { consumed });
        }
        if length > LONGEST_TOKEN {
            return Err(malformed(format!("token of {length} bytes")));
        }
        if length == 0 {
            return self.step();
        }
        let left = usize::try_from(length).map_err(|_| malformed("token too long"))?;
        self.within = Within::Token { left, padding: padding(length) };
        Ok(())
    }

    /// Takes the token that was read.
    fn step(&mut self) -> Result<(), ScanError> {
        let token = std::mem::take(&mut self.token);
        self.expect =
            match (self.expect, token.as_slice()) {
                (Expect::Magic, b"nix-archive-1") => Expect::NodeOpen,
                (Expect::NodeOpen, b"(") => Expect::TypeWord,
                (Expect::TypeWord, b"type") => Expect::Type,
                (Expect::Type, b"regular") => Expect::RegularField,
                (Expect::Type, b"symlink") => Expect::TargetWord,
                (Expect::Type, b"directory") => Expect::EntryOrClose,
                (Expect::RegularField, b"executable") => Expect::ExecutableValue,
                (Expect::ExecutableValue, b"") => Expect::ContentsWord,
                (Expect::RegularField | Expect::ContentsWord, b"contents") => Expect::Contents,
                (Expect::TargetWord, b"target") => Expect::Target,
                (Expect::Target, _) => Expect::NodeClose,
                (Expect::EntryOrClose, b"entry") => Expect::EntryOpen,
                (Expect::EntryOpen, b"(") => Expect::NameWord,
                (Expect::NameWord, b"name") => Expect::Name,
                (Expect::Name, _) => Expect::NodeWord,
                (Expect::NodeWord, b"node") => {
                    self.depth += 1;
                    if self.depth > DEEPEST {
                        return Err(malformed("directories are nested too deep"));
                    }
                    Expect::NodeOpen
                }
                (Expect::NodeClose | Expect::EntryOrClose | Expect::RegularField, b")") => {
                    if self.depth == 0 { Expect::Nothing } else { Expect::EntryClose }
                }
                (Expect::EntryClose, b")") => {
                    self.depth -= 1;
                    Expect::EntryOrClose
                }
                (expected, token) => {
                    let token = String::from_utf8_lossy(&token[..token.len().min(40)]).into_owned();
                    return Err(malformed(format!("`{token}` where {expected:?} should be")));
                }
            };
        Ok(())
    }
}

fn pad(padding: usize) -> Within {
    if padding == 0 { Within::Length } else { Within::Padding { left: padding } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Encoder;

    /// A directory with an executable, an empty file, a link and an empty directory.
    fn sample() -> Vec<u8> {
        let mut nar = Encoder::default();
        for token in ["nix-archive-1", "(", "type", "directory"] {
            nar.text(token);
        }
        let entries: [&[&str]; 4] = [
            &["type", "regular", "executable", "", "contents", "#!/bin/sh\n"],
            &["type", "regular", "contents", ""],
            &["type", "symlink", "target", "a"],
            &["type", "directory"],
        ];
        for (name, entry) in ["a", "b", "c", "d"].iter().zip(entries) {
            for token in ["entry", "(", "name", name, "node", "("] {
                nar.text(token);
            }
            for token in entry {
                nar.text(token);
            }
            nar.text(")").text(")");
        }
        nar.text(")");
        nar.take()
    }

    #[test]
    fn finds_the_end_whatever_the_chunks() {
        let nar = sample();
        let mut stream = nar.clone();
        stream.extend_from_slice(b"what follows");
        for chunk in [1, 3, 8, 64, stream.len()] {
            let (mut scanner, mut at) = (NarScanner::new(), 0);
            while !scanner.is_done() {
                let end = (at + chunk).min(stream.len());
                at += scanner.feed(&stream[at..end]).unwrap();
            }
            assert_eq!(at, nar.len(), "chunks of {chunk}");
            assert_eq!(scanner.feed(b"more").unwrap(), 0);
        }
    }

    #[test]
    fn refuses_what_is_no_nar() {
        let mut wrong = sample();
        wrong[8] = b'x';
        assert!(matches!(NarScanner::new().feed(&wrong), Err(ScanError::Malformed(_))));
        assert!(matches!(NarScanner::new().feed(&u64::MAX.to_le_bytes()), Err(ScanError::Malformed(_))));
        let mut padded = sample();
        padded[22] = 1;
        assert!(matches!(NarScanner::new().feed(&padded), Err(ScanError::Malformed(_))));
        let frame = code::ERROR.to_le_bytes();
        assert_eq!(NarScanner::new().feed(&frame), Err(ScanError::ErrorFrame { consumed: 8 }));
    }
}
