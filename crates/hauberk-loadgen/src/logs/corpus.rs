//! The text that is printed: real logs, from another line on for each build.

use std::io::Read as _;

use anyhow::{Context, Result, ensure};

/// See `tests/data/README.md`.
const LOGS: &[u8] = include_bytes!("../../../../tests/data/build-logs.tar.zst");

/// Lines between the beginnings of the texts of two builds that follow each other; a prime, so that they spread.
const STRIDE: usize = 7919;

/// The lines of some real build logs.
#[derive(Debug)]
pub(crate) struct Corpus {
    text: Vec<u8>,
    /// Where each line ends, behind its line feed.
    ends: Vec<usize>,
}

impl Corpus {
    /// Reads the logs that the program carries.
    pub(crate) fn load() -> Result<Self> {
        let mut archive = tar::Archive::new(zstd::Decoder::new(LOGS).context("unpacking the carried logs")?);
        let mut text = Vec::new();
        for entry in archive.entries().context("reading the carried logs")? {
            entry.and_then(|mut entry| entry.read_to_end(&mut text)).context("reading a carried log")?;
            if text.last().is_some_and(|last| *last != b'\n') {
                text.push(b'\n');
            }
        }
        Self::of(text)
    }

    fn of(text: Vec<u8>) -> Result<Self> {
        let ends: Vec<usize> = memchr::memchr_iter(b'\n', &text).map(|at| at + 1).collect();
        ensure!(!ends.is_empty(), "the carried logs have no lines");
        Ok(Self { text, ends })
    }

    /// Gives the lines that `build` prints, the logs over and over, until there are at least `bytes`.
    pub(crate) fn lines(&self, build: i64, bytes: u64) -> impl Iterator<Item = &[u8]> {
        let number = usize::try_from(build).unwrap_or(0);
        let first = number.wrapping_mul(STRIDE) % self.ends.len();
        let mut left = bytes;
        (first..).map_while(move |place| {
            if left == 0 {
                return None;
            }
            let place = place % self.ends.len();
            let begin = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            let line = self.text.get(begin..*self.ends.get(place)?)?;
            left = left.saturating_sub(line.len() as u64);
            Some(line)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_print_whole_lines_of_real_logs_over_and_over() {
        let corpus = Corpus::of(b"one\ntwo\nthree\n".to_vec()).unwrap();
        let texts: Vec<Vec<u8>> =
            (0..3).map(|build| corpus.lines(build, 9).collect::<Vec<_>>().concat()).collect();
        assert_eq!(texts[0], b"one\ntwo\nthree\n");
        // 7919 is 2 modulo 3.
        assert_eq!(texts[1], b"three\none\n");
        assert_eq!(texts[2], b"two\nthree\n");
        assert_eq!(corpus.lines(1, 0).count(), 0);

        let real = Corpus::load().unwrap();
        assert!(real.ends.len() > 40_000 && real.text.len() > 3_000_000);
        let long: u64 = real.lines(5, 10_000_000).map(|line| line.len() as u64).sum();
        assert!((10_000_000..10_100_000).contains(&long));
    }
}
