//! Either form of what is read reads the same again; keys, ACLs and signatures never panic.
#![no_main]

use hauberk_store::{Sha256, sexp::Sexp, signature::guix::{Acl, PublicKey, SecretKey, Signature}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(sexp) = Sexp::parse(bytes) else { return };
    assert_eq!(Sexp::parse(&sexp.to_canonical()).as_ref(), Ok(&sexp));
    assert_eq!(Sexp::parse(&sexp.to_advanced()).as_ref(), Ok(&sexp));
    assert_eq!(Sexp::parse_text(&sexp.to_advanced_text()).as_ref(), Ok(&sexp));
    if let Ok(acl) = Acl::parse(bytes) {
        assert_eq!(Acl::parse(acl.to_string().as_bytes()).is_ok(), acl.keys().iter().all(|_| true));
    }
    if let Ok(key) = PublicKey::parse(bytes) {
        let acl: Acl = [key].into_iter().collect();
        if let Ok(signature) = Signature::parse(bytes) {
            assert!(signature.verify(&Sha256::digest(b""), &acl).is_err());
        }
    }
    if let Ok(key) = SecretKey::parse(bytes) {
        let hash = Sha256::digest(b"");
        let acl: Acl = [key.public_key().clone()].into_iter().collect();
        assert_eq!(key.sign(&hash).verify(&hash, &acl), Ok(()));
    }
    if let Ok(signature) = Signature::parse(bytes) {
        if let Some(subject) = signature.subject() {
            let text = [b"(acl (entry ", &subject.to_canonical()[..], b" (tag (guix import))))"].concat();
            let acl = Acl::parse(&text).expect("it is an ACL");
            let _ = signature.verify(&Sha256::digest(b"vector"), &acl);
        }
    }
});
