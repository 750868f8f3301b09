//! The keys that a worker keeps in its state directory, and what it knows of its enrolment.
//!
//! ```text
//! STATE/keys/worker.curve      by which the server knows it     (and .pub)
//! STATE/keys/worker.signing    with which it signs its results  (and .pub)
//! STATE/keys/server.curve.pub  the server that has enrolled it
//! STATE/keys/enrolment         its name, and the digest of the token it used
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use hauberk_protocol::EnrolmentToken;
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_store::StoreDirectory;
use hauberk_store::signature::{SecretKey, guix, nix};

use crate::exit::Failure;
use crate::keys::{read_signing_key, write_signing_key};

/// Bytes of the largest record of an enrolment.
const LONGEST: u64 = 4096;

/// The directory of the keys.
#[derive(Debug)]
pub(crate) struct Keyring(PathBuf);

/// What a worker remembers of its enrolment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Enrolled {
    /// The name it has.
    pub(crate) name: String,
    /// Digest of the token, in hexadecimal digits.
    token: String,
}

impl Enrolled {
    /// Whether it was this token that enrolled it.
    pub(crate) fn is_by(&self, token: &EnrolmentToken) -> bool {
        self.token == digest(token)
    }
}

impl Keyring {
    /// The keys in this state directory.
    pub(crate) fn of(state: &Path) -> Self {
        Self(state.join("keys"))
    }

    /// The secret CURVE key's file.
    pub(crate) fn curve(&self) -> PathBuf {
        self.0.join("worker.curve")
    }

    /// The secret signing key's file.
    pub(crate) fn signing(&self) -> PathBuf {
        self.0.join("worker.signing")
    }

    /// The file with the public key of the server.
    pub(crate) fn server(&self) -> PathBuf {
        self.0.join("server.curve.pub")
    }

    fn enrolment(&self) -> PathBuf {
        self.0.join("enrolment")
    }

    /// Reads what is remembered of an enrolment; nothing if there was none.
    pub(crate) fn enrolled(&self) -> Result<Option<Enrolled>, Failure> {
        let path = self.enrolment();
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("cannot read {}", path.display()));
                return Err(Failure::configuration(error));
            }
        }
        match text.lines().collect::<Vec<_>>()[..] {
            [name, token] => Ok(Some(Enrolled { name: name.to_owned(), token: token.to_owned() })),
            _ => Err(Failure::configuration(anyhow!(
                "{} does not hold a name and a digest: remove it and enrol again",
                path.display()
            ))),
        }
    }

    /// Remembers an enrolment, durably; the server's key comes first, so that no enrolment is known without it.
    pub(crate) fn remember(&self, name: &str, token: &EnrolmentToken) -> Result<(), Failure> {
        let write = |path: &Path, text: String| -> anyhow::Result<()> {
            let draft = path.with_extension("new");
            let mut file =
                File::create(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .and_then(|()| fs::rename(&draft, path))
                .and_then(|()| File::open(&self.0)?.sync_all())
                .with_context(|| format!("cannot write {}", path.display()))
        };
        write(&self.server(), format!("{}\n", token.server()))
            .and_then(|()| write(&self.enrolment(), format!("{name}\n{}\n", digest(token))))
            .map_err(Failure::configuration)
    }

    /// Makes the directory, readable by its owner only, and whichever keys are not there. The signing key is of the kind that `store`
    /// asks for; its name is that of the machine `name` and a number.
    pub(crate) fn make_keys(&self, store: &StoreDirectory, name: &str) -> Result<(), Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the directory {}", self.0.display()))
            .map_err(Failure::configuration)?;
        CurveKeyPair::read_or_create(&self.curve())?;
        if !self.signing().exists() {
            let key = if *store == StoreDirectory::guix() {
                guix::SecretKey::generate().map(SecretKey::Guix).context("cannot make a signing key")
            } else {
                nix::SecretKey::generate(&format!("{name}-1"))
                    .map(SecretKey::Nix)
                    .with_context(|| format!("`{name}-1` is no name for a signing key"))
            };
            key.and_then(|key| write_signing_key(&self.signing(), &key)).map_err(Failure::configuration)?;
        }
        read_signing_key(&self.signing()).map(drop)
    }

    /// The server whose key is pinned.
    pub(crate) fn server_key(&self) -> Result<CurvePublicKey, Failure> {
        Ok(CurvePublicKey::read(&self.server())?)
    }
}

fn digest(token: &EnrolmentToken) -> String {
    token.digest().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_the_enrolment_is_remembered() {
        let state = tempfile::tempdir().unwrap();
        let keyring = Keyring::of(&state.path().join("worker"));
        assert_eq!(keyring.enrolled().unwrap(), None);
        keyring.make_keys(&StoreDirectory::nix(), "w").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(
            [mode(&keyring.0), mode(&keyring.curve()), mode(&keyring.signing())],
            [0o700, 0o600, 0o600]
        );
        let before = fs::read(keyring.signing()).unwrap();
        keyring.make_keys(&StoreDirectory::nix(), "other").unwrap();
        assert_eq!(fs::read(keyring.signing()).unwrap(), before);

        let server = CurveKeyPair::generate();
        let token = EnrolmentToken::generate(server.public());
        keyring.remember("anna", &token).unwrap();
        let enrolled = keyring.enrolled().unwrap().unwrap();
        assert_eq!((enrolled.name.as_str(), keyring.server_key().unwrap()), ("anna", *server.public()));
        assert!(enrolled.is_by(&token));
        assert!(!enrolled.is_by(&EnrolmentToken::generate(server.public())));
        fs::write(keyring.enrolment(), "half").unwrap();
        assert!(keyring.enrolled().is_err());
    }

    #[test]
    fn a_worker_of_guix_gets_a_key_of_guix() {
        let state = tempfile::tempdir().unwrap();
        let keyring = Keyring::of(state.path());
        keyring.make_keys(&StoreDirectory::guix(), "w").unwrap();
        assert_eq!(read_signing_key(&keyring.signing()).unwrap().usual_store(), StoreDirectory::guix());
    }
}
