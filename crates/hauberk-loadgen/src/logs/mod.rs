//! Logs of real builds: printed by simulated ones, looked for in the server's files, and compared at the end.

mod corpus;
mod printer;
mod verify;
mod watch;

pub(crate) use corpus::Corpus;
pub(crate) use printer::{Pace, Printer};
pub(crate) use verify::{LogFile, verify};
pub(crate) use watch::{Sightings, Watch};
