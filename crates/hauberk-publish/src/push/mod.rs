//! Pushes: derivations and sources that a register has in a store of its own, on their way to servers.
//!
//! Whoever has the token of an evaluation asks a publish server by `POST /push/EVALUATION/missing` which of some paths (a base name a line)
//! its cache lacks, and gets a line with a digit for each, `1` where it does. What is missing comes in [parcels](ParcelName) under
//! `/push/EVALUATION/parcel/NAME`, in pieces that join, as uploads do: `PATCH` with `Upload-Offset`, `Upload-Complete: ?1` with the last one, `HEAD`
//! tells the offset. The answer to the last piece comes when all of it is checked, durable and served.
//!
//! Only what follows from its own contents is taken: derivations and other texts, sources, and files whose hash was known beforehand. So
//! nobody's word is needed for it, and a stolen token replaces nothing: all it can do is to fill the cache, up to a limit, with what the next
//! collection removes. Whatever an item refers to must be there before it.
//!
//! `POST /push/EVALUATION/available` asks for outputs instead: which paths are in the cache or in the server's store, so that they need no
//! build.

mod contents;
mod door;
mod parcel;
mod token;

pub use door::{PushDoor, PushGate, PushLimits};
pub(crate) use door::{PushRefusal, Question};
pub use parcel::PushedItem;
pub(crate) use parcel::{ParcelName, pack};
pub use token::PushToken;

/// The field of a narinfo that tells what came by a push: it is kept for as long as builds need it.
pub(crate) const MARK: &str = "X-Hauberk-Pushed";
