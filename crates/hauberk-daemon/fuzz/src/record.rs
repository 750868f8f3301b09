//! What a daemon told.

use async_trait::async_trait;
use hauberk_daemon::{LogEvent, LogSink};

/// Keeps what was told.
#[derive(Default)]
pub struct Record {
    /// Every event, spelt.
    pub events: Vec<String>,
    /// What builders printed.
    pub output: Vec<u8>,
}

#[async_trait]
impl LogSink for Record {
    async fn event(&mut self, event: LogEvent<'_>) {
        self.events.push(format!("{event:?}"));
        if let LogEvent::BuildOutput { bytes, .. } = event {
            self.output.extend_from_slice(bytes);
        }
    }
}
