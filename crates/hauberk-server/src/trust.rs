//! The trust probe: a path that nobody needs, signed by the server, for a worker to find out whether its daemon accepts the key.

use std::io::{self, Write};

use hauberk_protocol::proto::TrustProbe;
use hauberk_publish::Signer;
use hauberk_store::export::{ExportItem, ExportWriter};
use hauberk_store::nar::{EncodeError, Node};
use hauberk_store::narinfo::{Compression, NarInfo, NarUrl};
use hauberk_store::signature::guix::SecretKey;
use hauberk_store::store_path::StorePathError;
use hauberk_store::{Sha256, StoreDirectory, StorePath};

/// Why no probe could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It has no path.
    #[error("the trust probe has no path")]
    Path(#[from] StorePathError),
    /// It has no nar.
    #[error("the trust probe has no nar")]
    Nar(#[from] EncodeError),
    /// It cannot be exported.
    #[error("the trust probe cannot be exported")]
    Export(#[source] io::Error),
}

/// Makes the probe for workers of a store directory.
///
/// Its path is not content-addressed, so that a daemon takes it only on the word of a key that it trusts.
pub(crate) fn probe(store_directory: &StoreDirectory, signer: &Signer) -> Result<TrustProbe, ProbeError> {
    let keys = signer.public_text().split_whitespace().collect::<Vec<_>>().join(" ");
    let text =
        format!("This path shows that the build daemon accepts what {keys} signs. It can be removed.\n");
    let nar = Node::file(text).to_nar()?;
    let name = "hauberk-trust-probe";
    let digest = Sha256::digest(format!("{name}:{keys}").as_bytes());
    let mut path_digest = [0; 20];
    path_digest.copy_from_slice(&digest.as_bytes()[..20]);
    let mut narinfo = NarInfo {
        store_path: StorePath::from_digest(store_directory, &path_digest, name)?,
        urls: vec![NarUrl {
            url: "nar/hauberk-trust-probe.nar".to_owned(),
            compression: Compression::None,
            file_size: Some(nar.len() as u64),
            file_hash: None,
        }],
        nar_hash: Sha256::digest(&nar),
        nar_size: nar.len() as u64,
        references: Default::default(),
        deriver: None,
        system: None,
        signatures: Vec::new(),
        ca: None,
        unknown: Vec::new(),
        guix_signature: None,
    };
    signer.sign(&mut narinfo);
    let export = match signer.guix_key() {
        Some(key) => export(&narinfo.store_path, &nar, key).map_err(ProbeError::Export)?,
        None => Vec::new(),
    };
    Ok(TrustProbe { narinfo: narinfo.to_string(), nar: nar.into(), export: export.into() })
}

/// Writes an item as `guix archive --export` does.
fn export(path: &StorePath, nar: &[u8], key: &SecretKey) -> io::Result<Vec<u8>> {
    let mut stream = ExportWriter::new(Vec::new());
    let mut item = stream.item()?;
    item.write_all(nar)?;
    let about = ExportItem { path: path.clone(), references: Default::default(), deriver: None };
    item.finish(&about, Some(key))?;
    stream.finish()
}

#[cfg(test)]
mod tests {
    use hauberk_store::signature::nix::SecretKey;

    use super::*;

    #[test]
    fn the_probe_is_signed_and_always_the_same() {
        let key = SecretKey::generate("farm-1").unwrap();
        let public = key.public_key();
        let signer = Signer::nix([key]);
        let made = probe(&StoreDirectory::nix(), &signer).unwrap();
        let narinfo = NarInfo::parse(&StoreDirectory::nix(), &made.narinfo).unwrap();
        assert!(narinfo.verify(&[public]).is_some());
        assert_eq!(narinfo.nar_hash, Sha256::digest(&made.nar));
        assert!(narinfo.ca.is_none());
        assert!(made.export.is_empty());
        assert_eq!(probe(&StoreDirectory::nix(), &signer).unwrap().narinfo, made.narinfo);
    }

    #[test]
    fn the_probe_of_guix_is_an_export_with_a_signature() {
        use hauberk_publish::TrustedKeys;
        use hauberk_store::signature::guix::SecretKey;

        let key = SecretKey::generate().unwrap();
        let acl = [key.public_key().clone()].into_iter().collect();
        let made = probe(&StoreDirectory::guix(), &Signer::guix("farm", key)).unwrap();
        let narinfo = NarInfo::parse(&StoreDirectory::guix(), &made.narinfo).unwrap();
        assert!(TrustedKeys::guix(acl).vouch_for(&narinfo));
        assert!(made.export.windows(made.nar.len()).any(|bytes| bytes == made.nar));
        let text = String::from_utf8_lossy(&made.export);
        assert!(text.contains(&narinfo.store_path.to_string()) && text.contains("(signature"), "{text}");
    }
}
