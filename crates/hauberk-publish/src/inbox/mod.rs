//! The inbox: where those put results who cannot be fetched from.
//!
//! A reception stands for one attempt of a worker. While it is open, whoever has its token may put what was asked for under
//! `/upload/NUMBER/` of the publish server: first `HASH.narinfo`, whole, then `HASH.nar` in pieces that join (`PATCH` with
//! `Upload-Offset`; `Upload-Complete: ?1` goes with the last one; `HEAD` tells the offset). An empty narinfo says that the path is not to be had.
//! What came of a nar lies on the disk as it came, so that it is gone on with after either side was killed; it is unpacked and checked while it grows,
//! by the same code as what is fetched, and nothing of it reaches the cache before.

mod item;
mod reception;
mod slot;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hauberk_store::{Sha256, StoreDirectory, hash::encode_base16};

use crate::signer::TrustedKeys;

pub use reception::Reception;
pub(crate) use slot::{Offset, Part, Refusal, Slot, UploadName};

/// The largest piece of a nar, in bytes: what web servers in front of others let through unless told otherwise.
pub const PIECE: usize = 1 << 20;

/// Why the inbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// A directory cannot be made, read or removed.
    #[error("cannot use the directory {} for uploads", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("cannot make a token")]
    Random(#[source] getrandom::Error),
}

/// Takes in what is uploaded. Clones are the same inbox.
#[derive(Debug, Clone)]
pub struct Inbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    store_directory: StoreDirectory,
    open: Mutex<HashMap<u64, Arc<Slot>>>,
}

impl Inbox {
    /// Opens the inbox in `directory`, which is made if it does not exist, for items of `store_directory`. What an earlier process received
    /// is gone on with.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn open(directory: &Path, store_directory: &StoreDirectory) -> Result<Self, InboxError> {
        fs::create_dir_all(directory)
            .map_err(|source| InboxError::Directory { path: directory.to_owned(), source })?;
        let (directory, store_directory) = (directory.to_owned(), store_directory.clone());
        Ok(Self(Arc::new(Inner { directory, store_directory, open: Mutex::default() })))
    }

    /// Opens a reception, and closes one of the same number. What it gets must be signed by one of `trusted`.
    ///
    /// # Errors
    /// No randomness.
    pub fn receive(&self, number: u64, trusted: TrustedKeys) -> Result<Reception, InboxError> {
        let directory = self.0.directory.join(number.to_string());
        let mut token = [0; 32];
        getrandom::fill(&mut token).map_err(InboxError::Random)?;
        let token = encode_base16(&token);
        let slot = Slot::new(
            number,
            directory,
            self.0.store_directory.clone(),
            trusted,
            Sha256::digest(token.as_bytes()),
        );
        let slot = Arc::new(slot);
        let before = self.slots().insert(number, Arc::clone(&slot));
        if let Some(before) = before {
            before.close("another reception has begun");
        }
        Ok(Reception::new(self.clone(), slot, token))
    }

    /// Removes what was received for this number, unless a reception is open.
    ///
    /// # Errors
    /// A directory that cannot be removed.
    pub fn discard(&self, number: u64) -> Result<(), InboxError> {
        if self.slots().contains_key(&number) {
            return Ok(());
        }
        let path = self.0.directory.join(number.to_string());
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(InboxError::Directory { path, source }),
        }
    }

    /// Removes what was received for other numbers than these and than those of open receptions.
    ///
    /// # Errors
    /// A directory that cannot be read or removed.
    pub fn tidy(&self, wanted: impl Fn(u64) -> bool) -> Result<(), InboxError> {
        let error = |source| InboxError::Directory { path: self.0.directory.clone(), source };
        for entry in fs::read_dir(&self.0.directory).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| !wanted(*number)) {
                self.discard(number)?;
            }
        }
        Ok(())
    }

    /// Finds the open reception of this number, for whoever knows its token.
    pub(crate) fn find(&self, number: u64, token: &str) -> Option<Arc<Slot>> {
        let slot = self.slots().get(&number).cloned()?;
        // Digests are compared, so that the time it takes tells nothing of the token.
        slot.has_token(&Sha256::digest(token.as_bytes())).then_some(slot)
    }

    fn close(&self, slot: &Arc<Slot>) {
        slot.close("nobody waits for it any more");
        let mut slots = self.slots();
        if slots.get(&slot.number()).is_some_and(|found| Arc::ptr_eq(found, slot)) {
            slots.remove(&slot.number());
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
