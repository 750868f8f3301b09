//! The trust probe: a path that nobody needs, signed by the server, for a worker to find out whether its daemon accepts the key.

use hauberk_protocol::proto::TrustProbe;
use hauberk_publish::Signer;
use hauberk_store::nar::{EncodeError, Node};
use hauberk_store::narinfo::{Compression, NarInfo, NarUrl};
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
}

/// Makes the probe for workers of a store directory.
///
/// Its path is not content-addressed, so that a daemon takes it only on the word of a key that it trusts.
pub(crate) fn probe(store_directory: &StoreDirectory, signer: &Signer) -> Result<TrustProbe, ProbeError> {
    let keys: Vec<_> = signer.public_keys().map(|key| key.to_string()).collect();
    let keys = keys.join(" ");
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
    Ok(TrustProbe { narinfo: narinfo.to_string(), nar: nar.into() })
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
        assert_eq!(probe(&StoreDirectory::nix(), &signer).unwrap().narinfo, made.narinfo);
    }
}
