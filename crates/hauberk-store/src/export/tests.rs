use proptest::prelude::*;

use super::*;
use crate::{
    NarHash, StoreDirectory,
    nar::{Limits, Node},
    signature::guix::{Acl, SecretKey, SignatureError},
};

fn item(name: &str) -> ExportItem {
    let path = |name: &str| {
        let base = format!("45rrqddcql46lzs8nma7hncjl4cvy7df-{name}");
        StorePath::from_base_name(&StoreDirectory::guix(), &base).unwrap()
    };
    let references = ["a", "b", name].map(path).into();
    ExportItem { path: path(name), references, deriver: Some(path("x.drv")) }
}

fn stream(key: Option<&SecretKey>) -> Vec<u8> {
    let mut writer = ExportWriter::new(Vec::new());
    for name in ["one", "two"] {
        let mut nar = writer.item().unwrap();
        Node::file(name).write_to(&mut nar).unwrap();
        nar.finish(&item(name), key).unwrap();
    }
    writer.finish().unwrap()
}

/// Reads a stream that arrives in pieces.
fn read(bytes: &[u8], piece: usize) -> Result<Vec<(ExportedItem, Vec<u8>)>, ExportError> {
    let mut decoder = Decoder::new(StoreDirectory::guix(), Limits::default());
    let (mut items, mut nar) = (Vec::new(), Vec::new());
    for mut part in bytes.chunks(piece) {
        while let Some(event) = decoder.next(&mut part)? {
            match event {
                Event::Nar(bytes) => nar.extend_from_slice(bytes),
                Event::Item(item) => items.push((*item, std::mem::take(&mut nar))),
                Event::Begin | Event::End => {}
            }
        }
    }
    decoder.finish()?;
    Ok(items)
}

#[test]
fn streams_round_trip() {
    let key = SecretKey::generate().unwrap();
    let acl: Acl = [key.public_key().clone()].into_iter().collect();
    let bytes = stream(Some(&key));
    for piece in [1, 7, 64, 1 << 20] {
        let items = read(&bytes, piece).unwrap();
        assert_eq!(items.len(), 2);
        for ((exported, nar), name) in items.iter().zip(["one", "two"]) {
            assert_eq!(exported.item, item(name));
            assert_eq!(*nar, Node::file(name).to_nar().unwrap());
            assert_eq!((exported.nar.hash, exported.nar.size), (NarHash::digest(nar), nar.len() as u64));
            assert_eq!(exported.verify(&acl), Ok(()));
            assert_eq!(exported.verify(&Acl::default()), Err(SignatureError::Unauthorized));
        }
    }
    let unsigned = read(&stream(None), 100).unwrap();
    assert_eq!(unsigned[0].0.verify(&acl), Err(SignatureError::Corrupt));
}

#[test]
fn a_flipped_bit_is_refused() {
    let key = SecretKey::generate().unwrap();
    let acl: Acl = [key.public_key().clone()].into_iter().collect();
    let bytes = stream(Some(&key));
    let original = read(&bytes, 4096).unwrap();
    for at in 0..bytes.len() {
        let mut evil = bytes.clone();
        evil[at] ^= 1;
        let Ok(items) = read(&evil, 4096) else { continue };
        for ((found, _), (expected, _)) in items.iter().zip(&original) {
            if found.verify(&acl).is_ok() {
                assert_eq!((&found.item, &found.nar), (&expected.item, &expected.nar), "byte {at}");
            }
        }
    }
}

#[test]
fn refuses_cut_streams_and_huge_numbers() {
    let bytes = stream(None);
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end], 512).is_err(), "{end}");
    }
    let nar = Node::file("").to_nar().unwrap();
    let mut huge = [&1_u64.to_le_bytes()[..], &nar, &MAGIC.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    assert!(matches!(read(&huge, 64), Err(ExportError::TooLong { .. })));
    huge[0] = 2;
    assert!(matches!(read(&huge, 64), Err(ExportError::Number { .. })));
}

proptest! {
    #[test]
    fn junk_never_panics(junk: Vec<u8>, cut in 0..100_usize) {
        let mut bytes = stream(None);
        bytes.truncate(cut * 8);
        bytes.extend(junk);
        let _ = read(&bytes, 33);
    }
}
