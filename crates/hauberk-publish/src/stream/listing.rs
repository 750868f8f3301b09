//! What is inside a store item, as Nix's `.ls` files have it.

use std::{
    ffi::CStr,
    io::{self, Read},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use nix::{
    dir::Type,
    fcntl::{AtFlags, readlinkat},
    sys::stat::fstatat,
};

use hauberk_store::nar::{Limits, Listing, ListingEntry};

use super::nar_reader::{self, Level, MAX_DEPTH};

/// Most bytes of a listing: about a million files.
const MAX_SIZE: usize = 128 * 1024 * 1024;

/// Lists the item at `path` in the format of Nix's `.ls` files (JSON, version 1), with the offset of each file's contents
/// in the NAR. No file is opened.
///
/// # Errors
/// Nothing there, what a NAR cannot hold, or a listing of more than 128 MiB.
pub fn list(path: &Path) -> io::Result<String> {
    let (parent, name) = nar_reader::open_parent(path)?;
    let mut lister = Lister { json: String::from("{\"version\":1,\"root\":"), offset: 0 };
    lister.string(b"nix-archive-1");
    lister.node(&parent, &name, None, 0)?;
    lister.json.push('}');
    Ok(lister.json)
}

/// Lists a nar of at most `size` bytes in the same format.
///
/// # Errors
/// A reader that fails, or gives no nar; a listing of more than 128 MiB.
pub(crate) fn list_nar(nar: impl Read, size: u64) -> io::Result<String> {
    let listing = Listing::read(nar, Limits::with_size(size))?;
    let mut json = String::from("{\"version\":1,\"root\":");
    // The paths of the directories that are open, and whether they have an entry.
    let mut open: Vec<(&[u8], bool)> = Vec::new();
    for (path, entry) in &listing.entries {
        while let Some((directory, _)) = open.last()
            && !is_below(path, directory)
        {
            json.push_str("}}");
            open.pop();
        }
        if let Some((directory, has_entries)) = open.last_mut() {
            if std::mem::replace(has_entries, true) {
                json.push(',');
            }
            let name = path.get(directory.len()..).unwrap_or_default();
            json.push_str(&text(name.strip_prefix(b"/").unwrap_or(name))?);
            json.push(':');
        }
        match entry {
            ListingEntry::File { executable, size, offset, .. } => {
                json.push_str(&format!("{{\"type\":\"regular\",\"size\":{size},\"narOffset\":{offset}"));
                json.push_str(if *executable { ",\"executable\":true}" } else { "}" });
            }
            ListingEntry::Symlink { target } => {
                json.push_str(&format!("{{\"type\":\"symlink\",\"target\":{}}}", text(target)?));
            }
            ListingEntry::Directory => {
                json.push_str("{\"type\":\"directory\",\"entries\":{");
                open.push((path, false));
            }
        }
        if json.len() > MAX_SIZE {
            return Err(io::Error::other("too many files for a listing"));
        }
    }
    open.iter().for_each(|_| json.push_str("}}"));
    json.push('}');
    Ok(json)
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Gives a JSON string; bytes that are no text are shown as well as can be.
fn text(bytes: &[u8]) -> io::Result<String> {
    Ok(serde_json::to_string(&String::from_utf8_lossy(bytes))?)
}

struct Lister {
    json: String,
    /// Bytes of the NAR so far.
    offset: u64,
}

impl Lister {
    fn string(&mut self, bytes: &[u8]) {
        self.contents(bytes.len() as u64);
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        strings.iter().for_each(|string| self.string(string));
    }

    /// Counts a length and as many bytes, filled up.
    fn contents(&mut self, length: u64) {
        self.offset += 8 + length.next_multiple_of(8);
    }

    fn node(&mut self, parent: &impl AsFd, name: &CStr, kind: Option<Type>, depth: usize) -> io::Result<()> {
        if self.json.len() > MAX_SIZE {
            return Err(io::Error::other("too many files for a listing"));
        }
        self.strings(&[b"(", b"type"]);
        let status = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = match kind {
            Some(kind) => kind,
            None => nar_reader::kind_of(parent, name)?,
        };
        match kind {
            Type::File => {
                self.string(b"regular");
                let size = u64::try_from(status.st_size).map_err(io::Error::other)?;
                let executable = status.st_mode & 0o100 != 0;
                if executable {
                    self.strings(&[b"executable", b""]);
                }
                self.string(b"contents");
                let fields =
                    format!("{{\"type\":\"regular\",\"size\":{size},\"narOffset\":{}", self.offset + 8);
                self.json.push_str(&fields);
                self.json.push_str(if executable { ",\"executable\":true}" } else { "}" });
                self.contents(size);
            }
            Type::Symlink => {
                let target = readlinkat(parent, name)?;
                self.strings(&[b"symlink", b"target", target.as_bytes()]);
                self.json.push_str("{\"type\":\"symlink\",\"target\":");
                self.text(target.as_bytes())?;
                self.json.push('}');
            }
            Type::Directory => {
                if depth >= MAX_DEPTH {
                    return Err(io::Error::other("directories nested too deep for an archive"));
                }
                self.string(b"directory");
                self.json.push_str("{\"type\":\"directory\",\"entries\":{");
                let level = Level::read(parent, name)?;
                for (index, entry) in level.entries.iter().rev().enumerate() {
                    self.strings(&[b"entry", b"(", b"name", entry.name.to_bytes(), b"node"]);
                    if index > 0 {
                        self.json.push(',');
                    }
                    self.text(entry.name.to_bytes())?;
                    self.json.push(':');
                    self.node(&level.directory, &entry.name, entry.kind, depth + 1)?;
                    self.string(b")");
                }
                self.json.push_str("}}");
            }
            Type::Fifo | Type::CharacterDevice | Type::BlockDevice | Type::Socket => {
                return Err(io::Error::other("neither file, symlink nor directory"));
            }
        }
        self.string(b")");
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.json.push_str(&text(bytes)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::stream::NarReader;

    #[test]
    fn a_nar_is_listed_as_its_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("item");
        for folder in ["a/b/c", "a-b", "empty", "z"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (name, contents) in
            [("a/b/c/file", "words"), ("a/x", ""), ("a-b/\u{e9}\"", "12345678"), ("z/last", "x")]
        {
            fs::write(root.join(name), contents).unwrap();
        }
        symlink("a/x", root.join("a/b/link")).unwrap();
        for item in [root.clone(), root.join("a/b/c/file"), root.join("a/b/link"), root.join("empty")] {
            let nar = NarReader::open(&item).unwrap();
            assert_eq!(list_nar(nar, 1 << 20).unwrap(), list(&item).unwrap(), "{}", item.display());
        }
        list_nar(&b"no nar"[..], 100).unwrap_err();
    }
}
