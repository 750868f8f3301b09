//! `hauberk cache import`, `export` and `resign`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use hauberk_publish::cache::{CacheReader, Import, Imported, Renewal, export_archive};
use hauberk_publish::{Cache, Signer, TrustedKeys};
use hauberk_store::signature::{PublicKey, SecretKey, guix};
use hauberk_store::{StoreDirectory, StorePath, StorePathHash};

use crate::command::print;
use crate::exit::{Exit, Failure};
use crate::keys::read_signing_key;

/// Takes items into a cache.
pub(super) fn import(options: super::Import) -> Result<(), Failure> {
    let keys = super::public_keys(&options.key)?;
    let secrets = read_keys(&options.signing_key)?;
    let trusted = (!options.no_check_signatures).then(|| TrustedKeys::of(keys));
    let usual_store = secrets.first().map(SecretKey::usual_store);
    let import = Import { trusted, signer: Signer::of(&host(), secrets), method: options.pack };
    let mut told = Ok(());
    let mut refused = |refusal: &hauberk_publish::cache::Refused| {
        if told.is_ok() {
            told = print(format_args!("refused: {refusal}"));
        }
    };
    let imported = if options.from.is_dir() {
        let source = CacheReader::open(&options.from).map_err(Failure::configuration)?;
        let cache =
            Cache::open(&options.directory, source.store_directory()).map_err(Failure::configuration)?;
        let roots = hashes(source.store_directory(), &options.paths)?;
        let imported = cache.import(&source, &roots, true, &import, &mut refused);
        imported.map_err(Failure::other)?
    } else {
        if !options.paths.is_empty() {
            return Err(Failure::configuration(anyhow!(
                "an archive is taken whole: leave the store paths out, or give a cache directory"
            )));
        }
        let cache = archive_cache(&options.directory, options.store.or(usual_store))?;
        let acl = match &import.trusted {
            None => None,
            Some(trusted) => Some(trusted.acl().ok_or_else(|| {
                Failure::configuration(anyhow!(
                    "archives are signed with keys of Guix: give one by --key, or --no-check-signatures"
                ))
            })?),
        };
        let imported = match open_archive(&options.from)? {
            Archive::Standard => cache.import_archive(io::stdin().lock(), acl, &import, &mut refused),
            Archive::File(file) => cache.import_archive(file, acl, &import, &mut refused),
        };
        imported.map_err(Failure::other)?
    };
    told?;
    report(&imported)
}

fn report(imported: &Imported) -> Result<(), Failure> {
    let Imported { items, bytes, known, refused, absent } = imported;
    print(format_args!(
        "{items} items taken, {bytes} bytes unpacked; {known} were there, {refused} refused, {absent} absent"
    ))?;
    match refused {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Other, anyhow!("{count} items were refused"))),
    }
}

/// Copies items of a cache elsewhere.
pub(super) fn export(options: &super::Export) -> Result<(), Failure> {
    let source = CacheReader::open(&options.directory).map_err(Failure::configuration)?;
    let roots = hashes(source.store_directory(), &options.paths)?;
    let closure = !options.no_closure;
    let mut secrets = read_keys(&options.signing_key)?;
    if let Some(directory) = &options.to {
        let signed = !secrets.is_empty() || *source.store_directory() != StoreDirectory::guix();
        if !signed {
            return Err(Failure::configuration(anyhow!(
                "a narinfo of Guix is signed for the place it lies at: give --signing-key"
            )));
        }
        let cache = Cache::open(directory, source.store_directory()).map_err(Failure::configuration)?;
        let import = Import { signer: Signer::of(&host(), secrets), ..Import::default() };
        let mut told = Ok(());
        let imported = cache.import(&source, &roots, closure, &import, |refusal| {
            if told.is_ok() {
                told = print(format_args!("refused: {refusal}"));
            }
        });
        let imported = imported.map_err(Failure::other)?;
        told?;
        return report(&imported);
    }
    let key: Option<guix::SecretKey> = match (secrets.pop(), secrets.is_empty()) {
        (None, _) => None,
        (Some(SecretKey::Guix(key)), true) => Some(key),
        (Some(SecretKey::Nix(_)), _) => {
            return Err(Failure::configuration(anyhow!("archives are signed with keys of Guix only")));
        }
        (Some(_), false) => {
            return Err(Failure::configuration(anyhow!("an archive has one signature: give one key")));
        }
    };
    let written = match &options.archive {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::create_new(path)
                .with_context(|| format!("cannot make {}", path.display()))
                .map_err(Failure::configuration)?;
            let mut output = BufWriter::with_capacity(256 * 1024, file);
            let written = export_archive(&source, &roots, closure, key.as_ref(), &mut output);
            let whole = written.map_err(Failure::other).and_then(|count| {
                let synced = output.flush().and_then(|()| output.get_ref().sync_all());
                synced.map(|()| count).map_err(Failure::other)
            });
            if whole.is_err() {
                // Half an archive is of no use; that it stays behind would be no worse.
                let _ = std::fs::remove_file(path);
            }
            whole?
        }
        _ => {
            let mut output = io::stdout().lock();
            let written = export_archive(&source, &roots, closure, key.as_ref(), &mut output);
            written.map_err(Failure::other)?
        }
    };
    tracing::info!("{written} items written");
    Ok(())
}

