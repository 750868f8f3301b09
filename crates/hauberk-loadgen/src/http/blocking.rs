//! One client that waits for each answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{any_head, head, request};
use anyhow::{Context, Result, bail};

/// Bytes received at a time, at most.
const BUFFER: usize = 1 << 20;
/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one connection.
pub(crate) struct BlockingClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl BlockingClient {
    /// Connects to a port of this host.
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        stream.set_nodelay(true).context("setting nodelay")?;
        stream.set_read_timeout(Some(PATIENCE)).context("setting a timeout")?;
        Ok(Self { stream, buffer: vec![0; BUFFER] })
    }

    /// Asks for a file and takes all of it. Gives its length in bytes.
    pub(crate) fn get(&mut self, path: &str) -> Result<u64> {
        self.stream.write_all(&request(path)).context("asking")?;
        let (mut filled, mut expected) = (0, None);
        while expected.is_none() {
            let count = self.stream.read(&mut self.buffer[filled..]).context("receiving a head")?;
            if count == 0 {
                bail!("{path}: the connection ended");
            }
            filled += count;
            expected = head(&self.buffer[..filled])?;
        }
        let (head, length) = expected.context("an answer has no head")?;
        let mut left =
            (head as u64 + length).checked_sub(filled as u64).context("more came than was announced")?;
        while left > 0 {
            match self.stream.read(&mut self.buffer).context("receiving")? {
                0 => bail!("{path}: the connection ended, {left} bytes early"),
                count => left = left.checked_sub(count as u64).context("more came than was announced")?,
            }
        }
        Ok(length)
    }

    /// Asks for a file, whose bytes are read from what is given back.
    pub(crate) fn download(&mut self, path: &str) -> Result<Download<'_>> {
        self.stream.write_all(&request(path)).context("asking")?;
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[filled..]).context("receiving a head")?;
            if count == 0 {
                bail!("{path}: the connection ended");
            }
            filled += count;
            if let Some((at, length)) = any_head(&self.buffer[..filled])? {
                let left = length.map_or(Left::Chunks, Left::Bytes);
                return Ok(Download { client: self, at, filled, left });
            }
        }
    }

    /// Gives the bytes of a whole answer, head and body.
    pub(crate) fn answer_size(&mut self, path: &str) -> Result<usize> {
        self.stream.write_all(&request(path)).context("asking")?;
        let mut filled = 0;
        loop {
            filled += self.stream.read(&mut self.buffer[filled..]).context("receiving")?;
            if let Some((head, length)) = head(&self.buffer[..filled])? {
                let size = head + usize::try_from(length)?;
                if filled >= size {
                    return Ok(size);
                }
            }
        }
    }

    /// Asks for files whose answers, with `size` bytes each, are known to it, one after the other, for `span`. Gives the
    /// number of answers in a second.
    pub(crate) fn ask_again(&mut self, requests: &[Vec<u8>], size: usize, span: Duration) -> Result<f64> {
        let (began, mut count) = (Instant::now(), 0_u64);
        let mut next = requests.iter().cycle();
        while count % 64 != 0 || began.elapsed() < span {
            self.stream.write_all(next.next().context("nothing to ask for")?).context("asking")?;
            let mut left = size;
            while left > 0 {
                match self.stream.read(&mut self.buffer).context("receiving")? {
                    0 => bail!("the connection ended after {count} answers"),
                    received => {
                        left = left.checked_sub(received).context("an answer is longer than before")?;
                    }
                }
            }
            count += 1;
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// The content of an answer, read to its end.
pub(crate) struct Download<'a> {
    client: &'a mut BlockingClient,
    /// What of the client's buffer was received and not read yet.
    at: usize,
    filled: usize,
    left: Left,
}

/// What is to come.
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// A chunk whose length is told first, or the end.
    Chunks,
    /// So many bytes of a chunk, and then others.
    Chunk(u64),
    /// Nothing.
    Nothing,
}

impl Download<'_> {
    fn fill(&mut self) -> io::Result<()> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, self.client.stream.read(&mut self.client.buffer)?);
            if self.filled == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        loop {
            self.fill()?;
            match self.client.buffer[self.at] {
                b'\n' => {
                    self.at += 1;
                    return Ok(line);
                }
                b'\r' => {}
                byte => line.push(char::from(byte)),
            }
            self.at += 1;
        }
    }

    fn take(&mut self, left: u64, into: &mut [u8]) -> io::Result<usize> {
        if left == 0 || into.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let here = &self.client.buffer[self.at..self.filled];
        let count = here.len().min(into.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        into[..count].copy_from_slice(&here[..count]);
        self.at += count;
        Ok(count)
    }
}

impl Read for Download<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.left {
                Left::Nothing => return Ok(0),
                Left::Bytes(left) => {
                    let count = self.take(left, into)?;
                    self.left = Left::Bytes(left - count as u64);
                    return Ok(count);
                }
                Left::Chunk(left) if left > 0 => {
                    let count = self.take(left, into)?;
                    self.left = Left::Chunk(left - count as u64);
                    return Ok(count);
                }
                Left::Chunk(_) => {
                    self.line()?;
                    self.left = Left::Chunks;
                }
                Left::Chunks => {
                    let line = self.line()?;
                    let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
                    if size == 0 {
                        self.line()?;
                        self.left = Left::Nothing;
                    } else {
                        self.left = Left::Chunk(size);
                    }
                }
            }
        }
    }
}
