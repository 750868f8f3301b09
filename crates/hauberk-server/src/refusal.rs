//! Refusals: what a peer is told that may not join, and when to try again.

use hauberk_database::DatabaseError;
use hauberk_protocol::{
    PROTOCOL_VERSION,
    proto::{Refused, RefusedReason},
};
use tracing::warn;

/// Makes a refusal; those that time may mend say when to try again.
pub(crate) fn refused(reason: RefusedReason, message: String) -> Refused {
    let retry_after_s = match reason {
        RefusedReason::NotReady => 5,
        // The operator may enrol it while it waits.
        RefusedReason::NotEnrolled => 30,
        RefusedReason::Unspecified
        | RefusedReason::Revoked
        | RefusedReason::Protocol
        | RefusedReason::NameTaken
        | RefusedReason::SigningKey
        | RefusedReason::StoreDirectory
        | RefusedReason::BadHello
        | RefusedReason::BadToken
        | RefusedReason::Superseded => 0,
    };
    Refused { reason: reason.into(), message, retry_after_s }
}

/// Refuses peers of another version of the protocol.
pub(crate) fn check_version(theirs: u32) -> Result<(), Refused> {
    if theirs == PROTOCOL_VERSION {
        return Ok(());
    }
    let message = format!(
        "this server speaks version {PROTOCOL_VERSION} of the protocol, the worker version {theirs}; \
         install the same release of hauberk on both"
    );
    Err(refused(RefusedReason::Protocol, message))
}

/// Refuses for as long as the database is away.
#[expect(clippy::needless_pass_by_value, reason = "the argument of map_err")]
pub(crate) fn not_ready(error: DatabaseError) -> Refused {
    warn!(error = &error as &dyn std::error::Error, "cannot let a worker join now");
    refused(RefusedReason::NotReady, "the server's database is away".to_owned())
}
