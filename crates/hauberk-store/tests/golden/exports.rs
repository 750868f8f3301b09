//! Export streams of a real GNU Guix.

use hauberk_store::{
    NarHash, StoreDirectory,
    export::{Decoder, Event, ExportWriter, ExportedItem},
    nar::Limits,
    signature::guix::{Acl, SecretKey, SignatureError},
};
use std::io::Write;

use crate::data::vector;

fn read(bytes: &[u8]) -> Vec<(ExportedItem, Vec<u8>)> {
    let mut decoder = Decoder::new(StoreDirectory::guix(), Limits::default());
    let (mut items, mut nar, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        match event {
            Event::Nar(bytes) => nar.extend_from_slice(bytes),
            Event::Item(item) => items.push((*item, std::mem::take(&mut nar))),
            Event::Begin | Event::End => {}
        }
    }
    decoder.finish().unwrap();
    assert!(rest.is_empty());
    items
}

fn check(name: &str, count: usize, signed: bool) {
    let key = SecretKey::parse(&vector("keys/signing-key.sec")).unwrap();
    let acl: Acl = [key.public_key().clone()].into_iter().collect();
    let bytes = vector(&format!("export/{name}"));
    let items = read(&bytes);
    assert_eq!(items.len(), count, "{name}");
    let mut writer = ExportWriter::new(Vec::new());
    for (item, nar) in &items {
        assert_eq!(item.nar.hash, NarHash::digest(nar));
        assert_eq!(item.verify(&acl), if signed { Ok(()) } else { Err(SignatureError::Corrupt) }, "{name}");
        let mut again = writer.item().unwrap();
        again.write_all(nar).unwrap();
        again.finish(&item.item, signed.then_some(&key)).unwrap();
    }
    assert!(writer.finish().unwrap() == bytes, "{name}");
}

#[test]
fn every_stream_is_reproduced() {
    check("chain-closure.signed.export", 3, true);
    check("chain-closure.unsigned.export", 3, false);
    check("chain-only.signed.export", 1, true);
}
