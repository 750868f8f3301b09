//! `hauberk cache verify`.

use std::path::Path;

use hauberk_publish::cache::Verification;
use hauberk_publish::{Cache, TrustedKeys};
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
    print(format_args!(
        "{} items, {} bytes; {} faults, {} repaired; {} references to what is not here",
        seen.items, seen.bytes, seen.faults, seen.repaired, seen.dangling
    ))?;
    match seen.faults - seen.repaired {
        0 => Ok(()),
        left => Err(Failure::new(Exit::Other, anyhow::anyhow!("{left} faults are left"))),
    }
}
