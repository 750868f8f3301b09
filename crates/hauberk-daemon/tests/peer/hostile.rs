//! Peers that mean harm: every operation ends with an error, soon and in little memory.

use std::time::Duration;

use hauberk_daemon::{BuildDaemon, DaemonError, log::Discard};
use proptest::prelude::*;

use crate::{
    operations::{OPERATIONS, attempt},
    script::{Bytes, ERROR, LAST, NEXT, READ, RESULT, START_ACTIVITY, Step, WRITE, greet, greeting},
};

/// Greets in the given version of either world.
fn greeted(version: u64) -> Vec<Step> {
    let mut script = greeting(version);
    let guix = version >= 0x160;
    script.push(Step::Expect(Bytes::new().number(version).number(0).number(u64::from(guix))));
    let own = if guix { Bytes::new() } else { Bytes::new().text("2.8.0") };
    script.push(Step::Say(own.number(LAST)));
    script
}

/// Lets a peer of that version answer every request with `answer` and then hang up.
async fn against(version: u64, operation: usize, answer: Bytes) -> Result<(), DaemonError> {
    let mut script = greeted(version);
    script.push(Step::Say(answer));
    let (connection, _peer) = greet(script).await;
    let mut connection = connection.unwrap();
    let (mut log, mut other_log) = (Discard, Discard);
    let trying = attempt(&mut connection, operation, &mut log);
    let result = tokio::time::timeout(Duration::from_secs(20), trying).await.expect("no operation hangs");
    let again = attempt(&mut connection, operation, &mut other_log);
    let again = tokio::time::timeout(Duration::from_secs(20), again).await.expect("no operation hangs");
    // Once the peer hung up, no request is answered; those that are refused before they are sent are errors as well.
    if result.is_err() {
        assert!(again.is_err(), "operation {operation} after {result:?}");
    }
    result.map(drop)
}

const VERSIONS: [u64; 2] = [0x122, 0x163];

#[tokio::test]
async fn answers_that_break_the_protocol() {
    let number = |number| Bytes::new().number(number);
    let mut padded = Bytes::new().number(NEXT).text("abc");
    *padded.0.last_mut().unwrap() = 1;
    let answers = [
        ("nothing", Bytes::new()),
        ("half a number", Bytes(vec![1, 2, 3])),
        ("an unknown frame", number(0x1234)),
        ("a huge line", number(NEXT).number(u64::MAX)),
        ("a large line that does not come", number(NEXT).number(255 << 20)),
        ("bad padding", padded),
        ("a huge error", number(ERROR).number(u64::MAX).number(u64::MAX)),
        ("data for nobody", number(WRITE).number(u64::MAX)),
        ("a huge activity", number(START_ACTIVITY).number(1).number(0).number(0).text("").number(u64::MAX)),
        ("a level out of range", number(START_ACTIVITY).number(1).number(u64::MAX)),
        ("a field of no kind", number(RESULT).number(1).number(1).number(1).number(9)),
    ];
    for version in VERSIONS {
        for operation in 0..OPERATIONS {
            for (what, answer) in &answers {
                let result = against(version, operation, answer.clone()).await;
                assert!(
                    matches!(
                        result,
                        Err(DaemonError::Lost { .. }
                            | DaemonError::Protocol { .. }
                            | DaemonError::Unsupported { .. })
                    ),
                    "{version:#x} operation {operation}: {what}: {result:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn results_that_break_the_protocol() {
    let number = |number| Bytes::new().number(LAST).number(number);
    for version in VERSIONS {
        for operation in 1..OPERATIONS {
            for value in [u64::MAX, 1 << 40, 1 << 26] {
                let result = against(version, operation, number(value).number(value)).await;
                // Some results are one number, in which any value is lawful.
                if !matches!(operation, 2 | 11 | 15 | 19 | 20 | 22) {
                    assert!(result.is_err(), "{version:#x} operation {operation}: {value:#x}: {result:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_wish_for_data_that_has_no_place() {
    for version in VERSIONS {
        let result = against(version, 1, Bytes::new().number(READ).number(u64::MAX)).await;
        assert!(matches!(result, Err(DaemonError::Protocol { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn more_than_the_answer_ends_the_connection() {
    for version in VERSIONS {
        let mut script = greeted(version);
        script.push(Step::Say(Bytes::new().number(LAST).number(1).number(LAST).number(1)));
        let (connection, _) = greet(script).await;
        let mut connection = connection.unwrap();
        let path = "/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple".parse().unwrap();
        assert!(connection.is_valid_path(&path).await.unwrap());
        assert!(!connection.is_usable());
        assert!(matches!(connection.is_valid_path(&path).await, Err(DaemonError::Broken { .. })));
    }
}

#[tokio::test]
async fn greetings_that_are_none() {
    let magic = 0x6478_696f;
    for bytes in [
        Bytes::new(),
        Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Bytes::new().number(magic),
        Bytes::new().number(magic).number(u64::MAX),
        Bytes::new().number(magic).number(0x122).number(u64::MAX),
        Bytes::new().number(magic).number(0x122).text("2.8.0").number(NEXT).text("hello"),
        Bytes::new().number(magic).number(0x163).number(WRITE).number(u64::MAX),
        Bytes::new().number(magic).number(0x126).number(u64::MAX),
    ] {
        let (connection, _) = greet(vec![Step::Say(bytes)]).await;
        assert!(connection.is_err());
    }
    let refusal = Bytes::new().number(magic).number(0x163).number(ERROR).text("go away").number(1);
    let (connection, _) = greet(vec![Step::Say(refusal)]).await;
    assert!(matches!(connection, Err(DaemonError::Daemon { .. })));
}

/// Frames and numbers in any order, and junk.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let codes = [NEXT, READ, WRITE, LAST, ERROR, START_ACTIVITY, 0x5354_4f50, RESULT];
    let piece = prop_oneof![
        prop::sample::select(codes.to_vec()).prop_map(|code| Bytes::new().number(code).0),
        (0_u64..20).prop_map(|number| Bytes::new().number(number).0),
        any::<u64>().prop_map(|number| Bytes::new().number(number).0),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Bytes::new().bytes(&bytes).0),
        Just(Bytes::new().text("@ build-log 12 99999999999\n").0),
        Just(
            Bytes::new()
                .text("@ build-failed /gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv - 1\n")
                .0
        ),
        Just(Bytes::new().text("/gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple").0),
        Just(Bytes::new().text("/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple").0),
        Just(Bytes::new().text("nix-archive-1").text("(").text("type").0),
        prop::collection::vec(any::<u8>(), 0..16),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_answer_hangs_or_panics(answer in answer(), operation in 0..OPERATIONS, guix in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _ = runtime.block_on(against(VERSIONS[usize::from(guix)], operation, Bytes(answer)));
    }
}

#[tokio::test]
async fn nobody_and_somebody_who_does_not_answer() {
    use hauberk_daemon::{ConnectOptions, Connection, DaemonAddress};

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let address = DaemonAddress::from_path(&socket);
    let options = ConnectOptions { timeout: Duration::from_millis(50), ..ConnectOptions::default() };
    let error = Connection::connect(&address, &options).await.unwrap_err();
    assert!(matches!(error, DaemonError::Connect { .. }), "{error:?}");
    assert!(error.is_connection() && error.to_string().contains(socket.to_str().unwrap()));
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let error = Connection::connect(&address, &options).await.unwrap_err();
    assert!(matches!(error, DaemonError::TimedOut { .. }), "{error:?}");
}
