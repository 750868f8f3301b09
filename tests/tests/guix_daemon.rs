//! The build daemon's client against real guix-daemons, of every Guix there is.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildResult, BuildStatus, BuildTarget, ClientOptions, ConnectOptions, Connection,
    DaemonError, Dialect, FailureReason, GarbageAction, GarbageRequest, LogEvent, LogSink, log::Discard,
};
use hauberk_store::{
    DrvPath, NarHash, OutputName, Sha256, StorePath,
    nar::Node,
    signature::guix::{Acl, SecretKey},
};
use hauberk_tests::{
    Deadline, GuixRoot, GuixStore, LabDirectory, Machine, MachineConfig, Recipe, require_root, wait_for,
};
use tokio::net::UnixStream;

/// Everything an operation told: what builders printed, and the other events as text.
#[derive(Default)]
struct Record {
    output: Vec<u8>,
    events: Vec<String>,
}

#[async_trait]
impl LogSink for Record {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::BuildOutput { bytes, .. } => self.output.extend_from_slice(bytes),
            LogEvent::Message { bytes, .. } => {
                self.events.push(format!("Message {}", String::from_utf8_lossy(bytes)));
            }
            event => self.events.push(format!("{event:?}")),
        }
    }
}

/// A machine and its directory.
struct Lab {
    machine: Machine,
    directory: LabDirectory,
}

impl Lab {
    fn start(root: &GuixRoot, options: &[&str]) -> Result<Self> {
        require_root()?;
        let directory = LabDirectory::create()?;
        let config = MachineConfig {
            name: "one".to_owned(),
            guix: Some(root.clone()),
            guix_options: options.iter().map(|&option| option.to_owned()).collect(),
            ..MachineConfig::default()
        };
        Ok(Self { machine: Machine::start(directory.path(), &config)?, directory })
    }

    async fn store(&self) -> Result<GuixStore> {
        GuixStore::open(&self.machine.guix_address()).await
    }

    async fn connect(&self, options: &ClientOptions) -> Result<Connection<UnixStream>> {
        let mut daemon =
            Connection::connect(&self.machine.guix_address(), &ConnectOptions::default()).await?;
        daemon.set_options(options).await?;
        Ok(daemon)
    }
}

fn unknown() -> StorePath {
    "/gnu/store/00000000000000000000000000000000-unknown".parse().expect("it is a path")
}

fn set(paths: &[&StorePath]) -> BTreeSet<StorePath> {
    paths.iter().map(|&path| path.clone()).collect()
}

async fn build(
    daemon: &mut impl BuildDaemon,
    drv: &DrvPath,
    mode: BuildMode,
) -> Result<(BuildResult, Record)> {
    let mut log = Record::default();
    let mut results = daemon.build(&[BuildTarget::all(drv.clone())], mode, &mut log).await?;
    Ok((results.pop().context("one result")?, log))
}

