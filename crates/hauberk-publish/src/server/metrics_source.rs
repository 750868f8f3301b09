//! Figures of the program that a publish server is a part of.

use async_trait::async_trait;

/// Gives more of what `/metrics` answers.
#[async_trait]
pub trait MetricsSource: Send + Sync {
    /// Gives metric families in the OpenMetrics text format, without the `# EOF` at their end. Their names must not begin with
    /// `hauberk_publish_`.
    async fn render(&self) -> String;
}
