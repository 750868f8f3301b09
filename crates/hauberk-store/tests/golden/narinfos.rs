//! Narinfos of a real GNU Guix, and what it says of narinfos made for the purpose.

use hauberk_store::{
    NarHash, NarInfo, StoreDirectory,
    narinfo::GuixNarInfoError,
    signature::guix::{Acl, SecretKey, SignatureError},
};

use crate::data::{vector, vector_names, vector_text};

fn key() -> SecretKey {
    SecretKey::parse_pair(&vector("keys/signing-key.pub"), &vector("keys/signing-key.sec")).unwrap()
}

fn parse(text: &str) -> NarInfo {
    NarInfo::parse(&StoreDirectory::guix(), text).unwrap()
}

fn verify(text: &str, acl: &Acl) -> Result<NarInfo, GuixNarInfoError> {
    NarInfo::parse_verified(&StoreDirectory::guix(), text, acl)
}

fn acl() -> Acl {
    [key().public_key().clone()].into_iter().collect()
}

fn narinfos() -> Vec<(String, String)> {
    let names = vector_names("narinfo", ".narinfo");
    names.into_iter().map(|name| (name.clone(), vector_text(&format!("narinfo/{name}")))).collect()
}

#[test]
fn every_narinfo_round_trips() {
    let narinfos = narinfos();
    assert_eq!(narinfos.len(), 37);
    for (name, text) in &narinfos {
        assert_eq!(parse(text).to_string(), *text, "{name}");
    }
}

#[test]
fn every_signature_is_reproduced() {
    let acl = acl();
    for (name, text) in narinfos() {
        let info = verify(&text, &acl).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut again = info.clone();
        again.sign_guix("vm", &key());
        assert_eq!(again.to_string(), text, "{name}");
        assert_eq!(
            verify(&text, &Acl::default()),
            Err(GuixNarInfoError::Signature(SignatureError::Unauthorized))
        );
    }
}

#[test]
fn hashes_are_those_of_the_nars() {
    let mut checked = 0;
    for (name, text) in narinfos() {
        let info = parse(&text);
        let file = format!("{}.nar", info.store_path.base_name());
        if vector_names("nar", &file).is_empty() {
            continue;
        }
        let nar = vector(&format!("nar/{file}"));
        assert_eq!((info.nar_hash, info.nar_size), (NarHash::digest(&nar), nar.len() as u64), "{name}");
        checked += 1;
    }
    assert!(checked >= 24, "{checked}");
}

/// The real verifier said ACCEPTED, refused, or ended with an exception.
#[test]
fn verdicts_agree() {
    let acl = acl();
    let verdicts = vector_text("signature/verdict-cases/VERDICTS.txt");
    let mut count = 0;
    for line in verdicts.lines() {
        let (number, rest) = line.split_at(2);
        let text = vector_text(&format!("signature/verdict-cases/{number}.narinfo"));
        let outcome = verify(&text, &acl);
        let expected = rest.trim().starts_with("ACCEPTED");
        assert_eq!(outcome.is_ok(), expected, "{line}: {outcome:?}");
        count += 1;
        // For its own reason, each.
        let reason = match number {
            "04" | "10" => Some(SignatureError::Invalid),
            "06" | "07" | "09" => Some(SignatureError::Unsupported),
            "12" => Some(SignatureError::HashMismatch),
            "13" | "14" => Some(SignatureError::Unauthorized),
            _ => None,
        };
        if let Some(reason) = reason {
            assert_eq!(outcome, Err(GuixNarInfoError::Signature(reason)), "{line}");
        }
    }
    assert_eq!(count, 18);
}

#[test]
fn a_flipped_bit_is_refused() {
    let text = vector_text("narinfo/zstd-5dissc3nl7lnk9xapvwadbk133b6xk2y-with-deps.narinfo");
    let acl = acl();
    let original = verify(&text, &acl).unwrap();
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(evil) = String::from_utf8(bytes) else { continue };
            if let Ok(mut info) = verify(&evil, &acl) {
                // Only the host's name and spellings of the same signature are not signed.
                info.guix_signature = original.guix_signature.clone();
                assert_eq!(info, original, "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn what_is_below_the_signature_is_not_signed() {
    let acl = acl();
    let text = vector_text("narinfo/gzip-x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple.narinfo");
    let (signed, signature) = text.split_at(text.find("Signature:").unwrap());
    for field in ["StorePath", "NarHash", "References"] {
        let line = signed.lines().find(|line| line.starts_with(field)).unwrap();
        let moved = signed.replace(&format!("{line}\n"), "");
        let below = format!("{moved}{signature}{line}\n");
        let outcome = verify(&below, &acl);
        assert_eq!(outcome, Err(GuixNarInfoError::FieldNotSigned { field }), "{field}");
    }
    assert_eq!(verify(signed, &acl), Err(GuixNarInfoError::Unsigned));
}
