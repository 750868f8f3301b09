//! Decides which build goes to which worker next.
//!
//! [`Order`] is told what waits, who has room, and what begins and ends; it answers with the next [`Placement`]. Builds wait in
//! *lanes*: those of one specification that the same workers can run. Among all lanes that some free slot can serve, the first of
//! these decides:
//!
//! 1. the emergency lane: what an operator put before everything;
//! 2. age, where ageing is on: what became ready longer ago than the bound, the oldest first;
//! 3. urgency: 0 is the most urgent, 99 the least;
//! 4. fair share: the specification that used the fewest slot-seconds for its shares, see [`Ledger`];
//! 5. the longest remaining path: of two builds, the one with more work waiting behind it in a row, see [`remaining_paths`], where
//!    that differs by more than a [`PathStep`];
//! 6. the smallest id, which is the one recorded first.
//!
//! Nothing here waits, reads a clock or knows of databases and sockets. The server links it, and so does the replay of
//! `hauberk-loadgen`, which measures it in simulated time.

mod capabilities;
mod duration_history;
mod forecast;
mod ledger;
mod order;
mod path;
mod path_step;
mod queue;
mod seats;
mod urgency;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

pub use crate::capabilities::{Capabilities, Requirement};
pub use crate::duration_history::{Basis, DurationHistory, Estimate, Likeness, Scope};
pub use crate::forecast::{Forecast, Outlook, Span, remaining};
pub use crate::ledger::{Ledger, LedgerPolicy};
pub use crate::order::{Lane, Order, Placement, Policy};
pub use crate::path::{Cycle, remaining_paths};
pub use crate::path_step::PathStep;
pub use crate::queue::Waiting;
pub use crate::urgency::Urgency;

/// Time since an origin of the caller's choice, of a clock that never goes back.
pub type Moment = Duration;

/// An identifier.
pub trait Id: Copy + Ord + Hash + Debug {}

impl<T: Copy + Ord + Hash + Debug> Id for T {}

/// The identifiers of those who use this crate.
pub trait Ids: Copy + Ord + Hash + Debug {
    /// Names a build. The smaller one was recorded earlier.
    type Build: Id;
    /// Names a lane.
    type Lane: Id;
    /// Names a specification.
    type Specification: Id;
    /// Names a worker's session.
    type Session: Id;
}
