//! The store: adding, reading, roots, garbage.

use std::{collections::BTreeSet, io, time::Duration};

use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildTarget, ClientOptions, ConnectOptions, DaemonError, GarbageAction,
    GarbageRequest, Keeper, PathInfo, log::Discard,
};
use hauberk_store::{NarHash, StorePath, nar::Node, narinfo::fingerprint, signature::nix::SecretKey};

use crate::machine::{Machine, script_expression, tree};

fn unknown() -> StorePath {
    "/nix/store/00000000000000000000000000000000-unknown".parse().unwrap()
}

fn set(paths: &[&StorePath]) -> BTreeSet<StorePath> {
    paths.iter().map(|&path| path.clone()).collect()
}

/// Builds a path that refers to another one, and gives both and what the store knows of the first.
async fn pair(machine: &Machine) -> (StorePath, StorePath, PathInfo) {
    let expression = format!(
        "let lib = {}; in {}",
        script_expression("lib", "echo lib > $out", ""),
        script_expression("program", "echo uses $lib > $out", "inherit lib;"),
    );
    let derivation = machine.instantiate(&expression);
    let mut connection = machine.connect().await;
    let target = [BuildTarget::all(derivation.clone())];
    let results = connection.build(&target, BuildMode::Normal, &mut Discard).await.unwrap();
    let program = results[0].outputs.values().next().unwrap().clone();
    let info = connection.query_path_info(&program).await.unwrap().unwrap();
    assert_eq!(info.deriver.as_ref(), Some(derivation.as_path()));
    let lib = info.references.iter().find(|path| **path != program).unwrap().clone();
    (program, lib, info)
}

#[tokio::test]
async fn questions() {
    let machine = Machine::start("").await;
    let (program, lib, info) = pair(&machine).await;
    let mut connection = machine.connect().await;
    assert!(info.ultimate && info.signatures.is_empty() && info.content_address.is_none());
    assert!(info.registration_time > 1_600_000_000);
    assert_eq!(connection.query_path_info(&unknown()).await.unwrap(), None);
    assert!(connection.is_valid_path(&lib).await.unwrap());
    assert!(!connection.is_valid_path(&unknown()).await.unwrap());
    let valid = connection.query_valid_paths(&set(&[&program, &lib, &unknown()])).await.unwrap();
    assert_eq!(valid, set(&[&program, &lib]));
    assert_eq!(connection.query_path_from_hash_part(&lib.hash()).await.unwrap(), Some(lib.clone()));
    assert_eq!(connection.query_path_from_hash_part(&unknown().hash()).await.unwrap(), None);
    assert_eq!(connection.query_referrers(&lib).await.unwrap(), set(&[&program]));
    let derivers = connection.query_valid_derivers(&program).await.unwrap();
    assert_eq!(derivers.into_iter().next().as_deref(), info.deriver.as_ref());
    assert!(connection.query_substitutable_paths(&set(&[&unknown()])).await.unwrap().is_empty());
    assert!(connection.query_substitutable_path_infos(&set(&[&unknown()])).await.unwrap().is_empty());
    assert!(connection.built_in_builders().await.unwrap().contains("fetchurl"));
    assert!(matches!(connection.substitute_urls().await, Err(DaemonError::Unsupported { .. })));
    let error = connection.ensure_path(&unknown(), &mut Discard).await.unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
    connection.ensure_path(&lib, &mut Discard).await.unwrap();
    assert!(!connection.verify_store(true, false).await.unwrap());
    connection.optimise_store().await.unwrap();
    assert!(connection.is_usable());
}

#[tokio::test]
async fn what_is_missing() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let expression = format!(
        "let low = {}; in {}",
        script_expression("low", "echo low > $out", ""),
        script_expression("high", "echo $low > $out", "inherit low;"),
    );
    let high = machine.instantiate(&expression);
    let targets = [BuildTarget::all(high.clone()), BuildTarget::Path(unknown())];
    let missing = connection.query_missing(&targets).await.unwrap();
    let names: Vec<&str> = missing.will_build.iter().map(|derivation| derivation.derivation_name()).collect();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), ["high", "low"].into());
    assert_eq!(missing.unknown, set(&[&unknown()]));
    assert!(missing.will_substitute.is_empty());
    connection.build(&targets[..1], BuildMode::Normal, &mut Discard).await.unwrap();
    assert!(connection.query_missing(&targets[..1]).await.unwrap().will_build.is_empty());
}