#[tokio::test]
async fn questions_and_texts() -> Result<()> {
    for root in GuixRoot::all()? {
        let lab = Lab::start(&root, &[])?;
        let mut store = lab.store().await?;
        let tools = store.tools().clone();
        let (low, low_outputs) = store
            .derivation(&Recipe {
                name: "low",
                script: "mkdir $out $doc; echo low > $out/file; echo words > $doc/file",
                outputs: &["doc"],
                ..Recipe::default()
            })
            .await?;
        let (high, high_outputs) = store
            .derivation(&Recipe {
                name: "high",
                script: "echo refers to $low > $out",
                inputs: &[("low", &low)],
                ..Recipe::default()
            })
            .await?;
        let daemon = store.daemon();
        eprintln!("{}: {:?}", root.suite(), daemon.info());
        assert_eq!(daemon.info().dialect, Dialect::Guix);
        let (low_out, high_out) = (&low_outputs[&OutputName::OUT], &high_outputs[&OutputName::OUT]);
        assert_eq!(daemon.query_derivation_outputs(&low).await?, low_outputs);
        let plan = daemon.query_missing(&[BuildTarget::all(high.clone())]).await?;
        assert_eq!(plan.will_build, BTreeSet::from([low.clone(), high.clone()]));
        let (result, log) = build(daemon, &high, BuildMode::Normal).await?;
        assert_eq!(result.status, BuildStatus::Built, "{result:?} {:#?}", log.events);
        assert_eq!(result.outputs, high_outputs);
        assert!(daemon.query_missing(&[BuildTarget::all(high.clone())]).await?.will_build.is_empty());

        let info = daemon.query_path_info(high_out).await?.context("it was built")?;
        assert_eq!(info.deriver.as_ref(), Some(high.as_path()));
        assert_eq!(info.references, set(&[low_out]));
        let mut nar = Vec::new();
        assert_eq!(daemon.nar_from_path(high_out, &mut nar).await?, info.nar_size);
        assert_eq!(NarHash::digest(&nar), info.nar_hash);
        assert_eq!(daemon.query_path_info(&unknown()).await?, None);
        assert!(!daemon.is_valid_path(&unknown()).await?);
        let valid = daemon.query_valid_paths(&set(&[low_out, high_out, &unknown()])).await?;
        assert_eq!(valid, set(&[low_out, high_out]));
        assert_eq!(daemon.query_path_from_hash_part(&low_out.hash()).await?, Some(low_out.clone()));
        assert_eq!(daemon.query_path_from_hash_part(&unknown().hash()).await?, None);
        assert_eq!(daemon.query_referrers(low_out).await?, set(&[high_out]));
        assert_eq!(daemon.query_valid_derivers(high_out).await?, BTreeSet::from([high.clone()]));
        assert!(daemon.query_substitutable_paths(&set(&[&unknown()])).await?.is_empty());
        assert!(daemon.query_substitutable_path_infos(&set(&[&unknown()])).await?.is_empty());
        assert!(daemon.built_in_builders().await?.contains("download"));
        let urls = daemon.substitute_urls().await;
        eprintln!("{}: substitute URLs {urls:?}", root.suite());
        let error = daemon.nar_from_path(&unknown(), &mut Vec::new()).await.expect_err("it is not there");
        assert!(matches!(error, DaemonError::NotValid { .. }), "{error:?}");
        let error = daemon.ensure_path(&unknown(), &mut Discard).await.expect_err("nobody has it");
        assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
        daemon.ensure_path(low_out, &mut Discard).await?;
        assert!(!daemon.verify_store(true, false).await?);
        daemon.optimise_store().await?;

        // Texts and sources get the paths that the formats say.
        let text = daemon.add_text("note", b"bytes \xff\0", &BTreeSet::new()).await?;
        let refers = daemon.add_text("refers", text.to_string().as_bytes(), &set(&[&text])).await?;
        assert_eq!(daemon.query_path_info(&refers).await?.context("added")?.references, set(&[&text]));
        let error = daemon.add_text("b@d name", b"", &BTreeSet::new()).await.expect_err("a bad name");
        assert!(matches!(error, DaemonError::Unsupported { .. }), "{error:?}");
        let nar = Node::file(b"#!/bin/sh\n".to_vec()).to_nar()?;
        let source = daemon.add_source("script", &mut nar.as_slice(), &BTreeSet::new()).await?;
        assert!(daemon.is_valid_path(&source).await?);
        assert!(daemon.is_usable());

        // A derivation whose outputs do not follow from it is refused.
        let forged = b"Derive([(\"out\",\"/gnu/store/00000000000000000000000000000000-x\",\"\",\"\")],[],[],\"x86_64-linux\",\"/bin/sh\",[],[(\"out\",\"/gnu/store/00000000000000000000000000000000-x\")])";
        let error = daemon.add_text("x.drv", forged, &BTreeSet::new()).await.expect_err("forged");
        assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");

        // The stock client agrees about what is there.
        let listed = lab.machine.guix("guix")?.args(["gc", "--references", &high_out.to_string()]).run()?;
        assert_eq!(listed.trim(), low_out.to_string());
        let requisites = lab.machine.guix("guix")?.args(["gc", "-R", &high.to_string()]).run()?;
        assert!(requisites.contains(&tools.to_string()), "{requisites}");
    }
    Ok(())
}

