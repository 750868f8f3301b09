//! A result as it lies on the disk: magic, length, CRC-32, message.

use hauberk_protocol::proto::Finished;
use prost::Message as _;

const MAGIC: &[u8; 8] = b"HBKRES1\n";
const HEAD: usize = MAGIC.len() + 8;

/// Writes a result down.
pub(super) fn encode(finished: &Finished) -> Vec<u8> {
    let body = finished.encode_to_vec();
    let mut record = Vec::with_capacity(HEAD + body.len());
    record.extend_from_slice(MAGIC);
    // A result beyond the frame limit of 8 MiB is never made.
    record.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    record.extend_from_slice(&body);
    record
}

/// Reads a result; `None` when it is torn or damaged.
pub(super) fn decode(record: &[u8]) -> Option<Finished> {
    let body = record.strip_prefix(MAGIC)?;
    let (length, body) = body.split_at_checked(4)?;
    let (check, body) = body.split_at_checked(4)?;
    if u32::from_le_bytes(length.try_into().ok()?) as usize != body.len()
        || u32::from_le_bytes(check.try_into().ok()?) != crc32fast::hash(body)
    {
        return None;
    }
    Finished::decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let finished =
            Finished { attempt: 7, message: "built".to_owned(), build_ms: 12, ..Finished::default() };
        let record = encode(&finished);
        assert_eq!(decode(&record), Some(finished));
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length]), None, "{length}");
        }
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), None, "{at}");
        }
    }
}
