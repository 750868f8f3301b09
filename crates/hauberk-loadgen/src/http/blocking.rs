//! One client that waits for each answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hauberk_store::Sha256;
use hauberk_store::hash::Sha256Hasher;

use super::{head, request};

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
        self.get_with(path, |_| ())
    }

    fn get_with(&mut self, path: &str, mut take: impl FnMut(&[u8])) -> Result<u64> {
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
        take(&self.buffer[head..filled]);
        while left > 0 {
            match self.stream.read(&mut self.buffer).context("receiving")? {
                0 => bail!("{path}: the connection ended, {left} bytes early"),
                count => {
                    take(&self.buffer[..count]);
                    left = left.checked_sub(count as u64).context("more came than was announced")?;
                }
            }
        }
        Ok(length)
    }

    /// Asks for a file, takes all of it and hashes it, as whoever verifies it must.
    pub(crate) fn get_hashed(&mut self, path: &str) -> Result<(u64, Sha256)> {
        let mut hasher = Sha256Hasher::new();
        let length = self.get_with(path, |bytes| hasher.update(bytes))?;
        Ok((length, hasher.finish().0))
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
