//! The cache directory through crashes, and under several owners.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use hauberk_publish::{
    Cache, Signer,
    cache::{CacheError, Pending},
    server::PathInfos,
};
use hauberk_store::{NarInfo, Sha256, StoreDirectory, narinfo::Compression};
use support::{PlainStore, key, path_in};

const CHILD_DIRECTORY: &str = "HAUBERK_TEST_CACHE";

fn open(directory: &Path) -> Cache {
    Cache::open(directory, &StoreDirectory::nix()).unwrap()
}

/// Puts an item into the cache that nobody sees yet; its nar is `contents`.
fn pending(cache: &Cache, name: &str, contents: &[u8]) -> Pending {
    let path = path_in(cache.store_directory(), name);
    let text = format!(
        "StorePath: {path}\nURL: x\nCompression: none\nNarHash: {}\nNarSize: {}\nReferences: \n",
        Sha256::digest(contents),
        contents.len()
    );
    let mut file = cache.begin().unwrap();
    file.write_all(contents).unwrap();
    Pending::new(file.finish(Compression::None), NarInfo::parse(cache.store_directory(), &text).unwrap())
}

fn commit(cache: &Cache, batch: Vec<Pending>, signer: &Signer) -> Vec<hauberk_publish::cache::Committed> {
    tokio::runtime::Runtime::new().unwrap().block_on(cache.commit(batch, signer)).unwrap()
}

/// Checks that everything visible is whole, and gives the number of items.
fn check(directory: &Path, cache: &Cache) -> usize {
    let mut items = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(hash) = name.strip_suffix(".narinfo") else { continue };
        let narinfo = cache.narinfo(&hash.parse().unwrap()).unwrap().unwrap();
        let [place] = &narinfo.urls[..] else { panic!("{narinfo}") };
        let nar = fs::read(directory.join(&place.url)).unwrap();
        assert_eq!(Some(nar.len() as u64), place.file_size);
        assert_eq!(Some(Sha256::digest(&nar).into()), place.file_hash);
        assert_eq!(narinfo.signatures.len(), 1);
        items += 1;
    }
    items
}

fn scratch_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory.join("tmp")).unwrap();
    entries.map(|entry| fs::read_dir(entry.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let item = pending(&cache, "item", b"contents");
    assert_eq!(scratch_files(directory.path()), 1);
    drop(item);
    assert_eq!(scratch_files(directory.path()), 0);
    assert_eq!(check(directory.path(), &cache), 0);
}

#[test]
fn one_batch_with_twins() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let (signer, trusted) = key("k-1");
    let batch =
        vec![pending(&cache, "a", b"same"), pending(&cache, "b", b"same"), pending(&cache, "a", b"another")];
    let committed = commit(&cache, batch, &signer);
    assert_eq!(committed.iter().map(|item| item.inserted).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(committed[0].narinfo, committed[2].narinfo, "the first one stays");
    assert!(committed.iter().all(|item| trusted.vouch_for(&item.narinfo)));
    assert_eq!(check(directory.path(), &cache), 2);
    assert_eq!(fs::read_dir(directory.path().join("nar")).unwrap().count(), 1, "equal nars are one file");
    assert_eq!(scratch_files(directory.path()), 0);

    // One whose nar is lost can be had again, and so can one that is damaged.
    let nar = directory.path().join(&committed[0].narinfo.urls[0].url);
    fs::remove_file(nar).unwrap();
    assert!(commit(&cache, vec![pending(&cache, "a", b"same")], &signer)[0].inserted);
    let hash = committed[1].narinfo.store_path.hash();
    fs::write(directory.path().join(format!("{hash}.narinfo")), "junk").unwrap();
    assert!(commit(&cache, vec![pending(&cache, "b", b"same")], &signer)[0].inserted);
    assert_eq!(check(directory.path(), &cache), 2);
}

#[test]
fn store_items_are_packed() {
    let store = PlainStore::new();
    let item = store.add("item", &[], support::tree);
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let info = runtime.block_on(store.find(&item.hash())).unwrap().unwrap();
    let packed = runtime.block_on(cache.pack(&info, store.root())).unwrap();
    commit(&cache, vec![packed], &key("k-1").0);
    assert_eq!(check(directory.path(), &cache), 1);
    let narinfo = cache.narinfo(&item.hash()).unwrap().unwrap();
    let nar = fs::read(directory.path().join(&narinfo.urls[0].url)).unwrap();
    assert_eq!(zstd::decode_all(&nar[..]).unwrap(), store.nar(&item));

    fs::write(store.file(&item).join("more"), "x").unwrap();
    let damaged = runtime.block_on(cache.pack(&info, store.root()));
    assert!(matches!(damaged, Err(CacheError::Damaged { .. })));
    assert_eq!(scratch_files(directory.path()), 0);
}

#[test]
fn another_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let guix = StoreDirectory::guix();
    assert!(matches!(Cache::open(directory.path(), &guix), Err(CacheError::OtherStore { .. })));
    let other = tempfile::tempdir().unwrap();
    let item = pending(&Cache::open(other.path(), &guix).unwrap(), "item", b"x");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(cache.commit(vec![item], &Signer::default()));
    assert!(matches!(refused, Err(CacheError::OtherStorePath { .. })));
    fs::write(other.path().join("nix-cache-info"), "junk").unwrap();
    assert!(matches!(Cache::open(other.path(), &guix), Err(CacheError::CacheInfo { .. })));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Cache::open(file.path(), &guix), Err(CacheError::Io { .. })));
}

#[test]
fn living_owners_keep_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let item = pending(&first, "item", b"contents");
    let second = open(directory.path());
    assert_eq!(scratch_files(directory.path()), 1);
    commit(&first, vec![item], &key("k-1").0);
    assert_eq!(check(directory.path(), &second), 1);
    fs::create_dir(directory.path().join("tmp/1-0")).unwrap();
    fs::write(directory.path().join("tmp/1-0/0"), "left behind").unwrap();
    open(directory.path());
    assert!(!directory.path().join("tmp/1-0").exists());
}

/// Fills a cache until it is killed. Runs only as the child of the next test.
#[test]
#[ignore = "the child of another test"]
fn fill_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let cache = open(Path::new(&directory));
    let (signer, _) = key("k-1");
    let mut stdout = std::io::stdout();
    for round in 0_u32.. {
        let name = |number: u32| format!("item-{}-{round}-{number}", std::process::id());
        let batch = (0..4).map(|number| pending(&cache, &name(number), name(number).repeat(2000).as_bytes()));
        commit(&cache, batch.collect(), &signer);
        writeln!(stdout, "committed").unwrap();
    }
}

#[test]
fn kills_at_any_moment_leave_whole_items() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "fill_until_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().ends_with("committed")), "the child commits");
        // Some moment of the rounds that follow.
        std::thread::sleep(Duration::from_micros(round * 1700));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged =
            4 * (1 + lines.map_while(Result::ok).filter(|line| line.ends_with("committed")).count());
        let cache = open(directory.path());
        let after = check(directory.path(), &cache);
        assert!(
            after >= before + acknowledged,
            "{after} items, {before} before and {acknowledged} acknowledged"
        );
        assert_eq!(scratch_files(directory.path()), 0);
        before = after;
    }
}
