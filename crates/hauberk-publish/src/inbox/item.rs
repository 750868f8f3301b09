//! What is known of one path that was asked for.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use hauberk_store::{NarInfo, StorePath};

/// What is known of one path that was asked for.
#[derive(Debug)]
pub(super) struct Item {
    /// The path.
    pub(super) path: StorePath,
    /// What was said of it; `Some(None)` if it is not to be had.
    pub(super) narinfo: Option<Option<NarInfo>>,
    /// Most bytes that its nar's file may have; none may come before the narinfo.
    pub(super) limit: u64,
    /// Bytes of its nar's file that are here.
    pub(super) length: u64,
    /// Whether that is all.
    pub(super) complete: bool,
    /// Whether some of them came to an earlier reception.
    pub(super) resumed: bool,
    file: PathBuf,
}

impl Item {
    /// An item whose nar goes into `file`, of which an earlier reception may have had a part.
    pub(super) fn new(path: StorePath, file: PathBuf) -> Self {
        let length = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        Self { path, narinfo: None, limit: 0, length, complete: false, resumed: length > 0, file }
    }

    /// Adds a piece at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.open()?;
        if let Err(error) = file.write_all_at(bytes, self.length) {
            // Half a piece would be of no harm; the disk may be full, though.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Opens what is here. The directory is made when something comes for the first time: of most attempts nothing does, as their
    /// outputs are known already.
    pub(super) fn open(&self) -> io::Result<File> {
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&self.file);
        match (open(), self.file.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(directory)?;
                open()
            }
            (opened, _) => opened,
        }
    }

    /// Removes what is here of its nar.
    pub(super) fn forget(&mut self) {
        // What cannot be removed now is removed with the directory.
        let _ = fs::remove_file(&self.file);
        (self.length, self.complete, self.resumed) = (0, false, false);
    }
}