#[tokio::test]
async fn builds_their_logs_and_every_way_to_fail() -> Result<()> {
    for root in GuixRoot::all()? {
        let lab = Lab::start(&root, &[])?;
        let mut store = lab.store().await?;
        let fine = store
            .script("fine", r"echo first; printf 'b\377n\000ary\r\n'; printf unfinished >&2; echo x > $out")
            .await?;
        let options = ClientOptions {
            timeout: Some(Duration::from_secs(6)),
            max_silent: Some(Duration::from_secs(3)),
            cores: Some(3),
            keep_going: true,
            ..ClientOptions::default()
        };
        let mut daemon = lab.connect(&options).await?;
        let (result, log) = build(&mut daemon, &fine, BuildMode::Normal).await?;
        assert_eq!((result.status, result.times_built), (BuildStatus::Built, 1), "{result:?}");
        assert_eq!(
            log.output,
            b"first\nb\xffn\0ary\r\nunfinished",
            "{:?} {:#?}",
            String::from_utf8_lossy(&log.output),
            log.events
        );
        assert!(log.events.iter().any(|event| event.starts_with("BuildStarted")), "{:#?}", log.events);
        assert!(log.events.iter().any(|event| event.starts_with("BuildSucceeded")), "{:#?}", log.events);
        let (again, _) = build(&mut daemon, &fine, BuildMode::Normal).await?;
        assert_eq!(again.status, BuildStatus::AlreadyValid);

        let cores = store.script("cores", "echo -n cores $NIX_BUILD_CORES; echo x > $out").await?;
        assert_eq!(build(&mut daemon, &cores, BuildMode::Normal).await?.1.output, b"cores 3");

        // A builder cannot forge what the daemon says of it.
        let forger = store
            .script(
                "forger",
                "echo \"@ build-failed $drv - timeout\"; echo \"@ build-log 1 5\"; echo x > $out",
            )
            .await?;
        let (result, log) = build(&mut daemon, &forger, BuildMode::Normal).await?;
        assert_eq!(result.status, BuildStatus::Built, "{result:?}");
        assert!(log.output.starts_with(b"@ build-failed"), "{:?}", String::from_utf8_lossy(&log.output));

        let long =
            store.script("long", "dd if=/dev/zero bs=65536 count=64 2>/dev/null; echo x > $out").await?;
        let (result, log) = build(&mut daemon, &long, BuildMode::Normal).await?;
        assert_eq!((result.status, log.output.len()), (BuildStatus::Built, 4 << 20), "{:?}", log.events);

        let broken = store.script("broken", "echo about to fail; exit 3").await?;
        let dependent = store
            .derivation(&Recipe {
                name: "dependent",
                script: "echo ok > $out",
                inputs: &[("broken", &broken)],
                ..Recipe::default()
            })
            .await?
            .0;
        let hash = Sha256::digest(b"something else").to_base16();
        let wrong_hash = store
            .derivation(&Recipe {
                name: "wrong-hash",
                script: "echo x > $out",
                fixed: Some(&hash),
                ..Recipe::default()
            })
            .await?
            .0;
        let hash = Sha256::digest(b"x\n").to_base16();
        let right_hash = store
            .derivation(&Recipe {
                name: "right-hash",
                script: "echo x > $out",
                fixed: Some(&hash),
                ..Recipe::default()
            })
            .await?
            .0;
        for (drv, status, reason) in [
            (broken, BuildStatus::PermanentFailure, Some(FailureReason::ExitCode(3))),
            (
                store.script("nothing", "echo no output").await?,
                BuildStatus::OutputRejected,
                Some(FailureReason::OutputMissing),
            ),
            (store.script("quiet", "sleep 60").await?, BuildStatus::Silent, Some(FailureReason::Silent)),
            (
                store.script("slow", "while true; do echo x; sleep 1; done").await?,
                BuildStatus::TimedOut,
                Some(FailureReason::TimedOut),
            ),
            (wrong_hash, BuildStatus::OutputRejected, Some(FailureReason::HashMismatch)),
            (right_hash, BuildStatus::Built, None),
            (dependent, BuildStatus::DependencyFailed, Some(FailureReason::Dependency)),
        ] {
            let (result, log) = build(&mut daemon, &drv, BuildMode::Normal).await?;
            assert_eq!(
                (result.status, &result.reason),
                (status, &reason),
                "{} {drv}: {result:?} {:#?}",
                root.suite(),
                log.events
            );
            assert_eq!(result.message.is_empty(), status.is_success(), "{result:?}");
        }

        // Two in one request: one failure does not hide the other's success.
        let (good, bad) =
            (store.script("good", "echo x > $out").await?, store.script("bad", "exit 1").await?);
        let targets = [BuildTarget::all(good), BuildTarget::all(bad)];
        let results = daemon.build(&targets, BuildMode::Normal, &mut Discard).await?;
        assert_eq!(results[0].status, BuildStatus::Built, "{results:?}");
        assert_eq!(results[1].status, BuildStatus::PermanentFailure, "{results:?}");

        // Checks.
        let random = store.script("random", "cat /proc/sys/kernel/random/uuid > $out").await?;
        assert_eq!(build(&mut daemon, &random, BuildMode::Normal).await?.0.status, BuildStatus::Built);
        let (result, log) = build(&mut daemon, &random, BuildMode::Check).await?;
        assert_eq!(result.status, BuildStatus::NotDeterministic, "{result:?} {:#?}", log.events);
        let (result, log) = build(&mut daemon, &fine, BuildMode::Check).await?;
        assert_eq!(result.status, BuildStatus::Built, "{result:?} {:#?}", log.events);
        assert!(daemon.is_usable());
    }
    Ok(())
}

