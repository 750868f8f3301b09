#![doc = include_str!("../README.md")]

mod address;
mod build;
mod connection;
mod daemon;
mod error;
mod failure;
#[cfg(any(test, feature = "test"))]
pub mod fake;
mod frame;
mod garbage;
mod keeper;
pub mod log;
mod missing;
mod nar_scanner;
mod operation;
mod options;
mod path_info;
mod pool;
mod version;
mod wire;

pub use address::{DaemonAddress, GUIX_SOCKET, InvalidDaemonAddress, NIX_SOCKET};
pub use build::{BuildMode, BuildResult, BuildStatus, BuildTarget, OutputSelection};
pub use connection::{ConnectOptions, Connection};
pub use daemon::{BuildDaemon, DaemonInfo};
pub use error::{DaemonError, Violation};
pub use failure::{FailureReason, strip_ansi};
pub use garbage::{GarbageAction, GarbageReport, GarbageRequest, Root};
pub use keeper::Keeper;
pub use log::{LogEvent, LogSink};
pub use missing::Missing;
pub use operation::Operation;
pub use options::{ClientOptions, GuixOptions};
pub use path_info::{PathInfo, SubstitutablePathInfo};
pub use pool::{Connector, Pool, PooledConnection, SocketConnector};
pub use version::{Dialect, ProtocolVersion};
