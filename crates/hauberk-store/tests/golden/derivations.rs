//! Derivations of a real GNU Guix, each byte of them.

use std::collections::BTreeMap;

use crate::data::{graph, vector, vector_names};
use hauberk_store::{
    Derivation, DrvPath, OutputName, Sha256, StoreDirectory, StorePath,
    derivation::{VerifiedClosure, VerifyError},
};

fn drv(name: &str) -> DrvPath {
    StorePath::from_base_name(&StoreDirectory::guix(), name).unwrap().try_into().unwrap()
}

/// Checks derivations after their inputs, whatever order they come in.
fn verify(drvs: &BTreeMap<String, Vec<u8>>) -> VerifiedClosure {
    fn visit(name: &str, drvs: &BTreeMap<String, Vec<u8>>, closure: &mut VerifiedClosure) {
        let path = drv(name);
        if closure.contains(&path) {
            return;
        }
        let parsed = Derivation::parse(&StoreDirectory::guix(), &drvs[name]).unwrap();
        parsed.input_derivations.keys().for_each(|input| visit(input.base_name(), drvs, closure));
        closure.add(&path, &drvs[name]).unwrap();
    }
    let mut closure = VerifiedClosure::new();
    drvs.keys().for_each(|name| visit(name, drvs, &mut closure));
    closure
}

#[test]
fn vectors_round_trip_and_verify() {
    let mut drvs: BTreeMap<_, _> = vector_names("drv", ".drv")
        .into_iter()
        .map(|name| (name.clone(), vector(&format!("drv/{name}"))))
        .collect();
    let rejected = drvs.remove("REJECTED-unsorted-input-outputs.drv").unwrap();
    assert_eq!(drvs.len(), 17);
    for (name, bytes) in &drvs {
        assert!(Derivation::parse(&StoreDirectory::guix(), bytes).unwrap().to_bytes() == *bytes, "{name}");
    }
    let mut closure = verify(&drvs);

    // The daemon computes with sorted names, so what was made with unsorted ones has other output paths.
    let parsed = Derivation::parse(&StoreDirectory::guix(), &rejected).unwrap();
    assert_ne!(parsed.to_bytes(), rejected);
    let path = StorePath::of_text(&StoreDirectory::guix(), "x.drv", &rejected, &parsed.references()).unwrap();
    let error = closure.add(&path.try_into().unwrap(), &rejected).unwrap_err();
    assert!(matches!(error, VerifyError::Output(_) | VerifyError::MissingInput { .. }), "{error}");
}

#[test]
fn the_whole_graph_round_trips_and_verifies() {
    let drvs = graph();
    assert_eq!(drvs.len(), 9968);
    for (name, bytes) in &drvs {
        assert!(Derivation::parse(&StoreDirectory::guix(), bytes).unwrap().to_bytes() == *bytes, "{name}");
    }
    verify(&drvs);
}

#[test]
fn tampering_is_found_out() {
    let drvs = graph();
    let fits = |name: &str| name.ends_with("-konsole-20.04.1.drv");
    let (name, bytes) = drvs.iter().find(|(name, _)| fits(name)).unwrap();
    let mut closure = verify(&drvs);
    let text = String::from_utf8(bytes.clone()).unwrap();
    let evil = text.replacen("\"x86_64-linux\"", "\"x86_64-linus\"", 1).into_bytes();
    assert!(matches!(closure.add(&drv(name), &evil), Err(VerifyError::Path { .. })));
    let parsed = Derivation::parse(&StoreDirectory::guix(), &evil).unwrap();
    let error = closure.add_parsed(&drv(name), &parsed).unwrap_err();
    assert!(matches!(error, VerifyError::Output(_)), "{error}");

    let mut foreign = Derivation::parse(&StoreDirectory::guix(), bytes).unwrap();
    foreign.input_derivations.insert(drv("00000000000000000000000000000000-x.drv"), [OutputName::OUT].into());
    let error = closure.add_parsed(&drv(name), &foreign).unwrap_err();
    assert!(matches!(error, VerifyError::MissingInput { .. }), "{error}");
}

#[test]
fn every_flipped_bit_is_found_out() {
    let name = "bcm05159b1w63sqmiffni96vp8cnpshc-chain.drv";
    let bytes = vector(&format!("drv/{name}"));
    let mut closure = VerifiedClosure::new();
    for input in ["45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv", "hm39ym646g1y0qm37av9m8nlv0bnndxk-multi.drv"]
    {
        closure.add(&drv(input), &vector(&format!("drv/{input}"))).unwrap();
    }
    closure.add(&drv(name), &bytes).unwrap();
    for at in 0..bytes.len() {
        let mut evil = bytes.clone();
        evil[at] ^= 1;
        assert!(closure.add(&drv(name), &evil).is_err(), "byte {at}");
    }
}

#[test]
fn file_hashes_are_those_of_the_index() {
    let index = String::from_utf8(vector("drv/INDEX.txt")).unwrap();
    let mut checked = 0;
    for record in index.split("/gnu/store/").filter(|record| record.contains(".drv\n  sha256")) {
        let mut lines = record.lines();
        let name = lines.next().unwrap();
        let hash = lines.next().unwrap().trim().strip_prefix("sha256(file)=").unwrap();
        if vector_names("drv", name).is_empty() {
            continue;
        }
        assert_eq!(Sha256::digest(&vector(&format!("drv/{name}"))).to_base16(), hash);
        checked += 1;
    }
    assert_eq!(checked, 17);
}
