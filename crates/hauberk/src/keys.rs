//! Keys from files and from the command line.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_store::signature::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// Bytes of the largest key file.
const LONGEST: u64 = 64 * 1024;

/// Reads a secret signing key, as `nix key generate-secret`, `guix archive --generate-key` and `hauberk key signing` write it.
pub(crate) fn read_signing_key(path: &Path) -> Result<SecretKey, Failure> {
    let read = || -> anyhow::Result<SecretKey> {
        let file = File::open(path).with_context(|| {
            format!(
                "cannot read signing key {}; make one with `hauberk key signing NAME FILE`, or for Guix with \
                 `hauberk key signing --guix FILE`",
                path.display()
            )
        })?;
        let mode = file.metadata().context("cannot look at the file")?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(anyhow!(
                "signing key {} has mode {mode:04o} and can be read by others: run chmod 600 {}",
                path.display(),
                path.display()
            ));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(LONGEST)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read signing key {}", path.display()))?;
        SecretKey::parse(&bytes).with_context(|| {
            format!(
                "{} does not hold a secret key of the form NAME:BASE64 or (private-key …)",
                path.display()
            )
        })
    };
    read().map_err(Failure::configuration)
}

/// Writes a new pair of signing keys: `path`, readable by its owner only, and `path.pub`; for Guix, whose tools name the pair
/// `signing-key.sec` and `signing-key.pub`, an ending `.sec` gives way to `.pub`.
pub(crate) fn write_signing_key(path: &Path, key: &SecretKey) -> anyhow::Result<PathBuf> {
    use std::io::Write;
    let public_path = match key {
        SecretKey::Guix(_) if path.extension().is_some_and(|ending| ending == "sec") => {
            path.with_extension("pub")
        }
        SecretKey::Nix(_) | SecretKey::Guix(_) => public_file(path),
    };
    let text = match key {
        SecretKey::Nix(key) => Zeroizing::new(format!("{}\n", &*key.to_secret_string()).into_bytes()),
        SecretKey::Guix(key) => key.to_secret_bytes(),
    };
    let mut secret = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make key file {}", path.display()))?;
    secret
        .write_all(&text)
        .and_then(|()| secret.sync_all())
        .with_context(|| format!("cannot write key file {}", path.display()))?;
    std::fs::write(&public_path, format!("{}\n", key.public_key()))
        .with_context(|| format!("cannot write key file {}", public_path.display()))?;
    Ok(public_path)
}

fn public_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Takes a CURVE public key, or the file that holds it.
pub(crate) fn curve_public_key(text: &str) -> Result<CurvePublicKey, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    CurvePublicKey::read(Path::new(text)).map_err(Failure::from)
}

/// Takes a public signing key, or the file that holds it.
pub(crate) fn signing_public_key(text: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let read = || -> anyhow::Result<PublicKey> {
        let contents = std::fs::read_to_string(text).with_context(|| {
            format!(
                "`{text}` is neither a public key NAME:BASE64 or (public-key …) nor a file that can be read"
            )
        })?;
        contents.parse().with_context(|| {
            format!("{text} does not hold a public key of the form NAME:BASE64 or (public-key …)")
        })
    };
    read().map_err(Failure::configuration)
}
