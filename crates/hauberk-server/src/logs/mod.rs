//! Logs: received on a port of their own, kept as gzip files that can be read while they grow.

mod file;
mod janitor;
mod owners;
mod receiver;
mod sealer;
mod source;

pub(crate) use janitor::LogJanitor;
pub(crate) use receiver::LogReceiver;
pub(crate) use source::AttemptLogs;
