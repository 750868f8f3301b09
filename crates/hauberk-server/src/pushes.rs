//! Who may push derivations and sources: whom the database says, where a register has noted the digest of its token.

use std::error::Error;

use async_trait::async_trait;
use hauberk_database::{Database, EvaluationId, ServerId, pushes};
use hauberk_publish::push::PushGate;
use hauberk_store::Sha256;

/// Looks tokens up.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Where they are.
    pub(crate) database: Database,
    /// To which server they must be.
    pub(crate) server: ServerId,
}

#[async_trait]
impl PushGate for Gate {
    async fn admits(&self, evaluation: u64, token: &Sha256) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let Ok(evaluation) = i64::try_from(evaluation) else { return Ok(false) };
        let client = self.database.client().await?;
        Ok(pushes::admits(&client, EvaluationId::new(evaluation), self.server, token.as_bytes()).await?)
    }
}
