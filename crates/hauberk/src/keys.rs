//! Keys from files and from the command line.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_store::signature::nix::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// Bytes of the largest key file.
const LONGEST: u64 = 64 * 1024;

/// Reads a secret signing key, as `nix key generate-secret` and `hauberk key signing` write it.
pub(crate) fn read_signing_key(path: &Path) -> Result<SecretKey, Failure> {
    let read = || -> anyhow::Result<SecretKey> {
        let file = File::open(path).with_context(|| {
            format!(
                "cannot read signing key {}; make one with `hauberk key signing NAME FILE`",
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
        let mut text = Zeroizing::new(String::new());
        file.take(LONGEST)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read signing key {}", path.display()))?;
        SecretKey::parse(text.trim())
            .with_context(|| format!("{} does not hold a secret key of the form NAME:BASE64", path.display()))
    };
    read().map_err(Failure::configuration)
}

/// Writes a new pair of signing keys: `path`, readable by its owner only, and `path.pub`.
pub(crate) fn write_signing_key(path: &Path, key: &SecretKey) -> anyhow::Result<PathBuf> {
    use std::io::Write;
    let public_path = public_file(path);
    let mut secret = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make key file {}", path.display()))?;
    writeln!(secret, "{}", &*key.to_secret_string())
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
    if let Ok(key) = PublicKey::parse(text) {
        return Ok(key);
    }
    let read = || -> anyhow::Result<PublicKey> {
        let contents = std::fs::read_to_string(text).with_context(|| {
            format!("`{text}` is neither a public key NAME:BASE64 nor a file that can be read")
        })?;
        PublicKey::parse(contents.trim())
            .with_context(|| format!("{text} does not hold a public key of the form NAME:BASE64"))
    };
    read().map_err(Failure::configuration)
}
