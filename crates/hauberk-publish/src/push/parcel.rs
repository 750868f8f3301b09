//! Parcels: items on their way, packed together.
//!
//! A parcel is a zstd stream of items, each after all it refers to: the length of its narinfo (four bytes, the least significant first), the
//! narinfo, which names no place, and its nar, unpacked. One packs thousands of derivations, which are much alike, or one large source.

use std::{
    io::{self, Cursor, Read},
    path::PathBuf,
};

use hauberk_daemon::PathInfo;
use hauberk_store::{
    NarInfo, Sha256, StoreDirectory, StorePath,
    hash::encode_base16,
    narinfo::{self, Compression, NarInfoError, NarUrl},
};

use crate::{describe::describe, stream::NarReader};

/// Level of zstd for parcels.
const ZSTD_LEVEL: i32 = 3;

/// Largest window of a parcel that is unpacked, as a power of two.
const WINDOW: u32 = 27;

/// Names a parcel after the paths in it, so that whoever sends the same ones goes on where another stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ParcelName(String);

impl ParcelName {
    /// Digits of a name.
    const DIGITS: usize = 64;

    /// Names the parcel of these items.
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let mut text = String::new();
        paths.into_iter().for_each(|path| {
            text.push_str(path.base_name());
            text.push('\n');
        });
        Self(encode_base16(Sha256::digest(text.as_bytes()).as_bytes()))
    }

    /// Reads a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == Self::DIGITS && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// Gives its text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An item to be sent.
#[derive(Debug, Clone)]
pub struct PushedItem {
    /// What its store says of it.
    pub info: PathInfo,
    /// Where it is.
    pub file: PathBuf,
}

/// Reads a parcel of items, packed.
pub(crate) fn pack(items: Vec<PushedItem>) -> io::Result<impl Read> {
    let source = Unpacked { items: items.into_iter(), part: Part::Header(Cursor::default(), None) };
    zstd::stream::read::Encoder::new(source, ZSTD_LEVEL)
}

/// The bytes of a parcel before they are packed.
struct Unpacked {
    items: std::vec::IntoIter<PushedItem>,
    part: Part,
}

enum Part {
    /// What stands before a nar, and the item whose nar follows.
    Header(Cursor<Vec<u8>>, Option<Box<PushedItem>>),
    /// A nar, with the bytes that are left of it, and its path.
    Nar(Box<NarReader>, u64, StorePath),
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.part {
                Part::Header(header, item) => {
                    let count = header.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        return Ok(count);
                    }
                    match item.take() {
                        Some(item) => {
                            let nar = Box::new(NarReader::open(&item.file)?);
                            self.part = Part::Nar(nar, item.info.nar_size, item.info.path);
                        }
                        None => match self.items.next() {
                            Some(item) => {
                                self.part = Part::Header(Cursor::new(header_of(&item)), Some(Box::new(item)));
                            }
                            None => return Ok(0),
                        },
                    }
                }
                Part::Nar(nar, left, path) => {
                    let count = nar.read(buffer)?;
                    let changed =
                        || io::Error::other(format!("{path} is not what its store says: repair it"));
                    *left = left.checked_sub(count as u64).ok_or_else(changed)?;
                    if count > 0 {
                        return Ok(count);
                    }
                    if *left > 0 {
                        return Err(changed());
                    }
                    self.part = Part::Header(Cursor::default(), None);
                }
            }
        }
    }
}

fn header_of(item: &PushedItem) -> Vec<u8> {
    let mut narinfo = describe(&item.info);
    // They count for nothing where it goes.
    (narinfo.deriver, narinfo.signatures) = (None, Vec::new());
    narinfo.urls = vec![NarUrl {
        url: "nar".to_owned(),
        compression: Compression::None,
        file_size: None,
        file_hash: None,
    }];
    let text = narinfo.to_string();
    let mut header = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    header
}

/// Why a parcel cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParcelError {
    #[error("the parcel cannot be read")]
    Read(#[source] io::Error),
    #[error("the parcel has a narinfo of {0} bytes")]
    Header(u32),
    #[error("the parcel has a malformed narinfo")]
    NarInfo(#[source] NarInfoError),
}

/// Unpacks a parcel: for each item what it is said to be, and then its nar.
pub(crate) struct Parcel<R: Read> {
    unpacked: zstd::stream::read::Decoder<'static, io::BufReader<R>>,
}

impl<R: Read> Parcel<R> {
    /// Unpacks what `packed` gives.
    pub(crate) fn new(packed: R) -> Result<Self, ParcelError> {
        let mut unpacked =
            zstd::stream::read::Decoder::new(packed).map_err(ParcelError::Read)?.single_frame();
        unpacked.window_log_max(WINDOW).map_err(ParcelError::Read)?;
        Ok(Self { unpacked })
    }

    /// Gives what the next item is said to be; nothing after the last.
    pub(crate) fn next(&mut self, directory: &StoreDirectory) -> Result<Option<NarInfo>, ParcelError> {
        let mut length = [0; 4];
        let first = self.unpacked.read(&mut length[..1]).map_err(ParcelError::Read)?;
        if first == 0 {
            let packed = self.unpacked.get_mut();
            let more = io::BufRead::fill_buf(packed).map_err(ParcelError::Read)?;
            let trailing = || io::Error::other("bytes follow its end");
            return if more.is_empty() { Ok(None) } else { Err(ParcelError::Read(trailing())) };
        }
        self.unpacked.read_exact(&mut length[1..]).map_err(ParcelError::Read)?;
        let length = u32::from_le_bytes(length);
        if length as usize > narinfo::MAX_SIZE {
            return Err(ParcelError::Header(length));
        }
        let mut text = Vec::new();
        let count = self.unpacked.by_ref().take(length.into()).read_to_end(&mut text);
        if count.map_err(ParcelError::Read)? < length as usize {
            return Err(ParcelError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let text = String::from_utf8_lossy(&text);
        NarInfo::parse(directory, &text).map(Some).map_err(ParcelError::NarInfo)
    }

    /// Gives `size` bytes, those of a nar, in pieces.
    pub(crate) fn nar<E: From<ParcelError>>(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(CHUNK)];
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.unpacked.read(&mut buffer[..room]) {
                Ok(0) => return Err(ParcelError::Read(io::ErrorKind::UnexpectedEof.into()).into()),
                Ok(count) => {
                    left -= count as u64;
                    take(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ParcelError::Read(error).into()),
            }
        }
        Ok(())
    }
}

/// Bytes unpacked at a time.
const CHUNK: usize = 128 * 1024;
