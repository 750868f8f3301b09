//! Export streams, as `guix archive` and `nix-store --export` have them, into and out of a cache.

use std::io::{self, Read, Write};

use hauberk_store::{
    NarInfo, StorePathHash,
    export::{Decoder, Event, ExportError, ExportItem, ExportWriter, ExportedItem},
    nar::Limits,
    signature::guix::{Acl, SecretKey, SignatureError},
};

use super::{
    directory::Cache,
    error::CacheError,
    import::{Batch, Import, Imported, Refused},
    pack::Encoder,
    pending::Pending,
    reader::CacheReader,
};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Why an export stream could not be read or written to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are no export stream.
    #[error("malformed archive")]
    Malformed(#[from] ExportError),
    /// The stream could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// What is to be written is not in the cache.
    #[error("the cache does not have {0}: import it, or leave closures out")]
    Absent(StorePathHash),
    /// What is to be written is not what the cache says.
    #[error("{item} is damaged in the cache: {reason}; `hauberk cache verify --repair` removes it")]
    Damaged {
        /// The item.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// How an item of an archive may be believed.
enum Belief<'a> {
    /// If a key of these has signed it.
    Signed(&'a Acl),
    /// Whoever gives the archive vouches for it.
    Any,
}

impl Belief<'_> {
    fn check(&self, item: &ExportedItem) -> Result<(), SignatureError> {
        match self {
            Self::Signed(acl) => item.verify(acl),
            Self::Any => Ok(()),
        }
    }
}

impl Cache {
    /// Takes the items of an export stream, packing their nars as `import` says. With `acl`, each must be signed by one of its keys, as Guix
    /// wants it; without, the stream is believed. An item that was here stays as it is.
    ///
    /// # Errors
    /// A stream that cannot be read to its end, a cache that cannot be written. What came whole before is kept. An item that is not
    /// believed is no error; `refused` is told.
    pub fn import_archive(
        &self,
        mut stream: impl Read,
        acl: Option<&Acl>,
        import: &Import,
        mut refused: impl FnMut(&Refused),
    ) -> Result<Imported, ArchiveError> {
        let belief = acl.map_or(Belief::Any, Belief::Signed);
        let mut batch = Batch::new(self, &import.signer);
        let read = self.read_items(&mut stream, import, |item, pending| {
            match belief.check(&item) {
                Ok(()) => batch.add(pending)?,
                Err(error) => {
                    batch.imported.refused += 1;
                    let (item, reason) = (item.item.path.to_string(), error.to_string());
                    refused(&Refused { item, reason });
                }
            }
            Ok(())
        });
        let imported = batch.finish()?;
        read.map(|()| imported)
    }

    fn read_items(
        &self,
        stream: &mut impl Read,
        import: &Import,
        mut take: impl FnMut(ExportedItem, Pending) -> Result<(), CacheError>,
    ) -> Result<(), ArchiveError> {
        let mut decoder = Decoder::new(self.store_directory().clone(), Limits::default());
        let mut encoder: Option<Encoder> = None;
        let begin = || -> Result<Encoder, CacheError> {
            Encoder::new(import.method, self.begin()?).map_err(CacheError::Write)
        };
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::Read(error)),
            };
            let mut bytes = &buffer[..count];
            while let Some(event) = decoder.next(&mut bytes)? {
                match event {
                    Event::Begin => encoder = Some(begin()?),
                    Event::Nar(nar) => {
                        if let Some(encoder) = &mut encoder {
                            encoder.write_all(nar).map_err(CacheError::Write)?;
                        }
                    }
                    Event::Item(item) => {
                        if let Some(encoder) = encoder.take() {
                            let nar = encoder.finish().map_err(CacheError::Write)?;
                            let pending = Pending::new(nar, describe(&item));
                            take(*item, pending)?;
                        }
                    }
                    Event::End => {}
                }
            }
        }
        Ok(decoder.finish()?)
    }
}

/// Says of an exported item what its narinfo says.
fn describe(exported: &ExportedItem) -> NarInfo {
    NarInfo {
        store_path: exported.item.path.clone(),
        urls: Vec::new(),
        nar_hash: exported.nar.hash,
        nar_size: exported.nar.size,
        references: exported.item.references.clone(),
        deriver: exported.item.deriver.clone(),
        system: None,
        signatures: Vec::new(),
        ca: None,
        unknown: Vec::new(),
        guix_signature: None,
    }
}

/// Writes items of a cache as an export stream, each after all it refers to: `roots`, and with `closure` all that they refer to; of no roots,
/// everything. Guix takes only streams signed with a key that is authorized there; Nix takes unsigned ones from trusted users. Gives the
/// number of items.
///
/// # Errors
/// Items that are not there or damaged, a stream that cannot be written; what has been written then is no whole stream.
pub fn export_archive(
    cache: &CacheReader,
    roots: &[StorePathHash],
    closure: bool,
    key: Option<&SecretKey>,
    stream: impl Write,
) -> Result<u64, ArchiveError> {
    let ordered = match roots {
        [] => cache.ordered(cache.hashes()?, false)?,
        roots => cache.ordered(roots.iter().copied(), closure)?,
    };
    if let Some(absent) = ordered.absent.first() {
        return Err(ArchiveError::Absent(*absent));
    }
    let mut writer = ExportWriter::new(stream);
    for hash in &ordered.items {
        let narinfo = cache.narinfo(hash)?.ok_or(ArchiveError::Absent(*hash))?;
        let damaged = |reason: &dyn ToString| ArchiveError::Damaged {
            item: narinfo.store_path.to_string(),
            reason: reason.to_string(),
        };
        let place = narinfo.urls.first().ok_or_else(|| damaged(&"its narinfo names no nar"))?;
        let mut item = writer.item().map_err(ArchiveError::Write)?;
        let mut failure = None;
        let copied = cache.read_nar(
            &narinfo,
            place,
            |_| Ok(()),
            |bytes| {
                item.write_all(bytes).map_err(|error| {
                    let kind = error.kind();
                    failure = Some(error);
                    kind.into()
                })
            },
        );
        match (copied, failure) {
            (_, Some(error)) => return Err(ArchiveError::Write(error)),
            (Err(error), None) => return Err(damaged(&error)),
            (Ok(_), None) => {}
        }
        let described = ExportItem {
            path: narinfo.store_path.clone(),
            references: narinfo.references.clone(),
            deriver: narinfo.deriver.clone(),
        };
        item.finish(&described, key).map_err(ArchiveError::Write)?;
    }
    writer.finish().map_err(ArchiveError::Write)?;
    Ok(ordered.items.len() as u64)
}
