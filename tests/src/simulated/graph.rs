//! Builds to be published, and how each must end.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use hauberk_database::{
    Level,
    registration::{NewBuild, NewJob, Registration},
};
use hauberk_store::{DrvPath, OutputName, Sha256, StoreDirectory, StorePath};

use super::{Conduct, Random};

/// A graph of simulated builds. Their names tell what becomes of them, see [`Conduct`].
#[derive(Clone, Debug)]
pub struct Graph {
    tag: String,
    system: String,
    builds: Vec<Planned>,
}

#[derive(Clone, Debug)]
struct Planned {
    name: String,
    needs: Vec<usize>,
    state: &'static str,
}

impl Graph {
    /// An empty one. `tag` sets its names apart from those of others.
    pub fn new(tag: &str) -> Self {
        let system = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        Self { tag: tag.to_owned(), system, builds: Vec::new() }
    }

    /// Adds a build that does as `kind` says and needs those at the places `needs`, and gives its place.
    pub fn add(&mut self, kind: &str, needs: &[usize]) -> usize {
        let place = self.builds.len();
        let name = format!("{kind}-{}-{:05}", self.tag, place + 1);
        let state = if needs.iter().any(|place| self.builds[*place].state != "succeeded") {
            "failed_dependency"
        } else if Conduct::of(&name).succeeds {
            "succeeded"
        } else {
            "failed"
        };
        self.builds.push(Planned { name, needs: needs.to_vec(), state });
        place
    }

    /// Adds `count` builds of a kind that need nothing.
    pub fn add_many(&mut self, kind: &str, count: usize) {
        for _ in 0..count {
            self.add(kind, &[]);
        }
    }

    /// Adds `count` builds each of which needs up to three that are there already; some fail.
    pub fn add_tangle(&mut self, count: usize, random: &mut Random) {
        for _ in 0..count {
            let there = self.builds.len() as u64;
            let mut needs: Vec<usize> = (0..1 + random.below(3))
                .filter(|_| there > 0)
                .map(|_| usize::try_from(random.below(there)).unwrap_or_default())
                .collect();
            needs.sort_unstable();
            needs.dedup();
            let kind = match random.below(20) {
                0 => "fail",
                1..=9 => "slow",
                _ => "quick",
            };
            self.add(kind, &needs);
        }
    }

    /// Tells how many builds it has.
    pub fn len(&self) -> usize {
        self.builds.len()
    }

    /// Tells whether it has none.
    pub fn is_empty(&self) -> bool {
        self.builds.is_empty()
    }

    /// Gives the state each build must end in, by name.
    pub fn expected(&self) -> BTreeMap<String, &'static str> {
        self.builds.iter().map(|build| (build.name.clone(), build.state)).collect()
    }

    /// Gives what is to be published; every build is a job.
    ///
    /// # Errors
    /// A name is not one that stores allow.
    pub fn registration(&self) -> Result<Registration> {
        let out: OutputName = "out".parse().context("naming an output")?;
        let paths: Vec<StorePath> =
            self.builds.iter().map(|build| store_path("output", &build.name)).collect::<Result<_>>()?;
        let mut registration = Registration::default();
        for (place, build) in self.builds.iter().enumerate() {
            let derivation = store_path("derivation", &format!("{}.drv", build.name))?;
            registration.builds.push(NewBuild {
                derivation: DrvPath::try_from(derivation)?,
                name: build.name.clone(),
                system: self.system.clone(),
                features: Vec::new(),
                timeout: 3600,
                max_silent: 3600,
                outputs: vec![(out.clone(), paths[place].clone())],
                dependencies: build.needs.iter().map(|place| paths[*place].clone()).collect(),
            });
            registration.jobs.push(NewJob {
                name: build.name.clone(),
                build: place,
                priority: Level::LEAST_URGENT,
            });
        }
        Ok(registration)
    }
}

fn store_path(kind: &str, name: &str) -> Result<StorePath> {
    let digest = Sha256::digest(format!("{kind}:{name}").as_bytes());
    let mut short = [0; 20];
    short.copy_from_slice(&digest.as_bytes()[..20]);
    Ok(StorePath::from_digest(&StoreDirectory::nix(), &short, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reaches_all_that_need_it() {
        let mut graph = Graph::new("t");
        let fine = graph.add("quick", &[]);
        let broken = graph.add("fail", &[fine]);
        let above = graph.add("quick", &[fine, broken]);
        graph.add("fail", &[above]);
        let states: Vec<_> = graph.expected().into_values().collect();
        assert_eq!(states, ["failed", "failed_dependency", "succeeded", "failed_dependency"]);
        let registration = graph.registration().unwrap();
        assert_eq!(registration.builds[2].dependencies.len(), 2);
        assert_eq!(registration.jobs.len(), 4);
    }

    #[test]
    fn a_tangle_follows_from_its_seed() {
        let tangle = |seed| {
            let mut graph = Graph::new("t");
            graph.add_many("quick", 5);
            graph.add_tangle(200, &mut Random::new(seed));
            graph.expected()
        };
        assert_eq!(tangle(1), tangle(1));
        assert_ne!(tangle(1), tangle(2));
    }
}
