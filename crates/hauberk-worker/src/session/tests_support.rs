//! Assignments for tests.

use hauberk_protocol::proto;

use crate::Assignment;

pub(super) fn assign(attempt: i64) -> proto::Assign {
    proto::Assign {
        attempt,
        build: attempt,
        derivation: "/nix/store/00000000000000000000000000000000-x.drv".to_owned(),
        system: "x86_64-linux".to_owned(),
        outputs: vec![proto::ExpectedOutput {
            name: "out".to_owned(),
            path: "/nix/store/00000000000000000000000000000001-x".to_owned(),
        }],
        ..proto::Assign::default()
    }
}

pub(super) fn assignment(attempt: i64) -> Assignment {
    Assignment::try_from(assign(attempt)).unwrap()
}
