//! The NAR of a store item, made from the file system while it is read.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::Path,
};

use nix::{
    dir::{Dir, Type},
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{Mode, fstatat},
};

/// Deepest directory nesting followed, as much as a reader of NARs takes. Each level holds a descriptor.
pub(super) const MAX_DEPTH: usize = 512;

/// Bytes of structure gathered before they are handed out; names and targets are shorter.
const STRUCTURE: usize = 16 * 1024;

const OPEN: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_NONBLOCK);

/// Reads the NAR of a file, symlink or directory. Holds one open file and one descriptor per directory level, and
/// no more than a directory's names in memory; nothing is done between two reads.
///
/// No symlink is ever followed. A file that becomes shorter while it is read is an error.
pub struct NarReader {
    /// Structure not handed out yet, from `at` on.
    structure: Vec<u8>,
    at: usize,
    /// The file whose contents come next, after the structure.
    contents: Option<Contents>,
    /// Directories being walked, the innermost last.
    open: Vec<Level>,
}

struct Contents {
    file: File,
    left: u64,
    size: u64,
}

/// An open directory.
pub(super) struct Level {
    pub(super) directory: Dir,
    /// What is left to visit, in reverse order.
    pub(super) entries: Vec<Entry>,
}

/// An entry of a directory.
pub(super) struct Entry {
    pub(super) name: CString,
    /// Absent where the file system does not tell.
    pub(super) kind: Option<Type>,
}

impl NarReader {
    /// Begins the NAR of what is at `path`.
    ///
    /// # Errors
    /// Nothing there, no permission, or neither file, symlink nor directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (parent, name) = open_parent(path)?;
        let mut reader = Self { structure: Vec::new(), at: 0, contents: None, open: Vec::new() };
        reader.string(b"nix-archive-1");
        let inner = reader.node(&parent, &name, None, false)?;
        reader.open.extend(inner);
        Ok(reader)
    }

    fn string(&mut self, bytes: &[u8]) {
        self.structure.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.structure.extend_from_slice(bytes);
        self.pad(bytes.len() as u64);
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        for string in strings {
            self.string(string);
        }
    }

    fn pad(&mut self, length: u64) {
        let padding = length.wrapping_neg() as usize % 8;
        self.structure.resize(self.structure.len() + padding, 0);
    }

    /// Writes what comes before the inside of a node: a file's contents, kept in `self`, or the directory given back.
    fn node(
        &mut self,
        parent: &impl AsFd,
        name: &CStr,
        kind: Option<Type>,
        in_entry: bool,
    ) -> io::Result<Option<Level>> {
        self.strings(&[b"(", b"type"]);
        let kind = match kind {
            Some(kind) => kind,
            None => kind_of(parent, name)?,
        };
        match kind {
            Type::File => {
                let file = File::from(openat(parent, name, OPEN, Mode::empty())?);
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(changed(name));
                }
                self.string(b"regular");
                if metadata.permissions().mode() & 0o100 != 0 {
                    self.strings(&[b"executable", b""]);
                }
                self.string(b"contents");
                self.structure.extend_from_slice(&metadata.len().to_le_bytes());
                self.contents = Some(Contents { file, left: metadata.len(), size: metadata.len() });
                Ok(None)
            }
            Type::Symlink => {
                let target = readlinkat(parent, name)?;
                self.strings(&[b"symlink", b"target", target.as_bytes(), b")"]);
                if in_entry {
                    self.string(b")");
                }
                Ok(None)
            }
            Type::Directory => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(io::Error::other("directories nested too deep for an archive"));
                }
                self.string(b"directory");
                Level::read(parent, name).map(Some)
            }
            Type::Fifo | Type::CharacterDevice | Type::BlockDevice | Type::Socket => {
                let name = OsStr::from_bytes(name.to_bytes());
                Err(io::Error::other(format!("{} is neither file, symlink nor directory", name.display())))
            }
        }
    }

    /// Closes a finished node, and the entry around it; the root has none.
    fn end_node(&mut self) {
        self.string(b")");
        if !self.open.is_empty() {
            self.string(b")");
        }
    }

    /// Goes on by one entry. Says false at the end of the archive.
    fn step(&mut self) -> io::Result<bool> {
        let Some(mut level) = self.open.pop() else { return Ok(false) };
        if let Some(entry) = level.entries.pop() {
            self.strings(&[b"entry", b"(", b"name", entry.name.to_bytes(), b"node"]);
            let inner = self.node(&level.directory, &entry.name, entry.kind, true)?;
            self.open.push(level);
            self.open.extend(inner);
        } else {
            self.end_node();
        }
        Ok(true)
    }

    /// Ends the contents of a file.
    fn end_contents(&mut self, size: u64) {
        self.pad(size);
        self.end_node();
    }
}

impl Level {
    /// Opens and reads a directory.
    pub(super) fn read(parent: &impl AsFd, name: &CStr) -> io::Result<Self> {
        let mut directory = Dir::openat(parent, name, OPEN | OFlag::O_DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                entries.push(Entry { name: name.to_owned(), kind: entry.file_type() });
            }
        }
        entries.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(Self { directory, entries })
    }
}

/// Opens the directory that `path` lies in, and gives its last component.
pub(super) fn open_parent(path: &Path) -> io::Result<(OwnedFd, CString)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok((nix::fcntl::open(parent, flags, Mode::empty())?, CString::new(name.as_bytes())?))
}

/// Tells what kind of thing an entry is.
pub(super) fn kind_of(parent: &impl AsFd, name: &CStr) -> io::Result<Type> {
    let mode = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode;
    match mode & nix::libc::S_IFMT {
        nix::libc::S_IFREG => Ok(Type::File),
        nix::libc::S_IFDIR => Ok(Type::Directory),
        nix::libc::S_IFLNK => Ok(Type::Symlink),
        _ => Ok(Type::Socket),
    }
}

fn changed(name: &CStr) -> io::Error {
    let name = OsStr::from_bytes(name.to_bytes());
    io::Error::other(format!("{} changed while it was read", name.display()))
}

impl Read for NarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.at < self.structure.len() {
                let count = buffer.len().min(self.structure.len() - self.at);
                buffer[..count].copy_from_slice(&self.structure[self.at..self.at + count]);
                self.at += count;
                return Ok(count);
            }
            self.structure.clear();
            self.at = 0;
            if let Some(mut contents) = self.contents.take() {
                if contents.left == 0 {
                    self.end_contents(contents.size);
                } else {
                    let wanted = usize::try_from(contents.left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = contents.file.read(&mut buffer[..wanted])?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    contents.left -= count as u64;
                    self.contents = Some(contents);
                    return Ok(count);
                }
            }
            while self.contents.is_none() && self.structure.len() < STRUCTURE {
                if !self.step()? {
                    break;
                }
            }
            if self.structure.is_empty() {
                return Ok(0);
            }
        }
    }
}
