//! Signing all of a cache anew, when keys change.

use hauberk_store::{NarInfo, StorePath};

use super::{directory::Cache, error::CacheError};
use crate::signer::{Signer, TrustedKeys};

/// Narinfos replaced with one wait for the disk.
const BATCH: usize = 1024;

/// How narinfos are signed anew.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Keys one of which must have signed a narinfo: what nobody vouches for is not vouched for now.
    pub trusted: TrustedKeys,
    /// Signs them.
    pub signer: Signer,
    /// Names of Nix keys whose signatures are dropped.
    pub dropped: Vec<String>,
}

/// What became of the narinfos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Signed anew.
    pub signed: u64,
    /// Left alone, as their signatures were as they are to be.
    pub unchanged: u64,
    /// Left alone, as none of the trusted keys has signed them, or as they are malformed.
    pub refused: u64,
}

impl Cache {
    /// Signs all narinfos with new keys and drops the signatures of others, while the cache may be in use. The nars stay as they are. It can be
    /// stopped and begun again at any time.
    ///
    /// # Errors
    /// Files that cannot be read or replaced.
    pub fn renew(&self, renewal: &Renewal, mut refused: impl FnMut(&str)) -> Result<Renewed, CacheError> {
        let mut renewed = Renewed::default();
        let mut batch = Vec::new();
        for hash in self.reader().hashes()? {
            let before = match self.narinfo(&hash) {
                Ok(Some(narinfo)) if narinfo.store_path.hash() == hash => narinfo,
                // Removed meanwhile.
                Ok(None) => continue,
                Ok(Some(_)) | Err(CacheError::NarInfo { .. }) => {
                    renewed.refused += 1;
                    refused(&format!("{hash}.narinfo: malformed"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !renewal.trusted.vouch_for(&before) {
                renewed.refused += 1;
                refused(&not_signed(&before.store_path));
                continue;
            }
            let mut narinfo = before.clone();
            narinfo
                .signatures
                .retain(|signature| renewal.dropped.iter().all(|name| name != signature.name()));
            renewal.signer.sign(&mut narinfo);
            if same_signatures(&narinfo, &before) {
                renewed.unchanged += 1;
                continue;
            }
            renewed.signed += 1;
            batch.push(narinfo);
            if batch.len() == BATCH {
                self.replace_narinfos(&std::mem::take(&mut batch))?;
            }
        }
        self.replace_narinfos(&batch)?;
        Ok(renewed)
    }
}

fn not_signed(path: &StorePath) -> String {
    format!("{path}: not signed by any of the keys")
}

fn same_signatures(one: &NarInfo, other: &NarInfo) -> bool {
    one.signatures == other.signatures && one.guix_signature == other.guix_signature
}