#[tokio::test]
async fn texts_and_sources() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let text = connection.add_text("note", b"bytes \xff\0", &BTreeSet::new()).await.unwrap();
    let with_reference =
        connection.add_text("refers", text.to_string().as_bytes(), &set(&[&text])).await.unwrap();
    let info = connection.query_path_info(&with_reference).await.unwrap().unwrap();
    assert_eq!(info.references, set(&[&text]));
    assert!(info.content_address.is_some_and(|address| address.starts_with("text:sha256:")));

    let script = machine.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let nar = Node::file(b"#!/bin/sh\n".to_vec()).to_nar().unwrap();
    let source = connection.add_source("script", &mut nar.as_slice(), &BTreeSet::new()).await.unwrap();
    let stock = machine.run("nix-store", &["--add", script.to_str().unwrap()]);
    assert_eq!(source.to_string(), String::from_utf8(stock).unwrap().trim());

    let error = connection.add_source("broken", &mut &nar[..40], &BTreeSet::new()).await.unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
    let error = connection.add_text("b@d name", b"", &BTreeSet::new()).await.unwrap_err();
    assert!(matches!(error, DaemonError::Unsupported { .. }), "{error:?}");
    assert!(connection.is_valid_path(&source).await.unwrap());
}

#[tokio::test]
async fn nars_and_signatures() {
    let builder = Machine::start("").await;
    let (program, lib, mut info) = pair(&builder).await;
    let mut from = builder.connect().await;
    let mut lib_info = from.query_path_info(&lib).await.unwrap().unwrap();
    let (mut nar, mut lib_nar) = (Vec::new(), Vec::new());
    assert_eq!(from.nar_from_path(&program, &mut nar).await.unwrap(), info.nar_size);
    from.nar_from_path(&lib, &mut lib_nar).await.unwrap();
    assert_eq!(NarHash::digest(&nar), info.nar_hash);
    assert_eq!(nar.len() as u64, info.nar_size);
    assert_eq!(nar, builder.run("nix-store", &["--dump", &format!("{}{program}", builder.path().display())]));
    let error = from.nar_from_path(&unknown(), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, DaemonError::NotValid { .. }), "{error:?}");

    let key = SecretKey::generate("farm-1").unwrap();
    let stranger = SecretKey::generate("farm-1").unwrap();
    // The user is trusted by neither daemon: only signatures count.
    let receiver =
        Machine::start(&format!("trusted-public-keys = {}\ntrusted-users = nobody\n", key.public_key()))
            .await;
    let mut to = receiver.connect().await;
    let sign = |info: &mut PathInfo, key: &SecretKey| {
        let text = fingerprint(&info.path, &info.nar_hash, info.nar_size, &info.references);
        info.signatures = [key.sign(&text).to_string()].into();
        info.ultimate = false;
    };
    sign(&mut lib_info, &key);
    let mut unsigned = lib_info.clone();
    unsigned.signatures.clear();
    let refused = |result: Result<(), DaemonError>, words: &str| match result {
        Err(DaemonError::Daemon { message, .. }) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?} instead of {words}"),
    };
    refused(to.add_nar(&unsigned, &mut lib_nar.as_slice(), false).await, "signature");
    sign(&mut unsigned, &stranger);
    refused(to.add_nar(&unsigned, &mut lib_nar.as_slice(), false).await, "signature");
    let mut flipped = lib_nar.clone();
    *flipped.iter_mut().rev().find(|byte| **byte == b'l').unwrap() ^= 1;
    refused(to.add_nar(&lib_info, &mut flipped.as_slice(), false).await, "hash mismatch");
    refused(to.add_nar(&lib_info, &mut &lib_nar[..lib_nar.len() - 8], false).await, "");
    let mut failing = failing_reader(&lib_nar[..50]);
    let error = to.add_nar(&lib_info, &mut failing, false).await.unwrap_err();
    assert!(matches!(error, DaemonError::Source { .. }), "{error:?}");
    assert!(!to.is_valid_path(&lib).await.unwrap());

    // A reference that is not there.
    sign(&mut info, &key);
    refused(to.add_nar(&info, &mut nar.as_slice(), false).await, "not valid");

    to.add_nar(&lib_info, &mut lib_nar.as_slice(), false).await.unwrap();
    to.add_nar(&info, &mut nar.as_slice(), false).await.unwrap();
    to.add_nar(&info, &mut nar.as_slice(), false).await.unwrap();
    let there = to.query_path_info(&program).await.unwrap().unwrap();
    assert_eq!(
        (there.nar_hash, &there.references, &there.signatures),
        (info.nar_hash, &info.references, &info.signatures)
    );
    assert!(!there.ultimate);
}

