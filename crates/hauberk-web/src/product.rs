//! Where build products are.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hauberk_publish::Products;
use hauberk_publish::products::open_product;
use hauberk_store::Sha256;

/// The folder `products/` of a server, if this process may read it.
#[derive(Debug, Clone)]
pub(crate) struct ProductDirectory(Option<PathBuf>);

impl ProductDirectory {
    /// Takes a server's cache folder.
    pub(crate) fn new(cache: Option<&Path>) -> Self {
        Self(cache.map(Products::beside))
    }

    /// Opens a product and tells its size, if it is here: products have the names of their contents, whichever server keeps them.
    ///
    /// # Errors
    /// What the system says of a file that is here.
    pub(crate) fn open(&self, sha256: &Sha256) -> io::Result<Option<(File, u64)>> {
        let Some(directory) = &self.0 else { return Ok(None) };
        match open_product(directory, sha256) {
            Ok((file, metadata)) => Ok(Some((file, metadata.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
