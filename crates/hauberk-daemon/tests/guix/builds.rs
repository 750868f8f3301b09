//! Building. Our client asks for outputs and validity around the request; the rest is as recorded.

use std::time::Duration;

use async_trait::async_trait;
use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildResult, BuildStatus, BuildTarget, ClientOptions, FailureReason, LogEvent,
    LogSink,
};
use hauberk_store::{DrvPath, StorePath};

use crate::{
    queries::{guile, guile_multiplexed},
    recording::{Recording, Side},
    wire::Reader,
};

/// Keeps all events: output by derivation, the others as text.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) events: Vec<String>,
    pub(crate) output: Vec<(Option<String>, Vec<u8>)>,
}

impl Record {
    /// Gives the output of the derivation of that name.
    fn of(&self, name: &str) -> Vec<u8> {
        let own = self.output.iter().filter(|(of, _)| of.as_deref() == Some(name));
        own.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }

    fn has(&self, start: &str, part: &str) -> bool {
        self.events.iter().any(|event| event.starts_with(start) && event.contains(part))
    }
}

#[async_trait]
impl LogSink for Record {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::BuildOutput { derivation, bytes } => {
                self.output.push((derivation.map(|drv| drv.derivation_name().to_owned()), bytes.to_vec()));
            }
            LogEvent::Message { bytes, .. } => {
                self.events.push(format!("Message {}", String::from_utf8_lossy(bytes)));
            }
            event => self.events.push(format!("{event:?}")),
        }
    }
}

/// Makes the recorded request again; `made` tells which of its derivations' outputs are valid after it, `valid` before it.
async fn build(
    name: &str,
    options: &ClientOptions,
    mode: BuildMode,
    valid: &[&str],
    made: &[&str],
) -> (Vec<BuildResult>, Record) {
    let recording = Recording::load(name);
    let request = recording.turns.iter().find(|turn| turn.code == 9).unwrap().request.clone();
    let mut reader = Reader::new(&request);
    reader.int().unwrap();
    let items: Vec<StorePath> = reader
        .texts()
        .unwrap()
        .into_iter()
        .map(|item| StorePath::parse(std::str::from_utf8(item).unwrap()).unwrap())
        .collect();
    let mut side = Side::default();
    let mut targets = Vec::new();
    for item in items {
        let Ok(derivation) = DrvPath::try_from(item.clone()) else {
            if made.contains(&item.name()) {
                side.made.insert(item.to_string());
            }
            targets.push(BuildTarget::Path(item));
            continue;
        };
        let output = format!("/gnu/store/00000000000000000000000000000000-{}", derivation.derivation_name());
        side.outputs.insert(derivation.to_string(), vec![output.clone()]);
        if valid.contains(&derivation.derivation_name()) {
            side.valid.insert(output.clone());
        }
        if made.contains(&derivation.derivation_name()) {
            side.made.insert(output);
        }
        targets.push(BuildTarget::all(derivation));
    }
    let (mut daemon, playing) = recording.play(side).await;
    daemon.set_options(options).await.unwrap();
    let mut log = Record::default();
    if name.starts_with("09") {
        let output = "/gnu/store/iqjkz471nq6jfc7f8ricv2qp36kp1f3z-cap-envb";
        assert!(!daemon.is_valid_path(&output.parse().unwrap()).await.unwrap());
    }
    let results = daemon.build(&targets, mode, &mut log).await.unwrap();
    assert!(daemon.is_usable());
    drop(daemon);
    assert_eq!(playing.left().await, 0, "{name}");
    assert_eq!(results.iter().map(|result| result.target.clone()).collect::<Vec<_>>(), targets);
    (results, log)
}

fn without_substitutes(options: ClientOptions) -> ClientOptions {
    ClientOptions { offload: false, use_substitutes: false, ..options }
}

fn plain() -> ClientOptions {
    without_substitutes(guile())
}

fn multiplexed() -> ClientOptions {
    without_substitutes(guile_multiplexed())
}

fn ended(result: &BuildResult, status: BuildStatus, reason: Option<&FailureReason>) {
    assert_eq!((result.status, result.reason.as_ref()), (status, reason), "{result:?}");
    assert_eq!(result.outputs.is_empty(), !status.is_success(), "{result:?}");
    assert_eq!(result.message.is_empty(), status.is_success(), "{result:?}");
}

const OUTPUT: &[u8] = b"first line\nsecond on stderr\nunfinished line\n";