#[tokio::test]
async fn a_cancelled_build_and_a_killed_daemon() -> Result<()> {
    for root in GuixRoot::all()? {
        let mut lab = Lab::start(&root, &[])?;
        let mut store = lab.store().await?;
        let endless = store.script("endless", "echo begun; sleep 987").await?;
        let mut daemon = lab.connect(&ClientOptions::default()).await?;
        struct Begun(tokio::sync::mpsc::UnboundedSender<()>);
        #[async_trait]
        impl LogSink for Begun {
            async fn event(&mut self, event: LogEvent<'_>) {
                if matches!(event, LogEvent::BuildOutput { .. }) {
                    let _ = self.0.send(());
                }
            }
        }
        let sleepers = || {
            let listed = lab.machine.command("pgrep").args(["-fc", "^sleep 987"]).output()?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&listed.stdout).trim().to_owned())
        };
        let target = [BuildTarget::all(endless)];
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let mut log = Begun(begun);
        tokio::select! {
            result = daemon.build(&target, BuildMode::Normal, &mut log) => panic!("{result:?}"),
            _ = has_begun.recv() => {}
        }
        assert!(!daemon.is_usable());
        wait_for("the builder is gone", Deadline::seconds(30), || Ok((sleepers()? == "0").then_some(())))?;

        let mut daemon = lab.connect(&ClientOptions::default()).await?;
        let killed = {
            let building = daemon.build(&target, BuildMode::Normal, &mut log);
            let mut building = std::pin::pin!(building);
            tokio::select! {
                result = &mut building => panic!("{result:?}"),
                _ = has_begun.recv() => {}
            }
            // The daemon's child serves this connection: all of them are killed.
            lab.machine.command("pkill").args(["-KILL", "-f", "^guix-daemon"]).output()?;
            building.await
        };
        let error = killed.expect_err("the daemon is gone");
        assert!(matches!(error, DaemonError::Lost { .. }), "{error:?}");
        assert!(!daemon.is_usable());
        lab.machine.start_guix_daemon()?;
        let fine = lab.store().await?.script("fine", "echo x > $out").await?;
        let mut daemon = lab.connect(&ClientOptions::default()).await?;
        assert_eq!(build(&mut daemon, &fine, BuildMode::Normal).await?.0.status, BuildStatus::Built);
    }
    Ok(())
}

