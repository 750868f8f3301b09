//! The text of a log file, from its beginning to where it has come.

use std::fs::File;
use std::io::Read;

use super::LogError;
use super::decoder::{Decoder, Progress};
use super::source::LONGEST_TEXT;

/// Bytes read from the file at a time.
const PIECE: usize = 64 * 1024;

/// Reads text out of a log file that may still grow, or out of what has come of one. Blocks as its source does.
#[derive(Debug)]
pub struct LogReader<R = File> {
    source: R,
    decoder: Decoder,
    input: Box<[u8]>,
    /// What of `input` is not decoded yet.
    start: usize,
    end: usize,
    /// Bytes of text given so far.
    offset: u64,
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of text.
    Text(usize),
    /// Nothing more for now: the file may grow.
    CaughtUp,
    /// Nothing more ever: the log is complete.
    End,
}

impl<R: Read> LogReader<R> {
    /// Begins at the start of a file. A source that gives nothing may give more later.
    pub fn new(source: R) -> Self {
        Self {
            source,
            decoder: Decoder::new(),
            input: vec![0; PIECE].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// Gives the source, so that more can be put into it.
    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Tells how many bytes of text were given so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads some text into `output`, which must not be empty.
    ///
    /// # Errors
    /// [`LogError`]: the file cannot be read, is damaged, or too long.
    pub fn read(&mut self, output: &mut [u8]) -> Result<Step, LogError> {
        loop {
            if self.decoder.is_at_end() {
                return Ok(Step::End);
            }
            let Progress { consumed, produced } =
                self.decoder.decode(&self.input[self.start..self.end], output).map_err(LogError::Damaged)?;
            self.start += consumed;
            if produced > 0 {
                self.offset += produced as u64;
                if self.offset > LONGEST_TEXT {
                    return Err(LogError::TooLong);
                }
                return Ok(Step::Text(produced));
            }
            if consumed > 0 {
                continue;
            }
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            match self.source.read(&mut self.input[self.end..]).map_err(LogError::Read)? {
                0 => return Ok(Step::CaughtUp),
                read => self.end += read,
            }
        }
    }

    /// Reads on to a place in the text, or to where the log has come before it.
    ///
    /// # Errors
    /// [`LogError`]: the file cannot be read, is damaged, or too long.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), LogError> {
        let mut output = vec![0; PIECE];
        while self.offset < offset {
            let room = usize::try_from(offset - self.offset).unwrap_or(PIECE).min(PIECE);
            match self.read(&mut output[..room])? {
                Step::Text(_) => {}
                Step::CaughtUp | Step::End => break,
            }
        }
        Ok(())
    }
}
