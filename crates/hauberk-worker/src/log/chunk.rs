//! One chunk of a log: text in, raw deflate ended by a full flush out.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Text that makes a chunk without waiting for the flush interval, in bytes.
pub(crate) const CHUNK_TEXT: usize = 64 * 1024;

/// The fastest level: build logs shrink to a tenth with it, and builders want the processor.
const LEVEL: u32 = 1;

thread_local! {
    /// A full flush forgets the dictionary, so that one compressor per thread serves all logs.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
}

/// Compresses `text` to whole deflate blocks that end with a full flush. Chunks put one behind the other are one raw
/// deflate stream without its final block.
pub(crate) fn deflate(text: &[u8]) -> Vec<u8> {
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        // Stored blocks cost five bytes each 16 KiB at worst; the flush marker costs five more.
        let mut stream = Vec::with_capacity(text.len() / 4 + 256);
        loop {
            let consumed = usize::try_from(compress.total_in()).unwrap_or(text.len());
            let rest = text.get(consumed..).unwrap_or_default();
            if stream.capacity() - stream.len() < 256 {
                stream.reserve(text.len() / 2 + 1024);
            }
            let before = stream.len();
            // `compress_vec` fails only for a misused stream state, which `reset` rules out; a stalled call ends the loop.
            let status = compress.compress_vec(rest, &mut stream, FlushCompress::Full);
            let room_left = stream.len() < stream.capacity();
            let all_taken = compress.total_in() as usize == text.len();
            if all_taken && room_left {
                return stream;
            }
            if !matches!(status, Ok(Status::Ok)) && stream.len() == before && room_left {
                return stream;
            }
        }
    })
}

/// Why stored chunks cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the compressed log is damaged")]
pub(crate) struct Damaged;

/// Uncompresses `stream`, whole chunks as [`deflate`] makes them, into text of at most `limit` bytes.
///
/// # Errors
/// [`Damaged`] when `stream` is not whole chunks or holds more text.
pub(crate) fn inflate(stream: &[u8], limit: usize) -> Result<Vec<u8>, Damaged> {
    let mut inflate = Decompress::new(false);
    let mut text = Vec::new();
    let mut rest = stream;
    loop {
        if text.len() == text.capacity() {
            text.reserve(CHUNK_TEXT);
        }
        let (taken, made) = (inflate.total_in(), text.len());
        let status = inflate.decompress_vec(rest, &mut text, FlushDecompress::Sync).map_err(|_| Damaged)?;
        let step = usize::try_from(inflate.total_in() - taken).map_err(|_| Damaged)?;
        rest = rest.get(step..).ok_or(Damaged)?;
        if text.len() > limit || matches!(status, Status::StreamEnd) {
            return Err(Damaged);
        }
        if rest.is_empty() && text.len() < text.capacity() {
            return Ok(text);
        }
        if step == 0 && text.len() == made && text.len() < text.capacity() {
            return Err(Damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// The gzip file a server makes of chunks: one header, the chunks, a final empty block, one trailer.
    fn gzip_file(chunks: &[Vec<u8>], crc: u32, length: u32) -> Vec<u8> {
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        for chunk in chunks {
            file.extend_from_slice(chunk);
        }
        file.extend_from_slice(&[0x03, 0x00]);
        file.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&length.to_le_bytes());
        file
    }

    fn texts() -> Vec<Vec<u8>> {
        let mut noise = Vec::new();
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise.push((state >> 33) as u8);
        }
        vec![
            b"unpacking sources\n".to_vec(),
            b"checking for gcc... gcc\n".repeat(5_000),
            noise,
            Vec::new(),
            b"\xff\x00\x1b[31mnot text\x1b[0m".to_vec(),
        ]
    }

    #[test]
    fn the_real_gzip_accepts_the_chunks_between_header_and_trailer() {
        let (mut crc, mut chunks, mut whole) = (flate2::Crc::new(), Vec::new(), Vec::new());
        for text in texts() {
            chunks.push(deflate(&text));
            crc.update(&text);
            whole.extend_from_slice(&text);
        }
        let file = gzip_file(&chunks, crc.sum(), crc.amount());
        let mut gzip = Command::new("gzip")
            .args(["-d", "-c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip is installed");
        let mut input = gzip.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&file).unwrap());
        let output = gzip.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == whole);
    }

    #[test]
    fn every_prefix_of_whole_chunks_is_readable() {
        let mut stream = Vec::new();
        let mut text = Vec::new();
        for part in texts() {
            stream.extend_from_slice(&deflate(&part));
            text.extend_from_slice(&part);
            assert!(inflate(&stream, text.len()).unwrap() == text);
        }
    }

    #[test]
    fn damage_and_excess_are_noticed() {
        let stream = deflate(&b"line\n".repeat(100));
        assert!(inflate(&stream, 10).is_err());
        assert!(inflate(&[7, 255, 255, 255], 1_000).is_err());
    }

    #[test]
    fn log_text_shrinks() {
        let text = b"gcc -O2 -c -o foo.o foo.c\n".repeat(2_000);
        assert!(deflate(&text).len() * 5 < text.len());
    }
}
