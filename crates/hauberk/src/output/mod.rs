//! What commands print when they are asked: tables for people, JSON for programs.

mod screen;
mod table;
mod terminal;
mod words;

pub(crate) use screen::{Gesture, Screen};
pub(crate) use table::Table;
pub(crate) use terminal::Harmless;
pub(crate) use words::{ago, at, bytes, count, counted, maybe_at, moment, plain};

use std::io::{ErrorKind, Write};

use clap::Args;
use serde::Serialize;

use crate::exit::Failure;

/// Whether a command prints for people or for programs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

impl Form {
    /// Prints `value` for programs, or what `text` makes for people.
    pub(crate) fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            let mut json = serde_json::to_string_pretty(value).map_err(Failure::other)?;
            json.push('\n');
            print(&json)
        } else {
            print(&text())
        }
    }
}

/// Writes to standard output. Whoever closed it has read enough.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Writes to standard output, and tells whether anybody still reads it.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::other(error)),
    }
}
