//! From the daemon's events to the log of an attempt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hauberk_daemon::{LogEvent, LogSink, strip_ansi};
use tokio::sync::Notify;

use super::health::Witness;
use crate::log::AttemptLog;

/// How often the disks are looked at while a builder prints.
const LOOK: Duration = Duration::from_millis(10);

/// Writes what a builder prints to the log, and notes what the machine looks like meanwhile.
pub(super) struct BuildLog<'a> {
    log: &'a AttemptLog,
    /// Bytes of builder output that are still allowed.
    left: Option<u64>,
    exceeded: Arc<Notify>,
    witness: &'a mut Witness,
    looked: Option<Instant>,
}

impl<'a> BuildLog<'a> {
    /// A sink that notifies `exceeded` when more than `limit` bytes were printed, and takes nothing more then.
    pub(super) fn new(
        log: &'a AttemptLog,
        limit: Option<u64>,
        exceeded: Arc<Notify>,
        witness: &'a mut Witness,
    ) -> Self {
        Self { log, left: limit, exceeded, witness, looked: None }
    }

    fn look(&mut self) {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            let _ = self.witness.look();
            self.looked = Some(Instant::now());
        }
    }
}

#[async_trait]
impl LogSink for BuildLog<'_> {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::BuildOutput { bytes, .. } => {
                self.look();
                let allowed = self.left.map_or(bytes.len(), |left| {
                    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
                });
                self.log.write(&bytes[..allowed]);
                if let Some(left) = &mut self.left {
                    *left -= allowed as u64;
                }
                if allowed < bytes.len() {
                    self.exceeded.notify_one();
                    // The build is dropped now; until then nothing is read any more.
                    std::future::pending::<()>().await;
                }
            }
            LogEvent::Waiting { text } => self.log.note(strip_ansi(text).trim()),
            // The daemon's errors and warnings; its chatter is for its own log.
            LogEvent::Message { level: 0 | 1, bytes } => {
                let text = strip_ansi(&String::from_utf8_lossy(bytes));
                for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    self.log.note(&format!("the daemon says: {line}"));
                }
            }
            LogEvent::BuildFailed { .. } | LogEvent::BuildStopped { .. } => self.look(),
            _ => {}
        }
    }
}
