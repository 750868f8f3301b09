use proptest::prelude::*;

use super::*;
use crate::{signature::guix, strategies};

const NIX: &str = "\
StorePath: /nix/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple
URL: nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz
Compression: xz
FileHash: sha256:1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3
FileSize: 4029176
NarHash: sha256:1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h
NarSize: 18735072
References: 0d71ygfwbmy1xjlbj1v027dfmy9cqavy-libffi-3.3 x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple
Deriver: 45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv
X-Unknown: kept: as it is
";

fn parse(text: &str) -> Result<NarInfo, NarInfoError> {
    NarInfo::parse(&StoreDirectory::nix(), text)
}

#[test]
fn nix_dialect() {
    let mut info = parse(NIX).unwrap();
    assert_eq!(info.to_string(), NIX);
    assert_eq!(
        info.fingerprint(),
        "1;/nix/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple;\
         sha256:1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h;18735072;\
         /nix/store/0d71ygfwbmy1xjlbj1v027dfmy9cqavy-libffi-3.3,\
         /nix/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple"
    );
    let keys = ["a-1", "b-1"].map(|name| nix::SecretKey::generate(name).unwrap());
    keys.iter().for_each(|key| info.sign(key));
    info.sign(&keys[0]);
    assert_eq!(info.signatures.len(), 2);
    let again = parse(&info.to_string()).unwrap();
    assert_eq!(again, info);
    let odd = parse(&format!("{info}Sig: new-1:AAAA\n")).unwrap();
    assert_eq!(odd.signatures, info.signatures);
    assert!(odd.to_string().ends_with("Sig: new-1:AAAA\n"));
    let public = keys[1].public_key();
    assert_eq!(again.verify(std::slice::from_ref(&public)), Some(&public));
    let mut tampered = again;
    tampered.nar_size += 1;
    assert_eq!(tampered.verify(std::slice::from_ref(&public)), None);
}

#[test]
fn several_groups() {
    let text = NIX.replace(
        "NarHash",
        "URL: nar/zstd/x\nCompression: zstd\nFileSize: 7\nURL: nar/x\nCompression: none\nNarHash",
    );
    let info = parse(&text).unwrap();
    assert_eq!(info.urls.len(), 3);
    assert_eq!(info.urls[1].file_size, Some(7));
    assert_eq!(info.urls[2].compression, Compression::None);
    assert_eq!(info.to_string(), text);
}

#[test]
fn refuses_other_texts() {
    let line = |name: &str| NIX.lines().find(|line| line.starts_with(name)).unwrap().to_owned() + "\n";
    for field in
        ["StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "References"]
    {
        let line = line(field);
        if field != "URL" {
            let doubled = NIX.replace(&line, &line.repeat(2));
            assert!(matches!(parse(&doubled), Err(NarInfoError::Duplicate { .. })), "{field}");
        }
        if matches!(field, "StorePath" | "NarHash" | "NarSize" | "URL") {
            assert!(parse(&NIX.replace(&line, "")).is_err(), "{field}");
        }
    }
    for (from, to) in [
        ("NarSize: 18735072", "NarSize: +18735072"),
        ("NarSize: 18735072", "NarSize: 99999999999999999999"),
        ("NarHash: sha256:1", "NarHash: sha256:"),
        ("/nix/store/x73", "/gnu/store/x73"),
        ("URL: nar/", "URL: nar /"),
        ("X-Unknown:", "X-Unknown"),
        ("References: 0d71", "References: ../0d71"),
    ] {
        assert!(parse(&NIX.replacen(from, to, 1).replace("kept: as", "kept as")).is_err(), "{to}");
    }
    assert!(matches!(parse(&format!("{NIX}{}", "A: b\n".repeat(64))), Err(NarInfoError::TooLarge { .. })));
    assert!(matches!(parse(&" ".repeat(MAX_SIZE + 1)), Err(NarInfoError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn narinfos_round_trip(info in strategies::narinfo()) {
        let directory = info.store_path.directory();
        let text = info.to_string();
        let again = NarInfo::parse(directory, &text).unwrap();
        prop_assert_eq!(again.to_string(), text);
        prop_assert_eq!(again, info);
    }

    #[test]
    fn what_is_signed_verifies(mut info in strategies::narinfo()) {
        let (nix, guix) = (nix::SecretKey::generate("k").unwrap(), guix::SecretKey::generate().unwrap());
        info.sign(&nix);
        info.sign_guix("host; with\nodd characters", &guix);
        let acl = [guix.public_key().clone()].into_iter().collect();
        let again = NarInfo::parse_verified(info.store_path.directory(), &info.to_string(), &acl);
        prop_assert_eq!(again.as_ref(), Ok(&info));
        let public = nix.public_key();
        prop_assert_eq!(info.verify(std::slice::from_ref(&public)), Some(&public));
    }

    #[test]
    fn junk_never_panics(junk: String, lines in "((StorePath|URL|Compression|FileSize|NarHash|References|Sig|Signature|CA): [a-z0-9:;/-]{0,40}\n){0,12}") {
        for text in [junk, lines] {
            let _ = parse(&text);
            let _ = NarInfo::parse_verified(&StoreDirectory::guix(), &text, &guix::Acl::default());
        }
    }
}
