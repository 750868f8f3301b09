//! Versions of the Nix protocol after 1.34, by their documentation.

use std::time::Duration;

use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildStatus, BuildTarget, DaemonError, FailureReason, PathInfo, log::Discard,
};
use hauberk_store::{DrvPath, NarHash};

use crate::script::{Bytes, ERROR, LAST, NEXT, RESULT, START_ACTIVITY, Step, greet, greeting};

const DRV: &str = "/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv";
const OUT: &str = "x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple";

/// Gives the greeting of a daemon that offers `offered`, and what goes with the version then spoken.
fn nix(offered: u64, trust: u64) -> Vec<Step> {
    let spoken = offered.min(0x126);
    let mut script = greeting(offered);
    let mut answer = Bytes::new().number(spoken);
    let mut rest = Bytes::new();
    if spoken >= 0x126 {
        answer = answer.number(0); // no features of ours
        rest = rest.number(1).text("some-feature");
    }
    script.push(Step::Expect(answer.number(0).number(0)));
    rest = rest.text("2.24.10");
    if spoken >= 0x123 {
        rest = rest.number(trust);
    }
    script.push(Step::Say(rest.number(LAST)));
    script
}

#[tokio::test]
async fn greetings() {
    for (offered, spoken, trust, trusted) in [
        (0x122, 0x122, 1, None),
        (0x123, 0x123, 1, Some(true)),
        (0x124, 0x124, 2, Some(false)),
        (0x125, 0x125, 0, None),
        (0x126, 0x126, 1, Some(true)),
        (0x127, 0x126, 1, Some(true)),
        (0x12f, 0x126, 1, Some(true)),
    ] {
        let (connection, peer) = greet(nix(offered, trust)).await;
        let connection = connection.unwrap();
        assert_eq!(connection.info().version.wire(), spoken);
        assert_eq!(connection.info().trusted, trusted);
        assert_eq!(connection.info().program_version.as_deref(), Some("2.24.10"));
        drop(connection);
        peer.await.unwrap();
    }
    for offered in [0x121, 0x10a, 0x160, 0x222, 0x263] {
        let (connection, _) = greet(greeting(offered)).await;
        assert!(matches!(connection, Err(DaemonError::UnsupportedVersion { .. })), "{offered:#x}");
    }
    let (connection, _) = greet(nix(0x123, 3)).await;
    assert!(matches!(connection, Err(DaemonError::Protocol { .. })));
}

fn result(version: u64, status: u64, message: &str) -> Bytes {
    let mut result = Bytes::new().number(status).text(message).number(1).number(0).number(1000).number(1007);
    if version >= 0x125 {
        result = result.number(1).number(2_500_000).number(0);
    }
    result
}

#[tokio::test]
async fn results_of_builds() {
    for version in [0x122, 0x123, 0x125, 0x126] {
        let other = DRV.replace("-simple", "-other");
        let request =
            Bytes::new().number(46).number(2).text(&format!("{DRV}!*")).text(&format!("{other}!*")).number(0);
        let mut script = nix(version, 1);
        script.push(Step::Expect(request));
        let activity = Bytes::new()
            .number(START_ACTIVITY)
            .number(7)
            .number(3)
            .number(105)
            .text("building")
            .number(4)
            .number(1)
            .text(DRV)
            .number(1)
            .text("")
            .number(0)
            .number(1)
            .number(0)
            .number(1)
            .number(0);
        let line = Bytes::new().number(RESULT).number(7).number(101).number(1).number(1).bytes(b"\xff line");
        script.push(Step::Say(activity));
        script.push(Step::Say(line));
        script.push(Step::Say(Bytes::new().number(NEXT).text("\u{1b}[31;1mwarning:\u{1b}[0m x\n")));
        let realisation = format!(
            r#"{{"id":"sha256:00!out","outPath":"{OUT}","signatures":[],"dependentRealisations":{{}}}}"#
        );
        let words = "builder for '/nix/store/x.drv' timed out after 5 seconds of silence";
        // The results may come in any order.
        let mut results = Bytes::new().number(LAST).number(2).text(&format!("{other}!*"));
        results.0.extend(result(version, 8, words).number(0).0);
        results = results.text(&format!("{DRV}!*"));
        results.0.extend(result(version, 0, "").number(1).text("sha256:00!out").text(&realisation).0);
        script.push(Step::Say(results));

        let (connection, peer) = greet(script).await;
        let mut connection = connection.unwrap();
        let targets = [DRV, &other].map(|path| BuildTarget::all(DrvPath::parse(path).unwrap()));
        let mut log = hauberk_daemon::log::Collect::new(1000);
        let results = connection.build(&targets, BuildMode::Normal, &mut log).await.unwrap();
        assert_eq!(log.bytes(), b"\xff line\n");
        assert_eq!(results[0].status, BuildStatus::Built);
        assert_eq!(results[0].outputs["out"].base_name(), OUT);
        assert_eq!((results[0].start_time, results[0].stop_time), (Some(1000), Some(1007)));
        let cpu = (version >= 0x125).then_some(Duration::from_millis(2500));
        assert_eq!((results[0].cpu_user, results[0].cpu_system), (cpu, None));
        assert_eq!(results[1].status, BuildStatus::Silent);
        assert_eq!(results[1].reason, Some(FailureReason::Silent));
        drop(connection);
        peer.await.unwrap();
    }
}

