//! What workers can build, and what builds require.

use std::collections::BTreeSet;

use hauberk_store::StoreDirectory;

/// The system of derivations that the build daemon itself carries out: any worker of their store does.
const BUILTIN: &str = "builtin";

/// What a worker can build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capabilities {
    /// The directory of its store.
    pub store_directory: StoreDirectory,
    /// Systems it builds for, `builtin` not counted.
    pub systems: BTreeSet<String>,
    /// Features it offers.
    pub features: BTreeSet<String>,
    /// Those of them that a build must require to be given to it.
    pub mandatory_features: BTreeSet<String>,
}

/// What the builds of a lane require of a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Their store directory.
    pub store_directory: StoreDirectory,
    /// Their system.
    pub system: String,
    /// The features they require.
    pub features: BTreeSet<String>,
}

impl Capabilities {
    /// Tells whether builds that require this can be given to such a worker.
    pub fn meet(&self, requirement: &Requirement) -> bool {
        self.store_directory == requirement.store_directory
            && (requirement.system == BUILTIN || self.systems.contains(&requirement.system))
            && requirement.features.is_subset(&self.features)
            && self.mandatory_features.is_subset(&requirement.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn meet(worker: (&[&str], &[&str], &[&str]), system: &str, features: &[&str]) -> bool {
        let capabilities = Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: set(worker.0),
            features: set(worker.1),
            mandatory_features: set(worker.2),
        };
        capabilities.meet(&Requirement {
            store_directory: StoreDirectory::nix(),
            system: system.to_owned(),
            features: set(features),
        })
    }

    #[test]
    fn a_worker_runs_what_it_has_the_system_and_the_features_for() {
        let linux = &["x86_64-linux", "i686-linux"][..];
        assert!(meet((linux, &[], &[]), "x86_64-linux", &[]));
        assert!(meet((linux, &[], &[]), "i686-linux", &[]));
        assert!(meet((linux, &[], &[]), "builtin", &[]));
        assert!(!meet((linux, &[], &[]), "aarch64-linux", &[]));
        assert!(!meet((linux, &[], &[]), "x86_64-linux", &["kvm"]));
        assert!(meet((linux, &["kvm"], &[]), "x86_64-linux", &["kvm"]));
        assert!(meet((linux, &["kvm"], &[]), "x86_64-linux", &[]));
        assert!(!meet((linux, &["kvm"], &["kvm"]), "x86_64-linux", &[]));
        assert!(meet((linux, &["kvm"], &["kvm"]), "x86_64-linux", &["kvm"]));
    }

    #[test]
    fn a_store_directory_must_match() {
        let capabilities = Capabilities {
            store_directory: StoreDirectory::guix(),
            systems: set(&["x86_64-linux"]),
            features: set(&[]),
            mandatory_features: set(&[]),
        };
        let requirement = Requirement {
            store_directory: StoreDirectory::nix(),
            system: "builtin".to_owned(),
            features: set(&[]),
        };
        assert!(!capabilities.meet(&requirement));
    }
}
