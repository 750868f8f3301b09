//! The file of operators' tokens.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::secret::Key;

/// Bytes of the largest file.
const LARGEST: u64 = 1 << 20;
/// Characters of the shortest token: fewer could be guessed.
const SHORTEST: usize = 16;
/// Characters of the longest name.
const LONGEST_NAME: usize = 64;

/// The tokens of operators, each with the name that stands in the audit.
#[derive(Debug)]
pub struct Tokens {
    all: Vec<(String, Key)>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the operators' tokens in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "the operators' tokens in {} have mode {mode:04o} and can be read by others: run chmod 600 {}",
        path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line is not `NAME TOKEN`.
    #[error("line {line} of {} cannot be used: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No token is in it.
    #[error(
        "there is no token in {}; write a line `NAME TOKEN` for each operator, with a token from `openssl rand -hex 32`",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// Reads a file: a line `NAME TOKEN` for each operator, or a token alone for one who is called `operator`. Empty lines and lines that
    /// begin with `#` mean nothing.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokensError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
        let all = parse(&text).map_err(|(line, reason)| TokensError::Line {
            path: path.to_owned(),
            line,
            reason,
        })?;
        if all.is_empty() {
            return Err(TokensError::Empty { path: path.to_owned() });
        }
        Ok(Self { all })
    }

    /// Finds the operator of a token. Takes as long for every token.
    pub(super) fn of_token(&self, token: &str) -> Option<(&str, &Key)> {
        let mut found = None;
        for (name, key) in &self.all {
            if key.is_of(token) {
                found = Some((name.as_str(), key));
            }
        }
        found
    }

    /// Finds the key of an operator.
    pub(super) fn of_name(&self, name: &str) -> Option<&Key> {
        self.all.iter().find(|(known, _)| known == name).map(|(_, key)| key)
    }
}

fn parse(text: &str) -> Result<Vec<(String, Key)>, (usize, &'static str)> {
    let mut all: Vec<(String, Key)> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let wrong = |reason| (place + 1, reason);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, token) = match words.as_slice() {
            [token] => ("operator", *token),
            [name, token] => (*name, *token),
            _ => return Err(wrong("it is not `NAME TOKEN`")),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
        if name.len() > LONGEST_NAME || !name.bytes().all(plain) {
            return Err(wrong("a name has at most 64 letters, digits, `_`, `.`, `@` and `-`"));
        }
        if token.len() < SHORTEST {
            return Err(wrong("a token has at least 16 characters"));
        }
        if all.iter().any(|(known, key)| known == name || key.is_of(token)) {
            return Err(wrong("its name or token is on another line too"));
        }
        all.push((name.to_owned(), Key::of(token)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123";

    #[test]
    fn a_file_gives_each_token_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, format!("# people\n\nanna {TOKEN}\n  ben   {TOKEN}x\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Tokens::read(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!(tokens.of_token(TOKEN).unwrap().0, "anna");
        assert_eq!(tokens.of_token(&format!("{TOKEN}x")).unwrap().0, "ben");
        assert!(tokens.of_token("").is_none() && tokens.of_token("anna").is_none());
        assert!(tokens.of_name("ben").is_some() && tokens.of_name("carl").is_none());
        std::fs::write(&path, "# nobody\n").unwrap();
        assert!(matches!(Tokens::read(&path), Err(TokensError::Empty { .. })));
    }

    #[test]
    fn lines_that_cannot_be_used_are_named() {
        let check = |text: &str, line| assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        check("short", 1);
        check(&format!("\na b {TOKEN}"), 2);
        check(&format!("<b> {TOKEN}"), 1);
        check(&format!("anna {TOKEN}\nben {TOKEN}"), 2);
        check(&format!("anna {TOKEN}\nanna {TOKEN}y"), 2);
        assert_eq!(parse(TOKEN).unwrap()[0].0, "operator");
    }
}
