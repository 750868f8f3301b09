//! The conversation with the server, as a pure state machine: it takes what happened and the time, and says what to do.

mod machine;
mod roster;
#[cfg(test)]
mod tests_support;

pub(crate) use machine::{Effect, Ending, Session, Timing, milliseconds};
