use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;

use super::*;
use crate::{NarHash, strategies::node};

/// A tree with one node of every kind.
fn tree() -> Node {
    let entries = [
        (&b"empty"[..], Node::file("")),
        (b"run", Node::File { executable: true, contents: b"#!/bin/sh\n".to_vec() }),
        (b"directory", Node::Directory { entries: BTreeMap::new() }),
        (b"link", Node::Symlink { target: b"../elsewhere".to_vec() }),
        (b"\xe9", Node::file("12345678")),
        (b"deep", Node::Directory { entries: [(b"x".to_vec(), Node::file("x"))].into() }),
    ];
    Node::Directory { entries: entries.into_iter().map(|(name, node)| (name.to_vec(), node)).collect() }
}

/// Spells strings as a NAR does.
fn spell(strings: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend((string.len() as u64).to_le_bytes());
        bytes.extend_from_slice(string);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Node, NarError> {
    Node::from_nar(bytes, Limits::default())
}

#[test]
fn round_trip_through_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let nar = tree().to_nar().unwrap();
    let target = scratch.path().join("tree");
    assert_eq!(restore(&nar[..], &target, Limits::default()).unwrap(), nar.len() as u64);
    let mut again = Vec::new();
    assert_eq!(write_path(&target, &mut again).unwrap(), nar.len() as u64);
    assert!(again == nar);
    assert_eq!(fs::metadata(target.join("run")).unwrap().permissions().mode() & 0o100, 0o100);
    assert_eq!(read(&nar), Ok(tree()));
    assert!(matches!(restore(&nar[..], &target, Limits::default()), Err(RestoreError::Create { .. })));
}

#[test]
fn roots_of_every_kind() {
    let scratch = tempfile::tempdir().unwrap();
    for (index, node) in [
        Node::file("text"),
        Node::File { executable: true, contents: vec![7; 1 << 20] },
        Node::Symlink { target: b"/nowhere".to_vec() },
        Node::Directory { entries: BTreeMap::new() },
    ]
    .into_iter()
    .enumerate()
    {
        let nar = node.to_nar().unwrap();
        let target = scratch.path().join(index.to_string());
        restore(&nar[..], &target, Limits::default()).unwrap();
        let mut again = Vec::new();
        write_path(&target, &mut again).unwrap();
        assert!(again == nar && read(&nar) == Ok(node));
    }
}

#[test]
fn every_split_and_every_prefix() {
    let nar = tree().to_nar().unwrap();
    for split in 0..nar.len() {
        let mut verifier = Verifier::default();
        verifier.push(&nar[..split]).unwrap();
        assert!(verifier.clone().finish().is_err(), "{split}");
        verifier.push(&nar[split..]).unwrap();
        assert_eq!(verifier.finish().unwrap().hash, NarHash::digest(&nar));
    }
    let mut longer = nar;
    longer.push(0);
    assert!(matches!(read(&longer), Err(NarError::TrailingBytes { .. })));
}

#[test]
fn refuses_what_breaks_the_rules() {
    let directory = |entries: &[(&[u8], &[u8])]| {
        let mut bytes = spell(&[MAGIC, b"(", b"type", b"directory"]);
        for (name, node) in entries {
            bytes.extend(spell(&[b"entry", b"(", b"name", name, b"node"]));
            bytes.extend_from_slice(node);
            bytes.extend(spell(&[b")"]));
        }
        bytes.extend(spell(&[b")"]));
        bytes
    };
    let file = spell(&[b"(", b"type", b"regular", b"contents", b"x", b")"]);
    assert!(read(&directory(&[(b"a", &file), (b"b", &file)])).is_ok());
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'a'; 256]] {
        assert!(read(&directory(&[(name, &file)])).is_err(), "{name:?}");
    }
    for names in [["a", "a"], ["b", "a"], ["aa", "a"]] {
        let nar = directory(&[(names[0].as_bytes(), &file), (names[1].as_bytes(), &file)]);
        assert!(matches!(read(&nar), Err(NarError::Order { .. })), "{names:?}");
    }
    for target in [&b""[..], b"a\0b", &[b'a'; 4096]] {
        let nar = spell(&[MAGIC, b"(", b"type", b"symlink", b"target", target, b")"]);
        assert!(read(&nar).is_err());
    }
    for (strings, what) in [
        (vec![&b"nix-archive-2"[..]], "magic"),
        (vec![MAGIC, b"(", b"type", b"fifo"], "type"),
        (vec![MAGIC, b"(", b"type", b"regular", b")"], "no contents"),
        (vec![MAGIC, b"(", b"type", b"regular", b"executable", b"yes", b"contents", b"", b")"], "executable"),
        (vec![MAGIC, b"(", b"type", b"regular", b"contents", b"", b"x"], "close"),
        (vec![MAGIC, b"(", b"type", b"symlink", b"targets", b"", b")"], "target"),
    ] {
        let error = read(&spell(&strings)).unwrap_err();
        assert!(!matches!(error, NarError::Truncated { .. }), "{what}: {error}");
    }
    let mut padding = spell(&[MAGIC]);
    *padding.last_mut().unwrap() = 1;
    assert!(matches!(read(&padding), Err(NarError::Padding { .. })));
    let nar = Node::file("x").to_nar().unwrap();
    for at in [nar.len() - 17, nar.len() - 1] {
        let mut bytes = nar.clone();
        bytes[at] = 1;
        assert!(matches!(read(&bytes), Err(NarError::Padding { .. })), "{at}");
    }
}

