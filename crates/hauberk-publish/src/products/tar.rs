//! Archives whose bytes follow from their contents alone.

use std::io::{self, Write};

/// Bytes of a block.
const BLOCK: usize = 512;
/// The archive's length is a multiple of this, as `tar` has it.
const RECORD: u64 = 10_240;
/// Longest name that a header holds itself.
const SHORT: usize = 100;

/// Writes a tar archive in GNU's format, as `tar --format=gnu --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner` does: every time is
/// the first second of 1970, everything belongs to user and group 0, modes are 0755 and 0644.
#[derive(Debug)]
pub struct Tar<W> {
    out: W,
    size: u64,
    /// Bytes of the file's contents that are still to come, and those that then fill up its last block.
    file: Option<(u64, usize)>,
}

/// What a header is of.
#[derive(Clone, Copy)]
enum Kind {
    File,
    Symlink,
    Directory,
    LongName,
    LongTarget,
}

impl<W: Write> Tar<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, size: 0, file: None }
    }

    /// Gives the number of bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a directory; `name` has no slash at its end.
    ///
    /// # Errors
    /// What the writer gives.
    pub fn directory(&mut self, name: &[u8]) -> io::Result<()> {
        self.entry(&[name, b"/"].concat(), Kind::Directory, 0o755, 0, b"")
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// What the writer gives.
    pub fn symlink(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.entry(name, Kind::Symlink, 0o777, 0, target)
    }

    /// Adds a file, whose contents come by [`Self::contents`], `size` bytes in all.
    ///
    /// # Errors
    /// What the writer gives.
    pub fn file(&mut self, name: &[u8], executable: bool, size: u64) -> io::Result<()> {
        self.entry(name, Kind::File, if executable { 0o755 } else { 0o644 }, size, b"")?;
        self.file = Some((size, filling(size)));
        self.contents(b"")
    }

    /// Adds bytes of the file that was begun last.
    ///
    /// # Errors
    /// What the writer gives, and more bytes than were announced.
    pub fn contents(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((left, filling)) = self.file else {
            return if bytes.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) };
        };
        let left = left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        self.write(bytes)?;
        if left > 0 {
            self.file = Some((left, filling));
            return Ok(());
        }
        self.file = None;
        self.write(&[0; BLOCK][..filling])
    }

    /// Ends the archive and gives the writer back.
    ///
    /// # Errors
    /// What the writer gives, and a file whose contents are not whole.
    pub fn finish(mut self) -> io::Result<W> {
        if self.file.is_some() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.write(&[0; 2 * BLOCK])?;
        while !self.size.is_multiple_of(RECORD) {
            self.write(&[0; BLOCK])?;
        }
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn entry(&mut self, name: &[u8], kind: Kind, mode: u64, size: u64, target: &[u8]) -> io::Result<()> {
        if self.file.is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if target.len() > SHORT {
            self.long(Kind::LongTarget, target)?;
        }
        if name.len() > SHORT {
            self.long(Kind::LongName, name)?;
        }
        self.write(&header(name, kind, mode, size, 1, target))
    }

    /// Writes a name or target that the next header has no room for.
    fn long(&mut self, kind: Kind, text: &[u8]) -> io::Result<()> {
        let size = text.len() as u64 + 1;
        self.write(&header(b"././@LongLink", kind, 0o644, size, 0, b""))?;
        self.write(text)?;
        self.write(&[0; BLOCK + 1][..1 + filling(size)])
    }
}

/// Gives the bytes that fill up the last block of a file.
fn filling(size: u64) -> usize {
    // Less than a block.
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn header(name: &[u8], kind: Kind, mode: u64, size: u64, time: u64, target: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let name = &name[..name.len().min(SHORT)];
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], mode);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    if size < 1 << 33 {
        octal(&mut block[124..136], size);
    } else {
        // What eleven octal digits cannot say is said in binary.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    octal(&mut block[136..148], time);
    block[148..156].fill(b' ');
    block[156] = match kind {
        Kind::File => b'0',
        Kind::Symlink => b'2',
        Kind::Directory => b'5',
        Kind::LongName => b'L',
        Kind::LongTarget => b'K',
    };
    let target = &target[..target.len().min(SHORT)];
    block[157..157 + target.len()].copy_from_slice(target);
    block[257..265].copy_from_slice(b"ustar  \0");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Writes octal digits to the last byte but one; that stays zero.
fn octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        // Below eight.
        *place = b'0' + (number & 7) as u8;
        number >>= 3;
    }
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn gnu_tar_writes_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        let long = "x".repeat(120);
        fs::create_dir_all(top.join("sub").join(&long)).unwrap();
        fs::write(top.join("a"), vec![7; 1000]).unwrap();
        fs::write(top.join("empty"), "").unwrap();
        fs::write(top.join("sub/run"), vec![8; 512]).unwrap();
        fs::set_permissions(top.join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(top.join("empty"), fs::Permissions::from_mode(0o644)).unwrap();
        for directory in ["", "sub", &format!("sub/{long}")] {
            fs::set_permissions(top.join(directory), fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink("a", top.join("link")).unwrap();
        std::os::unix::fs::symlink(long.repeat(2), top.join("sub").join(&long).join("long")).unwrap();

        let mut tar = Tar::new(Vec::new());
        tar.directory(b"top").unwrap();
        tar.file(b"top/a", false, 1000).unwrap();
        tar.contents(&[7; 600]).unwrap();
        tar.contents(&[7; 400]).unwrap();
        tar.file(b"top/empty", false, 0).unwrap();
        tar.symlink(b"top/link", b"a").unwrap();
        tar.directory(b"top/sub").unwrap();
        tar.file(b"top/sub/run", true, 512).unwrap();
        tar.contents(&[8; 512]).unwrap();
        tar.directory(format!("top/sub/{long}").as_bytes()).unwrap();
        tar.symlink(format!("top/sub/{long}/long").as_bytes(), long.repeat(2).as_bytes()).unwrap();
        let size = tar.size();
        let ours = tar.finish().unwrap();
        assert!(ours.len() as u64 >= size + 1024 && ours.len().is_multiple_of(10_240));

        let gnu = Command::new("tar")
            .args(["--format=gnu", "--sort=name", "--mtime=@1", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["-cf", "-", "top"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(gnu.status.success());
        assert!(gnu.stdout == ours, "the archives differ");
    }

    #[test]
    fn files_beyond_eight_gigabytes_say_so_in_binary() {
        let block = header(b"a", Kind::File, 0o644, 9 << 30, 1, b"");
        assert_eq!(block[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0]);
    }

    #[test]
    fn contents_must_be_what_was_announced() {
        let mut tar = Tar::new(Vec::new());
        tar.file(b"a", false, 2).unwrap();
        tar.contents(b"x").unwrap();
        tar.contents(b"yz").unwrap_err();
        tar.file(b"b", false, 0).unwrap_err();
        tar.finish().unwrap_err();
    }
}
