//! `hauberk key`: makes and shows keys.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::nix::SecretKey;

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
    /// Make a signing key pair, as `nix key generate-secret` does: FILE, which is secret, and FILE.pub
    Signing {
        /// The key's name, often the host's name and a number: `farm.example.org-1`
        name: String,
        /// The secret key's file; it must not exist
        file: PathBuf,
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
        Action::Signing { name, file } => {
            let key = SecretKey::generate(&name)
                .with_context(|| format!("`{name}` is no name for a key"))
                .map_err(Failure::configuration)?;
            write_signing_key(&file, &key).map_err(Failure::configuration)?;
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
