//! By what a register knows whether the server's store is its own, too: a path that is in this store alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hauberk_daemon::{DaemonError, Pool};
use hauberk_store::hash::encode_base16;
use hauberk_store::{Sha256, StorePath};
use tracing::warn;

/// The name of the path.
const NAME: &str = "hauberk-store-identity";

/// Why a store gets no path of its own.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no random bytes are to be had")]
    Random(#[from] getrandom::Error),
    #[error("the build daemon does not take it")]
    Daemon(#[from] DaemonError),
}

/// Puts the path of the server `name` into its store and has it kept; it stays the same as long as the cache `directory` does, which several servers may
/// have together. Nothing where that cannot be done: registers then bring what the server already has.
pub(crate) async fn settle(pool: &Pool, directory: &Path, name: &str) -> Option<StorePath> {
    match try_settle(pool, directory, name).await {
        Ok(path) => Some(path),
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot mark the local store, so registers push to this server what it may share with them"
            );
            None
        }
    }
}

async fn try_settle(pool: &Pool, directory: &Path, name: &str) -> Result<StorePath, IdentityError> {
    let text = format!("{}This server is {name}.\n", text(&directory.join("store-identity"))?);
    let digest = Sha256::digest(name.as_bytes()).to_base16();
    let mut daemon = pool.get().await?;
    let path = daemon.add_text(NAME, text.as_bytes(), &Default::default()).await?;
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::File { path, source }
    };
    let directory = directory.canonicalize().map_err(fault(directory))?;
    let link = directory.join(format!("store-identity-root-{}", &digest[..16]));
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(&link)(error)),
        Ok(()) | Err(_) => {}
    }
    symlink(path.to_string(), &link).map_err(fault(&link))?;
    daemon.add_indirect_root(&link).await?;
    Ok(path)
}

/// Gives what the path holds, which is made up once.
fn text(file: &Path) -> Result<String, IdentityError> {
    let fault = |source| IdentityError::File { path: file.to_owned(), source };
    match fs::read_to_string(file) {
        Ok(text) if text.len() > NAME.len() => return Ok(text),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        // None, or what a crash left of one.
        Ok(_) | Err(_) => {}
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let text = format!("This is the store of a Hauberk server: {}.\n", encode_base16(&bytes));
    let mut written = fs::File::create(file).map_err(fault)?;
    written.write_all(text.as_bytes()).and_then(|()| written.sync_all()).map_err(fault)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_up_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("identity");
        let first = text(&file).unwrap();
        assert_eq!(text(&file).unwrap(), first);
        fs::write(&file, "").unwrap();
        assert_ne!(text(&file).unwrap(), first);
    }
}
