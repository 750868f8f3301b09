//! Whether a path follows from what it holds.

use std::collections::BTreeSet;

use hauberk_store::{
    NarHash, Sha256, StorePath,
    hash::Sha256Hasher,
    nar::{Decoder, Event, Limits, NarError},
    store_path::References,
};

/// Reads a nar as it comes, and hashes all from which its path may follow.
#[derive(Debug)]
pub(super) struct Contents {
    decoder: Decoder,
    nar: Sha256Hasher,
    /// The hash of the file that the nar is, unless it is something else or may be executed.
    file: Option<Sha256Hasher>,
    begun: bool,
}

/// What a nar held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its hash.
    pub(super) nar_hash: NarHash,
    /// Bytes it has.
    pub(super) nar_size: u64,
    /// The hash of the one file that it is.
    file: Option<Sha256>,
}

impl Contents {
    /// Reads a nar of at most `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        let decoder = Decoder::new(Limits::with_size(size));
        Self { decoder, nar: Sha256Hasher::new(), file: None, begun: false }
    }

    /// Takes the next bytes, which must all belong to the nar.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NarError> {
        let mut rest = bytes;
        while let Some(event) = self.decoder.next(&mut rest)? {
            match event {
                Event::File { executable: false, .. } if !self.begun => self.file = Some(Sha256Hasher::new()),
                Event::Contents(bytes) => {
                    if let Some(file) = &mut self.file {
                        file.update(bytes);
                    }
                }
                _ => {}
            }
            self.begun = true;
        }
        if !rest.is_empty() {
            return Err(NarError::TrailingBytes { offset: self.decoder.offset() });
        }
        self.nar.update(bytes);
        Ok(())
    }

    /// Ends the nar, which must be whole.
    pub(super) fn finish(self) -> Result<Found, NarError> {
        self.decoder.finish()?;
        let (nar_hash, nar_size) = self.nar.finish();
        Ok(Found { nar_hash, nar_size, file: self.file.map(|file| file.finish().0) })
    }
}

impl Found {
    /// Gives the content address that `path` follows from: a text (derivations are), a source, or a file or tree whose hash was known
    /// beforehand. Nothing when it follows from none, as that of what was built does not.
    pub(super) fn address(&self, path: &StorePath, references: &BTreeSet<StorePath>) -> Option<String> {
        let (directory, name) = (path.directory(), path.name());
        if let Some(file) = &self.file {
            if StorePath::of_hashed_text(directory, name, file, references).is_ok_and(|text| text == *path) {
                return Some(format!("text:sha256:{}", file.to_base32()));
            }
            let fixed = StorePath::of_fixed_output(directory, name, false, &(*file).into());
            if references.is_empty() && fixed.is_ok_and(|fixed| fixed == *path) {
                return Some(format!("fixed:sha256:{}", file.to_base32()));
            }
        }
        let mut others = references.clone();
        if others.remove(path) {
            // What refers to itself has a hash that leaves that out, and is no source that anybody adds.
            return None;
        }
        let references = References { others, itself: false };
        let source = StorePath::of_source(directory, name, &self.nar_hash, &references);
        (source.is_ok_and(|source| source == *path))
            .then(|| format!("fixed:r:sha256:{}", self.nar_hash.to_base32()))
    }
}

#[cfg(test)]
mod tests {
    use hauberk_store::{StoreDirectory, nar::Node};

    use super::*;

    fn read(nar: &[u8]) -> Found {
        let mut contents = Contents::new(1 << 20);
        // In pieces that end anywhere.
        nar.chunks(7).for_each(|piece| contents.push(piece).unwrap());
        contents.finish().unwrap()
    }

    #[test]
    fn texts_sources_and_fixed_files_follow_from_their_contents() {
        let nix = StoreDirectory::nix();
        let nar = Node::file("text\n").to_nar().unwrap();
        let found = read(&nar);
        assert_eq!((found.nar_hash, found.nar_size), (NarHash::digest(&nar), nar.len() as u64));
        let other: StorePath = "/nix/store/00000000000000000000000000000000-x".parse().unwrap();
        let (none, some) = (BTreeSet::new(), BTreeSet::from([other.clone()]));
        let kind = |path: &StorePath, references| {
            let address = found.address(path, references)?;
            Some(address.rsplit_once(':').unwrap().0.to_owned())
        };

        let text = StorePath::of_text(&nix, "t.drv", b"text\n", &some).unwrap();
        assert_eq!(kind(&text, &some).as_deref(), Some("text:sha256"));
        assert_eq!(kind(&text, &none), None, "references are part of the path");
        let fixed = Sha256::digest(b"text\n").into();
        let fixed = StorePath::of_fixed_output(&nix, "f", false, &fixed).unwrap();
        assert_eq!(kind(&fixed, &none).as_deref(), Some("fixed:sha256"));
        assert_eq!(kind(&fixed, &some), None);
        let references = References { others: some.clone(), itself: false };
        let source = StorePath::of_source(&nix, "s", &NarHash::digest(&nar), &references).unwrap();
        assert_eq!(kind(&source, &some).as_deref(), Some("fixed:r:sha256"));
        assert_eq!(kind(&other, &none), None);
        let itself = BTreeSet::from([source.clone()]);
        assert_eq!(kind(&source, &itself), None);
    }

    #[test]
    fn only_a_plain_file_alone_is_a_text() {
        let nix = StoreDirectory::nix();
        let path = StorePath::of_text(&nix, "t", b"text\n", &BTreeSet::new()).unwrap();
        let program = Node::File { executable: true, contents: b"text\n".to_vec() };
        let inside = Node::Directory { entries: [(b"t".to_vec(), Node::file("text\n"))].into() };
        for node in [program, inside] {
            assert_eq!(read(&node.to_nar().unwrap()).address(&path, &BTreeSet::new()), None);
        }
    }
}
