#![doc = include_str!("../README.md")]

pub mod attempts;
pub mod audit;
mod build_state;
pub mod checkouts;
mod connection;
mod connection_string;
pub mod control;
pub mod dispatch;
pub mod durations;
mod error;
pub mod evaluations;
mod ids;
pub mod late;
pub mod listen;
pub mod listing;
pub mod metrics;
pub mod migrations;
pub mod operators;
pub mod overview;
pub mod pages;
mod priority;
pub mod priority_control;
pub mod products;
pub mod pushes;
pub mod registration;
pub mod retention;
pub mod revival;
pub mod seats;
pub mod servers;
pub mod specifications;
mod statement;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text_column;
pub mod tokens;
pub mod upkeep;
pub mod usage;
pub mod why;
pub mod workers;

pub use build_state::{BuildState, BuildStatus};
pub use connection::{BatchTransaction, Database, begin, commit};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use deadpool_postgres::{Client, GenericClient, Transaction};
pub use error::DatabaseError;
pub use ids::{
    AttemptId, BuildId, DerivationId, Epoch, EvaluationId, LaneId, ProductId, ProductRequestId, ServerId,
    SpecificationId, TokenId, WorkerId,
};
pub use priority::{InvalidPriority, Level, Priority};
pub use text_column::UnknownWord;
