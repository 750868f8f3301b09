//! Reading a cache directory, which may be somebody else's.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hauberk_store::{
    NarInfo, StoreDirectory, StorePathHash,
    cache_info::{self, CacheInfo},
    hash::Sha256Hasher,
    nar::{Limits, Verifier},
    narinfo::{self, NarUrl},
};

use super::error::CacheError;
use crate::stream::decoder;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// A binary cache of Nix on disk, as Hauberk's servers and `nix copy --to file://…` write them. Nothing in it is changed.
#[derive(Debug, Clone)]
pub struct CacheReader {
    directory: PathBuf,
    nars: PathBuf,
    store_directory: StoreDirectory,
}

impl CacheReader {
    /// Takes a directory that is known to be a cache of a store.
    pub(super) fn new(directory: &Path, store_directory: &StoreDirectory) -> Self {
        let (nars, directory) = (directory.join("nar"), directory.to_owned());
        Self { directory, nars, store_directory: store_directory.clone() }
    }

    /// Looks at the cache in `directory`, of whichever store.
    ///
    /// # Errors
    /// A directory that is no cache: its `nix-cache-info` is not there, or malformed.
    pub fn open(directory: &Path) -> Result<Self, CacheError> {
        let path = directory.join("nix-cache-info");
        let read = fs::metadata(&path).and_then(|_| read_bounded(&path, cache_info::MAX_SIZE));
        let text = read.map_err(CacheError::io("read", &path))?.unwrap_or_default();
        let info = CacheInfo::parse(&text).map_err(|source| CacheError::CacheInfo { path, source })?;
        Ok(Self::new(directory, &info.store_directory))
    }

    /// Gives the store whose items the cache holds.
    pub fn store_directory(&self) -> &StoreDirectory {
        &self.store_directory
    }

    /// Gives the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives the name of the file that holds a narinfo, if the cache has it.
    pub(crate) fn narinfo_path(&self, hash: &StorePathHash) -> PathBuf {
        self.directory.join(format!("{hash}.narinfo"))
    }

    /// Tells whether the cache has the item. One look at the file system.
    pub fn contains(&self, hash: &StorePathHash) -> bool {
        self.narinfo_path(hash).symlink_metadata().is_ok()
    }

    /// Gives the narinfo as it is stored.
    ///
    /// # Errors
    /// A file that is there and cannot be read, or is larger than a narinfo may be.
    pub fn narinfo_text(&self, hash: &StorePathHash) -> Result<Option<String>, CacheError> {
        let path = self.narinfo_path(hash);
        read_bounded(&path, narinfo::MAX_SIZE).map_err(CacheError::io("read", &path))
    }

    /// Gives what the cache says of the item.
    ///
    /// # Errors
    /// As [`Self::narinfo_text`], and a text that is no narinfo.
    pub fn narinfo(&self, hash: &StorePathHash) -> Result<Option<NarInfo>, CacheError> {
        let Some(text) = self.narinfo_text(hash)? else { return Ok(None) };
        let parsed = NarInfo::parse(&self.store_directory, &text);
        parsed.map(Some).map_err(|source| CacheError::NarInfo { path: self.narinfo_path(hash), source })
    }

    /// Opens a file of `nar/`; the name must be a plain one, and no symlink is followed.
    ///
    /// # Errors
    /// What the operating system says, `NotFound` for a name that is not plain or not a file.
    pub(crate) fn open_nar(&self, name: &str) -> io::Result<(File, fs::Metadata)> {
        if !is_plain_name(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(self.nars.join(name)) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            other => other?,
        };
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Gives the hash parts of the items that the cache has.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn hashes(&self) -> Result<HashSet<StorePathHash>, CacheError> {
        let read = || -> io::Result<HashSet<StorePathHash>> {
            let mut hashes = HashSet::new();
            for entry in fs::read_dir(&self.directory)? {
                let name = entry?.file_name();
                let hash = name.to_str().and_then(|name| name.strip_suffix(".narinfo"));
                hashes.extend(hash.and_then(|hash| StorePathHash::parse(hash).ok()));
            }
            Ok(hashes)
        };
        read().map_err(CacheError::io("list", &self.directory))
    }

    /// Gives the files under `nar/`.
    pub(super) fn nar_files(&self) -> Result<Vec<(String, PathBuf)>, CacheError> {
        let read = || -> io::Result<Vec<(String, PathBuf)>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.nars)? {
                let entry = entry?;
                files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
            Ok(files)
        };
        read().map_err(CacheError::io("list", &self.nars))
    }

    /// Reads the nar file at `place` once, gives its bytes to `packed` as they are and to `nar` unpacked, and checks that all of it is what
    /// `narinfo` says. Gives the file's size in bytes. What the two got before an error is worth nothing.
    ///
    /// # Errors
    /// Why the file is not what the narinfo says, and what the two gave.
    pub(crate) fn read_nar(
        &self,
        narinfo: &NarInfo,
        place: &NarUrl,
        packed: impl FnMut(&[u8]) -> io::Result<()> + Send,
        mut nar: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
        let name = place.url.strip_prefix("nar/").ok_or_else(|| wrong("it is not in the cache"))?;
        let (file, metadata) = self.open_nar(name)?;
        if place.file_size.is_some_and(|size| size != metadata.len()) {
            return Err(wrong("its size is not the one announced"));
        }
        let hasher = place.file_hash.is_some().then(Sha256Hasher::new);
        let mut input = BufReader::with_capacity(CHUNK, Watched { inner: file, hasher, packed });
        let mut verifier = Verifier::new(Limits::with_size(narinfo.nar_size));
        {
            let mut unpacked = decoder(&place.compression, &mut input).map_err(io::Error::other)?;
            let (mut buffer, mut total) = (vec![0; CHUNK], 0);
            loop {
                let count = match unpacked.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                total += count as u64;
                if total > narinfo.nar_size {
                    return Err(wrong("what it holds is larger than announced"));
                }
                verifier.push(&buffer[..count]).map_err(io::Error::other)?;
                nar(&buffer[..count])?;
            }
        }
        if !input.fill_buf()?.is_empty() {
            return Err(wrong("bytes follow its end"));
        }
        let summary = verifier.finish().map_err(io::Error::other)?;
        if summary.size != narinfo.nar_size || summary.hash != narinfo.nar_hash {
            return Err(wrong("what it holds is not the nar announced"));
        }
        let found = input.into_inner().hasher.map(|hasher| hauberk_store::Hash::from(hasher.finish().0));
        if found != place.file_hash {
            return Err(wrong("its hash is not the one announced"));
        }
        Ok(metadata.len())
    }
}

/// Passes on what is read, and hashes it.
struct Watched<R, F> {
    inner: R,
    hasher: Option<Sha256Hasher>,
    packed: F,
}

impl<R: Read, F: FnMut(&[u8]) -> io::Result<()>> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        (self.packed)(&buffer[..count])?;
        Ok(count)
    }
}

/// Tells whether `name` is the name of a file as caches have them: no slash, no leading dot, nothing unprintable.
fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b'=');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(plain)
}

/// Reads a file of at most `limit` bytes of text; nothing where there is none.
pub(super) fn read_bounded(path: &Path, limit: usize) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::with_capacity(1024);
    file.take(limit as u64 + 1).read_to_string(&mut text)?;
    if text.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(text)) }
}
