//! Who listens.

use async_trait::async_trait;

use super::LogEvent;

/// Takes the events of a running operation.
///
/// The next frame is read when the sink is done with this one: a sink that waits slows the daemon down, and by it the builder,
/// instead of filling memory.
#[async_trait]
pub trait LogSink: Send {
    /// Takes one event.
    async fn event(&mut self, event: LogEvent<'_>);
}

/// Takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl LogSink for Discard {
    async fn event(&mut self, _: LogEvent<'_>) {}
}

/// Keeps the output of builders, up to a bound, and drops everything else: for tests and short jobs.
#[derive(Debug, Clone)]
pub struct Collect {
    bytes: Vec<u8>,
    limit: usize,
}

impl Collect {
    /// Keeps at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Gives the output so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[async_trait]
impl LogSink for Collect {
    async fn event(&mut self, event: LogEvent<'_>) {
        if let LogEvent::BuildOutput { bytes, .. } = event {
            let room = self.limit - self.bytes.len();
            self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}
