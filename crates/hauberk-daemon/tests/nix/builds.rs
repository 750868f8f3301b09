//! Building.

use std::time::Duration;

use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildResult, BuildStatus, BuildTarget, ClientOptions, ConnectOptions,
    DaemonError, FailureReason, OutputSelection, Pool, log::Discard,
};
use hauberk_store::{DrvPath, OutputName};

use crate::{
    log::Record,
    machine::{Machine, eventually, processes_with, script_expression, tree},
};

async fn build(connection: &mut impl BuildDaemon, derivation: &DrvPath, log: &mut Record) -> BuildResult {
    let targets = [BuildTarget::all(derivation.clone())];
    let mut results = connection.build(&targets, BuildMode::Normal, log).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

#[tokio::test]
async fn success_and_its_log() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let info = connection.info();
    let told = String::from_utf8(machine.run("nix-daemon", &["--version"])).unwrap();
    assert_eq!(info.program_version.as_deref(), told.split_whitespace().next_back(), "{told}");
    // Version 1.35 brought the word on trust.
    assert_eq!(info.trusted, (info.version.minor() > 34).then_some(true), "{info:?}");
    assert!(tree().is_some() || info.version.to_string() == "1.34", "{info:?}");

    // What stands in a line before a carriage return is lost in the newest versions.
    let end = if tree().is_some() { "\\n" } else { "\\r\\n" };
    let script = format!(r"echo first; printf 'b\377n\000ary{end}'; printf unfinished >&2; echo x > $out");
    let derivation = machine.script("fine", &script);
    let mut log = Record::default();
    let result = build(&mut connection, &derivation, &mut log).await;
    assert_eq!(result.status, BuildStatus::Built, "{result:?}");
    assert_eq!(result.message, "");
    assert_eq!(result.times_built, 1);
    // The newest versions do not tell the times.
    assert!(tree().is_some() || result.start_time.is_some(), "{result:?}");
    assert!(result.stop_time >= result.start_time, "{result:?}");
    let outputs = connection.query_derivation_outputs(&derivation).await.unwrap();
    assert_eq!(result.outputs, outputs);
    assert_eq!(outputs[&OutputName::OUT].name(), "fine");
    assert_eq!(log.output, b"first\nb\xffn\0ary\nunfinished\n", "{:?}", String::from_utf8_lossy(&log.output));
    assert!(log.has("BuildStarted"), "{:?}", log.events);
    assert!(log.has("BuildStopped"), "{:?}", log.events);
    assert!(log.has("BuildSucceeded"), "{:?}", log.events);
    assert!(!log.has("first"), "output came among the daemon's words: {:?}", log.events);

    let again = build(&mut connection, &derivation, &mut Record::default()).await;
    assert_eq!(again.status, BuildStatus::AlreadyValid);
    assert_eq!(again.outputs, outputs);
    assert_eq!(again.start_time, None);
}

#[tokio::test]
async fn every_way_to_fail() {
    let machine = Machine::start("").await;
    let options = ClientOptions {
        timeout: Some(Duration::from_secs(4)),
        max_silent: Some(Duration::from_secs(2)),
        max_log_size: Some(100_000),
        keep_going: true,
        ..ClientOptions::default()
    };
    let mut connection = machine.connect_with(&options).await;
    let hash = "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
                outputHash = \"0000000000000000000000000000000000000000000000000000\";";
    let dependent = format!(
        "let broken = {}; in {}",
        script_expression("broken", "exit 3", ""),
        script_expression("dependent", "echo ok > $out", "inherit broken;"),
    );
    let derivations = [
        (
            machine.script("exit-code", "echo about to; exit 3"),
            BuildStatus::PermanentFailure,
            Some(FailureReason::ExitCode(3)),
        ),
        (machine.script("nothing", "true"), BuildStatus::OutputRejected, Some(FailureReason::OutputMissing)),
        (machine.script("quiet", "sleep 60"), BuildStatus::Silent, Some(FailureReason::Silent)),
        (
            machine.script("slow", "while true; do echo x; sleep 1; done"),
            BuildStatus::TimedOut,
            Some(FailureReason::TimedOut),
        ),
        (
            machine.script("chatty", "while true; do echo 0123456789012345678901234567890123456789; done"),
            BuildStatus::LogLimitExceeded,
            Some(FailureReason::LogLimit),
        ),
        (
            machine.script_with("wrong-hash", "echo x > $out", hash),
            BuildStatus::OutputRejected,
            Some(FailureReason::HashMismatch),
        ),
        (machine.instantiate(&dependent), BuildStatus::DependencyFailed, Some(FailureReason::Dependency)),
        (machine.script("fine-beside", "echo x > $out"), BuildStatus::Built, None),
    ];
    let targets: Vec<BuildTarget> =
        derivations.iter().map(|(derivation, _, _)| BuildTarget::all(derivation.clone())).collect();
    let mut log = Record::default();
    let results = connection.build(&targets, BuildMode::Normal, &mut log).await.unwrap();
    assert_eq!(results.len(), targets.len());
    for ((derivation, status, reason), result) in derivations.iter().zip(&results) {
        assert_eq!(result.target.derivation(), Some(derivation));
        assert_eq!((&result.status, &result.reason), (status, reason), "{result:?}");
        assert!(!result.message.contains('\u{1b}'), "{:?}", result.message);
        assert_eq!(result.outputs.is_empty(), !status.is_success());
        if !status.is_success() {
            let start = format!("BuildFailed {{ derivation: {derivation},");
            let told = log.events.iter().filter(|event| event.starts_with(&start)).count();
            assert_eq!(told, 1, "{derivation} {:#?}", log.events);
        }
    }
    assert!(
        log.events.iter().any(|event| event.starts_with("BuildFailed")
            && event.contains("-broken.drv")
            && event.contains("ExitCode(3)")),
        "{:#?}",
        log.events
    );
    eventually("no builder is left", || processes_with("sleep 60") == 0).await;
}

