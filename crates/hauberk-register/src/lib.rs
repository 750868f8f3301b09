#![doc = include_str!("../README.md")]

mod child;
mod closure;
mod config;
mod daemon;
mod evaluator;
mod facts;
mod git;
mod look;
mod products;
mod roots;
mod run;
mod running;
pub mod specification;
mod stores;

pub use child::ChildError;
pub use config::Config;
pub use daemon::NixDaemon;
pub use git::GitError;
pub use run::{RegisterError, run};
pub use specification::{Specification, SpecificationError};
pub use stores::{Delivery, PushWhen, ServerUrl, Stores, StoresError, UnknownPushWhen};
