//! The last part of a log, for its page.

use std::fs::File;

use super::{LogError, LogReader, Renderer, Step};

/// The end of a log as HTML.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The text.
    pub(crate) html: String,
    /// Bytes of text before it that are left out.
    pub(crate) omitted: u64,
    /// Where the text goes on.
    pub(crate) offset: u64,
    /// How it ends.
    pub(crate) end: TailEnd,
}

/// How the end of a log looks.
#[derive(Debug)]
pub(crate) enum TailEnd {
    /// The log is complete.
    Complete,
    /// More may come.
    Open,
    /// It could not be read to its end.
    Broken(LogError),
}

/// Reads a log through and keeps the last `keep` bytes of its text, from the beginning of a line. Blocks.
pub(crate) fn read_tail(file: File, keep: usize) -> Tail {
    let mut reader = LogReader::new(file);
    let mut kept = Vec::with_capacity(2 * keep);
    let mut piece = vec![0; 64 * 1024];
    let end = loop {
        match reader.read(&mut piece) {
            Ok(Step::Text(length)) => {
                kept.extend_from_slice(&piece[..length]);
                if kept.len() > 2 * keep {
                    kept.drain(..kept.len() - keep);
                }
            }
            Ok(Step::CaughtUp) => break TailEnd::Open,
            Ok(Step::End) => break TailEnd::Complete,
            Err(error) => break TailEnd::Broken(error),
        }
    };
    let mut text = kept.as_slice();
    if reader.offset() > keep as u64 {
        text = &text[text.len().saturating_sub(keep)..];
        let line = text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        text = &text[line..];
    }
    let mut renderer = Renderer::default();
    let mut html = String::with_capacity(text.len() + text.len() / 8);
    renderer.render(text, &mut html);
    let mut offset = reader.offset();
    match end {
        TailEnd::Open => offset -= renderer.held(),
        TailEnd::Complete | TailEnd::Broken(_) => renderer.finish(&mut html),
    }
    Tail { html, omitted: reader.offset() - text.len() as u64, offset, end }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn file(text: &[u8], complete: bool) -> File {
        let mut encoder = GzEncoder::new(tempfile::tempfile().unwrap(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.flush().unwrap();
        let mut file = encoder.get_ref().try_clone().unwrap();
        if complete {
            encoder.finish().unwrap();
        } else {
            std::mem::forget(encoder);
        }
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_short_log_is_shown_whole() {
        let tail = read_tail(file(b"one\ntwo\n", true), 1000);
        assert_eq!((tail.html.as_str(), tail.omitted, tail.offset), ("one\ntwo\n", 0, 8));
        assert!(matches!(tail.end, TailEnd::Complete));
    }

    #[test]
    fn of_a_long_log_whole_lines_of_the_end_are_shown() {
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let tail = read_tail(file(text.as_bytes(), true), 100);
        assert!(tail.html.starts_with("line 999") && tail.html.ends_with("line 99999\n"));
        assert_eq!(tail.omitted + tail.html.len() as u64, text.len() as u64);
    }

    #[test]
    fn a_growing_log_goes_on_where_it_was_cut() {
        let tail = read_tail(file("gr\u{fc}".as_bytes().split_last().unwrap().1, false), 100);
        assert_eq!((tail.html.as_str(), tail.offset), ("gr", 2));
        assert!(matches!(tail.end, TailEnd::Open));
    }
}
