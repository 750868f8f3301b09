//! What is read is written so that it reads the same again; nothing unsigned is accepted.
#![no_main]

use hauberk_store::{NarInfo, StoreDirectory, signature::guix::Acl};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let directory = StoreDirectory::guix();
    assert!(NarInfo::parse_verified(&directory, text, &Acl::default()).is_err());
    let Ok(info) = NarInfo::parse(&directory, text) else { return };
    let printed = info.to_string();
    let again = NarInfo::parse(&directory, &printed).expect("what is written is read");
    assert_eq!(again, info);
    assert_eq!(again.to_string(), printed);
    let _ = info.fingerprint();
});
