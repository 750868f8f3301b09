//! Asking the web process.

use anyhow::{Context, Result};
use serde_json::Value;

/// Gives the JSON at `url`.
pub(crate) async fn json(url: &str) -> Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client
        .get(url)
        .header("accept", "application/json")
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .with_context(|| format!("asking {url}"))?;
    let text = response.text().await?;
    serde_json::from_str(&text).with_context(|| format!("{url} answered {text:?}"))
}
