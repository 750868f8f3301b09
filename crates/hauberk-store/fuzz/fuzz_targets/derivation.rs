//! What is read is written so that it reads the same again, and the view agrees.
#![no_main]

use hauberk_store::{Derivation, StoreDirectory, StorePath, derivation::{DerivationView, VerifiedClosure}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let directory = StoreDirectory::guix();
    let view = DerivationView::parse(&directory, bytes);
    let Ok(derivation) = Derivation::parse(&directory, bytes) else { return };
    let view = view.expect("a view checks less");
    assert_eq!(view.input_derivations().count(), derivation.input_derivations.len());
    assert_eq!(view.env().count(), derivation.env.len());
    assert_eq!(view.outputs().count(), derivation.outputs.len());
    assert_eq!(view.input_sources().count(), derivation.input_sources.len());
    let printed = derivation.to_bytes();
    let again = Derivation::parse(&directory, &printed).expect("what is written is read");
    assert_eq!(again, derivation);
    assert_eq!(again.to_bytes(), printed);
    let _ = (derivation.kind(), derivation.required_system_features(), derivation.timeout(), derivation.max_silent());
    if let Ok(path) = StorePath::of_text(&directory, "x.drv", bytes, &derivation.references()) {
        let path = path.try_into().expect("the name ends in .drv");
        let _ = VerifiedClosure::new().add(&path, bytes);
    }
});
