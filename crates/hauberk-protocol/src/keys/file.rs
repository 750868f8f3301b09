//! Key files: `FILE` holds the secret key in Z85, `FILE.pub` the public one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{CurveKeyPair, CurvePublicKey, CurveSecretKey};

/// More than any key file has; what is longer is something else.
const LONGEST: u64 = 256;

/// Why a key file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be opened or read.
    #[error("cannot read key file {}; `hauberk key curve FILE` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write key file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is there already; a key is never overwritten.
    #[error("key file {} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The secret key can be read by others.
    #[error("secret key file {} has mode {mode:04o} and can be read by others: run chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a key.
    #[error("key file {} does not hold one CURVE key of 40 characters in Z85", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

impl CurveKeyPair {
    /// Reads the secret key of `path` and computes the public one.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, is accessible to its group or others, or does not hold a key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let reading = |source| KeyFileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(reading)?;
        let mode = file.metadata().map_err(reading)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
        let text = read_text(file, path)?;
        let secret: CurveSecretKey =
            text.trim_end().parse().map_err(|_| KeyFileError::NotAKey { path: path.to_owned() })?;
        Ok(Self::from(secret))
    }

    /// Reads the key pair of `path`, or makes one and writes it there when the file does not exist.
    ///
    /// # Errors
    ///
    /// As [`CurveKeyPair::read`] and [`CurveKeyPair::write_new`].
    pub fn read_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match Self::read(path) {
            Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let pair = Self::generate();
        match pair.write_new(path) {
            Ok(()) => Ok(pair),
            // Another process was faster, and its key counts.
            Err(KeyFileError::Exists { .. }) => Self::read(path),
            Err(error) => Err(error),
        }
    }

    /// Writes the secret key to the new file `path`, readable by its owner only, and the public key to `path.pub`.
    ///
    /// # Errors
    ///
    /// Fails when `path` exists already or either file cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        // Whole or not there at all: it is written under another name, and takes its own only where there is none.
        let draft = with_suffix(path, &format!(".{}.new", std::process::id()));
        let mut secret_options = OpenOptions::new();
        secret_options.write(true).create(true).truncate(true).mode(0o600);
        let written = write_line(&secret_options, &draft, &self.secret.to_text()).and_then(|()| {
            fs::hard_link(&draft, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
                _ => KeyFileError::Write { path: path.to_owned(), source },
            })
        });
        // What could not be written need not be removed either.
        let _ = fs::remove_file(&draft);
        written?;
        let public_path = with_suffix(path, ".pub");
        let mut public_options = OpenOptions::new();
        // A public file without its secret is a left-over: it may be replaced.
        public_options.write(true).create(true).truncate(true).mode(0o644);
        write_line(&public_options, &public_path, &self.public.to_string())
    }
}

impl CurvePublicKey {
    /// Reads the public key of `path`, such as the `FILE.pub` of a key pair.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or does not hold a key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let file = File::open(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
        read_text(file, path)?.trim_end().parse().map_err(|_| KeyFileError::NotAKey { path: path.to_owned() })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn read_text(file: File, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    file.take(LONGEST).read_to_string(&mut text).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => KeyFileError::NotAKey { path: path.to_owned() },
        _ => KeyFileError::Read { path: path.to_owned(), source },
    })?;
    Ok(text)
}

fn write_line(options: &OpenOptions, path: &Path, text: &str) -> Result<(), KeyFileError> {
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|source| KeyFileError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_pair_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker.key");
        let pair = CurveKeyPair::generate();
        pair.write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(CurveKeyPair::read(&path).unwrap().public(), pair.public());
        assert_eq!(CurvePublicKey::read(&directory.path().join("worker.key.pub")).unwrap(), *pair.public());
        assert!(matches!(pair.write_new(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left behind");
    }

    #[test]
    fn a_pair_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.key");
        let made = CurveKeyPair::read_or_create(&path).unwrap();
        assert_eq!(CurveKeyPair::read_or_create(&path).unwrap().public(), made.public());
        assert_eq!(CurvePublicKey::read(&directory.path().join("server.key.pub")).unwrap(), *made.public());
        let nowhere = directory.path().join("none").join("key");
        assert!(matches!(CurveKeyPair::read_or_create(&nowhere), Err(KeyFileError::Write { .. })));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.key");
        CurveKeyPair::generate().write_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let message = CurveKeyPair::read(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("mode {mode:04o}")), "{message}");
            assert!(message.ends_with(&format!("chmod 600 {}", path.display())), "{message}");
        }
    }

    #[test]
    fn other_contents_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for contents in [&b""[..], b"short", b"\xff\xfe", &[b'0'; 41], &[b'0'; 5000]] {
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(CurveKeyPair::read(&path), Err(KeyFileError::NotAKey { .. })), "{contents:?}");
        }
        assert!(matches!(
            CurveKeyPair::read(directory.path()),
            Err(KeyFileError::Exposed { .. } | KeyFileError::Read { .. })
        ));
        assert!(matches!(CurveKeyPair::read(&directory.path().join("none")), Err(KeyFileError::Read { .. })));
    }
}
