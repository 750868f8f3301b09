//! Items between caches and archives, and narinfos signed anew.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{collections::BTreeSet, fs};

use hauberk_publish::{
    Cache, Signer, TrustedKeys,
    cache::{
        ArchiveError, CacheReader, Import, Imported, Method, Refused, Renewal, Renewed, Verification,
        export_archive,
    },
};
use hauberk_store::{
    NarInfo, StoreDirectory, StorePath,
    narinfo::Compression,
    signature::guix::{Acl, SecretKey},
};
use support::{PlainStore, key, tree};

/// A cache with three items: a program refers to a library, and that to itself and to data.
struct Source {
    directory: tempfile::TempDir,
    cache: Cache,
    /// Data, library, program.
    items: Vec<StorePath>,
}

impl Source {
    async fn new(store: PlainStore, signer: &Signer) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = store.add("data", &[], tree);
        let library = store.add("library", &[&data], |file| fs::write(file, "library").unwrap());
        let library_info = store.info(&library);
        let program = store.add("program", &[&library, &data], |file| fs::write(file, "program").unwrap());
        let cache = Cache::open(directory.path(), library_info.path.directory()).unwrap();
        let items = vec![data, library, program];
        for item in &items {
            let pending = cache.pack(&store.info(item), store.root()).await.unwrap();
            cache.commit(vec![pending], signer).await.unwrap();
        }
        Self { directory, cache, items }
    }

    fn reader(&self) -> CacheReader {
        CacheReader::open(self.directory.path()).unwrap()
    }

    fn narinfo(&self, index: usize) -> NarInfo {
        self.cache.narinfo(&self.items[index].hash()).unwrap().unwrap()
    }
}

fn empty(store: &StoreDirectory) -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), store).unwrap();
    (directory, cache)
}

fn whole(cache: &Cache) {
    let seen = cache.verify(&Verification::default(), |finding| panic!("{finding}")).unwrap();
    assert_eq!((seen.faults, seen.dangling), (0, 0));
}

#[tokio::test]
async fn items_go_from_cache_to_cache_with_all_they_refer_to() {
    let (theirs, trusted) = key("theirs-1");
    let (ours, our_key) = key("ours-1");
    let source = Source::new(PlainStore::new(), &theirs).await;
    let (_kept, cache) = empty(&StoreDirectory::nix());
    let import = Import { trusted: Some(trusted.clone()), signer: ours, method: Method::None };
    let none = |refused: &Refused| panic!("{refused}");
    let library = [source.items[1].hash()];
    let imported = cache.import(&source.reader(), &library, true, &import, none).unwrap();
    assert_eq!((imported.items, imported.known, imported.refused, imported.absent), (2, 0, 0, 0));
    let narinfo = cache.narinfo(&library[0]).unwrap().unwrap();
    assert!(trusted.vouch_for(&narinfo) && our_key.vouch_for(&narinfo), "both signatures stand");
    assert_eq!(narinfo.urls[0].compression, Compression::Zstd, "the file stays as it was");
    assert_eq!(narinfo.urls, source.narinfo(1).urls);
    whole(&cache);
    // The rest, in any order.
    let imported = cache.import(&source.reader(), &[], false, &import, none).unwrap();
    assert_eq!((imported.items, imported.known), (1, 2));
    whole(&cache);
}

#[tokio::test]
async fn what_is_not_as_it_says_is_refused_and_the_rest_taken() {
    let (theirs, trusted) = key("theirs-1");
    let source = Source::new(PlainStore::new(), &theirs).await;
    let flip = |index: usize| {
        let file = source.directory.path().join(&source.narinfo(index).urls[0].url);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    };
    flip(0);
    // The second says more than was signed.
    let file = source.directory.path().join(format!("{}.narinfo", source.items[1].hash()));
    let mut narinfo = source.narinfo(1);
    narinfo.references = BTreeSet::new();
    fs::write(file, narinfo.to_string()).unwrap();
    let (_kept, cache) = empty(&StoreDirectory::nix());
    let import = Import { trusted: Some(trusted), ..Import::default() };
    let mut refused = Vec::new();
    let imported =
        cache.import(&source.reader(), &[], false, &import, |refusal| refused.push(refusal.to_string()));
    let imported = imported.unwrap();
    assert_eq!((imported.items, imported.refused), (1, 2), "{refused:?}");
    for reason in ["-data: nar/", "-library: not signed by any of the keys"] {
        assert!(refused.iter().any(|line| line.contains(reason)), "{reason}: {refused:?}");
    }
    assert!(cache.contains(&source.items[2].hash()) && !cache.contains(&source.items[0].hash()));
    // Nobody's word is not the word of a key that is not given.
    let stranger = Import { trusted: Some(key("other-1").1), ..Import::default() };
    let (_kept, cache) = empty(&StoreDirectory::nix());
    let imported = cache.import(&source.reader(), &[], false, &stranger, |_| ()).unwrap();
    assert_eq!((imported.items, imported.refused), (0, 3));
    // What is not there is told.
    fs::remove_file(source.directory.path().join(format!("{}.narinfo", source.items[0].hash()))).unwrap();
    let program = [source.items[2].hash()];
    let imported = cache.import(&source.reader(), &program, true, &Import::default(), |_| ()).unwrap();
    assert_eq!((imported.items, imported.absent), (2, 1));
}

