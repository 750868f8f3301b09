//! The log of a Guix daemon is the same however it is cut into frames between lines, and no output of a builder is lost.
#![no_main]

use hauberk_daemon::{BuildDaemon, ClientOptions, Connection};
use hauberk_daemon_fuzz::{LAST, NEXT, Peer, Record, greeting, numbers, run, string};
use libfuzzer_sys::fuzz_target;

/// Lets a daemon say `frames` while a path is fetched, and gives what is understood of them.
fn told<'f>(frames: impl Iterator<Item = &'f [u8]>) -> Record {
    let turn = &b"\xff\xfeTURN\xfe\xff"[..];
    let mut script = [&numbers(&[LAST]), turn].concat();
    for frame in frames {
        script.extend(numbers(&[NEXT]));
        script.extend(string(frame));
    }
    script.extend(numbers(&[LAST, 1]));
    let path = "/gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple".parse().expect("it is a path");
    let mut record = Record::default();
    run(async {
        let peer = Peer::new(&greeting(0x163), &script, usize::MAX);
        let mut connection = Connection::greet(peer, None).await.expect("it greets");
        connection.set_options(&ClientOptions::default()).await.expect("options have no answer");
        let ended = connection.ensure_path(&path, &mut record).await;
        ended.expect("frames are lawful");
    });
    record
}

fuzz_target!(|log: &[u8]| {
    if log.windows(8).any(|bytes| bytes == b"\xff\xfeTURN\xfe\xff") {
        return;
    }
    let whole = told(std::iter::once(log));
    let lines = told(log.split_inclusive(|&byte| byte == b'\n'));
    assert_eq!(String::from_utf8_lossy(&whole.output), String::from_utf8_lossy(&lines.output));
    let bytes = told(log.chunks(1));
    assert!(bytes.output.len() <= log.len());
});
