//! `hauberk cache`: looks after cache directories, and moves items between them.

mod transfer;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hauberk_publish::cache::Method;
use hauberk_store::{StoreDirectory, StorePath, signature::PublicKey};

use crate::exit::Failure;
use crate::keys::signing_public_key;

/// Look after the cache directory of a server
///
/// Run it as the user that the server runs as, so that the server may read and remove what is made.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read all of a cache and tell what is wrong with it
    ///
    /// Looks at each narinfo, its signature, the size and hash of its nar and of what that holds, at references to items that the cache
    /// does not have, at files that belong to nothing, and at build products. It may be in use meanwhile. The exit status is 0 if all is well, or is now.
    Verify {
        /// The server's `--cache`, or any binary cache of Nix on disk
        directory: PathBuf,

        /// A public key or the file that holds it, one of which must have signed each narinfo; may be given several times
        #[arg(long, value_name = "KEY|FILE")]
        key: Vec<String>,

        /// Remove narinfos that are false and files that no narinfo names. Servers fetch what is missing again when it is asked for
        #[arg(long)]
        repair: bool,

        /// Tell of references to what the cache does not have
        #[arg(long)]
        dangling: bool,
    },

    /// Take items of another cache directory, or of an archive, into a cache
    ///
    /// Each item is checked against its signature, size and hash, and appears after all it refers to. What the cache has already stays as it
    /// is. It may be in use meanwhile. The exit status is 1 if items were refused; the others have been taken.
    Import(Import),

    /// Copy items of a cache, with all they refer to, into another cache directory or an archive
    ///
    /// Another directory becomes what `nix copy --to file://DIRECTORY` makes; an archive is what `guix archive --import` (signed) and
    /// `nix-store --import` (not signed) take.
    Export(Export),

    /// Sign all of a cache anew, when keys change
    ///
    /// Signatures of the new keys are added, and of Nix keys named by `--drop` removed; nars stay as they are. Only what one of the keys
    /// given by `--key` has signed is signed anew. It may be in use meanwhile, and can be stopped and begun again.
    Resign {
        /// The server's `--cache`
        directory: PathBuf,

        /// A public key or the file that holds it, one of which must have signed a narinfo now; may be given several times
        #[arg(long, value_name = "KEY|FILE", required = true)]
        key: Vec<String>,

        /// The secret key to sign with; may be given several times
        #[arg(long, value_name = "FILE", required = true)]
        signing_key: Vec<PathBuf>,

        /// The name of a Nix key whose signatures are removed; may be given several times
        #[arg(long, value_name = "NAME")]
        drop: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Import {
    /// The cache that takes them; it is made if it does not exist
    directory: PathBuf,

    /// Where they are: another cache directory, or an archive of `guix archive --export` or `nix-store --export`, `-` for standard input
    from: PathBuf,

    /// Items to take from a cache directory, with all they refer to [default: all]
    #[arg(value_name = "STORE-PATH")]
    paths: Vec<StorePath>,

    /// A public key or the file that holds it, one of which must have signed each item; may be given several times
    #[arg(long, value_name = "KEY|FILE", required_unless_present = "no_check_signatures")]
    key: Vec<String>,

    /// Take items that nobody has signed
    #[arg(long, conflicts_with = "key")]
    no_check_signatures: bool,

    /// A secret key to sign them with; may be given several times
    #[arg(long, value_name = "FILE")]
    signing_key: Vec<PathBuf>,

    /// How the nars of an archive are packed: `zstd`, `gzip` or `none`, with `:LEVEL` or without
    #[arg(long, value_name = "METHOD", default_value_t = Method::default())]
    pack: Method,

    /// The store of a cache that is made for an archive [default: that of the signing key]
    #[arg(long, value_name = "DIRECTORY")]
    store: Option<StoreDirectory>,
}

#[derive(Debug, Args)]
struct Export {
    /// The cache that has them
    directory: PathBuf,

    /// Items to copy, with all they refer to [default: all]
    #[arg(value_name = "STORE-PATH")]
    paths: Vec<StorePath>,

    /// The cache directory to copy into; it is made if it does not exist
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "archive", conflicts_with = "archive")]
    to: Option<PathBuf>,

    /// The archive to write, `-` for standard output
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,

    /// Leave out what the items refer to
    #[arg(long)]
    no_closure: bool,

    /// A secret key to sign them with: Guix takes archives only if they are signed. May be given several times for a directory
    #[arg(long, value_name = "FILE")]
    signing_key: Vec<PathBuf>,
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let work = move || match options.action {
        Action::Verify { directory, key, repair, dangling } => {
            verify::run(&directory, public_keys(&key)?, repair, dangling)
        }
        Action::Import(import) => transfer::import(import),
        Action::Export(export) => transfer::export(&export),
        Action::Resign { directory, key, signing_key, drop } => {
            transfer::resign(&directory, public_keys(&key)?, &signing_key, drop)
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(Failure::other)?
}

fn public_keys(keys: &[String]) -> Result<Vec<PublicKey>, Failure> {
    keys.iter().map(|key| signing_public_key(key)).collect()
}
