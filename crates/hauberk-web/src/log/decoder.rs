//! Gzip, as far as it is there.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// A header longer than this is not one of ours.
const LONGEST_HEADER: usize = 4096;

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const HEADER_CRC: u8 = 2;

/// What is wrong with a gzip stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// It does not begin as one.
    #[error("not a gzip file")]
    NotGzip,
    /// What is packed cannot be unpacked.
    #[error("damaged deflate stream")]
    Deflate,
    /// It gave another text than was packed.
    #[error("checksum differs")]
    Checksum,
}

/// Decodes one gzip member that comes in pieces, cut anywhere.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    inflate: Decompress,
    crc: Crc,
    /// Header or trailer, while it is not all there.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
    Trailer,
    End,
}

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes of the input that were used.
    pub(crate) consumed: usize,
    /// Bytes of the output that were written.
    pub(crate) produced: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: State::Header, inflate: Decompress::new(false), crc: Crc::new(), held: Vec::new() }
    }

    /// Tells whether the trailer was reached and agrees. What follows it is not looked at.
    pub(crate) fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// Decodes some of `input` into `output`. Nothing consumed and nothing produced: it needs more of one of them.
    pub(crate) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, DecodeError> {
        let mut consumed = 0;
        let mut produced = 0;
        loop {
            match self.state {
                State::Header => {
                    let Some(&byte) = input.get(consumed) else { break };
                    consumed += 1;
                    self.held.push(byte);
                    if header_is_complete(&self.held)? {
                        self.held.clear();
                        self.state = State::Body;
                    } else if self.held.len() > LONGEST_HEADER {
                        return Err(DecodeError::NotGzip);
                    }
                }
                State::Body => {
                    let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
                    let rest = &mut output[produced..];
                    let status = self
                        .inflate
                        .decompress(&input[consumed..], rest, FlushDecompress::None)
                        .map_err(|_| DecodeError::Deflate)?;
                    let (used, made) =
                        (self.inflate.total_in() - before_in, self.inflate.total_out() - before_out);
                    // Both are at most the length of a slice.
                    let (used, made) = (used as usize, made as usize);
                    self.crc.update(&rest[..made]);
                    consumed += used;
                    produced += made;
                    match status {
                        Status::StreamEnd => self.state = State::Trailer,
                        Status::Ok | Status::BufError if used == 0 && made == 0 => break,
                        Status::Ok | Status::BufError => {
                            if produced == output.len() {
                                break;
                            }
                        }
                    }
                }
                State::Trailer => {
                    let Some(&byte) = input.get(consumed) else { break };
                    consumed += 1;
                    self.held.push(byte);
                    if let Ok(trailer) = <[u8; 8]>::try_from(self.held.as_slice()) {
                        let expected = u64::from_le_bytes(trailer);
                        let found = u64::from(self.crc.sum()) | (u64::from(self.crc.amount()) << 32);
                        if expected != found {
                            return Err(DecodeError::Checksum);
                        }
                        self.state = State::End;
                    }
                }
                State::End => break,
            }
        }
        Ok(Progress { consumed, produced })
    }
}

/// Tells whether `held` is a whole gzip header (RFC 1952). It is asked after each byte.
fn header_is_complete(held: &[u8]) -> Result<bool, DecodeError> {
    let magic = [0x1f, 0x8b, 8];
    if held.iter().zip(magic).any(|(found, expected)| *found != expected) {
        return Err(DecodeError::NotGzip);
    }
    let Some(flags) = held.get(3).copied() else { return Ok(false) };
    let mut at = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = held.get(at..at + 2) else { return Ok(false) };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let Some(end) = held.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else {
                return Ok(false);
            };
            at += end + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        at += 2;
    }
    Ok(held.len() >= at)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut writer = GzBuilder::new()
            .filename("a.log")
            .comment("c")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::fast());
        for piece in text.chunks(1000) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    fn decode_in_pieces(input: &[u8], piece: usize, room: usize) -> (Vec<u8>, Decoder) {
        let mut decoder = Decoder::new();
        let mut text = Vec::new();
        let mut output = vec![0; room];
        for part in input.chunks(piece) {
            let mut rest = part;
            loop {
                let Progress { consumed, produced } = decoder.decode(rest, &mut output).unwrap();
                text.extend_from_slice(&output[..produced]);
                rest = &rest[consumed..];
                if consumed == 0 && produced == 0 {
                    break;
                }
            }
            assert!(rest.is_empty());
        }
        (text, decoder)
    }

    #[test]
    fn text_comes_back_however_it_is_cut() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let file = gzip(&text);
        for (piece, room) in [(1, 1), (7, 100), (64, 7), (100_000, 65536)] {
            let (found, decoder) = decode_in_pieces(&file, piece, room);
            assert!(found == text, "{piece} {room}");
            assert!(decoder.is_at_end());
        }
    }

    #[test]
    fn a_cut_tail_gives_what_is_there() {
        let text = b"line\n".repeat(2000);
        let file = gzip(&text);
        for end in [0, 5, 12, 40, file.len() - 8, file.len() - 1] {
            let (found, decoder) = decode_in_pieces(&file[..end], 16, 64);
            assert!(text.starts_with(&found));
            assert!(!decoder.is_at_end());
        }
        let (found, _) = decode_in_pieces(&file[..file.len() - 8], 16, 64);
        assert!(found == text);
    }

    #[test]
    fn junk_is_an_error_and_nothing_worse() {
        let mut output = [0; 64];
        assert_eq!(Decoder::new().decode(b"<html>", &mut output), Err(DecodeError::NotGzip));
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let bad = [&header[..], &[0xff; 40]].concat();
        assert_eq!(Decoder::new().decode(&bad, &mut output), Err(DecodeError::Deflate));
        let mut file = gzip(b"text");
        let at = file.len() - 8;
        file[at] ^= 1;
        assert_eq!(Decoder::new().decode(&file, &mut output), Err(DecodeError::Checksum));
        let endless = [&[0x1f, 0x8b, 8, NAME, 0, 0, 0, 0, 0, 3][..], &[b'x'; 2 * LONGEST_HEADER]].concat();
        assert_eq!(Decoder::new().decode(&endless, &mut output), Err(DecodeError::NotGzip));
    }
}
