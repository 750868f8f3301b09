//! The keys narinfos are signed with, and those that are believed.

use std::sync::Arc;

use hauberk_store::{
    NarInfo,
    signature::nix::{PublicKey, SecretKey},
};

/// Signs narinfos with each of a set of keys. Clones are cheap and share them.
#[derive(Debug, Clone, Default)]
pub struct Signer {
    nix: Arc<[SecretKey]>,
}

impl Signer {
    /// Takes Nix keys; with none, narinfos are given out unsigned.
    pub fn nix(keys: impl IntoIterator<Item = SecretKey>) -> Self {
        Self { nix: keys.into_iter().collect() }
    }

    /// Adds a signature of each key.
    pub fn sign(&self, narinfo: &mut NarInfo) {
        for key in &*self.nix {
            narinfo.sign(key);
        }
    }

    /// Gives the public halves.
    pub fn public_keys(&self) -> impl Iterator<Item = PublicKey> {
        self.nix.iter().map(SecretKey::public_key)
    }
}

/// Keys whose word on a store item is taken. Clones are cheap and share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    nix: Arc<[PublicKey]>,
}

impl TrustedKeys {
    /// Takes Nix keys; with none, nothing is believed.
    pub fn nix(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { nix: keys.into_iter().collect() }
    }

    /// Tells whether one of the keys has signed what `narinfo` says of its item.
    pub fn vouch_for(&self, narinfo: &NarInfo) -> bool {
        narinfo.verify(&self.nix).is_some()
    }

    /// Drops the signatures of other keys, and invalid ones.
    pub(crate) fn keep_signatures(&self, narinfo: &mut NarInfo) {
        let fingerprint = narinfo.fingerprint();
        let ours = |signature: &_| self.nix.iter().any(|key| key.verify(&fingerprint, signature));
        narinfo.signatures.retain(ours);
        narinfo.guix_signature = None;
    }
}
