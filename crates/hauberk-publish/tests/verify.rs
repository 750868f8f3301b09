//! A cache that is looked after.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use hauberk_publish::{
    Cache,
    cache::{Finding, Verification, Verified},
};
use hauberk_store::StoreDirectory;
use support::{PlainStore, key, tree};

fn look(cache: &Cache, verification: &Verification) -> (Verified, Vec<String>) {
    let mut findings = Vec::new();
    let seen = cache.verify(verification, |finding| findings.push(finding.to_string())).unwrap();
    findings.sort();
    (seen, findings)
}

fn age(file: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_found_and_mended() {
    let (store, directory) = (PlainStore::new(), tempfile::tempdir().unwrap());
    let (signer, trusted) = key("k-1");
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    let names = ["good", "cut", "flipped", "lost", "malformed", "moved"];
    let mut narinfos = Vec::new();
    for name in names {
        let item = store.add(name, &[], |file| {
            tree(file);
            fs::write(file.join("name"), name).unwrap();
        });
        let pending = cache.pack(&store.info(&item), store.root()).await.unwrap();
        narinfos.push(cache.commit(vec![pending], &signer).await.unwrap().remove(0).narinfo);
    }
    let verification = Verification { trusted: Some(trusted), repair: false };
    let (seen, findings) = look(&cache, &verification);
    assert_eq!((seen.items, seen.faults, seen.dangling, findings.len()), (6, 0, 0, 0));
    assert_eq!(look(&cache, &Verification { trusted: Some(key("k-2").1), repair: false }).0.faults, 6);

    let nar = |index: usize| directory.path().join(&narinfos[index].urls[0].url);
    let info = |index: usize| directory.path().join(format!("{}.narinfo", narinfos[index].store_path.hash()));
    let bytes = fs::read(nar(1)).unwrap();
    fs::write(nar(1), &bytes[..bytes.len() - 1]).unwrap();
    let mut bytes = fs::read(nar(2)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(nar(2), bytes).unwrap();
    fs::remove_file(nar(3)).unwrap();
    fs::write(info(4), "StorePath: x\n").unwrap();
    fs::copy(info(0), info(5)).unwrap();
    fs::write(directory.path().join("nar/on-its-way.nar"), "x").unwrap();
    fs::write(directory.path().join("nar/left.nar"), "x").unwrap();
    age(&directory.path().join("nar/left.nar"));

    let (seen, findings) = look(&cache, &verification);
    assert_eq!((seen.items, seen.faults, seen.repaired), (4, 6, 0), "{findings:#?}");
    for reason in [
        "its size is not the one announced",
        "-flipped: nar/",
        "No such file",
        "it is of ",
        "left.nar: no narinfo names it",
    ] {
        assert!(findings.iter().any(|finding| finding.contains(reason)), "{reason}: {findings:#?}");
    }

    for index in [1, 2, 4, 5] {
        age(&nar(index));
    }
    let repair = Verification { repair: true, ..verification.clone() };
    let (seen, findings) = look(&cache, &repair);
    // The files of the narinfos that went are orphans now.
    assert_eq!((seen.faults, seen.repaired), (10, 10), "{findings:#?}");
    let (seen, findings) = look(&cache, &verification);
    assert_eq!((seen.items, seen.faults), (1, 0), "{findings:#?}");
    assert!(nar(0).exists() && directory.path().join("nar/on-its-way.nar").exists());
}

#[tokio::test]
async fn references_to_what_is_elsewhere_are_told() {
    let (store, directory) = (PlainStore::new(), tempfile::tempdir().unwrap());
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    let leaf = store.add("leaf", &[], tree);
    let item = store.add("item", &[&leaf], tree);
    let pending = cache.pack(&store.info(&item), store.root()).await.unwrap();
    cache.commit(vec![pending], &key("k-1").0).await.unwrap();
    let mut findings = Vec::new();
    let seen = cache.verify(&Verification::default(), |finding| findings.push(finding.clone())).unwrap();
    assert_eq!((seen.faults, seen.dangling), (0, 1));
    assert_eq!(findings, [Finding::Dangling { path: item, reference: leaf }]);
}
