//! Build products: files that specifications name, taken out of the outputs of builds and offered for download.
//!
//! [`Pattern`] says which files of an output they are, [`extract`] takes them out of a nar of the cache while it is checked once more, and
//! [`Products`] is the directory that keeps them, under the hashes of their contents. A directory becomes a [`Tar`] whose bytes
//! follow from its contents alone.

mod directory;
mod extract;
mod file_name;
mod media_type;
mod pattern;
mod product_file;
mod tar;

use hauberk_store::Sha256;

pub use directory::{Products, ProductsError, ProductsLock, StoredProduct, open_product};
pub use extract::{ExtractError, Extracted, Found, Limits, Refused, Unmet, extract};
pub(crate) use file_name::parse_file_name;
pub use file_name::{attachment, download_name, encode_file_name};
pub use media_type::media_type;
pub use pattern::{Pattern, PatternError};
pub use product_file::{FinishedProduct, ProductFile};
pub use tar::Tar;

/// Gives the path of the URL that a publish server has a product under, relative to its own; `name` is what it is downloaded under.
pub fn product_url(sha256: &Sha256, name: &str) -> String {
    format!("product/{}/{}", sha256.to_base32(), encode_file_name(name))
}
