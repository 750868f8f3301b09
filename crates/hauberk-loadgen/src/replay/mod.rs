//! A farm in simulated time, on a real graph of derivations.
//!
//! Builds take as long as a seed says, become ready when what they need is built, and are given out by a [`Scheduler`]: the very
//! code that the server links, or one that stands for a peer.

mod forecasts;
mod graph;
mod peers;
mod server_order;
mod simulation;
mod workload;

pub(crate) use forecasts::{Compared, Forecasts};
pub(crate) use graph::Graph;
pub(crate) use peers::{ByDependents, ByPath, OldestFirst};
pub(crate) use server_order::ServerOrder;
pub(crate) use simulation::{Outcome, Scheduler, simulate};
pub(crate) use workload::{Shape, Workload};