#[tokio::test]
async fn exports_and_imports() -> Result<()> {
    for root in GuixRoot::all()? {
        let (from, to) = (Lab::start(&root, &[])?, Lab::start(&root, &[])?);
        let mut store = from.store().await?;
        let tools = store.tools().clone();
        let low = store.script("low", "mkdir $out; echo low > $out/file").await?;
        let (high, outputs) = store
            .derivation(&Recipe {
                name: "high",
                script: "echo refers to $low > $out",
                inputs: &[("low", &low)],
                ..Recipe::default()
            })
            .await?;
        let daemon = store.daemon();
        build(daemon, &high, BuildMode::Normal).await?;
        let low_out = daemon.query_derivation_outputs(&low).await?[&OutputName::OUT].clone();
        let high_out = outputs[&OutputName::OUT].clone();
        let paths = [low_out.clone(), high_out.clone()];
        let mut unsigned = Vec::new();
        daemon.export_paths(&paths, false, &mut unsigned).await?;

        // A key of ours in the place of the one that `guix archive --generate-key` makes is taken by the daemon.
        let (key, stranger) = (SecretKey::generate()?, SecretKey::generate()?);
        let secret = from.machine.outside("/etc/guix/signing-key.sec");
        fs::write(&secret, &*key.to_secret_bytes())?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o400))?;
        fs::write(
            from.machine.outside("/etc/guix/signing-key.pub"),
            key.public_key().as_sexp().to_advanced(),
        )?;
        let mut signed = Vec::new();
        daemon.export_paths(&paths, true, &mut signed).await?;
        let listed: Vec<String> = paths.iter().map(ToString::to_string).collect();
        let stock = from.machine.guix("guix")?.args(["archive", "--export"]).args(&listed).output()?;
        assert!(stock.status.success(), "{}", String::from_utf8_lossy(&stock.stderr));
        assert_eq!(signed, stock.stdout, "the same key signs the same bytes");

        let mut receiver = to.connect(&ClientOptions::default()).await?;
        let refused = |result: Result<Vec<StorePath>, DaemonError>, words: &str| match result {
            Err(DaemonError::Daemon { message, .. }) => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?} instead of {words}"),
        };
        refused(receiver.import_paths(&mut unsigned.as_slice()).await, "lacks a signature");
        refused(receiver.import_paths(&mut signed.as_slice()).await, "unauthorized public key");
        let authorize = |key: &SecretKey| -> Result<()> {
            let mut acl = Acl::default();
            acl.authorize(key.public_key());
            fs::write(to.machine.outside("/etc/guix/acl"), acl.to_string())?;
            Ok(())
        };
        // A session reads the list of keys once.
        authorize(&stranger)?;
        let mut receiver = to.connect(&ClientOptions::default()).await?;
        refused(receiver.import_paths(&mut signed.as_slice()).await, "unauthorized public key");
        authorize(&key)?;
        let mut receiver = to.connect(&ClientOptions::default()).await?;
        let mut flipped = signed.clone();
        let place = flipped.windows(4).position(|bytes| bytes == b"low\n").context("the contents")?;
        flipped[place] ^= 1;
        refused(receiver.import_paths(&mut flipped.as_slice()).await, "hash");
        assert_eq!(receiver.import_paths(&mut signed.as_slice()).await?, paths);
        assert_eq!(receiver.query_valid_paths(&set(&[&low_out, &high_out])).await?.len(), 2);
        assert!(!receiver.is_valid_path(&tools).await?);
        let error = receiver.import_paths(&mut &signed[..signed.len() / 2]).await;
        assert!(error.is_err(), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn roots_and_garbage() -> Result<()> {
    for root in GuixRoot::all()? {
        let lab = Lab::start(&root, &[])?;
        let mut store = lab.store().await?;
        let drv = store.script("kept", "echo x > $out").await?;
        let daemon = store.daemon();
        let (result, _) = build(daemon, &drv, BuildMode::Normal).await?;
        let out = result.outputs[&OutputName::OUT].clone();
        let note = daemon.add_text("note", b"garbage", &BTreeSet::new()).await?;
        let link = lab.directory.path().join("result");
        std::os::unix::fs::symlink(out.to_string(), &link)?;
        daemon.add_indirect_root(&link).await?;
        let roots = daemon.find_roots().await?;
        assert!(roots.iter().any(|root| root.link == link && root.target == out), "{roots:?}");
        daemon.add_temp_root(&note).await?;

        let mut other = lab.connect(&ClientOptions::default()).await?;
        let list = GarbageRequest::new;
        let live = other.collect_garbage(&list(GarbageAction::ListLive)).await?;
        for path in [&out, &note] {
            assert!(live.paths.contains(&path.to_string()), "{path} {live:?}");
        }
        drop(store);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            // The daemon's process for the closed session takes a moment to end.
            let dead = other.collect_garbage(&list(GarbageAction::ListDead)).await?;
            if dead.paths.contains(&note.to_string()) {
                assert!(!dead.paths.contains(&out.to_string()));
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{dead:?}");
        }
        let error = other.collect_garbage(&list(GarbageAction::Delete(set(&[&out])))).await;
        assert!(matches!(error, Err(DaemonError::Daemon { .. })), "{error:?}");
        let deleted = other.collect_garbage(&list(GarbageAction::Delete(set(&[&note])))).await?;
        assert_eq!(deleted.paths, [note.to_string()]);
        assert!(deleted.bytes_freed > 0);
        let limited = GarbageRequest { action: GarbageAction::DeleteDead, max_freed: Some(1) };
        other.collect_garbage(&limited).await?;
        assert!(other.is_valid_path(&out).await?);
        fs::remove_file(&link)?;
        other.collect_garbage(&list(GarbageAction::DeleteDead)).await?;
        assert!(!other.is_valid_path(&out).await?);
    }
    Ok(())
}
