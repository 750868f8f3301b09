//! What a build would take, found by walking real derivations through the daemon.

use std::{collections::BTreeSet, path::PathBuf};

use hauberk_daemon::{BuildDaemon, BuildTarget, Missing};
use hauberk_store::{Derivation, DrvPath, StoreDirectory};

use crate::recording::{Recording, Side};

const WITH_DEPS: &str = "pl93h65596adyc72hkb9k8nyj2izaqjs-with-deps.drv";
const SIMPLE: &str = "45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv";
const MULTI: &str = "hm39ym646g1y0qm37av9m8nlv0bnndxk-multi.drv";
const SOURCES: [&str; 2] = [
    "/gnu/store/54q1jrgcjqzdxzap7bpq9jclbs4qmr6v-config.txt",
    "/gnu/store/hf68lh16g6w2h9ikzrmpng9fvi874531-builder.sh",
];
const DOC: &str = "/gnu/store/d45rfxavfa8lrnbmfd8yz2vfjddvj8fw-multi-doc";
const LIB: &str = "/gnu/store/gcnw0k5b1j52x73d3zlja6sx1d86v369-multi-lib";
const SIMPLE_OUT: &str = "/gnu/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple";

/// A store with the three derivations and their sources.
fn store() -> Side {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/guix-vectors/drv");
    let mut side = Side::default();
    for name in [WITH_DEPS, SIMPLE, MULTI] {
        let text = std::fs::read(directory.join(name)).unwrap();
        let derivation = Derivation::parse(&StoreDirectory::guix(), &text).unwrap();
        let outputs = derivation.outputs.values().map(|output| output.path.as_ref().unwrap().to_string());
        let path = format!("/gnu/store/{name}");
        side.outputs.insert(path.clone(), outputs.collect());
        side.valid.insert(path.clone());
        side.derivations.insert(path, text);
    }
    side.valid.extend(SOURCES.map(str::to_owned));
    side
}

async fn missing(side: Side) -> Missing {
    let recording = Recording::load("02-options-default");
    let (mut daemon, _playing) = recording.play(side).await;
    daemon.set_options(&crate::queries::guile()).await.unwrap();
    let target = BuildTarget::all(DrvPath::parse(&format!("/gnu/store/{WITH_DEPS}")).unwrap());
    daemon.query_missing(&[target]).await.unwrap()
}

fn names(missing: &Missing) -> Vec<&str> {
    missing.will_build.iter().map(|derivation| derivation.derivation_name()).collect()
}

fn strings<T: ToString>(things: &BTreeSet<T>) -> Vec<String> {
    things.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn everything() {
    let missing = missing(store()).await;
    assert_eq!(names(&missing), ["simple", "multi", "with-deps"]);
    assert!(missing.will_substitute.is_empty() && missing.unknown.is_empty());
}

#[tokio::test]
async fn what_can_be_fetched_is() {
    let mut side = store();
    side.substitutable.insert(DOC.to_owned(), Vec::new());
    // One of two outputs is not enough.
    assert_eq!(names(&missing(side).await), ["simple", "multi", "with-deps"]);
    let mut side = store();
    side.substitutable.insert(DOC.to_owned(), Vec::new());
    side.substitutable.insert(LIB.to_owned(), vec![LIB.to_owned(), SIMPLE_OUT.to_owned()]);
    side.valid.insert(SIMPLE_OUT.to_owned());
    let missing = missing(side).await;
    assert_eq!(names(&missing), ["with-deps"]);
    assert_eq!(strings(&missing.will_substitute), [DOC, LIB]);
    assert_eq!((missing.download_size, missing.nar_size), (20, 200));
    assert!(missing.unknown.is_empty());
}

#[tokio::test]
async fn a_source_that_is_nowhere() {
    let mut side = store();
    side.valid.remove(SOURCES[1]);
    let missing = missing(side).await;
    assert_eq!(strings(&missing.unknown), [SOURCES[1]]);
}

#[tokio::test]
async fn nothing() {
    let mut side = store();
    let outputs: Vec<String> = side.outputs[&format!("/gnu/store/{WITH_DEPS}")].clone();
    side.valid.extend(outputs);
    assert_eq!(missing(side).await, Missing::default());
}
