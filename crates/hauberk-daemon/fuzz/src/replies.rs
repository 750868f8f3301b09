//! Answers to every operation.

use hauberk_daemon::{BuildDaemon, ClientOptions, Connection, DaemonError, GuixOptions};

use crate::{
    greeting,
    operations::{OPERATIONS, attempt},
    peer::{Peer, run},
    record::Record,
};

/// Lets a daemon answer an operation with what follows the first three bytes of `input`; they choose the operation, one of
/// `versions`, and how the answer is cut.
///
/// # Panics
/// If the answer is understood in another way when it is cut, or a broken connection is used on.
pub fn replies(versions: &[u64], input: &[u8]) {
    let [operation, version, piece, script @ ..] = input else { return };
    let operation = usize::from(*operation) % OPERATIONS;
    let traced = *version < 128;
    let version = versions[usize::from(*version) % versions.len()];
    let whole = answer(version, operation, script, usize::MAX, traced);
    let cut = answer(version, operation, script, usize::from(*piece), traced);
    // Bytes that follow an answer end the connection when they have arrived before the next request, and else later.
    let early = |(result, _): &(Result<String, DaemonError>, Record)| matches!(result, Err(DaemonError::Broken { .. }));
    if !early(&whole) && !early(&cut) {
        assert_eq!(format!("{:?}", whole.0), format!("{:?}", cut.0));
        assert_eq!(whole.1.events, cut.1.events);
    }
}

fn answer(
    version: u64,
    operation: usize,
    script: &[u8],
    piece: usize,
    traced: bool,
) -> (Result<String, DaemonError>, Record) {
    let peer = Peer::new(&greeting(version), script, piece);
    run(async {
        let mut record = Record::default();
        let mut connection = Connection::greet(peer, None).await.expect("the greeting is good");
        let guix = version >= 0x160;
        // Options decide how what is said is understood; a Guix daemon would answer them, so they go elsewhere.
        if !guix || !traced {
            return (attempt(&mut connection, operation, &mut record).await, record);
        }
        let options = ClientOptions {
            guix: GuixOptions { multiplexed_output: true, ..GuixOptions::default() },
            ..ClientOptions::default()
        };
        if let Err(error) = connection.set_options(&options).await {
            return (Err(error), record);
        }
        let result = attempt(&mut connection, operation, &mut record).await;
        match &result {
            Ok(_)
            | Err(
                DaemonError::Daemon { .. }
                | DaemonError::NotValid { .. }
                | DaemonError::Unsupported { .. }
                | DaemonError::Source { .. }
                | DaemonError::Damaged { .. },
            ) => {}
            Err(_) => assert!(!connection.is_usable(), "{result:?}"),
        }
        (result, record)
    })
}
