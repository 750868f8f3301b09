//! One look at a specification: its repositories, and an evaluation if there is something new.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use hauberk_daemon::{DaemonError, Keeper};
use hauberk_database::checkouts::Checkout;
use hauberk_database::evaluations::{self, EvaluationStatus, Latest};
use hauberk_database::registration::{self, Published, Registration, RegistrationError};
use hauberk_database::{Client, Database, DatabaseError, EvaluationId, SpecificationId, specifications};
use hauberk_publish::{BaseUrl, SubstituteClient};
use tokio_util::sync::CancellationToken;

use crate::closure::{self, Defaults};
use crate::daemon::NixDaemon;
use crate::evaluator::{Evaluated, EvaluatorError, Nix};
use crate::facts::{FactsError, World};
use crate::git::{Git, GitError};
use crate::products;
use crate::roots::{self, RootsError};
use crate::running::Running;
use crate::specification::{Evaluator, Specification};
use crate::stores::{Delivery, Stores, StoresError};

/// How often an evaluation is tried whose derivations a collector takes before they are kept.
const TRIES: u32 = 5;

/// What looking takes.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) database: Database,
    pub(crate) git: Git,
    pub(crate) state: PathBuf,
    pub(crate) daemon: NixDaemon,
    pub(crate) keeper: Keeper,
    pub(crate) substitutes: SubstituteClient,
    pub(crate) urls: Vec<BaseUrl>,
    pub(crate) running: Running,
    pub(crate) stores: Stores,
}

/// What a look gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing has changed since the last evaluation, which succeeded.
    Unchanged,
    /// Nothing has changed since the last evaluation, which failed.
    StillFailed,
    /// Nothing has changed since the last evaluation, which an operator has canceled, now or before.
    Canceled,
    /// A new evaluation was published.
    Published(EvaluationId, Published),
}

