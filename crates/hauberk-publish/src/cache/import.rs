//! From another cache directory into this one.

use std::{fmt, io::Write};

use hauberk_store::{NarInfo, StorePathHash};

use super::{
    directory::{Cache, Committed},
    error::CacheError,
    pack::Method,
    pending::Pending,
    reader::CacheReader,
};
use crate::signer::{Signer, TrustedKeys};

/// Items made visible with one wait for the disk.
const BATCH: usize = 64;

/// Bytes of nars after which a batch is made visible before it is full.
const BATCH_BYTES: u64 = 256 << 20;

/// Under which conditions items are taken.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Keys one of which must have signed each item; without any, whoever calls vouches for all of them.
    pub trusted: Option<TrustedKeys>,
    /// Signs what is taken. Signatures of the trusted keys stay beside its own.
    pub signer: Signer,
    /// How nars are packed that come unpacked in an archive. Files of another cache stay as they are.
    pub method: Method,
}

/// An item that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The item, as far as its name is known.
    pub item: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.reason)
    }
}

/// What became of the items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Taken.
    pub items: u64,
    /// Bytes of their nars, unpacked.
    pub bytes: u64,
    /// Left alone, as they were here.
    pub known: u64,
    /// Not taken.
    pub refused: u64,
    /// Referred to or asked for, and not in the source.
    pub absent: u64,
}

impl Cache {
    /// Takes items of another cache: `roots`, and with `closure` all that they refer to; of no roots, everything. Each is checked against its
    /// signature, size and hash, and appears after all it refers to. An item that was here stays as it is.
    ///
    /// # Errors
    /// A source that cannot be read, a cache that cannot be written. What is wrong with an item is no error; `refused` is told.
    pub fn import(
        &self,
        source: &CacheReader,
        roots: &[StorePathHash],
        closure: bool,
        import: &Import,
        mut refused: impl FnMut(&Refused),
    ) -> Result<Imported, CacheError> {
        if source.store_directory() != self.store_directory() {
            let (found, wanted) = (source.store_directory().clone(), self.store_directory().clone());
            return Err(CacheError::OtherStore { path: source.directory().to_owned(), found, wanted });
        }
        let ordered = match roots {
            [] => source.ordered(source.hashes()?, false)?,
            roots => source.ordered(roots.iter().copied(), closure)?,
        };
        let mut batch = Batch::new(self, &import.signer);
        batch.imported.absent = ordered.absent.len() as u64;
        for hash in &ordered.items {
            if self.contains(hash) {
                batch.imported.known += 1;
                continue;
            }
            match self.take(source, hash, import)? {
                Ok(pending) => batch.add(pending)?,
                Err(refusal) => {
                    batch.imported.refused += 1;
                    refused(&refusal);
                }
            }
        }
        batch.finish()
    }

    /// Copies one item into temporary files.
    fn take(
        &self,
        source: &CacheReader,
        hash: &StorePathHash,
        import: &Import,
    ) -> Result<Result<Pending, Refused>, CacheError> {
        let refuse =
            |item: String, reason: &dyn fmt::Display| Ok(Err(Refused { item, reason: reason.to_string() }));
        let mut narinfo = match source.narinfo(hash) {
            Ok(Some(narinfo)) if narinfo.store_path.hash() == *hash => narinfo,
            Ok(Some(narinfo)) => {
                return refuse(format!("{hash}.narinfo"), &format_args!("it is of {}", narinfo.store_path));
            }
            Ok(None) => return refuse(format!("{hash}.narinfo"), &"it has just been removed"),
            Err(CacheError::NarInfo { path, source }) => return refuse(path.display().to_string(), &source),
            Err(error) => return Err(error),
        };
        let item = narinfo.store_path.to_string();
        if let Some(trusted) = &import.trusted {
            if !trusted.vouch_for(&narinfo) {
                return refuse(item, &"not signed by any of the keys");
            }
            trusted.keep_signatures(&mut narinfo);
        }
        let mut reason = String::from("its narinfo names no nar");
        for place in &narinfo.urls {
            let mut file = self.begin()?;
            let mut failure = None;
            let copy = |bytes: &[u8]| {
                file.write_all(bytes).map_err(|error| {
                    let kind = error.kind();
                    failure = Some(error);
                    kind.into()
                })
            };
            let copied = source.read_nar(&narinfo, place, copy, |_| Ok(()));
            match (copied, failure) {
                (_, Some(error)) => return Err(CacheError::Write(error)),
                (Ok(_), None) => {
                    let nar = file.finish(place.compression.clone());
                    return Ok(Ok(Pending::new(nar, NarInfo { guix_signature: None, ..narinfo })));
                }
                (Err(error), None) => reason = format!("{}: {error}", place.url),
            }
        }
        refuse(item, &reason)
    }
}

/// Items on their way in, made visible together.
pub(super) struct Batch<'a> {
    cache: &'a Cache,
    signer: &'a Signer,
    items: Vec<Pending>,
    bytes: u64,
    pub(super) imported: Imported,
}

impl<'a> Batch<'a> {
    pub(super) fn new(cache: &'a Cache, signer: &'a Signer) -> Self {
        Self { cache, signer, items: Vec::new(), bytes: 0, imported: Imported::default() }
    }

    pub(super) fn add(&mut self, item: Pending) -> Result<(), CacheError> {
        self.bytes += item.narinfo().nar_size;
        self.items.push(item);
        if self.items.len() >= BATCH || self.bytes >= BATCH_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), CacheError> {
        self.bytes = 0;
        for Committed { narinfo, inserted } in
            self.cache.commit_blocking(std::mem::take(&mut self.items), self.signer)?
        {
            if inserted {
                self.imported.items += 1;
                self.imported.bytes += narinfo.nar_size;
            } else {
                self.imported.known += 1;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Imported, CacheError> {
        self.commit()?;
        Ok(self.imported)
    }
}
