//! `hauberk key`: makes and shows keys.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::{SecretKey, guix, nix};

use crate::command::print;
use crate::exit::Failure;
use crate::keys::{read_signing_key, write_signing_key};

/// Make and show keys
///
/// Servers and workers each have two keys: a CURVE key, by which they know each other, and a signing key, with which they sign
/// what they publish.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a CURVE key pair: FILE, which is secret, and FILE.pub
    Curve {
        /// The secret key's file; it must not exist
        file: PathBuf,
    },
    /// Make a signing key pair: FILE, which is secret, and FILE.pub
    ///
    /// It is one of Nix, as `nix key generate-secret` makes them, or with --guix one of Guix, as `guix archive --generate-key`
    /// does; those have no name, and the public half of NAME.sec is NAME.pub.
    Signing {
        /// Make a key of Guix
        #[arg(long)]
        guix: bool,
        /// The key's name (not with --guix), often the host's name and a number: `farm.example.org-1`; then the secret key's
        /// file, which must not exist
        #[arg(value_names = ["NAME", "FILE"], num_args = 1..=2, required = true)]
        name_and_file: Vec<PathBuf>,
    },
    /// Print the public key of a secret key file of either kind
    Show {
        /// The secret key's file
        file: PathBuf,
    },
}

/// Does what the command says and prints the public key.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Curve { file } => {
            let keys = CurveKeyPair::generate();
            keys.write_new(&file)?;
            print(format_args!("{}", keys.public()))
        }
        Action::Signing { guix, name_and_file } => {
            let (file, key) = new_signing_key(guix, &name_and_file).map_err(Failure::configuration)?;
            write_signing_key(file, &key).map_err(Failure::configuration)?;
            print(format_args!("{}", key.public_key()))
        }
        Action::Show { file } => match CurveKeyPair::read(&file) {
            Ok(keys) => print(format_args!("{}", keys.public())),
            Err(hauberk_protocol::keys::KeyFileError::NotAKey { .. }) => {
                print(format_args!("{}", read_signing_key(&file)?.public_key()))
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// Makes the key that the arguments ask for.
fn new_signing_key(guix: bool, name_and_file: &[PathBuf]) -> anyhow::Result<(&Path, SecretKey)> {
    match (guix, name_and_file) {
        (true, [file]) => {
            let key = guix::SecretKey::generate().context("cannot make a key")?;
            Ok((file, SecretKey::Guix(key)))
        }
        (false, [name, file]) => {
            let name = name.to_str().context("a key's name must be UTF-8")?;
            let key =
                nix::SecretKey::generate(name).with_context(|| format!("`{name}` is no name for a key"))?;
            Ok((file, SecretKey::Nix(key)))
        }
        (true, _) => Err(anyhow!("a key of Guix has no name: give its file only")),
        (false, _) => Err(anyhow!("give a name and a file, or --guix and a file")),
    }
}