#[tokio::test]
async fn a_builder_killed_by_a_signal() {
    // In the sandbox a builder is the first process, which cannot kill itself.
    let machine = Machine::start("sandbox = false\n").await;
    let mut connection = machine.connect().await;
    let derivation = machine.script("signal", "kill -SEGV $$");
    let result = build(&mut connection, &derivation, &mut Record::default()).await;
    assert_eq!(result.status, BuildStatus::PermanentFailure, "{result:?}");
    assert_eq!(result.reason, Some(FailureReason::Signal(11)));
}

#[tokio::test]
async fn check_and_repair() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let steady = machine.script("steady", "echo x > $out");
    let random = machine.script("random", "cat /proc/sys/kernel/random/uuid > $out");
    let targets = [BuildTarget::all(steady), BuildTarget::all(random)];
    let results = connection.build(&targets, BuildMode::Normal, &mut Discard).await.unwrap();
    assert!(results.iter().all(|result| result.status == BuildStatus::Built), "{results:?}");
    let mut options = ClientOptions { keep_going: true, ..ClientOptions::default() };
    connection.set_options(&options).await.unwrap();
    let results = connection.build(&targets, BuildMode::Check, &mut Discard).await.unwrap();
    assert_eq!(results[0].status, BuildStatus::Built, "{results:?}");
    assert_eq!(results[1].status, BuildStatus::NotDeterministic, "{results:?}");
    assert_eq!(results[1].reason, Some(FailureReason::NotDeterministic));

    // Damage a path; the store notices and mends it.
    options.keep_going = false;
    connection.set_options(&options).await.unwrap();
    let path = results[0].outputs.values().next().unwrap();
    let file = machine.path().join(path.to_string().trim_start_matches('/'));
    std::fs::write(&file, "y\n").unwrap();
    assert!(connection.verify_store(true, false).await.unwrap());
    let mended = connection.build(&targets[..1], BuildMode::Repair, &mut Discard).await.unwrap();
    assert!(mended[0].status.is_success(), "{mended:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"x\n");
    assert!(!connection.verify_store(true, false).await.unwrap());
}

#[tokio::test]
async fn chosen_outputs_and_paths() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let multi =
        machine.script_with("multi", "echo a > $out; echo b > $doc", "outputs = [ \"out\" \"doc\" ];");
    let doc = OutputName::parse("doc").unwrap();
    let outputs = OutputSelection::Named([doc.clone()].into());
    let unknown = "/nix/store/00000000000000000000000000000000-unknown".parse().unwrap();
    let targets =
        [BuildTarget::Derivation { derivation: multi.clone(), outputs }, BuildTarget::Path(unknown)];
    connection.set_options(&ClientOptions { keep_going: true, ..ClientOptions::default() }).await.unwrap();
    let results = connection.build(&targets, BuildMode::Normal, &mut Discard).await.unwrap();
    assert_eq!(results[0].status, BuildStatus::Built);
    assert!(results[0].outputs.contains_key(&doc), "{results:?}");
    assert_eq!(results[1].status, BuildStatus::NoSubstituters, "{results:?}");
    let all = connection.query_derivation_outputs(&multi).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[&doc], results[0].outputs[&doc]);
}

#[tokio::test]
async fn a_request_for_another_system_is_refused() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let foreign = machine
        .instantiate("derivation { name = \"x\"; system = \"riscv64-linux\"; builder = \"/bin/sh\"; }");
    let target = [BuildTarget::all(foreign)];
    let message = match connection.build(&target, BuildMode::Normal, &mut Discard).await {
        Err(DaemonError::Daemon { message, .. }) => message,
        Ok(results) if results[0].reason == Some(FailureReason::Platform) => results[0].message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(message.contains("riscv64-linux"), "{message}");
    let fine = machine.script("after-refusal", "echo x > $out");
    assert_eq!(build(&mut connection, &fine, &mut Record::default()).await.status, BuildStatus::Built);
}

