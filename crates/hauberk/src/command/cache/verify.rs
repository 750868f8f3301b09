//! `hauberk cache verify`.

use std::path::Path;

use hauberk_publish::cache::Verification;
use hauberk_publish::{Cache, Products, TrustedKeys};
use hauberk_store::signature::PublicKey;

use crate::command::print;
use crate::exit::{Exit, Failure};

/// Reads a cache and says what is wrong with it.
pub(super) fn run(
    directory: &Path,
    keys: Vec<PublicKey>,
    repair: bool,
    dangling: bool,
) -> Result<(), Failure> {
    let cache = Cache::open_existing(directory).map_err(Failure::configuration)?;
    let trusted = (!keys.is_empty()).then(|| TrustedKeys::of(keys));
    let mut told = Ok(());
    let seen = cache
        .verify(&Verification { trusted, repair }, |finding| {
            if (finding.is_fault() || dangling) && told.is_ok() {
                told = print(format_args!("{finding}"));
            }
        })
        .map_err(Failure::other)?;
    told?;
    let products = verify_products(directory, repair)?;
    let (faults, repaired) = (seen.faults + products.faults, seen.repaired + products.repaired);
    if products.files > 0 {
        print(format_args!("{} build products, {} bytes", products.files, products.bytes))?;
    }
    print(format_args!(
        "{} items, {} bytes; {} faults, {} repaired; {} references to what is not here",
        seen.items, seen.bytes, faults, repaired, seen.dangling
    ))?;
    match faults - repaired {
        0 => Ok(()),
        left => Err(Failure::new(Exit::Other, anyhow::anyhow!("{left} faults are left"))),
    }
}

/// What was seen of products.
#[derive(Default)]
struct Seen {
    files: u64,
    bytes: u64,
    faults: u64,
    repaired: u64,
}

/// Reads the products beside a cache and says which are not what their names say. One that is removed is taken again when the server starts.
fn verify_products(cache: &Path, repair: bool) -> Result<Seen, Failure> {
    let directory = Products::beside(cache);
    let mut seen = Seen::default();
    if !directory.is_dir() {
        return Ok(seen);
    }
    let products = Products::open(&directory).map_err(Failure::configuration)?;
    for product in products.inventory().map_err(Failure::other)? {
        seen.files += 1;
        seen.bytes += product.bytes;
        if products.is_intact(&product.sha256).map_err(Failure::other)? {
            continue;
        }
        seen.faults += 1;
        let name = product.sha256.to_base32();
        print(format_args!("{}: it is not what its name says", directory.join(name).display()))?;
        if repair {
            products.remove(&product.sha256).map_err(Failure::other)?;
            seen.repaired += 1;
        }
    }
    Ok(seen)
}
