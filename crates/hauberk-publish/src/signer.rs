//! The keys narinfos are signed with, and those that are believed.

use std::sync::Arc;

use hauberk_store::{
    NarInfo, Sha256,
    signature::{
        self, guix,
        nix::{PublicKey, SecretKey, Signature},
    },
};

use crate::nonce::Nonce;

/// Signs narinfos with each of a set of keys. Clones are cheap and share them.
#[derive(Debug, Clone, Default)]
pub struct Signer {
    nix: Arc<[SecretKey]>,
    guix: Option<Arc<GuixKey>>,
}

#[derive(Debug)]
struct GuixKey {
    /// The host name beside the signature; nobody checks it.
    host: String,
    key: guix::SecretKey,
}

impl Signer {
    /// Takes Nix keys; with none, narinfos are given out unsigned.
    pub fn nix(keys: impl IntoIterator<Item = SecretKey>) -> Self {
        Self { nix: keys.into_iter().collect(), guix: None }
    }

    /// Takes a Guix key, and a host name to say beside its signatures.
    pub fn guix(host: &str, key: guix::SecretKey) -> Self {
        Self { nix: Arc::default(), guix: Some(Arc::new(GuixKey { host: host.to_owned(), key })) }
    }

    /// Takes keys of either kind, and a host name to say beside signatures of Guix's kind. Of several Guix keys the last one signs,
    /// as a narinfo has only one signature of theirs.
    pub fn of(host: &str, keys: impl IntoIterator<Item = signature::SecretKey>) -> Self {
        let mut nix = Vec::new();
        let mut guix = None;
        for key in keys {
            match key {
                signature::SecretKey::Nix(key) => nix.push(key),
                signature::SecretKey::Guix(key) => {
                    guix = Some(Arc::new(GuixKey { host: host.to_owned(), key }));
                }
            }
        }
        Self { nix: nix.into(), guix }
    }

    /// Adds a signature of each key.
    pub fn sign(&self, narinfo: &mut NarInfo) {
        for key in &*self.nix {
            narinfo.sign(key);
        }
        // Last, as it covers all that stands before it.
        if let Some(guix) = &self.guix {
            narinfo.sign_guix(&guix.host, &guix.key);
        }
    }

    /// Signs a nonce with each key, a line each.
    pub(crate) fn sign_nonce(&self, nonce: &Nonce) -> String {
        let text = nonce.signed_text();
        let mut lines: String = self.nix.iter().map(|key| format!("{}\n", key.sign(&text))).collect();
        if let Some(guix) = &self.guix {
            let signature = guix.key.sign(&Sha256::digest(text.as_bytes()));
            lines.push_str(&format!("{}\n", guix::SignatureLine::new(&guix.host, &signature.to_text())));
        }
        lines
    }

    /// Tells whether narinfos are to be as Guix writes them.
    pub(crate) fn is_guix(&self) -> bool {
        self.guix.is_some()
    }

    /// Gives the public halves of the Nix keys.
    pub fn public_keys(&self) -> impl Iterator<Item = PublicKey> {
        self.nix.iter().map(SecretKey::public_key)
    }

    /// Gives the Guix key.
    pub fn guix_key(&self) -> Option<&guix::SecretKey> {
        self.guix.as_ref().map(|guix| &guix.key)
    }

    /// Gives the public halves as clients take them: lines of `NAME:BASE64`, or Guix's S-expression.
    pub fn public_text(&self) -> String {
        let mut text: String = self.public_keys().map(|key| format!("{key}\n")).collect();
        if let Some(guix) = &self.guix {
            text.push_str(&guix.key.public_key().to_string());
        }
        text
    }
}

/// Keys whose word on a store item is taken. Clones are cheap and share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    nix: Arc<[PublicKey]>,
    guix: Option<Arc<guix::Acl>>,
}

impl TrustedKeys {
    /// Takes Nix keys; with none, nothing is believed.
    pub fn nix(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { nix: keys.into_iter().collect(), guix: None }
    }

    /// Takes the keys that a Guix machine has authorized.
    pub fn guix(acl: guix::Acl) -> Self {
        Self { nix: Arc::default(), guix: Some(Arc::new(acl)) }
    }

    /// Takes one key of either kind.
    pub fn one(key: signature::PublicKey) -> Self {
        match key {
            signature::PublicKey::Nix(key) => Self::nix([key]),
            signature::PublicKey::Guix(key) => Self::guix([key].into_iter().collect()),
        }
    }

    /// Takes keys of either kind.
    pub fn of(keys: impl IntoIterator<Item = signature::PublicKey>) -> Self {
        let (mut nix, mut guix) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                signature::PublicKey::Nix(key) => nix.push(key),
                signature::PublicKey::Guix(key) => guix.push(key),
            }
        }
        let acl = (!guix.is_empty()).then(|| Arc::new(guix.into_iter().collect()));
        Self { nix: nix.into(), guix: acl }
    }

    /// Gives the keys of Guix among them.
    pub fn acl(&self) -> Option<&guix::Acl> {
        self.guix.as_deref()
    }

    /// Tells whether one of the keys has signed what `narinfo` says of its item.
    pub fn vouch_for(&self, narinfo: &NarInfo) -> bool {
        narinfo.verify(&self.nix).is_some() || self.guix_vouches_for(narinfo)
    }

    fn guix_vouches_for(&self, narinfo: &NarInfo) -> bool {
        let verified = |acl: &Arc<guix::Acl>| {
            NarInfo::parse_verified(narinfo.store_path.directory(), &narinfo.to_string(), acl).is_ok()
        };
        narinfo.guix_signature.is_some() && self.guix.as_ref().is_some_and(verified)
    }

    /// Tells whether one of the keys has signed a nonce.
    pub(crate) fn signed_nonce(&self, nonce: &Nonce, lines: &str) -> bool {
        let text = nonce.signed_text();
        let hash = Sha256::digest(text.as_bytes());
        lines.lines().any(|line| {
            let nix = || {
                let signature = Signature::parse(line);
                signature.is_ok_and(|signature| self.nix.iter().any(|key| key.verify(&text, &signature)))
            };
            let guix = |acl: &Arc<guix::Acl>| {
                let signature = guix::SignatureLine::parse(line).ok();
                let signature = signature.and_then(|line| guix::Signature::parse_text(line.text()).ok());
                signature.is_some_and(|signature| signature.verify(&hash, acl).is_ok())
            };
            nix() || self.guix.as_ref().is_some_and(guix)
        })
    }

    /// Gives what is kept of a narinfo that one of the keys has signed.
    pub(crate) fn kept(&self, narinfo: &NarInfo) -> NarInfo {
        let mut kept = narinfo.clone();
        self.keep_signatures(&mut kept);
        kept.unknown.clear();
        kept
    }

    /// Drops the signatures of other keys, and invalid ones. A Guix signature goes in any case: it covers where the nar
    /// is, which will be elsewhere.
    pub(crate) fn keep_signatures(&self, narinfo: &mut NarInfo) {
        let fingerprint = narinfo.fingerprint();
        let ours = |signature: &_| self.nix.iter().any(|key| key.verify(&fingerprint, signature));
        narinfo.signatures.retain(ours);
        narinfo.guix_signature = None;
    }
}