/// Gives some bytes and then an error.
fn failing_reader(bytes: &[u8]) -> impl tokio::io::AsyncRead + Send + Unpin {
    struct Failing(io::Cursor<Vec<u8>>);
    impl tokio::io::AsyncRead for Failing {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            if self.0.position() == self.0.get_ref().len() as u64 {
                return std::task::Poll::Ready(Err(io::Error::other("the network is gone")));
            }
            std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }
    Failing(io::Cursor::new(bytes.to_vec()))
}

#[tokio::test]
async fn a_large_nar_that_is_refused_at_once() {
    // The daemon refuses before it reads, but says so when all is sent: the connection stays in order.
    let machine = Machine::start("trusted-public-keys =\ntrusted-users = nobody\n").await;
    let mut connection = machine.connect().await;
    let nar = Node::file(vec![b'x'; 64 << 20]).to_nar().unwrap();
    let info = PathInfo {
        path: unknown(),
        deriver: None,
        nar_hash: NarHash::digest(&nar),
        references: BTreeSet::new(),
        registration_time: 0,
        nar_size: nar.len() as u64,
        ultimate: false,
        signatures: BTreeSet::new(),
        content_address: None,
    };
    let mut bytes = nar.as_slice();
    let adding = connection.add_nar(&info, &mut bytes, false);
    let error = tokio::time::timeout(Duration::from_secs(60), adding).await.unwrap().unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
    assert!(!connection.is_valid_path(&unknown()).await.unwrap());
}

#[tokio::test]
async fn exports_and_imports() {
    let builder = Machine::start("").await;
    let (program, lib, _) = pair(&builder).await;
    let mut from = builder.connect().await;
    let paths = [lib.clone(), program.clone()];
    let mut stream = Vec::new();
    from.export_paths(&paths, false, &mut stream).await.unwrap();
    assert_eq!(stream, builder.run("nix-store", &["--export", &lib.to_string(), &program.to_string()]));
    assert!(matches!(
        from.export_paths(&paths, true, &mut stream).await,
        Err(DaemonError::Unsupported { .. })
    ));

    let receiver = Machine::start("").await;
    let mut to = receiver.connect().await;
    match to.import_paths(&mut stream.as_slice()).await {
        // Newer versions have no such operation.
        Err(DaemonError::Unsupported { .. }) if tree().is_some() => return,
        imported => assert_eq!(imported.unwrap(), paths),
    }
    assert_eq!(to.query_valid_paths(&set(&[&lib, &program])).await.unwrap().len(), 2);
    let error = to.import_paths(&mut &stream[..stream.len() / 2]).await.unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
}

