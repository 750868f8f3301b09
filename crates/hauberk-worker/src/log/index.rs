//! The index of a spooled log: where each chunk ends, and the totals there.
//!
//! One fixed record per chunk, appended after the chunk's bytes were written. A worker that died reads it to cut a torn
//! chunk off and to go on with the right totals.

/// Bytes of one record.
pub(crate) const RECORD: usize = 32;

const ENDED: u32 = 1;
const TRUNCATED: u32 = 2;

/// The state of a log at the end of one of its chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Bytes of the deflate stream so far.
    pub(crate) stream: u64,
    /// Bytes of text so far.
    pub(crate) text: u64,
    /// CRC-32 of the text so far.
    pub(crate) crc32: u32,
    /// Nothing comes behind this chunk.
    pub(crate) ended: bool,
    /// Text was left out behind this chunk.
    pub(crate) truncated: bool,
}

impl Mark {
    /// The record as it is appended to the index.
    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let flags = if self.ended { ENDED } else { 0 } | if self.truncated { TRUNCATED } else { 0 };
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.stream.to_le_bytes());
        record[8..16].copy_from_slice(&self.text.to_le_bytes());
        record[16..20].copy_from_slice(&self.crc32.to_le_bytes());
        record[20..24].copy_from_slice(&flags.to_le_bytes());
        let check = crc32fast::hash(&record[..28]);
        record[28..].copy_from_slice(&check.to_le_bytes());
        record
    }

    /// Reads one record; `None` when it is torn or damaged.
    pub(crate) fn decode(record: &[u8; RECORD]) -> Option<Self> {
        let long = |at: usize| record.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let short = |at: usize| record.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        if short(28)? != crc32fast::hash(&record[..28]) {
            return None;
        }
        let flags = short(20)?;
        Some(Self {
            stream: long(0)?,
            text: long(8)?,
            crc32: short(16)?,
            ended: flags & ENDED != 0,
            truncated: flags & TRUNCATED != 0,
        })
    }

    /// Reads the records of an index up to the first that is torn, damaged or goes backwards.
    pub(crate) fn decode_all(index: &[u8]) -> Vec<Self> {
        let mut marks: Vec<Self> = Vec::new();
        for record in index.as_chunks::<RECORD>().0 {
            match Self::decode(record) {
                Some(mark) if marks.last().is_none_or(|last| last.stream <= mark.stream && !last.ended) => {
                    marks.push(mark);
                }
                _ => break,
            }
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_torn_ones_end_the_index() {
        let marks = [
            Mark { stream: 10, text: 100, crc32: 7, ended: false, truncated: false },
            Mark { stream: 30, text: 200, crc32: 9, ended: false, truncated: true },
            Mark { stream: 30, text: 200, crc32: 9, ended: true, truncated: true },
        ];
        let index: Vec<u8> = marks.iter().flat_map(Mark::encode).collect();
        assert_eq!(Mark::decode_all(&index), marks);
        for length in 0..index.len() {
            assert_eq!(Mark::decode_all(&index[..length]), marks[..length / RECORD]);
        }
        let mut damaged = index;
        damaged[RECORD + 3] ^= 1;
        assert_eq!(Mark::decode_all(&damaged), marks[..1]);
    }
}
