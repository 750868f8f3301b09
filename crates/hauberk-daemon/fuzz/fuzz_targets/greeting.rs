//! Whatever a peer greets with, it is a daemon that can be used or refused.
#![no_main]

use hauberk_daemon::{BuildDaemon, Connection};
use hauberk_daemon_fuzz::{Peer, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &[u8]| {
    let infos = [1, 7, usize::MAX].map(|piece| {
        let mut peer = Peer::new(said, b"", piece);
        run(async {
            let connection = Connection::greet(&mut peer, None).await;
            connection.map(|connection| connection.info().clone()).map_err(|error| error.to_string())
        })
    });
    assert!(infos.iter().all(|info| *info == infos[0]), "{infos:?}");
});
