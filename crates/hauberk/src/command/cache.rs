//! `hauberk cache`: looks after cache directories.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hauberk_publish::cache::Verification;
use hauberk_publish::{Cache, TrustedKeys};
use hauberk_store::signature::nix::PublicKey;

use crate::command::print;
use crate::exit::{Exit, Failure};

/// Look after the cache directory of a server
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
    /// does not have, and at files that belong to nothing. It may be in use meanwhile. The exit status is 0 if all is well, or is now.
    Verify {
        /// The server's `--cache`, or any binary cache of Nix on disk
        directory: PathBuf,

        /// A public key, as NAME:BASE64, one of which must have signed each narinfo; may be given several times
        #[arg(long, value_name = "KEY")]
        key: Vec<PublicKey>,

        /// Remove narinfos that are false and files that no narinfo names. Servers fetch what is missing again when it is asked for
        #[arg(long)]
        repair: bool,

        /// Tell of references to what the cache does not have
        #[arg(long)]
        dangling: bool,
    },
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Action::Verify { directory, key, repair, dangling } = options.action;
    let verify = move || -> Result<(), Failure> {
        let cache = Cache::open_existing(&directory).map_err(Failure::configuration)?;
        let trusted = (!key.is_empty()).then(|| TrustedKeys::nix(key));
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
    };
    tokio::task::spawn_blocking(verify).await.map_err(Failure::other)?
}
