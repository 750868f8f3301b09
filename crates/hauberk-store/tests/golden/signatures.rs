//! Keys, ACLs and signatures of a real GNU Guix.

use base64::{Engine, engine::general_purpose::STANDARD};
use hauberk_store::{
    Sha256,
    signature::guix::{Acl, PublicKey, SecretKey, Signature},
};

use crate::data::{vector, vector_names, vector_text};

#[test]
fn key_files_round_trip() {
    for name in ["signing-key", "second"] {
        let (public, secret) = (vector(&format!("keys/{name}.pub")), vector(&format!("keys/{name}.sec")));
        let key = SecretKey::parse_pair(&public, &secret).unwrap();
        assert_eq!(key.public_key().to_string().as_bytes(), public);
        assert_eq!(*key.to_secret_bytes(), secret);
        assert_eq!(SecretKey::parse(&secret).unwrap().public_key(), key.public_key());
        let shown = format!("{key:?}");
        let d = String::from_utf8(secret).unwrap();
        let d = d.split("(d #").nth(1).unwrap().split('#').next().unwrap();
        assert!(!shown.to_uppercase().contains(d), "{shown}");
    }
    assert!(SecretKey::parse_pair(&vector("keys/second.pub"), &vector("keys/signing-key.sec")).is_err());
    assert!(SecretKey::parse(&vector("keys/second.pub")).is_err());
    assert!(PublicKey::parse(&vector("keys/second.sec")).is_err());
}

#[test]
fn generated_keys_are_like_real_ones() {
    for _ in 0..20 {
        let key = SecretKey::generate().unwrap();
        let again = SecretKey::parse(&key.to_secret_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let hash = Sha256::digest(b"text");
        let acl: Acl = [key.public_key().clone()].into_iter().collect();
        let signature = Signature::parse(&key.sign(&hash).to_bytes()).unwrap();
        assert_eq!(signature.verify(&hash, &acl), Ok(()));
        assert_eq!(again.sign(&hash), signature);
    }
}

#[test]
fn acl_files_round_trip() {
    for name in vector_names("acl", "") {
        let text = vector(&format!("acl/{name}"));
        let acl = Acl::parse(&text).unwrap();
        assert_eq!(acl.to_string().as_bytes(), text, "{name}");
    }
    let first = PublicKey::parse(&vector("keys/signing-key.pub")).unwrap();
    let second = PublicKey::parse(&vector("keys/second.pub")).unwrap();
    let both = Acl::parse(&vector("acl/acl-after-authorizing-second-key")).unwrap();
    assert!(both.contains(first.as_sexp()) && both.contains(second.as_sexp()));
    let mut acl = Acl::default();
    acl.authorize(&first);
    acl.authorize(&second);
    acl.authorize(&second);
    assert_eq!(acl.keys().len(), 2);
    assert_eq!(acl.keys()[0], *second.as_sexp());
    for bad in ["(acl (entry))", "(acls)", "(acl (entry (a) (tag (guix export))))", "acl"] {
        assert!(Acl::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_corpus_is_reproduced_bit_for_bit() {
    let key = SecretKey::parse(&vector("keys/signing-key.sec")).unwrap();
    let acl: Acl = [key.public_key().clone()].into_iter().collect();
    let (mut count, mut quoted) = (0, 0);
    for line in vector_text("signature/corpus.txt").lines() {
        let (number, encoded) = line.split_once(' ').unwrap();
        let text = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
        let hash = Sha256::digest(format!("vector {number}").as_bytes());
        assert_eq!(key.sign(&hash).to_text(), text, "{number}");
        let signature = Signature::parse_text(&text).unwrap();
        assert_eq!(signature.to_text(), text, "{number}");
        assert_eq!(signature.verify(&hash, &acl), Ok(()), "{number}");
        count += 1;
        quoted += usize::from(text.contains('"'));
    }
    assert_eq!((count, quoted), (21, 15));
}

#[test]
fn the_daemons_helper_is_reproduced() {
    let answer = vector("authenticate/sign.out");
    let begin = answer.iter().position(|byte| *byte == b':').unwrap() + 1;
    let length: usize = std::str::from_utf8(&answer[2..begin - 1]).unwrap().parse().unwrap();
    let expected = &answer[begin..begin + length];
    let hash = Sha256::digest(b"vector");
    let key = SecretKey::parse(&vector("keys/signing-key.sec")).unwrap();
    assert_eq!(key.sign(&hash).to_bytes(), expected);
}
