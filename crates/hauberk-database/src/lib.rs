//! PostgreSQL: pool, migrations, and one module per table.

mod build_state;
mod error;
mod ids;
mod statement;
mod text_column;

pub use build_state::{BuildState, BuildStatus};
pub use deadpool_postgres::{Client, GenericClient, Transaction};
pub use error::DatabaseError;
pub use ids::{
    AttemptId, BuildId, DerivationId, Epoch, EvaluationId, LaneId, ServerId, SpecificationId, WorkerId,
};
pub use text_column::UnknownWord;
