//! A log file: one gzip member whose deflate stream comes from the worker.
//!
//! The header is written first, then the stream as it comes, and at the end one final empty block and the trailer. The worker ends
//! every chunk with a full flush, so that the text of all whole chunks can be read while the file grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// RFC 1952: deflate, no name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final block of fixed Huffman codes.
const FINAL_BLOCK: [u8; 2] = [0x03, 0x00];
/// How a full flush ends.
const FLUSH_MARK: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Final block, CRC-32 and length of the text.
const TRAILER: u64 = 10;

/// A log file that is being written.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    /// Bytes of the stream that are there.
    offset: u64,
}

impl LogFile {
    /// Opens the log at `path`, which is made with its folder if it is not there. What an earlier process has written is kept; a
    /// trailer at its end is taken off again, for the worker to end the log once more.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Appending leaves no hole in a file that somebody has cut meanwhile.
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut length = file.seek(SeekFrom::End(0))?;
        let mut header = [0; HEADER.len()];
        let intact = length >= HEADER.len() as u64 && {
            file.seek(SeekFrom::Start(0))?;
            file.read_exact(&mut header)?;
            header == HEADER
        };
        if !intact {
            begin(&mut file)?;
            length = HEADER.len() as u64;
        }
        let mut log = Self { file, path: path.to_owned(), offset: length - HEADER.len() as u64 };
        if log.has_trailer()? {
            log.offset -= TRAILER;
            log.cut()?;
        }
        Ok(log)
    }

    /// Whether a flush mark, the final block and eight more bytes are the end of the file.
    fn has_trailer(&mut self) -> io::Result<bool> {
        let mark = TRAILER + FLUSH_MARK.len() as u64;
        if self.offset == TRAILER {
            let mut end = [0; FINAL_BLOCK.len()];
            self.file.seek(SeekFrom::Start(HEADER.len() as u64))?;
            self.file.read_exact(&mut end)?;
            return Ok(end == FINAL_BLOCK);
        }
        if self.offset < mark {
            return Ok(false);
        }
        let mut end = [0; FLUSH_MARK.len() + FINAL_BLOCK.len()];
        self.file.seek(SeekFrom::Start(HEADER.len() as u64 + self.offset - mark))?;
        self.file.read_exact(&mut end)?;
        Ok(end[..FLUSH_MARK.len()] == FLUSH_MARK && end[FLUSH_MARK.len()..] == FINAL_BLOCK)
    }

    /// Bytes of the stream that are there.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a part of the stream that begins at `offset`. What is there already is passed over; a part that would leave a hole
    /// is not written. An error leaves the file as it was.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(known) = self.offset.checked_sub(offset).and_then(|known| usize::try_from(known).ok())
        else {
            return Ok(());
        };
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else { return Ok(()) };
        if let Err(error) = self.file.write_all(new) {
            self.cut()?;
            return Err(error);
        }
        self.offset += new.len() as u64;
        Ok(())
    }

    /// Ends the log. Gives the file, to be made durable, or nothing when the stream is not as long as it is said to be. A file that
    /// somebody else has cut or lengthened is begun anew, for the worker to send all of it again.
    pub(crate) fn finish(
        &mut self,
        stream_bytes: u64,
        text_bytes: u64,
        crc32: u32,
    ) -> io::Result<Option<File>> {
        if stream_bytes != self.offset {
            return Ok(None);
        }
        if self.file.metadata()?.len() != HEADER.len() as u64 + self.offset {
            begin(&mut self.file)?;
            self.offset = 0;
            return Ok(None);
        }
        let mut end = FINAL_BLOCK.to_vec();
        end.extend_from_slice(&crc32.to_le_bytes());
        // RFC 1952: the length modulo 2^32.
        end.extend_from_slice(&text_bytes.to_le_bytes()[..4]);
        match self.file.write_all(&end).and_then(|()| self.file.try_clone()) {
            Ok(file) => Ok(Some(file)),
            Err(error) => {
                self.cut()?;
                Err(error)
            }
        }
    }

    /// Makes the file end where the stream does.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(HEADER.len() as u64 + self.offset)
    }
}