#[tokio::test]
async fn roots_and_garbage() {
    let machine = Machine::start("").await;
    let (program, lib, _) = pair(&machine).await;
    let mut connection = machine.connect().await;
    let note = connection.add_text("note", b"garbage", &BTreeSet::new()).await.unwrap();
    let link = machine.path().join("result");
    std::os::unix::fs::symlink(program.to_string(), &link).unwrap();
    connection.add_indirect_root(&link).await.unwrap();
    let roots = connection.find_roots().await.unwrap();
    assert!(roots.iter().any(|root| root.link == link && root.target == program), "{roots:?}");

    // What this session added or asked to keep stays while it lasts.
    connection.add_temp_root(&note).await.unwrap();
    let mut other = machine.connect().await;
    let list = |action| GarbageRequest::new(action);
    let live = other.collect_garbage(&list(GarbageAction::ListLive)).await.unwrap();
    for path in [&program, &lib, &note] {
        assert!(live.paths.contains(&path.to_string()), "{path} {live:?}");
    }
    drop(connection);
    let mut dead = other.collect_garbage(&list(GarbageAction::ListDead)).await.unwrap();
    while !dead.paths.contains(&note.to_string()) {
        // The daemon's process for the closed session takes a moment to end.
        dead = other.collect_garbage(&list(GarbageAction::ListDead)).await.unwrap();
    }
    assert!(!dead.paths.contains(&lib.to_string()));
    let error = other.collect_garbage(&list(GarbageAction::Delete(set(&[&lib])))).await.unwrap_err();
    assert!(matches!(error, DaemonError::Daemon { .. }), "{error:?}");
    let deleted = other.collect_garbage(&list(GarbageAction::Delete(set(&[&note])))).await.unwrap();
    assert_eq!(deleted.paths, [note.to_string()]);
    assert!(deleted.bytes_freed > 0);
    assert!(!other.is_valid_path(&note).await.unwrap());

    let limited = GarbageRequest { action: GarbageAction::DeleteDead, max_freed: Some(1) };
    other.collect_garbage(&limited).await.unwrap();
    std::fs::remove_file(&link).unwrap();
    other.collect_garbage(&list(GarbageAction::DeleteDead)).await.unwrap();
    assert!(other.query_valid_paths(&set(&[&program, &lib])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_keeper_outlives_the_connection_it_takes_over_from() {
    let machine = Machine::start("").await;
    let mut connection = machine.connect().await;
    let note = connection.add_text("note", b"kept", &BTreeSet::new()).await.unwrap();
    let keeper = Keeper::to_socket(machine.address(), ConnectOptions::default());
    keeper.keep(std::slice::from_ref(&note)).await.unwrap();
    drop(connection);
    let mut other = machine.connect().await;
    for _ in 0..3 {
        other.collect_garbage(&GarbageRequest::new(GarbageAction::DeleteDead)).await.unwrap();
        assert!(other.is_valid_path(&note).await.unwrap());
    }
    drop(keeper);
    while other.is_valid_path(&note).await.unwrap() {
        // The daemon's process for the closed session takes a moment to end.
        other.collect_garbage(&GarbageRequest::new(GarbageAction::DeleteDead)).await.unwrap();
    }
}

#[tokio::test]
async fn substitution() {
    let builder = Machine::start("").await;
    let (program, lib, _) = pair(&builder).await;
    let cache = format!("file://{}/cache", builder.path().display());
    builder.run(
        "nix",
        &["--extra-experimental-features", "nix-command", "copy", "--to", &cache, &program.to_string()],
    );
    // A daemon puts many questions only to caches that want them.
    let info = builder.path().join("cache/nix-cache-info");
    std::fs::write(info, "StoreDir: /nix/store\nWantMassQuery: 1\n").unwrap();
    let receiver = Machine::start("require-sigs = false\n").await;
    let options = ClientOptions {
        use_substitutes: true,
        substitute_urls: Some(vec![cache]),
        ..ClientOptions::default()
    };
    let mut connection = receiver.connect_with(&options).await;
    let substitutable =
        connection.query_substitutable_paths(&set(&[&program, &lib, &unknown()])).await.unwrap();
    assert_eq!(substitutable, set(&[&program, &lib]));
    let infos = connection.query_substitutable_path_infos(&set(&[&program])).await.unwrap();
    assert_eq!(infos[0].references, set(&[&lib]));
    let missing = connection.query_missing(&[BuildTarget::Path(program.clone())]).await.unwrap();
    assert_eq!(missing.will_substitute, set(&[&program, &lib]));
    assert!(missing.download_size > 0 && missing.nar_size > 0);
    let mut log = crate::log::Record::default();
    connection.ensure_path(&program, &mut log).await.unwrap();
    assert!(log.has("SubstitutionStarted") && log.has("SubstitutionStopped"), "{:#?}", log.events);
    assert!(connection.is_valid_path(&lib).await.unwrap());
}

#[tokio::test]
async fn a_path_whose_files_are_gone() {
    let machine = Machine::start("").await;
    let (program, lib, _) = pair(&machine).await;
    let mut connection = machine.connect().await;
    std::fs::remove_file(machine.path().join(&lib.to_string()[1..])).unwrap();
    let error = connection.nar_from_path(&lib, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, DaemonError::Damaged { .. }), "{error:?}");
    assert!(!connection.is_usable());
    let mut connection = machine.connect().await;
    assert!(connection.nar_from_path(&program, &mut Vec::new()).await.is_ok());
    // A caller that takes no more.
    let (mut to, from) = tokio::io::duplex(8);
    drop(from);
    let error = connection.nar_from_path(&program, &mut to).await.unwrap_err();
    assert!(matches!(error, DaemonError::Sink { .. }), "{error:?}");
    assert!(!connection.is_usable());
}
