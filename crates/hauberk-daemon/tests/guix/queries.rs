//! Everything but building.

use std::{collections::BTreeSet, path::Path, time::Duration};

use hauberk_daemon::{
    BuildDaemon, ClientOptions, DaemonError, Dialect, GarbageAction, GarbageRequest, GuixOptions,
    log::Discard,
};
use hauberk_store::{DrvPath, NarHash, OutputName, StorePath};

use crate::recording::{Recording, Side};

const SIMPLE: &str = "/gnu/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple";
const CHAIN: &str = "/gnu/store/d10yrpw90mb7dsr07gsh57zhjzxiqdlj-chain";
const LIB: &str = "/gnu/store/gcnw0k5b1j52x73d3zlja6sx1d86v369-multi-lib";
const MULTI: &str = "/gnu/store/agbk4084q6kgvsbv20xiggf3bgk9xr69-multi";
const WITH_DEPS: &str = "/gnu/store/5dissc3nl7lnk9xapvwadbk133b6xk2y-with-deps";
const NOPE: &str = "/gnu/store/00000000000000000000000000000000-nope";

fn path(text: &str) -> StorePath {
    StorePath::parse(text).unwrap()
}

fn paths<const N: usize>(texts: [&str; N]) -> BTreeSet<StorePath> {
    texts.map(path).into()
}

/// The options Guix's own client has by default.
pub(crate) fn guile() -> ClientOptions {
    ClientOptions {
        offload: true,
        use_substitutes: true,
        guix: GuixOptions {
            extended_trace: false,
            multiplexed_output: false,
            user_name: Some("root".to_owned()),
            terminal_columns: Some(80),
            locale: Some("C.UTF-8".to_owned()),
            ..GuixOptions::default()
        },
        ..ClientOptions::default()
    }
}

/// The same with the progress of downloads and marked output.
pub(crate) fn guile_multiplexed() -> ClientOptions {
    let mut options = guile();
    (options.guix.extended_trace, options.guix.multiplexed_output) = (true, true);
    options
}

fn refused<T: std::fmt::Debug>(result: Result<T, DaemonError>, words: &str) {
    match result {
        Err(DaemonError::Daemon { message, status: 1, .. }) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?} instead of {words}"),
    }
}

