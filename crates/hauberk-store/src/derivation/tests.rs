use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::strategies;

const FIXED: &str = r#"Derive([("out","/nix/store/f6wnn9ffk85lpnmfw4hfznzpq45mvy99-a.txt","sha256","00")],[],[],"builtin","builtin:fetchurl",[],[("a","b\\\"\n\r\t\x")])"#;

fn parse(text: &str) -> Result<Derivation, ParseError> {
    Derivation::parse(&StoreDirectory::nix(), text.as_bytes())
}

#[test]
fn escapes_are_undone_and_redone() {
    let derivation = parse(FIXED).unwrap();
    assert_eq!(derivation.env[&b"a"[..]], b"b\\\"\n\r\tx");
    assert!(derivation.is_fixed_output());
    assert_eq!(derivation.to_bytes(), FIXED.replace(r"\x", "x").into_bytes());
}

#[test]
fn refuses_other_texts() {
    for end in 0..FIXED.len() {
        assert!(parse(&FIXED[..end]).is_err(), "{end}");
    }
    assert!(matches!(parse(&format!("{FIXED} ")), Err(ParseError::TrailingBytes { .. })));
    assert!(matches!(
        parse(&FIXED.replace(r#"("a","#, r#"("a","x"),("a","#)),
        Err(ParseError::Duplicate { what: "environment variable", .. })
    ));
    assert_eq!(parse(r#"DrvWithVersion("xp-dyn-drv",[])"#), Err(ParseError::Dynamic));
    assert!(parse(&FIXED.replace("/nix/store/", "/gnu/store/")).is_err());
}

#[test]
fn kinds() {
    let check = |output: &str, kind: DerivationKind| {
        let text = FIXED
            .replace(r#"("out","/nix/store/f6wnn9ffk85lpnmfw4hfznzpq45mvy99-a.txt","sha256","00")"#, output);
        let derivation = parse(&text).unwrap();
        assert_eq!(derivation.kind(), kind, "{output}");
        let buildable = matches!(kind, DerivationKind::InputAddressed | DerivationKind::FixedOutput);
        assert_eq!(kind.refusal().is_none(), buildable);
    };
    let path = "/nix/store/f6wnn9ffk85lpnmfw4hfznzpq45mvy99-a.txt";
    check(&format!(r#"("out","{path}","","")"#), DerivationKind::InputAddressed);
    check(&format!(r#"("out","{path}","r:sha256","00")"#), DerivationKind::FixedOutput);
    check(&format!(r#"("doc","{path}","r:sha256","00")"#), DerivationKind::Inconsistent);
    check(r#"("out","","r:sha256","")"#, DerivationKind::FloatingContentAddressed);
    check(r#"("out","","r:sha256","impure")"#, DerivationKind::Impure);
    check(r#"("out","","","")"#, DerivationKind::Deferred);
    check("", DerivationKind::Inconsistent);
    check(&format!(r#"("doc","","",""),("out","{path}","","")"#), DerivationKind::Inconsistent);
}

#[test]
fn a_view_says_the_same() {
    let text = FIXED.replace("],[],[],", r#"],[("/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-b.drv",["bin","out"])],["/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-c","/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-d"],"#);
    let text = text.replace("\"builtin:fetchurl\",[", "\"builtin:fetchurl\",[\"-c\",\"\\n\"");
    let (derivation, directory) = (parse(&text).unwrap(), StoreDirectory::nix());
    let view = DerivationView::parse(&directory, text.as_bytes()).unwrap();
    let outputs: Vec<_> = view.outputs().collect();
    assert_eq!(outputs.len(), 1);
    let path = outputs[0].path.as_ref().map(|path| path.to_store_path(&directory));
    assert_eq!(path, derivation.outputs[&OutputName::OUT].path);
    assert_eq!((&*outputs[0].name, &*outputs[0].hash_algo, &*outputs[0].hash), ("out", "sha256", "00"));
    let inputs: BTreeMap<_, OutputNames> = view
        .input_derivations()
        .map(|input| {
            let drv = DrvPath::try_from(input.drv.to_store_path(&directory)).unwrap();
            (drv, input.outputs().map(|name| OutputName::parse(&name).unwrap()).collect())
        })
        .collect();
    assert_eq!(inputs, derivation.input_derivations);
    let sources: BTreeSet<_> = view.input_sources().map(|path| path.to_store_path(&directory)).collect();
    assert_eq!((sources.len(), sources), (2, derivation.input_sources.clone()));
    assert_eq!((view.system(), view.builder()), (derivation.system.as_str(), &derivation.builder[..]));
    assert_eq!(view.args().map(Cow::into_owned).collect::<Vec<_>>(), derivation.args);
    assert_eq!(view.env_var("a").as_deref(), derivation.env_var("a"));
    assert_eq!(view.env_var("b"), None);
}

proptest! {
    #[test]
    fn derivations_round_trip(derivation in strategies::derivation()) {
        let directory = StoreDirectory::guix();
        let bytes = derivation.to_bytes();
        let again = Derivation::parse(&directory, &bytes);
        prop_assert_eq!(again.as_ref(), Ok(&derivation));
        let view = DerivationView::parse(&directory, &bytes).unwrap();
        let env: BTreeMap<_, _> = view.env().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        prop_assert_eq!(env, derivation.env);
    }

    #[test]
    fn junk_never_panics(junk: Vec<u8>, at: prop::sample::Index, derivation in strategies::derivation()) {
        let mut bytes = derivation.to_bytes();
        let at = at.index(bytes.len());
        bytes.splice(at..at, junk.iter().copied());
        for bytes in [junk, bytes] {
            let _ = DerivationView::parse(&StoreDirectory::guix(), &bytes);
            if let Ok(derivation) = Derivation::parse(&StoreDirectory::guix(), &bytes) {
                let _ = (derivation.kind(), derivation.timeout(), derivation.required_system_features());
            }
        }
    }
}