#[tokio::test]
async fn success() {
    let (results, log) =
        build("11-build-ok-extended-multiplexed", &multiplexed(), BuildMode::Normal, &[], &["cap-okb"]).await;
    ended(&results[0], BuildStatus::Built, None);
    assert_eq!(results[0].times_built, 1);
    assert_eq!(log.of("cap-okb"), OUTPUT);
    assert!(log.has("BuildStarted", "xn//h5kgj3yzyw1ryjj1vwahc0whwb0x1r-cap-okb.drv.gz"), "{:?}", log.events);
    assert!(log.has("BuildSucceeded", "cap-okb.drv"));

    let (results, log) = build("10-build-ok", &plain(), BuildMode::Normal, &[], &["cap-oka"]).await;
    ended(&results[0], BuildStatus::Built, None);
    assert_eq!(log.of("cap-oka"), OUTPUT);

    let mut silent = plain();
    silent.guix.build_trace = false;
    let (results, _) = build("12-build-ok-no-trace", &silent, BuildMode::Normal, &[], &["cap-okc"]).await;
    assert!(results[0].status.is_success());

    let (results, _) =
        build("23-build-already-valid", &multiplexed(), BuildMode::Normal, &["cap-two-levelsb"], &[]).await;
    ended(&results[0], BuildStatus::AlreadyValid, None);

    let (results, log) =
        build("09-guix-build-command-line", &multiplexed(), BuildMode::Normal, &[], &["cap-envb"]).await;
    ended(&results[0], BuildStatus::Built, None);
    assert!(log.of("cap-envb").ends_with(b"Ngid:\t0\n"));
    let (results, _) = build("25-builder-environment", &plain(), BuildMode::Normal, &[], &["cap-enva"]).await;
    ended(&results[0], BuildStatus::Built, None);
}

#[tokio::test]
async fn a_build_with_a_dependency_and_two_beside_each_other() {
    let (results, log) = build(
        "22-build-two-levels-multiplexed",
        &multiplexed(),
        BuildMode::Normal,
        &[],
        &["cap-two-levelsb"],
    )
    .await;
    ended(&results[0], BuildStatus::Built, None);
    assert_eq!((log.of("cap-lowerb"), log.of("cap-two-levelsb")), (b"lower\n".to_vec(), b"top\n".to_vec()));

    let options = ClientOptions { keep_going: true, max_jobs: Some(2), ..multiplexed() };
    let made = ["cap-okp1", "cap-okp2"];
    let (results, log) = build("29-build-two-in-parallel", &options, BuildMode::Normal, &[], &made).await;
    for (result, name) in results.iter().zip(made) {
        ended(result, BuildStatus::Built, None);
        assert_eq!(log.of(name), OUTPUT);
    }
}

#[tokio::test]
async fn junk_in_a_log() {
    let (results, log) =
        build("16-build-binary-output", &plain(), BuildMode::Normal, &[], &["cap-binarya"]).await;
    ended(&results[0], BuildStatus::Built, None);
    let expected =
        b"latin1 \xe9 utf8 \xc3\xa9 nul \0 esc \x1b[31mred\x1b[0m cr\rback\n@ fake-trace not-from-daemon\n";
    assert_eq!(log.of("cap-binarya"), expected);
}

#[tokio::test]
async fn failures() {
    let exit = Some(&FailureReason::ExitCode(3));
    let (results, log) = build("13-build-fail", &plain(), BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::PermanentFailure, exit);
    assert!(log.has("BuildFailed", "ExitCode(3)"), "{:?}", log.events);

    let mut silent = plain();
    silent.guix.build_trace = false;
    let (results, _) = build("15-build-fail-no-trace", &silent, BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::PermanentFailure, exit);

    let (results, _) =
        build("21-build-no-output-produced", &multiplexed(), BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::OutputRejected, Some(&FailureReason::OutputMissing));

    let (results, _) =
        build("24-build-check-mode-differs", &multiplexed(), BuildMode::Check, &["cap-nondeta"], &[]).await;
    ended(&results[0], BuildStatus::NotDeterministic, Some(&FailureReason::NotDeterministic));

    let options = ClientOptions { max_silent: Some(Duration::from_secs(2)), ..multiplexed() };
    let (results, log) = build("26-build-max-silent-time", &options, BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::Silent, Some(&FailureReason::Silent));
    assert!(log.has("BuildFailed", "Silent"), "{:?}", log.events);

    let options = ClientOptions { keep_failed: true, ..multiplexed() };
    let (results, log) = build("28-build-keep-failed", &options, BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::PermanentFailure, exit);
    assert!(log.has("Message", "keeping build directory"));

    let options = ClientOptions { rounds: 3, ..multiplexed() };
    let (results, _) =
        build("29-build-rounds-not-deterministic", &options, BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::NotDeterministic, Some(&FailureReason::NotDeterministic));
    assert_eq!(results[0].times_built, 2);
}

#[tokio::test]
async fn a_failed_dependency_beside_a_success() {
    let options = ClientOptions { keep_going: true, ..multiplexed() };
    let made = ["cap-two-levelsa"];
    let (results, log) =
        build("19-build-dependency-fails-keep-going", &options, BuildMode::Normal, &[], &made).await;
    ended(&results[0], BuildStatus::DependencyFailed, Some(&FailureReason::Dependency));
    ended(&results[1], BuildStatus::Built, None);
    assert!(log.has("BuildFailed", "cap-failc.drv"), "{:?}", log.events);
    assert!(log.has("BuildFailed", "cap-dep-of-failc.drv"), "{:?}", log.events);
}

#[tokio::test]
async fn substitution() {
    let (results, log) =
        build("43-substitute-extended", &guile_multiplexed(), BuildMode::Normal, &[], &["multi"]).await;
    ended(&results[0], BuildStatus::Substituted, None);
    assert!(log.has("SubstitutionProgress", "done: 263, total: Some(263)"), "{:?}", log.events);
    // Guix reports success even when nothing could be fetched.
    let (results, _) =
        build("43-substitute-extended", &guile_multiplexed(), BuildMode::Normal, &[], &[]).await;
    ended(&results[0], BuildStatus::NoSubstituters, None);
}
