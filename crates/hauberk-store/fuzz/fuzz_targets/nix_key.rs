//! Keys and signatures of Nix read the same again.
#![no_main]

use hauberk_store::signature::{guix::SignatureLine, nix::{PublicKey, SecretKey, Signature}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
    }
    if let Ok(signature) = Signature::parse(text) {
        assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
    }
    if let Ok(key) = SecretKey::parse(text) {
        let again = SecretKey::parse(&key.to_secret_string()).expect("what is written is read");
        assert_eq!(again.public_key(), key.public_key());
    }
    if let Ok(line) = SignatureLine::parse(text) {
        assert_eq!(SignatureLine::parse(&line.to_string()), Ok(line));
    }
});
