#![doc = include_str!("../README.md")]

mod backend;
mod committer;
mod config;
mod disk;
mod dispatcher;
mod elsewhere;
mod enrolment;
mod error;
mod fetch;
mod greeting;
mod health;
mod heart;
mod herald;
mod logs;
mod metrics;
mod origins;
mod outcome;
mod products;
mod ration;
mod refusal;
mod registry;
mod server;
mod session;
mod settler;
mod sources;
mod step;
mod task;
mod trust;
mod window;
mod wording;

pub use config::{Config, Limits, StoreConfig};
pub use error::ServerError;
pub use health::HealthPolicy;
pub use outcome::RetryPolicy;
pub use server::run;
pub use trust::ProbeError;
