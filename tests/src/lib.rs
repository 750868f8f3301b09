//! The laboratory: whole farms on one computer, in namespaces, for the cluster tests and the demonstration.
//!
//! A [`Machine`] is a host in small: its own network, mounts and processes, its own Nix store and a real nix-daemon.
//! A [`Network`] joins machines by a bridge of its own, so that the computer gets no interface and no address.
//! [`Postgres`] is a throw-away cluster, a [`Process`] guards a running program, and a [`Farm`] sets the whole up.
//!
//! Everything needs root, and everything ends with the process that made it: by `Drop` in the ordinary case, by parent-death
//! signals when it is killed. Namespaces have no names, so nothing is left but a directory, which the next run removes.

pub mod checker;
mod clock;
mod directory;
mod farm;
mod gates;
mod guix;
mod jobs;
mod launch;
mod machine;
mod memory;
mod network;
mod postgres;
mod process;
mod program;
mod repository;
pub mod simulated;
mod spawn;
mod specification;
mod tables;
mod terminal;
mod wait;

pub use clock::Clock;
pub use directory::LabDirectory;
pub use farm::{Farm, FarmConfig, GuixFarm, WorkerHost};
pub use gates::Gates;
pub use guix::{GuixRoot, GuixStore, Recipe};
pub use jobs::{LARGE_AND_SECOND, jobs};
pub use launch::Launch;
pub use machine::{Machine, MachineConfig};
pub use memory::MemoryGroup;
pub use network::{LineCounts, LongLine, Network};
pub use postgres::{Postgres, PostgresOptions};
pub use process::Process;
pub use program::{free_port, hauberk_program, program_beside, require_root};
pub use repository::Repository;
pub use specification::Specification;
pub use tables::Tables;
pub use terminal::Terminal;
pub use wait::{Deadline, wait_for};