#[tokio::test]
async fn errors_with_traces() {
    let mut script = nix(0x126, 1);
    let error = Bytes::new()
        .number(ERROR)
        .text("Error")
        .number(0)
        .text("")
        .text("path '\u{1b}[35;1mx\u{1b}[0m' is not valid")
        .number(0)
        .number(2)
        .number(0)
        .text("while calling")
        .number(0)
        .text("while evaluating");
    script.push(Step::Expect(Bytes::new().number(10).text(DRV)));
    script.push(Step::Say(error));
    script.push(Step::Expect(Bytes::new().number(1).text(DRV)));
    script.push(Step::Say(Bytes::new().number(LAST).number(1)));
    let (connection, _) = greet(script).await;
    let mut connection = connection.unwrap();
    let path = DRV.parse().unwrap();
    let error = connection.ensure_path(&path, &mut Discard).await.unwrap_err();
    assert_eq!(error.to_string(), "ensure-path refused by the build daemon: path 'x' is not valid");
    assert!(connection.is_valid_path(&path).await.unwrap());
}

#[tokio::test]
async fn a_nar_in_frames() {
    let nar = vec![b'n'; 70_000];
    let info = PathInfo {
        path: format!("/nix/store/{OUT}").parse().unwrap(),
        deriver: Some(DRV.parse().unwrap()),
        nar_hash: NarHash::digest(&nar),
        references: [format!("/nix/store/{OUT}").parse().unwrap()].into(),
        registration_time: 12,
        nar_size: nar.len() as u64,
        ultimate: false,
        signatures: ["k:AAAA".to_owned()].into(),
        content_address: None,
    };
    let request = Bytes::new()
        .number(39)
        .text(&info.path.to_string())
        .text(DRV)
        .text(&info.nar_hash.to_base16())
        .number(1)
        .text(&info.path.to_string())
        .number(12)
        .number(70_000)
        .number(0)
        .number(1)
        .text("k:AAAA")
        .text("")
        .number(0)
        .number(0);
    let mut frames = Bytes::new().number(65_536);
    frames.0.extend_from_slice(&nar[..65_536]);
    let mut frames = frames.number(70_000 - 65_536);
    frames.0.extend_from_slice(&nar[65_536..]);
    let mut script = nix(0x126, 1);
    script.extend([
        Step::Expect(request),
        Step::Expect(frames.number(0)),
        Step::Say(Bytes::new().number(LAST)),
    ]);
    let (connection, peer) = greet(script).await;
    let mut connection = connection.unwrap();
    connection.add_nar(&info, &mut nar.as_slice(), false).await.unwrap();
    drop(connection);
    peer.await.unwrap();
}

/// A daemon that refuses in the middle of a NAR whose end never comes: the client gives up its source.
#[tokio::test]
async fn a_refusal_ends_a_stalled_source() {
    let error =
        Bytes::new().number(ERROR).text("Error").number(0).text("").text("no space").number(0).number(0);
    let mut script = nix(0x126, 1);
    script.push(Step::Say(error));
    let (connection, _) = greet(script).await;
    let mut connection = connection.unwrap();
    let info = PathInfo {
        path: format!("/nix/store/{OUT}").parse().unwrap(),
        deriver: None,
        nar_hash: NarHash::digest(b""),
        references: [].into(),
        registration_time: 0,
        nar_size: 1,
        ultimate: false,
        signatures: [].into(),
        content_address: None,
    };
    let (mut stalled, _other_end) = tokio::io::duplex(1);
    let adding = connection.add_nar(&info, &mut stalled, false);
    let error = tokio::time::timeout(Duration::from_secs(20), adding).await.unwrap().unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
}
