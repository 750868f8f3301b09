//! Keeps all events of an operation as text.

use async_trait::async_trait;
use hauberk_daemon::{LogEvent, LogSink};

/// Events, one a line, and the output of builders.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) events: Vec<String>,
    pub(crate) output: Vec<u8>,
}

impl Record {
    /// Tells whether an event's text contains `part`.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.events.iter().any(|event| event.contains(part))
    }
}

#[async_trait]
impl LogSink for Record {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::BuildOutput { bytes, .. } => self.output.extend_from_slice(bytes),
            LogEvent::Message { level, bytes } => {
                self.events.push(format!("Message {level} {}", String::from_utf8_lossy(bytes)));
            }
            event => self.events.push(format!("{event:?}")),
        }
    }
}