/// Leaves nothing but the header in `file`.
fn begin(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(&HEADER)
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, Crc, FlushCompress};

    use super::*;

    /// What a worker sends: chunks that each end with a full flush, and the check sum of the text.
    fn stream(parts: &[&[u8]]) -> (Vec<Vec<u8>>, u64, u32) {
        let mut compress = Compress::new(Compression::default(), false);
        let mut crc = Crc::new();
        let chunks = parts
            .iter()
            .map(|part| {
                crc.update(part);
                let mut chunk = Vec::with_capacity(part.len() + 100);
                compress.compress_vec(part, &mut chunk, FlushCompress::Full).unwrap();
                chunk
            })
            .collect();
        (chunks, parts.iter().map(|part| part.len() as u64).sum(), crc.sum())
    }

    fn gunzip(path: &Path) -> io::Result<Vec<u8>> {
        let output = std::process::Command::new("gzip").arg("-dc").arg(path).output()?;
        if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other("gzip refuses it")) }
    }

    fn readable(path: &Path) -> Vec<u8> {
        std::process::Command::new("gzip").arg("-dc").arg(path).output().unwrap().stdout
    }

    #[test]
    fn gzip_takes_the_file_whole_and_what_is_there_of_it_while_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0/1.gz");
        let (chunks, text_bytes, crc) = stream(&[b"one\n", b"two\n", b"three\n"]);
        let mut log = LogFile::open(&path).unwrap();
        log.write(0, &chunks[0]).unwrap();
        assert_eq!(readable(&path), b"one\n");
        log.write(log.offset(), &chunks[1]).unwrap();
        assert_eq!(readable(&path), b"one\ntwo\n");
        log.write(log.offset(), &chunks[2]).unwrap();
        assert!(log.finish(1, text_bytes, crc).unwrap().is_none());
        assert!(log.finish(log.offset(), text_bytes, crc).unwrap().is_some());
        assert_eq!(gunzip(&path).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn an_empty_log_is_a_gzip_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.gz");
        assert!(LogFile::open(&path).unwrap().finish(0, 0, 0).unwrap().is_some());
        assert_eq!(gunzip(&path).unwrap(), b"");
        assert!(LogFile::open(&path).unwrap().finish(0, 0, 0).unwrap().is_some());
        assert_eq!(gunzip(&path).unwrap(), b"");
    }

    #[test]
    fn repeated_and_overlapping_parts_are_written_once_and_holes_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.gz");
        let (chunks, text_bytes, crc) = stream(&[b"one\n", b"two\n"]);
        let whole: Vec<u8> = chunks.concat();
        let mut log = LogFile::open(&path).unwrap();
        log.write(5, &whole[5..]).unwrap();
        assert_eq!(log.offset(), 0);
        log.write(0, &whole[..7]).unwrap();
        log.write(0, &whole[..3]).unwrap();
        log.write(2, &whole[2..9]).unwrap();
        assert_eq!(log.offset(), 9);
        log.write(0, &whole).unwrap();
        assert_eq!(log.offset(), whole.len() as u64);
        assert!(log.finish(whole.len() as u64, text_bytes, crc).unwrap().is_some());
        assert_eq!(gunzip(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_new_process_goes_on_where_the_old_one_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.gz");
        let (chunks, text_bytes, crc) = stream(&[b"one\n", b"two\n"]);
        let whole: Vec<u8> = chunks.concat();
        for killed_after in 0..whole.len() {
            let _ = std::fs::remove_file(&path);
            LogFile::open(&path).unwrap().write(0, &whole[..killed_after]).unwrap();
            let mut log = LogFile::open(&path).unwrap();
            assert_eq!(log.offset(), killed_after as u64);
            log.write(0, &whole).unwrap();
            assert!(log.finish(whole.len() as u64, text_bytes, crc).unwrap().is_some());
            drop(log);
            // The trailer was written, but nobody was told.
            let mut log = LogFile::open(&path).unwrap();
            assert_eq!(log.offset(), whole.len() as u64);
            assert!(log.finish(whole.len() as u64, text_bytes, crc).unwrap().is_some());
            assert_eq!(gunzip(&path).unwrap(), b"one\ntwo\n");
        }
    }

    #[test]
    fn a_file_that_somebody_else_changes_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.gz");
        let (chunks, text_bytes, crc) = stream(&[b"one\n", b"two\n"]);
        let whole: Vec<u8> = chunks.concat();
        let changes: [fn(&File); 3] = [
            |file| file.set_len(0).unwrap(),
            |file| file.set_len(12).unwrap(),
            |mut file| file.write_all(b"junk").unwrap(),
        ];
        for change in changes {
            let mut log = LogFile::open(&path).unwrap();
            log.write(0, &chunks[0]).unwrap();
            change(&OpenOptions::new().append(true).open(&path).unwrap());
            log.write(log.offset(), &chunks[1]).unwrap();
            assert!(log.finish(whole.len() as u64, text_bytes, crc).unwrap().is_none());
            assert_eq!(log.offset(), 0);
            log.write(0, &whole).unwrap();
            assert!(log.finish(whole.len() as u64, text_bytes, crc).unwrap().is_some());
            assert_eq!(gunzip(&path).unwrap(), b"one\ntwo\n");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_no_log_of_ours_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.gz");
        for junk in [&b"x"[..], b"something else entirely"] {
            std::fs::write(&path, junk).unwrap();
            assert_eq!(LogFile::open(&path).unwrap().offset(), 0);
        }
    }
}
