//! The directory that keeps products.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use hauberk_store::{Sha256, hash::Sha256Hasher};

use super::product_file::{FinishedProduct, ProductFile};
use crate::cache::scratch::Scratch;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// A directory of products, each under the hash of its contents. Clones are the same.
///
/// A file that has its name is whole and durable. A killed process leaves temporary files that the next opening removes, and files that
/// nobody has recorded, which `hauberk gc` removes.
#[derive(Debug, Clone)]
pub struct Products(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    scratch: Scratch,
}

/// Why products cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct ProductsError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl ProductsError {
    fn new(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { operation, path, source }
    }
}

/// Keeps files where they are while they are recorded, or while it is looked which of them are not.
#[derive(Debug)]
#[must_use = "files are held only as long as this stands"]
pub struct ProductsLock(File);

/// A product as it lies in the directory.
#[derive(Debug, Clone)]
pub struct StoredProduct {
    /// The hash of its bytes.
    pub sha256: Sha256,
    /// Their number.
    pub bytes: u64,
    /// When it came or was last downloaded, whichever is later.
    pub used_at: SystemTime,
}

impl Products {
    /// Gives the directory of products beside a server's cache.
    pub fn beside(cache: &Path) -> PathBuf {
        cache.join("products")
    }

    /// Opens the directory, which is made if it does not exist, and removes what killed processes left.
    ///
    /// # Errors
    /// A directory that cannot be made or written.
    pub fn open(directory: &Path) -> Result<Self, ProductsError> {
        fs::create_dir_all(directory).map_err(ProductsError::new("make the directory", directory))?;
        let temporary = directory.join("tmp");
        let scratch =
            Scratch::open(&temporary).map_err(ProductsError::new("prepare the directory", &temporary))?;
        Ok(Self(Arc::new(Inner { directory: directory.to_owned(), scratch })))
    }

    /// Gives the directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Begins a product.
    ///
    /// # Errors
    /// A temporary file that cannot be made.
    pub fn begin(&self) -> io::Result<ProductFile> {
        let (file, scratch) = self.0.scratch.file()?;
        Ok(ProductFile::new(file, scratch))
    }

    /// Gives products their names, and makes them durable. None is removed until what this gives is dropped: record them before that.
    ///
    /// # Errors
    /// A disk that is full or fails; some of them may be there then.
    pub fn keep(
        &self,
        products: impl IntoIterator<Item = FinishedProduct>,
    ) -> Result<ProductsLock, ProductsError> {
        let directory = self.directory();
        let lock = self.locked(File::lock_shared)?;
        for product in products {
            let path = self.path(&product.sha256);
            product.file.sync_all().map_err(ProductsError::new("sync", &path))?;
            product.scratch.rename(&path).map_err(ProductsError::new("rename to", &path))?;
        }
        lock.0.sync_all().map_err(ProductsError::new("sync", directory))?;
        Ok(lock)
    }

    /// Waits until nobody brings products in, and keeps it so until what this gives is dropped.
    ///
    /// # Errors
    /// A directory that is not there any more.
    pub fn alone(&self) -> Result<ProductsLock, ProductsError> {
        self.locked(File::lock)
    }

    fn locked(&self, lock: impl FnOnce(&File) -> io::Result<()>) -> Result<ProductsLock, ProductsError> {
        let directory = self.directory();
        let locked = File::open(directory).and_then(|opened| lock(&opened).map(|()| ProductsLock(opened)));
        locked.map_err(ProductsError::new("lock", directory))
    }

    fn path(&self, sha256: &Sha256) -> PathBuf {
        self.directory().join(sha256.to_base32())
    }

    /// Tells whether a product is there. One look at the file system.
    pub fn contains(&self, sha256: &Sha256) -> bool {
        self.path(sha256).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Opens a product.
    ///
    /// # Errors
    /// What the operating system says, `NotFound` for what is not there or no file.
    pub fn open_file(&self, sha256: &Sha256) -> io::Result<(File, fs::Metadata)> {
        open_product(self.directory(), sha256)
    }

    /// Gives all products that are there.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn inventory(&self) -> Result<Vec<StoredProduct>, ProductsError> {
        let read = || -> io::Result<Vec<StoredProduct>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(self.directory())? {
                let entry = entry?;
                let Some(sha256) = entry.file_name().to_str().and_then(read_name) else { continue };
                let metadata = match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => metadata,
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let used_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(StoredProduct { sha256, bytes: metadata.len(), used_at });
            }
            Ok(found)
        };
        read().map_err(ProductsError::new("list", self.directory()))
    }

    /// Removes a product, if it is there.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self, sha256: &Sha256) -> Result<(), ProductsError> {
        let path = self.path(sha256);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ProductsError::new("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads a product and tells whether it is what its name says.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_intact(&self, sha256: &Sha256) -> Result<bool, ProductsError> {
        let read = || -> io::Result<bool> {
            let (file, _) = self.open_file(sha256)?;
            let mut hasher = Sha256Hasher::new();
            io::copy(&mut BufReader::with_capacity(CHUNK, file).take(u64::MAX), &mut hasher)?;
            Ok(hasher.finish().0 == *sha256)
        };
        read().map_err(ProductsError::new("read", &self.path(sha256)))
    }
}

/// Opens a product of a directory that is perhaps somebody else's, where nothing may be written.
///
/// # Errors
/// As [`Products::open_file`].
pub fn open_product(directory: &Path, sha256: &Sha256) -> io::Result<(File, fs::Metadata)> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(directory.join(sha256.to_base32()))?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Reads the name of a product, which is written in one way only.
fn read_name(name: &str) -> Option<Sha256> {
    Sha256::parse(name).ok().filter(|sha256| sha256.to_base32() == name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_is_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Products::beside(folder.path());
        let products = Products::open(&directory).unwrap();
        let write = |bytes: &[u8]| {
            let mut file = products.begin().unwrap();
            file.write_all(bytes).unwrap();
            file.finish()
        };
        let kept = write(b"kept");
        let (dropped, sha256) = (write(b"dropped"), kept.sha256);
        assert_eq!((kept.size, sha256), (4, Sha256::digest(b"kept")));
        assert!(!products.contains(&sha256));
        let lock = products.keep([kept]).unwrap();
        assert!(products.contains(&sha256) && products.is_intact(&sha256).unwrap());
        drop((lock, dropped));
        fs::write(directory.join("junk"), "").unwrap();
        let found = products.inventory().unwrap();
        assert_eq!(found.iter().map(|one| (one.sha256, one.bytes)).collect::<Vec<_>>(), [(sha256, 4)]);
        fs::write(directory.join(sha256.to_base32()), "other").unwrap();
        assert!(!products.is_intact(&sha256).unwrap());
        drop(products.alone().unwrap());
        products.remove(&sha256).unwrap();
        products.remove(&sha256).unwrap();
        assert!(products.open_file(&sha256).is_err());
        let left: Vec<_> = fs::read_dir(directory.join("tmp")).unwrap().collect();
        assert_eq!(left.len(), 1, "only the directory of this process is left");
        let own = left[0].as_ref().unwrap().path();
        assert_eq!(fs::read_dir(own).unwrap().count(), 0);
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let products = Products::open(folder.path()).unwrap();
        let sha256 = Sha256::digest(b"x");
        fs::write(folder.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("secret", folder.path().join(sha256.to_base32())).unwrap();
        assert!(products.open_file(&sha256).is_err() && !products.contains(&sha256));
        assert!(products.inventory().unwrap().is_empty());
    }
}