#[tokio::test]
async fn dropping_a_build_kills_its_builder() {
    let machine = Machine::start("").await;
    let derivation = machine.script("long", "echo running; sleep 86123");
    let mut connection = machine.connect().await;
    {
        let target = [BuildTarget::all(derivation)];
        let mut log = Record::default();
        let mut building = connection.build(&target, BuildMode::Normal, &mut log);
        tokio::select! {
            results = &mut building => panic!("{results:?}"),
            () = eventually("the builder runs", || processes_with("sleep 86123") > 0) => {}
        }
    }
    eventually("the builder is gone", || processes_with("sleep 86123") == 0).await;
    assert!(!connection.is_usable());
    let unknown = "/nix/store/00000000000000000000000000000000-unknown".parse().unwrap();
    let error = connection.query_path_info(&unknown).await.unwrap_err();
    assert!(matches!(error, DaemonError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_killed_daemon_loses_the_connection() {
    let mut machine = Machine::start("").await;
    let derivation = machine.script("doomed", "echo running; sleep 86124");
    let mut connection = machine.connect().await;
    let building = tokio::spawn(async move {
        let target = [BuildTarget::all(derivation)];
        let result = connection.build(&target, BuildMode::Normal, &mut Discard).await;
        (result, connection)
    });
    eventually("the builder runs", || processes_with("sleep 86124") > 0).await;
    machine.kill();
    let (result, mut connection) = building.await.unwrap();
    assert!(matches!(result, Err(DaemonError::Lost { .. })), "{result:?}");
    assert!(!connection.is_usable());
    eventually("the builder is gone", || processes_with("sleep 86124") == 0).await;
}

#[tokio::test]
async fn long_logs_and_long_lines() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    // A line of 5 MiB, then 10 MB in lines.
    let script = "x=0123456789abcdef; for i in 1 2 3 4 5 6; do x=$x$x$x$x; done; x=$x$x$x$x$x; \
                  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do printf %s $x; done; echo; \
                  i=0; while [ $i -lt 100000 ]; do echo line $i ...............................................................................; i=$((i+1)); done; echo x > $out";
    let derivation = machine.script("chatty", script);
    let mut log = Record::default();
    let result = build(&mut connection, &derivation, &mut log).await;
    assert_eq!(result.status, BuildStatus::Built, "{result:?}");
    let lines: Vec<&[u8]> = log.output.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), 100_002);
    assert_eq!(lines[0].len(), 5 << 20);
    assert!(log.output.len() > 14_000_000);
    assert!(lines[100_000].starts_with(b"line 99999 "));
}

#[tokio::test]
async fn an_untrusted_client() {
    let machine = Machine::start("trusted-users = nobody\n").await;
    let mut connection = machine.connect().await;
    let options = ClientOptions { max_silent: Some(Duration::from_secs(1)), ..ClientOptions::default() };
    connection.set_options(&options).await.unwrap();
    let quiet = machine.script("quiet-untrusted", "sleep 60");
    let result = build(&mut connection, &quiet, &mut Record::default()).await;
    assert_eq!(result.status, BuildStatus::Silent, "{result:?}");
    let fine = machine.script("fine-untrusted", "echo x > $out");
    assert_eq!(build(&mut connection, &fine, &mut Record::default()).await.status, BuildStatus::Built);
    let error = connection.verify_store(true, true).await.unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
    assert!(connection.is_usable());
}

#[tokio::test]
async fn a_pool_replaces_what_breaks() {
    let machine = Machine::start("").await;
    let pool = Pool::to_socket(machine.address(), ConnectOptions::default(), ClientOptions::default(), 2);
    let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), pool.get()).await.is_err(),
        "the pool is bounded"
    );
    drop(first);
    let mut third = pool.get().await.unwrap();
    let derivation = machine.script("pooled", "sleep 86125");
    let target = [BuildTarget::all(derivation)];
    {
        let mut log = Discard;
        let mut building = third.build(&target, BuildMode::Normal, &mut log);
        tokio::select! {
            results = &mut building => panic!("{results:?}"),
            () = eventually("the builder runs", || processes_with("sleep 86125") > 0) => {}
        }
    }
    drop((second, third));
    for _ in 0..3 {
        let mut connection = pool.get().await.unwrap();
        assert!(connection.query_valid_paths(&[].into()).await.unwrap().is_empty());
    }
    // One whose options were changed is not lent to another.
    let mut changed = pool.get().await.unwrap();
    changed.set_options(&ClientOptions { keep_going: true, ..ClientOptions::default() }).await.unwrap();
    drop(changed);
    let (one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(one.options(), Some(pool.options()));
    assert_eq!(other.options(), Some(pool.options()));
}
