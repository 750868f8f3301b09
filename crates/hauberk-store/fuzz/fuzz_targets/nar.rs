//! What is read is written back byte for byte, and reads the same however it is cut.
#![no_main]

use hauberk_store::nar::{Limits, Listing, Node, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { size: 1 << 20, depth: 64, entries: 1000 };
    let node = Node::from_nar(bytes, limits);
    for piece in [1, 13, 4096] {
        let mut verifier = Verifier::new(limits);
        let pushed = bytes.chunks(piece).try_for_each(|part| verifier.push(part));
        assert_eq!(pushed.is_ok() && verifier.finish().is_ok(), node.is_ok());
    }
    assert_eq!(Listing::read(bytes, limits).is_ok(), node.is_ok());
    if let Ok(node) = node {
        assert_eq!(node.to_nar().expect("what is read can be written"), bytes);
    }
});