/// Why a look gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("cannot look at the repositories")]
    Git(#[source] GitError),
    #[error("cannot use the build daemon")]
    Daemon(#[source] DaemonError),
    #[error("the database failed")]
    Database(#[source] DatabaseError),
    #[error("evaluation {evaluation} failed")]
    Evaluation {
        evaluation: EvaluationId,
        #[source]
        source: EvaluationError,
    },
    #[error("the register ends")]
    Stopped,
}

/// Why an evaluation came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluationError {
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    Stores(#[from] StoresError),
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the register was stopped")]
    Stopped,
}

impl EvaluationError {
    /// Tells whether the checkouts are at fault (failed), or this machine, so that they are evaluated again (aborted).
    fn status(&self) -> EvaluationStatus {
        match self {
            Self::Evaluator(EvaluatorError::Expression { .. } | EvaluatorError::Output(_)) => {
                EvaluationStatus::Failed
            }
            Self::Evaluator(EvaluatorError::Child(child)) => match child {
                crate::child::ChildError::TimedOut { .. }
                | crate::child::ChildError::TooMuchOutput { .. } => EvaluationStatus::Failed,
                crate::child::ChildError::Start { .. }
                | crate::child::ChildError::Output { .. }
                | crate::child::ChildError::Stopped { .. } => EvaluationStatus::Aborted,
            },
            Self::Registration(error) => match error {
                RegistrationError::NoOutputs { .. }
                | RegistrationError::NoBuild { .. }
                | RegistrationError::Cycle { .. } => EvaluationStatus::Failed,
                RegistrationError::Database { .. } | RegistrationError::NotStarted { .. } => {
                    EvaluationStatus::Aborted
                }
            },
            Self::Evaluator(EvaluatorError::Daemon { .. } | EvaluatorError::File { .. })
            | Self::Facts(_)
            | Self::Roots(_)
            | Self::Stores(_)
            | Self::Database(_)
            | Self::Stopped => EvaluationStatus::Aborted,
        }
    }
}

/// A specification and its row.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) id: SpecificationId,
    pub(crate) specification: Specification,
}

impl Register {
    /// Looks at a specification, evaluates it if there is something new, and records what came of it.
    ///
    /// With `retry`, an evaluation that failed is repeated though nothing has changed.
    pub(crate) async fn look(
        &self,
        watched: &Watched,
        retry: bool,
        stop: &CancellationToken,
    ) -> Result<Seen, LookError> {
        let result = self.try_look(watched, retry, stop).await;
        let fault = match &result {
            Ok(_) => None,
            Err(LookError::Stopped) => return result,
            Err(LookError::Database(_)) => return result,
            Err(LookError::Evaluation { source: EvaluationError::Stopped, .. }) => {
                return Err(LookError::Stopped);
            }
            Err(error) => Some(chain(error)),
        };
        let client = self.database.client().await.map_err(LookError::Database)?;
        let earlier = specifications::checked(&client, watched.id, fault.as_deref())
            .await
            .map_err(LookError::Database)?;
        let name = &watched.specification.name;
        match (&result, earlier) {
            (Err(error), earlier) if earlier == fault => {
                tracing::debug!(specification = %name, error = error as &dyn Error, "still cannot evaluate {name}");
            }
            (Err(error), _) => {
                tracing::error!(specification = %name, error = error as &dyn Error, "cannot evaluate {name}");
            }
            (Ok(_), Some(_)) => tracing::info!(specification = %name, "{name} is all right again"),
            (Ok(_), None) => {}
        }
        result
    }

    async fn try_look(
        &self,
        watched: &Watched,
        retry: bool,
        stop: &CancellationToken,
    ) -> Result<Seen, LookError> {
        let specification = &watched.specification;
        let revisions = self.fetch(specification, stop).await?;
        let mut client = self.database.client().await.map_err(LookError::Database)?;
        let latest = evaluations::latest(&client, watched.id).await.map_err(LookError::Database)?;
        if let Some(Latest { id, status: EvaluationStatus::Started, .. }) = &latest {
            evaluations::end(&client, *id, EvaluationStatus::Aborted, "the register lost it")
                .await
                .map_err(LookError::Database)?;
        }
        match latest {
            Some(latest) if !latest.outdated && same(&latest.checkouts, specification, &revisions) => {
                match latest.status {
                    EvaluationStatus::Aborted if latest.canceled && !retry => return Ok(Seen::Canceled),
                    EvaluationStatus::Succeeded => return Ok(Seen::Unchanged),
                    EvaluationStatus::Failed if !retry => return Ok(Seen::StillFailed),
                    EvaluationStatus::Failed | EvaluationStatus::Aborted | EvaluationStatus::Started => {}
                }
            }
            Some(_) | None => {}
        }
        // Without a daemon there is nothing to begin.
        drop(self.daemon.connect().await.map_err(LookError::Daemon)?);
        let checkouts = self.check_out(specification, &revisions, stop).await?;
        let evaluation =
            evaluations::start(&client, watched.id, &checkouts).await.map_err(LookError::Database)?;
        tracing::info!(evaluation.id = %evaluation, specification = %specification.name,
            "evaluation {evaluation} of {} begins", specification.name);

        let run = self.running.begin(evaluation, stop);
        // What was said of it before it was noted is in its row.
        self.cancel_canceled(&client).await.map_err(LookError::Database)?;
        let evaluated = async {
            let mut daemon = self.daemon.connect().await.map_err(StoresError::Daemon)?;
            let delivery = self.stores.plan(&client, daemon.as_mut(), evaluation).await?;
            // Others may need the daemon's places while this evaluates.
            drop(daemon);
            let registration =
                self.evaluate(evaluation, specification, &checkouts, &delivery, &run.stop).await?;
            self.deliver(&delivery, &registration, &client, &run.stop).await?;
            // From here on it is short, and all or nothing.
            let published = registration::publish(&mut client, evaluation, &registration).await?;
            Ok::<_, EvaluationError>(published)
        };
        match evaluated.await {
            Ok(published) => {
                tracing::info!(evaluation.id = %evaluation, specification = %specification.name, jobs = published.jobs,
                    builds.new = published.new, builds.revived = published.revived, builds.ready = published.ready,
                    "evaluation {evaluation} of {}: {} jobs, {} new builds, {} ready",
                    specification.name, published.jobs, published.new, published.ready);
                self.tidy(specification, &checkouts).await;
                Ok(Seen::Published(evaluation, published))
            }
            Err(_) if run.stop.is_cancelled() && !stop.is_cancelled() => {
                tracing::info!(evaluation.id = %evaluation, specification = %specification.name,
                    "evaluation {evaluation} of {} is canceled", specification.name);
                Ok(Seen::Canceled)
            }
            Err(source) => {
                self.end(evaluation, &source).await;
                Err(LookError::Evaluation { evaluation, source })
            }
        }
    }

    /// Ends the evaluations under way that operators have canceled.
    pub(crate) async fn cancel_canceled(&self, client: &Client) -> Result<(), DatabaseError> {
        for evaluation in evaluations::canceled(client, &self.running.all()).await? {
            self.running.cancel(evaluation);
        }
        Ok(())
    }

    /// Fetches every input and gives its commit.
    async fn fetch(
        &self,
        specification: &Specification,
        stop: &CancellationToken,
    ) -> Result<Vec<String>, LookError> {
        let mut revisions = Vec::with_capacity(specification.inputs.len());
        for input in &specification.inputs {
            let mirror = mirror(specification, input.name.as_str());
            let revision =
                self.git.fetch(&mirror, &input.url, &input.branch, stop).await.map_err(stopped_or)?;
            revisions.push(revision);
        }
        Ok(revisions)
    }

    async fn check_out(
        &self,
        specification: &Specification,
        revisions: &[String],
        stop: &CancellationToken,
    ) -> Result<Vec<Checkout>, LookError> {
        let mut checkouts = Vec::with_capacity(revisions.len());
        for (input, revision) in specification.inputs.iter().zip(revisions) {
            let name = input.name.as_str();
            let tree = self
                .git
                .tree(&mirror(specification, name), &input.url, revision, &trees(specification, name), stop)
                .await
                .map_err(stopped_or)?;
            checkouts.push(Checkout {
                input: name.to_owned(),
                url: input.url.to_string(),
                branch: input.branch.to_string(),
                revision: revision.clone(),
                directory: tree.display().to_string(),
            });
        }
        Ok(checkouts)
    }

    /// Runs the evaluator, walks down to what has to be built, and keeps the derivations.
    async fn evaluate(
        &self,
        evaluation: EvaluationId,
        specification: &Specification,
        checkouts: &[Checkout],
        delivery: &Delivery<'_>,
        stop: &CancellationToken,
    ) -> Result<Registration, EvaluationError> {
        let log = format!("evaluations/{evaluation}.log");
        let client = self.database.client().await?;
        evaluations::set_log_path(&client, evaluation, &log).await?;
        let Evaluator::Nix { input, expression, arguments, systems, timeout } = &specification.evaluator;
        let inputs: BTreeMap<String, PathBuf> = checkouts
            .iter()
            .map(|checkout| (checkout.input.clone(), PathBuf::from(&checkout.directory)))
            .collect();
        let main = input.as_ref().or(specification.inputs.first().map(|input| &input.name));
        let tree = main.and_then(|name| inputs.get(name.as_str())).cloned().unwrap_or_default();
        let nix = Nix {
            file: tree.join(expression.as_str()),
            inputs,
            arguments,
            systems: systems.as_deref(),
            timeout: (*timeout).into(),
            daemon: &self.daemon,
            home: &self.state.join("home"),
            log: &self.state.join(&log),
        };
        let mut world = World {
            location: &self.daemon,
            daemon: self.daemon.connect().await.map_err(FactsError::Daemon)?,
            client,
            substitutes: &self.substitutes,
            urls: &self.urls,
            delivery,
        };
        let defaults =
            Defaults { timeout: specification.timeout.into(), max_silent: specification.max_silent.into() };
        let mut tries = 0;
        loop {
            tries += 1;
            let evaluated = match nix.run(stop).await {
                Err(EvaluatorError::Child(crate::child::ChildError::Stopped { .. })) => {
                    return Err(EvaluationError::Stopped);
                }
                evaluated => evaluated?,
            };
            let closing = self.close(evaluation, specification, evaluated, defaults, &mut world);
            let closed = tokio::select! {
                closed = closing => closed,
                () = stop.cancelled() => return Err(EvaluationError::Stopped),
            };
            match closed {
                Err(EvaluationError::Facts(error)) if error.is_collected() && tries < TRIES => {
                    tracing::info!(
                        evaluation.id = %evaluation, specification = %specification.name,
                        "{}: what it evaluated to was collected as garbage at once: evaluating it again", specification.name
                    );
                }
                closed => return closed,
            }
        }
    }

    /// Walks down to what has to be built, and keeps the derivations.
    async fn close(
        &self,
        evaluation: EvaluationId,
        specification: &Specification,
        evaluated: Evaluated,
        defaults: Defaults,
        world: &mut World<'_>,
    ) -> Result<Registration, EvaluationError> {
        // They are kept until their lasting roots stand; one that was collected before is found out by reading.
        let derivations: Vec<_> = evaluated.jobs.iter().map(|job| job.derivation.as_path().clone()).collect();
        self.keeper.keep(&derivations).await.map_err(FactsError::Daemon)?;
        let mut registration = closure::close(evaluated, defaults, world).await?;
        registration.products = products::wanted(&specification.build_outputs, &registration);
        roots::add(&self.state.join("roots"), evaluation, &registration, world.daemon.as_mut()).await?;
        Ok(registration)
    }

    /// Brings the derivations of the jobs, and all they need, to the servers that do not share the store.
    async fn deliver(
        &self,
        delivery: &Delivery<'_>,
        registration: &Registration,
        client: &Client,
        stop: &CancellationToken,
    ) -> Result<(), EvaluationError> {
        let derivations = roots::derivations(registration);
        let derivations = derivations.into_iter().map(|derivation| derivation.as_path().clone()).collect();
        let bringing = async {
            let mut daemon = self.daemon.connect().await.map_err(StoresError::Daemon)?;
            delivery.bring(&derivations, &self.daemon, daemon.as_mut(), client).await
        };
        tokio::select! {
            brought = bringing => Ok(brought?),
            () = stop.cancelled() => Err(EvaluationError::Stopped),
        }
    }

    /// Records that an evaluation came to nothing. The database may be what failed: then the next look does it.
    async fn end(&self, evaluation: EvaluationId, error: &EvaluationError) {
        let recorded = async {
            let client = self.database.client().await?;
            evaluations::end(&client, evaluation, error.status(), &chain(error)).await
        };
        if let Err(error) = recorded.await {
            tracing::warn!(evaluation.id = %evaluation, error = &error as &dyn Error,
                "cannot record that evaluation {evaluation} has ended");
        }
    }

    /// Removes what is not needed any more: trees of other commits, roots of old evaluations.
    async fn tidy(&self, specification: &Specification, checkouts: &[Checkout]) {
        for checkout in checkouts {
            let directory = self.state.join(trees(specification, &checkout.input));
            if let Err(error) = remove_others(&directory, &checkout.revision).await {
                tracing::warn!(error = &error as &dyn Error, "cannot tidy {}", directory.display());
            }
        }
        let pruned = async {
            let client = self.database.client().await.map_err(RootsError::Database)?;
            roots::prune(&self.state.join("roots"), &client).await
        };
        if let Err(error) = pruned.await {
            tracing::warn!(error = &error as &dyn Error, "cannot tidy the roots of old evaluations");
        }
    }
}

fn mirror(specification: &Specification, input: &str) -> PathBuf {
    Path::new("mirrors").join(specification.name.as_str()).join(input)
}

fn trees(specification: &Specification, input: &str) -> PathBuf {
    Path::new("checkouts").join(specification.name.as_str()).join(input)
}

fn stopped_or(error: GitError) -> LookError {
    if error.is_stop() { LookError::Stopped } else { LookError::Git(error) }
}

/// Tells whether an evaluation saw just these commits.
fn same(checkouts: &[Checkout], specification: &Specification, revisions: &[String]) -> bool {
    checkouts.len() == specification.inputs.len()
        && specification.inputs.iter().zip(revisions).all(|(input, revision)| {
            checkouts.iter().any(|checkout| {
                checkout.input == input.name.as_str()
                    && checkout.url == input.url.as_str()
                    && checkout.branch == input.branch.as_str()
                    && checkout.revision == *revision
            })
        })
}

async fn remove_others(directory: &Path, kept: &str) -> std::io::Result<()> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name() != kept {
            tokio::fs::remove_dir_all(entry.path()).await?;
        }
    }
    Ok(())
}

/// Says an error and all its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace('\n', " ")
}