#[test]
fn huge_lengths_allocate_nothing() {
    let mut name = spell(&[MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name"]);
    name.extend((1_u64 << 62).to_le_bytes());
    assert!(matches!(read(&name), Err(NarError::StringTooLong { .. })));
    let mut contents = spell(&[MAGIC, b"(", b"type", b"regular", b"contents"]);
    contents.extend(u64::MAX.to_le_bytes());
    assert!(matches!(read(&contents), Err(NarError::TooLarge { .. })));
    assert_eq!(read(&u64::MAX.to_le_bytes()), Err(NarError::Magic));
}

#[test]
fn limits_hold() {
    let mut node = Node::file("x");
    for _ in 0..10 {
        node = Node::Directory { entries: [(b"d".to_vec(), node)].into() };
    }
    let nar = node.to_nar().unwrap();
    let size = nar.len() as u64;
    let check = |limits: Limits| Node::from_nar(&nar, limits).map(|_| ());
    let limits = Limits { size, depth: 10, entries: 10 };
    assert_eq!(check(limits), Ok(()));
    assert_eq!(check(Limits { depth: 9, ..limits }), Err(NarError::TooDeep { limit: 9 }));
    assert_eq!(check(Limits { entries: 9, ..limits }), Err(NarError::TooManyEntries { limit: 9 }));
    assert_eq!(check(Limits { size: size - 1, ..limits }), Err(NarError::TooLarge { limit: size - 1 }));
}

#[test]
fn writing_refuses_what_no_nar_holds() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(
        matches!(write_path(scratch.path(), std::io::sink()), Err(WriteError::Unsupported { path }) if path == socket)
    );
    assert!(matches!(write_path(scratch.path().join("none"), std::io::sink()), Err(WriteError::Read { .. })));
}

#[test]
fn restoring_follows_no_link() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("outside")).unwrap();
    symlink(scratch.path().join("outside"), scratch.path().join("target")).unwrap();
    let nar = tree().to_nar().unwrap();
    assert!(restore(&nar[..], scratch.path().join("target"), Limits::default()).is_err());
    assert_eq!(fs::read_dir(scratch.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn listing_gives_offsets_and_hashes() {
    let nar = tree().to_nar().unwrap();
    let listing = Listing::read(&nar[..], Limits::default()).unwrap();
    let paths: Vec<_> = listing.entries.iter().map(|(path, _)| path.as_slice()).collect();
    assert_eq!(paths, [&b""[..], b"deep", b"deep/x", b"directory", b"empty", b"link", b"run", b"\xe9"]);
    let Some(&ListingEntry::File { executable, size, offset, hash }) = listing.get(b"run") else { panic!() };
    assert!(executable);
    let begin = usize::try_from(offset).unwrap();
    let contents = &nar[begin..begin + usize::try_from(size).unwrap()];
    assert_eq!(contents, b"#!/bin/sh\n");
    assert_eq!(hash, crate::Sha256::digest(contents));
}

#[tokio::test]
async fn from_a_socket() {
    let nar = tree().to_nar().unwrap();
    let summary = NarSummary { hash: NarHash::digest(&nar), size: nar.len() as u64 };
    let mut copy = Vec::new();
    assert_eq!(copy_verified(&nar[..], &mut copy, Limits::default()).await.unwrap(), summary);
    assert!(copy == nar);
    assert!(copy_verified(&nar[..100], &mut copy, Limits::default()).await.is_err());
    assert_eq!(list_async(&nar[..], Limits::default()).await.unwrap().entries.len(), 8);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("tree");
    assert_eq!(restore_async(&nar[..], &target, Limits::default()).await.unwrap(), summary);
    let mut again = Vec::new();
    write_path(&target, &mut again).unwrap();
    assert!(again == nar);
}

proptest! {
    #[test]
    fn trees_round_trip(node in node()) {
        let nar = node.to_nar().unwrap();
        prop_assert_eq!(read(&nar), Ok(node));
    }

    #[test]
    fn a_changed_nar_is_refused_or_another(node in node(), at: prop::sample::Index, bit in 0..8_u8) {
        let mut nar = node.to_nar().unwrap();
        let at = at.index(nar.len());
        nar[at] ^= 1 << bit;
        if let Ok(other) = read(&nar) {
            prop_assert_ne!(&other, &node);
            prop_assert_eq!(other.to_nar().unwrap(), nar);
        }
    }

    #[test]
    fn junk_never_panics(junk: Vec<u8>, cut in 0..64_usize) {
        let _ = read(&junk);
        let mut nar = tree().to_nar().unwrap();
        nar.truncate(cut * 8);
        nar.extend(junk);
        let _ = read(&nar);
    }
}
