//! A long queue: a cluster with many ready builds in it, made once and kept for later runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hauberk_loadgen::simulated::Work;

use super::{Lab, LabOptions};

/// Builds recorded in one evaluation.
const EVALUATION: usize = 100_000;

/// PostgreSQL's data of a farm where builds that need nothing are ready. Runs work on copies.
#[derive(Debug)]
pub(crate) struct Queue {
    data: PathBuf,
}

impl Queue {
    /// Finds the one with so many builds, or makes it: register's own code records them, a hundred thousand in an evaluation.
    pub(crate) async fn of(builds: usize, options: &LabOptions) -> Result<Self> {
        // A change of the schema makes another one.
        let version = hauberk_database::migrations::newest();
        let data = options.directory.join(format!("hauberk-load-queue-{builds}-schema-{version}"));
        if data.is_dir() {
            return Ok(Self { data });
        }
        crate::progress(format_args!(
            "recording a queue of {builds} builds, kept in {} for later runs",
            data.display()
        ));
        let lab = Lab::start(options).await?;
        for before in (0..builds).step_by(EVALUATION) {
            let work = Work::flat_after(before, EVALUATION.min(builds - before))?;
            lab.publish(&work.registration).await?;
            crate::progress(format_args!("{} builds recorded", before + work.outputs.len()));
        }
        let client = lab.database().client().await?;
        client.batch_execute("vacuum (analyze)").await.context("tidying the tables up")?;
        client.batch_execute("checkpoint").await.context("writing the tables")?;
        drop(client);
        let (made, directory) = lab.into_data();
        fs::rename(&made, &data)
            .with_context(|| format!("moving {} to {}", made.display(), data.display()))?;
        drop(directory);
        Ok(Self { data })
    }

    /// Gives the data's directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}
