//! A register of Guix in small, on a machine of its own: it makes some derivations in that machine's store, brings them to the servers and
//! publishes them. Prints each output, the newest last.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Parser;
use hauberk_daemon::BuildDaemon;
use hauberk_register::NixDaemon;
use hauberk_store::{OutputName, nar::Node};
use hauberk_tests::{GuixStore, Recipe};

/// Bytes of a source that is worth a parcel of its own.
const LARGE: usize = 6 << 20;

/// Make derivations in a Guix store, bring them to the servers, and publish them
#[derive(Debug, Parser)]
struct Options {
    /// The farm's database
    #[arg(long)]
    database: String,

    /// The machine's guix-daemon
    #[arg(long)]
    daemon: NixDaemon,

    /// The version of what is made
    #[arg(long)]
    version: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Options { database, daemon: location, version } = Options::parse();
    let mut store = GuixStore::open(location.address()).await?;
    // A source, a large one, and a text that refers to another path.
    let daemon = store.daemon();
    let nar = Node::file(format!("source {version}\n")).to_nar()?;
    let source = daemon.add_source("source", &mut nar.as_slice(), &BTreeSet::new()).await?;
    let nar = Node::file(noise(LARGE)).to_nar()?;
    let large = daemon.add_source("large", &mut nar.as_slice(), &BTreeSet::new()).await?;
    let text = source.to_string();
    let script = daemon.add_text("refers", text.as_bytes(), &BTreeSet::from([source.clone()])).await?;
    let name = format!("low-{version}");
    let low = Recipe {
        name: &name,
        script: "mkdir $out $doc; cat $source > $out/file; cp $large $doc/large",
        outputs: &["doc"],
        sources: &[("source", &source), ("large", &large)],
        ..Recipe::default()
    };
    let (low, low_outputs) = store.derivation(&low).await?;
    let name = format!("high-{version}");
    let high = Recipe {
        name: &name,
        script: "cat $low/file > $out; echo $low >> $out; cat $script >> $out",
        inputs: &[("low", &low)],
        sources: &[("script", &script)],
        ..Recipe::default()
    };
    let (high, high_outputs) = store.derivation(&high).await?;
    store.register_elsewhere(&database, "guix", &[&high], &location).await?;
    for (name, path) in low_outputs.iter().chain(&high_outputs) {
        if *name == OutputName::OUT {
            println!("{path}");
        }
    }
    Ok(())
}

/// Makes bytes that do not compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}