/// Signs all narinfos of a cache anew.
pub(super) fn resign(
    directory: &Path,
    keys: Vec<PublicKey>,
    signing_keys: &[PathBuf],
    dropped: Vec<String>,
) -> Result<(), Failure> {
    let cache = Cache::open_existing(directory).map_err(Failure::configuration)?;
    let secrets = read_keys(signing_keys)?;
    if let Some(other) = secrets.iter().find(|key| key.usual_store() != *cache.store_directory())
        && matches!(other, SecretKey::Guix(_)) != (*cache.store_directory() == StoreDirectory::guix())
    {
        return Err(Failure::configuration(anyhow!(
            "the key {} is of the other kind than the cache, which is of {}",
            other.public_key().to_line(),
            cache.store_directory()
        )));
    }
    let renewal = Renewal { trusted: TrustedKeys::of(keys), signer: Signer::of(&host(), secrets), dropped };
    let mut told = Ok(());
    let renewed = cache
        .renew(&renewal, |refusal| {
            if told.is_ok() {
                told = print(format_args!("refused: {refusal}"));
            }
        })
        .map_err(Failure::other)?;
    told?;
    print(format_args!(
        "{} narinfos signed, {} were so already, {} refused",
        renewed.signed, renewed.unchanged, renewed.refused
    ))?;
    match renewed.refused {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Other, anyhow!("{count} narinfos were refused"))),
    }
}

fn read_keys(files: &[PathBuf]) -> Result<Vec<SecretKey>, Failure> {
    files.iter().map(|file| read_signing_key(file)).collect()
}

/// The name beside signatures of Guix's kind.
fn host() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn hashes(store: &StoreDirectory, paths: &[StorePath]) -> Result<Vec<StorePathHash>, Failure> {
    match paths.iter().find(|path| path.directory() != store) {
        None => Ok(paths.iter().map(StorePath::hash).collect()),
        Some(other) => {
            Err(Failure::configuration(anyhow!("{other} is not in {store}, which the cache is of")))
        }
    }
}

enum Archive {
    Standard,
    File(File),
}

fn open_archive(path: &Path) -> Result<Archive, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Archive::Standard);
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()));
    file.map(Archive::File).map_err(Failure::configuration)
}

/// Opens the cache that takes an archive, whose store an empty one cannot tell.
fn archive_cache(directory: &Path, store: Option<StoreDirectory>) -> Result<Cache, Failure> {
    let opened = match (directory.join("nix-cache-info").exists(), store) {
        (false, Some(store)) => Cache::open(directory, &store),
        (true, _) => Cache::open_existing(directory),
        (false, None) => {
            return Err(Failure::configuration(anyhow!(
                "{} is no cache yet: give the store it is to be of by --store",
                directory.display()
            )));
        }
    };
    opened.map_err(Failure::configuration)
}
