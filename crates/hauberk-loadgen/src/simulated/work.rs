//! Builds to be recorded.

use anyhow::{Context, Result};
use hauberk_database::Level;
use hauberk_database::registration::{NewBuild, NewJob, Registration};
use hauberk_store::{DrvPath, OutputName, Sha256, StoreDirectory, StorePath};
use hauberk_worker::native_system;

use super::Contents;

/// An evaluation's worth of builds, and the paths they give.
#[derive(Clone, Debug)]
pub struct Work {
    /// What is recorded.
    pub registration: Registration,
    /// The output of each build.
    pub outputs: Vec<StorePath>,
    /// What is in each output's file, where outputs are fetched.
    pub contents: Contents,
}

impl Work {
    /// Makes builds that need nothing, each a job of its own.
    pub fn flat(count: usize) -> Result<Self> {
        Self::flat_after(0, count)
    }

    /// Makes builds that need nothing, other ones than the first `before` of [`Self::flat`].
    pub fn flat_after(before: usize, count: usize) -> Result<Self> {
        Self::make(before, count, |_, _| Vec::new(), |_| true)
    }

    /// Makes builds each of which needs the one before; the last is the only job.
    pub fn chain(depth: usize) -> Result<Self> {
        let before = |outputs: &[StorePath], index: usize| {
            index.checked_sub(1).and_then(|index| outputs.get(index)).cloned().into_iter().collect()
        };
        Self::make(0, depth, before, |index| index + 1 == depth)
    }

    fn make(
        before: usize,
        count: usize,
        needs: impl Fn(&[StorePath], usize) -> Vec<StorePath>,
        is_job: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let out: OutputName = "out".parse().context("naming an output")?;
        let mut work = Self {
            registration: Registration::default(),
            outputs: Vec::with_capacity(count),
            contents: Contents::default(),
        };
        for index in 0..count {
            // In no order, as those of packages are.
            let name = format!("{:08x}-{:07}", scattered(before + index), before + index + 1);
            let output = store_path("output", &name)?;
            let derivation = DrvPath::try_from(store_path("derivation", &format!("{name}.drv"))?)?;
            work.registration.builds.push(NewBuild {
                derivation,
                name: name.clone(),
                system: native_system(),
                features: Vec::new(),
                timeout: 3600,
                max_silent: 3600,
                outputs: vec![(out.clone(), output.clone())],
                dependencies: needs(&work.outputs, index),
            });
            work.outputs.push(output);
            if is_job(index) {
                let job = NewJob { name, build: index, priority: Level::LEAST_URGENT };
                work.registration.jobs.push(job);
            }
        }
        Ok(work)
    }
}

/// A number for each index, near to none of those around it.
fn scattered(index: usize) -> u32 {
    (index as u32).wrapping_mul(0x9e37_79b9)
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
    fn a_chain_needs_what_came_before_and_flat_work_needs_nothing() {
        let chain = Work::chain(3).unwrap();
        let needs: Vec<_> =
            chain.registration.builds.iter().map(|build| build.dependencies.clone()).collect();
        assert_eq!(needs, [vec![], vec![chain.outputs[0].clone()], vec![chain.outputs[1].clone()]]);
        assert_eq!(chain.registration.jobs.len(), 1);
        let flat = Work::flat(3).unwrap();
        assert!(flat.registration.builds.iter().all(|build| build.dependencies.is_empty()));
        assert_eq!(flat.registration.jobs.len(), 3);
    }
}
