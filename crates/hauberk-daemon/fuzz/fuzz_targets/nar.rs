//! The end of a NAR that a Nix daemon sends is found where the reader of whole NARs finds it.
#![no_main]

use hauberk_daemon::{BuildDaemon, Connection};
use hauberk_daemon_fuzz::{LAST, Peer, greeting, numbers, run};
use hauberk_store::nar::{Limits, Node};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|nar: &[u8]| {
    let path = "/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple".parse().expect("it is a path");
    let whole = Node::from_nar(nar, Limits { size: 1 << 20, depth: 64, entries: 1000 }).is_ok();
    for piece in [1, 11, usize::MAX] {
        let valid = numbers(&[LAST, 1]);
        let greeted = greeting(0x122);
        let script = [&valid, &b"\xff\xfeTURN\xfe\xff"[..], &numbers(&[LAST]), nar].concat();
        let mut read = Vec::new();
        let copied = run(async {
            let mut connection = Connection::greet(Peer::new(&greeted, &script, piece), None).await.expect("it greets");
            connection.nar_from_path(&path, &mut read).await
        });
        match copied {
            Ok(size) => {
                assert_eq!(size, read.len() as u64);
                assert!(nar.starts_with(&read));
            }
            Err(error) => assert!(!whole, "{error}"),
        }
        if whole {
            assert_eq!(read, nar);
        }
    }
});