#[tokio::test]
async fn a_cache_of_the_other_store_is_refused() {
    let source = Source::new(PlainStore::new(), &key("k-1").0).await;
    let (_kept, cache) = empty(&StoreDirectory::guix());
    let error = cache.import(&source.reader(), &[], false, &Import::default(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("is of the store /nix/store, not /gnu/store"), "{error}");
}

#[tokio::test]
async fn archives_of_guix_come_and_go_signed() {
    let secret = SecretKey::generate().unwrap();
    let acl: Acl = [secret.public_key().clone()].into_iter().collect();
    let signer = Signer::guix("farm", secret.clone());
    let source = Source::new(PlainStore::guix(), &signer).await;
    let program = [source.items[2].hash()];
    let mut archive = Vec::new();
    assert_eq!(export_archive(&source.reader(), &program, true, Some(&secret), &mut archive).unwrap(), 3);

    let import = Import { signer: signer.clone(), ..Import::default() };
    let (_kept, cache) = empty(&StoreDirectory::guix());
    let take = |cache: &Cache, bytes: &[u8], acl: Option<&Acl>| {
        let mut refused = Vec::new();
        let imported = cache.import_archive(bytes, acl, &import, |refusal| refused.push(refusal.to_string()));
        (imported, refused)
    };
    let (imported, refused) = take(&cache, &archive, Some(&acl));
    let imported = imported.unwrap();
    assert_eq!((imported.items, imported.refused), (3, 0), "{refused:?}");
    whole(&cache);
    let trusted = TrustedKeys::guix(acl.clone());
    for (index, item) in source.items.iter().enumerate() {
        let narinfo = cache.narinfo(&item.hash()).unwrap().unwrap();
        assert!(trusted.vouch_for(&narinfo));
        let before = source.narinfo(index);
        assert_eq!((narinfo.nar_hash, narinfo.references), (before.nar_hash, before.references));
    }
    assert_eq!(take(&cache, &archive, Some(&acl)).0.unwrap(), Imported { known: 3, ..Imported::default() });

    // Not signed, by somebody else, flipped, cut.
    let (_kept, cache) = empty(&StoreDirectory::guix());
    let mut unsigned = Vec::new();
    export_archive(&source.reader(), &program, false, None, &mut unsigned).unwrap();
    assert_eq!(take(&cache, &unsigned, Some(&acl)).0.unwrap().refused, 1);
    let other: Acl = [SecretKey::generate().unwrap().public_key().clone()].into_iter().collect();
    assert_eq!(take(&cache, &archive, Some(&other)).0.unwrap().refused, 3);
    let mut flipped = archive.clone();
    let at = flipped.windows(7).position(|window| window == b"library").unwrap();
    flipped[at] ^= 1;
    let (imported, _) = take(&cache, &flipped, Some(&acl));
    assert!(
        imported.is_err_and(|error| matches!(error, ArchiveError::Malformed(_)))
            || !cache.contains(&source.items[1].hash())
    );
    let (_kept, cache) = empty(&StoreDirectory::guix());
    let (imported, _) = take(&cache, &archive[..archive.len() - 20], Some(&acl));
    assert!(matches!(imported.unwrap_err(), ArchiveError::Malformed(_)));
    // What came whole before is kept.
    assert!(cache.contains(&source.items[0].hash()));
    whole(&cache);
    assert_eq!(take(&cache, &unsigned, None).0.unwrap().items, 1);
}

#[tokio::test]
async fn a_cache_is_signed_anew() {
    let (old, old_key) = key("farm-1");
    let (new, new_key) = key("farm-2");
    let source = Source::new(PlainStore::new(), &old).await;
    // One that nobody has signed.
    let file = source.directory.path().join(format!("{}.narinfo", source.items[0].hash()));
    fs::write(file, NarInfo { signatures: Vec::new(), ..source.narinfo(0) }.to_string()).unwrap();
    let before = source.narinfo(1);
    let renewal = Renewal { trusted: old_key.clone(), signer: new.clone(), dropped: Vec::new() };
    let mut refused = Vec::new();
    let renewed = source.cache.renew(&renewal, |line| refused.push(line.to_owned())).unwrap();
    assert_eq!(renewed, Renewed { signed: 2, unchanged: 0, refused: 1 });
    assert!(refused[0].contains("-data: not signed by any of the keys"), "{refused:?}");
    let both = source.narinfo(1);
    assert!(old_key.vouch_for(&both) && new_key.vouch_for(&both));
    assert_eq!((both.urls.clone(), both.nar_hash), (before.urls, before.nar_hash));
    let again = source.cache.renew(&renewal, |_| ()).unwrap();
    assert_eq!(again, Renewed { signed: 0, unchanged: 2, refused: 1 });

    let drop = Renewal { trusted: new_key.clone(), signer: new, dropped: vec!["farm-1".to_owned()] };
    assert_eq!(source.cache.renew(&drop, |_| ()).unwrap().signed, 2);
    let narinfo = source.narinfo(2);
    assert!(!old_key.vouch_for(&narinfo) && new_key.vouch_for(&narinfo));
    assert_eq!(narinfo.signatures.len(), 1);
}

#[tokio::test]
async fn a_guix_cache_is_signed_anew() {
    let keys = [SecretKey::generate().unwrap(), SecretKey::generate().unwrap()];
    let trusted =
        keys.each_ref().map(|key| TrustedKeys::guix([key.public_key().clone()].into_iter().collect()));
    let signers = keys.map(|key| Signer::guix("farm", key));
    let source = Source::new(PlainStore::guix(), &signers[0]).await;
    let [old, new] = trusted;
    let renewal = Renewal { trusted: old.clone(), signer: signers[1].clone(), dropped: Vec::new() };
    assert_eq!(source.cache.renew(&renewal, |_| ()).unwrap().signed, 3);
    let narinfo = source.narinfo(1);
    assert!(new.vouch_for(&narinfo) && !old.vouch_for(&narinfo));
    whole(&source.cache);
}
