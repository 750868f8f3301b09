//! Roots: the derivations of an evaluation stay in the store while something of it may still be built.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hauberk_daemon::{BuildDaemon, DaemonError};
use hauberk_database::registration::Registration;
use hauberk_database::{DatabaseError, EvaluationId, GenericClient, evaluations};
use hauberk_store::DrvPath;

/// Why roots could not be kept in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// A link could not be made or removed.
    #[error("cannot change {}", path.display())]
    File {
        /// The link, or its folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The build daemon refused.
    #[error("the build daemon does not take {} as a root", path.display())]
    Daemon {
        /// The link.
        path: PathBuf,
        /// Why.
        #[source]
        source: DaemonError,
    },
    /// The database does not tell which are in use.
    #[error("cannot learn which roots are in use")]
    Database(#[source] DatabaseError),
}

/// Gives the derivations of an evaluation's jobs.
pub(crate) fn derivations(registration: &Registration) -> HashSet<&DrvPath> {
    let builds = registration.jobs.iter().filter_map(|job| registration.builds.get(job.build));
    builds.map(|build| &build.derivation).collect()
}

/// Keeps the derivations of an evaluation's jobs, and with them all that they need.
pub(crate) async fn add(
    directory: &Path,
    evaluation: EvaluationId,
    registration: &Registration,
    daemon: &mut dyn BuildDaemon,
) -> Result<(), RootsError> {
    let directory = directory.join(evaluation.to_string());
    tokio::fs::create_dir_all(&directory)
        .await
        .map_err(|source| RootsError::File { path: directory.clone(), source })?;
    for derivation in derivations(registration) {
        let link = directory.join(derivation.base_name());
        tokio::fs::symlink(derivation.to_string(), &link)
            .await
            .map_err(|source| RootsError::File { path: link.clone(), source })?;
        daemon
            .add_indirect_root(&link)
            .await
            .map_err(|source| RootsError::Daemon { path: link.clone(), source })?;
    }
    Ok(())
}

/// Removes the roots of evaluations of which nothing is left to be built; the last one of each specification stays.
pub(crate) async fn prune(directory: &Path, client: &impl GenericClient) -> Result<(), RootsError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| RootsError::File { path, source }
    };
    let mut evaluations = Vec::new();
    let mut entries = tokio::fs::read_dir(directory).await.map_err(file(directory))?;
    while let Some(entry) = entries.next_entry().await.map_err(file(directory))? {
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<EvaluationId>().ok()) {
            evaluations.push(id);
        }
    }
    let used: HashSet<EvaluationId> =
        evaluations::in_use(client, &evaluations).await.map_err(RootsError::Database)?.into_iter().collect();
    for id in evaluations.into_iter().filter(|id| !used.contains(id)) {
        let path = directory.join(id.to_string());
        tokio::fs::remove_dir_all(&path).await.map_err(file(&path))?;
    }
    Ok(())
}