#[tokio::test]
async fn greeting() {
    let (mut daemon, playing) = Recording::load("01-handshake").play(Side::default()).await;
    assert_eq!(daemon.info().dialect, Dialect::Guix);
    assert_eq!(daemon.info().version.wire(), 0x163);
    assert_eq!(daemon.info().store_directory.as_str(), "/gnu/store");
    assert_eq!((daemon.info().program_version.as_ref(), daemon.info().trusted), (None, None));
    assert!(daemon.is_usable());
    assert!(matches!(daemon.substitute_urls().await, Err(DaemonError::Unsupported { .. })));
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn options() {
    let (mut daemon, playing) = Recording::load("02-options-default").play(Side::default()).await;
    daemon.set_options(&guile()).await.unwrap();
    drop(daemon);
    assert_eq!(playing.left().await, 0);

    let all = ClientOptions {
        keep_failed: true,
        keep_going: true,
        fallback: true,
        verbosity: 2,
        offload: false,
        use_substitutes: false,
        timeout: Some(Duration::from_secs(3600)),
        max_silent: Some(Duration::from_secs(600)),
        max_jobs: Some(4),
        cores: Some(2),
        substitute_urls: Some(vec!["http://127.0.0.1:18085".to_owned(), "http://127.0.0.1:18080".to_owned()]),
        rounds: 3,
        guix: GuixOptions { build_verbosity: 1, ..guile_multiplexed().guix },
        ..ClientOptions::default()
    };
    let (mut daemon, playing) = Recording::load("03-options-all").play(Side::default()).await;
    daemon.set_options(&all).await.unwrap();
    assert_eq!(daemon.options(), Some(&all));
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn validity() {
    let (mut daemon, playing) = Recording::load("04-valid-path").play(Side::default()).await;
    assert!(daemon.is_valid_path(&path(SIMPLE)).await.unwrap());
    assert!(!daemon.is_valid_path(&path(NOPE)).await.unwrap());
    drop(daemon);
    // What is no store path never leaves this client.
    assert_eq!(playing.left().await, 2);
}

#[tokio::test]
async fn ensuring() {
    let (mut daemon, playing) = Recording::load("05-ensure-path").play(Side::default()).await;
    daemon.ensure_path(&path(SIMPLE), &mut Discard).await.unwrap();
    refused(daemon.ensure_path(&path(NOPE), &mut Discard).await, "does not exist and cannot be created");
    assert!(daemon.is_usable());
    drop(daemon);
    assert_eq!(playing.left().await, 0);

    for (name, item, words) in [
        ("44-ensure-path-substitutes", WITH_DEPS, None),
        (
            "46-ensure-path-unauthorized-signer",
            "/gnu/store/mk23wspsy1imc5qmyx9348bgyh6gjgh7-special-env",
            Some("cannot be created"),
        ),
    ] {
        let (mut daemon, playing) = Recording::load(name).play(Side::default()).await;
        let mut options = guile_multiplexed();
        if words.is_some() {
            options.substitute_urls = Some(vec!["http://127.0.0.1:18090".to_owned()]);
        }
        daemon.set_options(&options).await.unwrap();
        let mut log = crate::builds::Record::default();
        let result = daemon.ensure_path(&path(item), &mut log).await;
        match words {
            None => {
                result.unwrap();
                let started =
                    log.events.iter().filter(|event| event.starts_with("SubstitutionStarted")).count();
                let done =
                    log.events.iter().filter(|event| event.starts_with("SubstitutionSucceeded")).count();
                assert_eq!((started, done), (2, 2), "{:#?}", log.events);
                assert!(
                    log.events.iter().any(|event| event.contains("done: 131, total: Some(131)")),
                    "{:#?}",
                    log.events
                );
            }
            Some(words) => refused(result, words),
        }
        drop(daemon);
        assert_eq!(playing.left().await, 0);
    }
}

#[tokio::test]
async fn adding() {
    let (mut daemon, playing) = Recording::load("06-add-text-to-store").play(Side::default()).await;
    let none = BTreeSet::new();
    let hello = daemon.add_text("hello.txt", b"Hello, worker protocol.\n", &none).await.unwrap();
    assert_eq!(hello, path("/gnu/store/spg0pwiqmcvhn54ykd2dw3yrh6mgcpsw-hello.txt"));
    let text = format!("refers to {SIMPLE}\n");
    let refers = daemon.add_text("refs.txt", text.as_bytes(), &paths([SIMPLE])).await.unwrap();
    assert_eq!(refers, path("/gnu/store/7p2nai29066jnnd44x6bmlpphk819lwi-refs.txt"));
    daemon.add_text("empty", b"", &none).await.unwrap();
    assert!(matches!(daemon.add_text("b@d name!", b"x", &none).await, Err(DaemonError::Unsupported { .. })));
    drop(daemon);
    assert_eq!(playing.left().await, 1);

    let recording = Recording::load("07-add-to-store");
    let nar = recording.turns[0].nar().to_vec();
    assert_eq!(nar.len(), 1624);
    let (mut daemon, playing) = recording.play(Side::default()).await;
    let tree = daemon.add_source("tree", &mut nar.as_slice(), &none).await.unwrap();
    assert_eq!(tree, path("/gnu/store/3xf8zk4l1i608sa6k4m25y00ifnd5yma-tree"));
    drop(daemon);
    // The other one is a flat file, which this client does not add.
    assert_eq!(playing.left().await, 1);
}

#[tokio::test]
async fn a_nar_that_gives_its_path() {
    let recording = Recording::load("07-add-to-store");
    let nar = recording.turns[0].nar().to_vec();
    let (mut daemon, playing) = recording.play(Side::default()).await;
    let mut info = hauberk_daemon::PathInfo {
        path: path("/gnu/store/3xf8zk4l1i608sa6k4m25y00ifnd5yma-tree"),
        deriver: None,
        nar_hash: NarHash::digest(&nar),
        references: BTreeSet::new(),
        registration_time: 0,
        nar_size: nar.len() as u64,
        ultimate: false,
        signatures: BTreeSet::new(),
        content_address: None,
    };
    daemon.add_nar(&info, &mut nar.as_slice(), false).await.unwrap();
    info.references = paths([SIMPLE]);
    let error = daemon.add_nar(&info, &mut nar.as_slice(), false).await.unwrap_err();
    assert!(matches!(error, DaemonError::Unsupported { .. }));
    drop(daemon);
    assert_eq!(playing.left().await, 1);
}

#[tokio::test]
async fn path_info() {
    let (mut daemon, playing) = Recording::load("08-query-path-info").play(Side::default()).await;
    let chain = daemon.query_path_info(&path(CHAIN)).await.unwrap().unwrap();
    assert_eq!(chain.deriver, Some(path("/gnu/store/bcm05159b1w63sqmiffni96vp8cnpshc-chain.drv")));
    assert_eq!(
        chain.nar_hash.to_base16(),
        "3874f7e8e2e2352a0433fca95492ee1dfc409c009510502a5766a26632edf7de"
    );
    assert_eq!(chain.references, paths([CHAIN, LIB, SIMPLE]));
    assert_eq!((chain.registration_time, chain.nar_size), (1_795_229_957, 648));
    let config = path("/gnu/store/54q1jrgcjqzdxzap7bpq9jclbs4qmr6v-config.txt");
    assert_eq!(daemon.query_path_info(&config).await.unwrap().unwrap().deriver, None);
    let derivation = path("/gnu/store/bcm05159b1w63sqmiffni96vp8cnpshc-chain.drv");
    assert_eq!(daemon.query_path_info(&derivation).await.unwrap().unwrap().references.len(), 3);
    assert_eq!(daemon.query_path_info(&path(NOPE)).await.unwrap(), None);
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn questions() {
    let (mut daemon, playing) = Recording::load("30-queries").play(Side::default()).await;
    let referrers = daemon.query_referrers(&path(SIMPLE)).await.unwrap();
    assert!(referrers.contains(&path(CHAIN)) && referrers.len() == 3);
    let derivers = daemon.query_valid_derivers(&path(MULTI)).await.unwrap();
    let multi = DrvPath::parse("/gnu/store/hm39ym646g1y0qm37av9m8nlv0bnndxk-multi.drv").unwrap();
    assert_eq!(derivers, [multi.clone()].into());
    let outputs = daemon.query_derivation_outputs(&multi).await.unwrap();
    assert_eq!(outputs.keys().map(OutputName::as_str).collect::<Vec<_>>(), ["doc", "lib", "out"]);
    assert_eq!((&outputs["out"], &outputs["lib"]), (&path(MULTI), &path(LIB)));
    assert_eq!(daemon.query_path_from_hash_part(&path(CHAIN).hash()).await.unwrap(), Some(path(CHAIN)));
    assert_eq!(daemon.query_path_from_hash_part(&path(NOPE).hash()).await.unwrap(), None);
    daemon.add_temp_root(&path(CHAIN)).await.unwrap();
    let live = daemon.collect_garbage(&GarbageRequest::new(GarbageAction::ListLive)).await.unwrap();
    assert!(live.paths.is_empty());
    assert_eq!(daemon.built_in_builders().await.unwrap(), ["download".to_owned()].into());
    assert!(!daemon.verify_store(false, false).await.unwrap());
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn substitutes() {
    let (mut daemon, playing) = Recording::load("42-substitutable-info").play(Side::default()).await;
    daemon.set_options(&guile()).await.unwrap();
    let asked = paths([MULTI, WITH_DEPS, NOPE]);
    assert_eq!(daemon.query_substitutable_paths(&asked).await.unwrap(), paths([MULTI, WITH_DEPS]));
    let infos = daemon.query_substitutable_path_infos(&asked).await.unwrap();
    assert_eq!(infos.len(), 2);
    assert_eq!(infos[0].path, path(WITH_DEPS));
    assert_eq!((infos[0].download_size, infos[0].nar_size), (211, 552));
    assert_eq!(infos[1].references, paths([LIB]));
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn roots_and_garbage() {
    let (mut daemon, playing) = Recording::load("36-delete-path").play(Side::default()).await;
    let okc = "/gnu/store/asz8ib5ljqddqihmi9r6qmzqxmy5iy1c-cap-okc";
    let request = GarbageRequest::new(GarbageAction::Delete(paths([okc])));
    let report = daemon.collect_garbage(&request).await.unwrap();
    assert_eq!((report.paths, report.bytes_freed), (vec![okc.to_owned()], 4));
    drop(daemon);
    assert_eq!(playing.left().await, 0);

    let (mut daemon, playing) =
        Recording::load("37-indirect-root-and-find-roots").play(Side::default()).await;
    let link = Path::new("/tmp/guix-root-link");
    daemon.add_indirect_root(link).await.unwrap();
    let roots = daemon.find_roots().await.unwrap();
    assert_eq!((roots.len(), roots[0].link.as_path(), &roots[0].target), (1, link, &path(CHAIN)));
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn exports() {
    let closure = [path(SIMPLE), path(LIB), path(CHAIN)];
    for (name, sign, size) in [("31-export-signed", true, 3248), ("32-export-unsigned", false, 1928)] {
        let (mut daemon, playing) = Recording::load(name).play(Side::default()).await;
        let mut stream = Vec::new();
        daemon.export_paths(&closure, sign, &mut stream).await.unwrap();
        assert_eq!(stream.len(), size);
        // The imports recorded after it were given the same stream.
        let import = if sign { "33-import-already-valid" } else { "34-import-unsigned" };
        assert_eq!(stream, Recording::load(import).turns[0].data());
        drop(daemon);
        assert_eq!(playing.left().await, 0);
    }
    let (mut daemon, playing) = Recording::load("32-export-unsigned").play(Side::default()).await;
    for item in &closure {
        let mut nar = Vec::new();
        let size = daemon.nar_from_path(item, &mut nar).await.unwrap();
        assert_eq!(size, nar.len() as u64);
        if *item == path(CHAIN) {
            let hash = "3874f7e8e2e2352a0433fca95492ee1dfc409c009510502a5766a26632edf7de";
            assert_eq!((size, NarHash::digest(&nar).to_base16().as_str()), (648, hash));
        }
    }
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}

#[tokio::test]
async fn imports() {
    let closure = [path(SIMPLE), path(LIB), path(CHAIN)];
    for (name, words) in [
        ("33-import-already-valid", None),
        ("40-import-new-closure", None),
        ("34-import-unsigned", Some("lacks a signature")),
        ("48-import-unauthorized-key", Some("unauthorized public key")),
        ("49-import-missing-reference", Some("is not valid")),
    ] {
        let recording = Recording::load(name);
        let data = recording.turns[0].data();
        let (mut daemon, playing) = recording.play(Side::default()).await;
        let result = daemon.import_paths(&mut data.as_slice()).await;
        match words {
            None => assert_eq!(result.unwrap(), closure),
            Some(words) => refused(result, words),
        }
        assert!(daemon.is_usable());
        drop(daemon);
        assert_eq!(playing.left().await, 0, "{name}");
    }
}

#[tokio::test]
async fn the_next_version() {
    let urls = vec!["https://ci.guix.gnu.org".to_owned(), "https://bordeaux.guix.gnu.org".to_owned()];
    let side = Side { urls: urls.clone(), ..Side::default() };
    let (mut daemon, playing) = Recording::load("01-handshake").with_version(0x164).play(side).await;
    assert_eq!(daemon.info().version.wire(), 0x164);
    assert_eq!(daemon.substitute_urls().await.unwrap(), urls);
    drop(daemon);
    assert_eq!(playing.left().await, 0);
}
