//! The derivations of GNU Guix's package set, and what needs what.

use std::collections::HashMap;
use std::io::Read as _;

use anyhow::{Context, Result};
use hauberk_store::StoreDirectory;
use hauberk_store::derivation::DerivationView;

/// See `tests/data/README.md`.
const DERIVATIONS: &[u8] = include_bytes!("../../../../tests/data/guix-graph/drvs.tar.zst");

/// One derivation.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The system it is built on.
    pub(crate) system: String,
    /// Whether its output is known beforehand: sources, mostly.
    pub(crate) is_fixed: bool,
    /// What it needs, as places in the graph.
    pub(crate) dependencies: Vec<usize>,
}

/// A graph of derivations; each comes after all that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// The derivations.
    pub(crate) nodes: Vec<Node>,
}

impl Graph {
    /// Reads the graph that the program carries.
    pub(crate) fn load() -> Result<Self> {
        let mut files = HashMap::new();
        let decoder = zstd::Decoder::new(DERIVATIONS).context("the carried derivations")?;
        let mut archive = tar::Archive::new(decoder);
        for entry in archive.entries().context("the carried derivations")? {
            let mut entry = entry.context("the carried derivations")?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
            files.insert(name, bytes);
        }
        let mut order: Vec<&String> = files.keys().collect();
        order.sort_unstable();
        let directory = StoreDirectory::guix();
        let mut graph = Self { nodes: Vec::new() };
        let mut places = HashMap::new();
        for name in order {
            graph.add(name, &files, &directory, &mut places)?;
        }
        Ok(graph)
    }

    /// Adds a derivation after what it needs.
    fn add<'a>(
        &mut self,
        name: &'a str,
        files: &'a HashMap<String, Vec<u8>>,
        directory: &StoreDirectory,
        places: &mut HashMap<&'a str, usize>,
    ) -> Result<usize> {
        if let Some(place) = places.get(name) {
            return Ok(*place);
        }
        let (name, bytes) = files.get_key_value(name).with_context(|| format!("{name} is not there"))?;
        let derivation =
            DerivationView::parse(directory, bytes).with_context(|| format!("reading {name}"))?;
        let mut dependencies = Vec::new();
        for input in derivation.input_derivations() {
            let (needed, _) = files
                .get_key_value(input.drv.base_name())
                .with_context(|| format!("{name} needs what is not there"))?;
            dependencies.push(self.add(needed, files, directory, places)?);
        }
        let node = Node {
            system: derivation.system().to_owned(),
            is_fixed: derivation.outputs().any(|output| !output.hash.is_empty()),
            dependencies,
        };
        self.nodes.push(node);
        let place = self.nodes.len() - 1;
        places.insert(name, place);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_is_the_one_its_description_tells_of() {
        let graph = Graph::load().unwrap();
        assert_eq!(graph.nodes.len(), 9968);
        assert_eq!(graph.nodes.iter().map(|node| node.dependencies.len()).sum::<usize>(), 173_319);
        assert_eq!(graph.nodes.iter().filter(|node| node.is_fixed).count(), 5109);
        assert_eq!(graph.nodes.iter().filter(|node| node.system == "i686-linux").count(), 1904);
        for (place, node) in graph.nodes.iter().enumerate() {
            assert!(node.dependencies.iter().all(|needed| *needed < place));
        }
    }
}
