//! The farm's servers, as the one that was joined last has told: where the worker goes when that one is gone.
//!
//! They are believed because the server that tells has proved to own a key that was pinned, or told before. They are kept in the spool, so
//! that a worker that starts while its own server is away finds the others.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::proto;
use hauberk_protocol::socket::ServerAddress;
use tracing::{info, warn};

/// Most servers that are remembered.
const MOST: usize = 32;
/// Bytes of the largest file.
const LONGEST: u64 = 64 * 1024;
/// Stands for the key of a server without encryption.
const NO_KEY: &str = "-";

/// A server of the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Where its backend port is.
    pub(crate) address: ServerAddress,
    /// The key it must own; none without encryption.
    pub(crate) key: Option<CurvePublicKey>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// The server that the worker was told to trust; what other farms have told is not believed.
    pinned: Option<CurvePublicKey>,
    file: Option<PathBuf>,
    known: Mutex<Vec<Neighbour>>,
}

impl Neighbours {
    /// Knows nobody yet, and keeps nothing.
    pub(crate) fn nobody(pinned: Option<CurvePublicKey>) -> Self {
        Self { pinned, file: None, known: Mutex::default() }
    }

    /// Reads what was kept in `spool`; a file that cannot be read costs no more than its contents.
    pub(crate) fn kept_in(spool: &Path, pinned: Option<CurvePublicKey>) -> Self {
        let file = spool.join("servers");
        let known = match read(&file, pinned) {
            Ok(known) => known,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot read {}", file.display());
                Vec::new()
            }
        };
        Self { pinned, file: Some(file), known: Mutex::new(known) }
    }

    /// Gives those that are known.
    pub(crate) fn known(&self) -> Vec<Neighbour> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what a Welcome says of others; the server that sent it, at `endpoint` with `key`, is remembered with them.
    pub(crate) fn learn(
        &self,
        (endpoint, key): (SocketAddr, Option<CurvePublicKey>),
        others: &[proto::OtherServer],
    ) {
        let mut learnt: Vec<_> = others
            .iter()
            .take(MOST)
            .filter_map(|other| {
                let other_key =
                    if other.public_key.is_empty() { None } else { Some(other.public_key.parse().ok()?) };
                // Encrypted or not: all of a farm are the same.
                if other_key.is_some() != self.pinned.is_some() {
                    return None;
                }
                Some(Neighbour { address: other.address.parse().ok()?, key: other_key })
            })
            .collect();
        if !learnt.is_empty()
            && let Ok(address) = endpoint.to_string().parse()
        {
            learnt.push(Neighbour { address, key });
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == learnt {
            return;
        }
        info!(servers.known = learnt.len(), "the farm has {} servers", learnt.len().max(1));
        known.clone_from(&learnt);
        drop(known);
        if let Some(file) = &self.file
            && let Err(error) = write(file, self.pinned, &learnt)
        {
            warn!(error = &error as &dyn std::error::Error, "cannot write {}", file.display());
        }
    }
}

fn key_text(key: Option<CurvePublicKey>) -> String {
    key.map_or_else(|| NO_KEY.to_owned(), |key| key.to_string())
}

/// The first line is the key that was pinned, each other a server: its address and its key.
fn write(file: &Path, pinned: Option<CurvePublicKey>, known: &[Neighbour]) -> io::Result<()> {
    let mut text = format!("{}\n", key_text(pinned));
    for neighbour in known {
        text.push_str(&format!("{} {}\n", neighbour.address, key_text(neighbour.key)));
    }
    let draft = file.with_extension("new");
    fs::write(&draft, text)?;
    fs::rename(&draft, file)
}

fn read(file: &Path, pinned: Option<CurvePublicKey>) -> io::Result<Vec<Neighbour>> {
    let mut text = String::new();
    File::open(file)?.take(LONGEST).read_to_string(&mut text)?;
    let mut lines = text.lines();
    if lines.next() != Some(&key_text(pinned)) {
        return Ok(Vec::new());
    }
    let neighbour = |line: &str| {
        let (address, key) = line.split_once(' ')?;
        let key = if key == NO_KEY { None } else { Some(key.parse().ok()?) };
        (key.is_some() == pinned.is_some()).then_some(Neighbour { address: address.parse().ok()?, key })
    };
    Ok(lines.filter_map(neighbour).take(MOST + 1).collect())
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::keys::CurveKeyPair;

    use super::*;

    fn other(address: &str, key: &str) -> proto::OtherServer {
        proto::OtherServer { name: "b".to_owned(), address: address.to_owned(), public_key: key.to_owned() }
    }

    #[test]
    fn what_a_server_tells_outlives_the_process_as_long_as_the_same_key_is_pinned() {
        let spool = tempfile::tempdir().unwrap();
        let [pinned, second] = [(); 2].map(|()| *CurveKeyPair::generate().public());
        let here = (([10, 0, 0, 1], 5555).into(), Some(pinned));
        let neighbours = Neighbours::kept_in(spool.path(), Some(pinned));
        assert_eq!(neighbours.known(), []);
        let told = [other("b.example:5555", &second.to_string()), other("c:1", ""), other("?", "x")];
        neighbours.learn(here, &told);
        let known = [
            Neighbour { address: "b.example:5555".parse().unwrap(), key: Some(second) },
            Neighbour { address: "10.0.0.1:5555".parse().unwrap(), key: Some(pinned) },
        ];
        assert_eq!(neighbours.known(), known);
        assert_eq!(Neighbours::kept_in(spool.path(), Some(pinned)).known(), known);
        assert_eq!(Neighbours::kept_in(spool.path(), Some(second)).known(), []);
        assert_eq!(Neighbours::kept_in(spool.path(), None).known(), []);
        neighbours.learn(here, &[]);
        assert_eq!(Neighbours::kept_in(spool.path(), Some(pinned)).known(), []);
    }
}
