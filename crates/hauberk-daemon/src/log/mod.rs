//! What daemons tell while they work: one stream of events for both worlds.

mod event;
mod guix;
mod nix;
mod sink;
#[cfg(test)]
mod tests;

pub use event::LogEvent;
pub(crate) use guix::{GuixLog, GuixOutcome};
pub(crate) use nix::NixLog;
pub use sink::{Collect, Discard, LogSink};
