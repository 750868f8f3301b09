#![doc = include_str!("../README.md")]

mod assignment;
mod attempt_id;
mod builder;
mod config;
mod enrol;
mod error;
mod finder;
mod log;
mod machine;
mod metrics;
mod neighbours;
mod run;
mod runner;
mod session;
mod spool;
mod upload;
mod worker;

pub use assignment::{Assignment, AttemptKind, BadAssign, KnownInput, Limits};
pub use attempt_id::AttemptId;
pub use builder::{
    AttemptContext, BuildReport, Builder, DeclineReport, Report, Server, TrustProbe, Unaccepted,
};
pub use config::{
    Config, DEFAULT_GRACE, DEFAULT_PUBLISH_PORT, PublishAddress, Security, ServerLocation, SessionConfig,
    SharedContext, SpoolPlace, TrustCheck, native_system,
};
pub use enrol::{Application, enrol};
pub use error::WorkerError;
pub use hauberk_protocol::proto::{DeclineReason, Load, Origin, Outcome, OutputInfo};
pub use log::AttemptLog;
pub use machine::{Lack, PressureLimits, Reserve, Shortage};
pub use run::run;
pub use spool::{LogLimits, SpoolError};
pub use upload::UploadOrder;
pub use worker::run_with_builder;
