//! A farm under load: what the scenarios have in common.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hauberk_store::signature::nix::SecretKey;
use serde_json::{Map, Value};

use crate::figure::rounded;
use crate::lab::{Crew, Lab, LabOptions, Published, Server, Usage, Verdict, Workers};
use hauberk_loadgen::simulated::{
    Chatter, Gauge, OutputStore, Outputs, Publication, SharedOutput, SimulatedBuilder, Work,
};

/// How often the progress of a run is told.
const TELL: Duration = Duration::from_secs(2);

/// What becomes of a build's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// The server's cache has it before the build begins, so that the fetch step finds it there.
    Cached,
    /// A signed file of 1 KiB of its own: fetched, verified, stored and signed anew by the server.
    Fetched,
}

/// A laboratory with a server, workers, and work that is not published yet.
pub(crate) struct Farm {
    /// The laboratory.
    pub(crate) lab: Lab,
    /// Its server.
    pub(crate) server: Server,
    /// What its builders see.
    pub(crate) gauge: Arc<Gauge>,
    crew: Option<Crew>,
    publication: Option<Publication>,
    builder: SimulatedBuilder,
    signing_key: SecretKey,
    work: Work,
    workers: Workers,
    kind: OutputKind,
    spools: Option<PathBuf>,
    fsyncs_before: f64,
    used_before: Usage,
    deadline: tokio::time::Instant,
}

impl Farm {
    /// Starts everything but the workers.
    pub(crate) async fn start(
        options: &LabOptions,
        workers: Workers,
        work: Work,
        kind: OutputKind,
        cost: Duration,
    ) -> Result<Self> {
        crate::progress(format_args!("starting PostgreSQL"));
        let lab = Lab::start(options).await?;
        Self::on(lab, options, workers, work, kind, cost).await
    }

    /// Starts everything but the workers on a laboratory.
    pub(crate) async fn on(
        lab: Lab,
        options: &LabOptions,
        workers: Workers,
        work: Work,
        kind: OutputKind,
        cost: Duration,
    ) -> Result<Self> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(options.seconds);
        let signing_key = SecretKey::generate("load-workers-1").context("making the workers' key")?;
        let gauge = Arc::new(Gauge::default());
        let (outputs, publication) = match kind {
            OutputKind::Cached => {
                let paths = work.outputs.clone();
                crate::progress(format_args!("putting {} outputs into the server's cache", paths.len()));
                let shared = SharedOutput::fill(&lab.cache(), paths, lab.signing_key()).await?;
                (Outputs::Shared(shared), None)
            }
            OutputKind::Fetched => {
                let root = lab.directory().join("machines");
                let store = OutputStore::open_with(root, work.contents.clone())?;
                let publication =
                    Publication::start(Ipv4Addr::LOCALHOST.into(), Arc::clone(&store), &signing_key)?;
                (Outputs::Fresh(store), Some(publication))
            }
        };
        let builder = SimulatedBuilder { outputs, cost, gauge: Arc::clone(&gauge), chatter: None };
        crate::progress(format_args!("starting the server"));
        let server = lab.serve().await?;
        let fsyncs_before = lab.fsyncs_per_second().await?;
        let used_before = lab.usage(&server).await?;
        Ok(Self {
            lab,
            server,
            gauge,
            crew: None,
            publication,
            builder,
            signing_key,
            work,
            workers,
            kind,
            spools: None,
            fsyncs_before,
            used_before,
            deadline,
        })
    }

    /// Lets builds print what `chatter` writes, of workers that are yet to start. With `spools` these keep their logs there on disk.
    pub(crate) fn set_chatter(&mut self, chatter: Arc<dyn Chatter>, spools: Option<PathBuf>) {
        self.builder.chatter = Some(chatter);
        self.spools = spools;
    }

    /// Starts the workers.
    pub(crate) async fn start_workers(&mut self) -> Result<()> {
        let port = self.publication.as_ref().map_or(9, Publication::port);
        let outputs = Published { key: &self.signing_key, port };
        let spools = self.spools.as_deref();
        let crew = Crew::start(&self.lab, &self.server, self.workers, &self.builder, outputs, spools).await?;
        self.crew = Some(crew);
        Ok(())
    }

    /// Gives the port that fetched outputs come from, where they are fetched.
    pub(crate) fn publication_port(&self) -> Option<u16> {
        self.publication.as_ref().map(Publication::port)
    }

    /// Waits until all workers have joined.
    pub(crate) async fn wait_joined(&mut self) -> Result<()> {
        let (gauge, count) = (Arc::clone(&self.gauge), self.workers.count);
        crate::progress(format_args!("waiting for {count} workers"));
        self.until("workers join", gauge.wait_joined(count)).await
    }

    /// Publishes the work. Gives the moment at which the server can know of it.
    pub(crate) async fn publish(&mut self) -> Result<Instant> {
        crate::progress(format_args!("recording {} builds", self.work.outputs.len()));
        // What follows the publication is what is measured.
        self.fsyncs_before = self.lab.fsyncs_per_second().await?;
        self.lab.publish(&self.work.registration).await?;
        let now = Instant::now();
        self.count_anew().await?;
        Ok(now)
    }

    /// Forgets what server and PostgreSQL have used until now.
    pub(crate) async fn count_anew(&mut self) -> Result<()> {
        self.lab.forget_statements().await?;
        self.used_before = self.lab.usage(&self.server).await?;
        Ok(())
    }

    /// Waits until the server has recorded the end of every build.
    pub(crate) async fn wait_done(&mut self) -> Result<()> {
        let (gauge, count) = (Arc::clone(&self.gauge), self.work.outputs.len());
        self.until("builds end", gauge.wait_released(count)).await
    }

    /// Waits for what is to come, unless a part of the farm ends or the time is over.
    pub(crate) async fn until(&mut self, what: &str, wait: impl Future<Output = ()>) -> Result<()> {
        let mut wait = std::pin::pin!(wait);
        let mut tell = tokio::time::interval(TELL);
        tell.tick().await;
        loop {
            let crew = async {
                match &mut self.crew {
                    Some(crew) => crew.fail().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut wait => return Ok(()),
                error = crew => return Err(error),
                () = tokio::time::sleep_until(self.deadline) => {
                    let verdict = Verdict::read(self.lab.database()).await?;
                    bail!(
                        "{what}: not within the time (--seconds); the tables show {verdict:?}, and PostgreSQL's log ends:\n{}",
                        self.lab.postgres_log()
                    );
                }
                _ = tell.tick() => {
                    self.server.check()?;
                    crate::progress(format_args!("{} builds released", self.gauge.released()));
                }
            }
        }
    }

    /// Notes what was used, ends everything in order and gives what the tables show.
    pub(crate) async fn finish(self, parameters: &mut Map<String, Value>) -> Result<Verdict> {
        let used = self.lab.usage(&self.server).await?;
        used.since(&self.used_before, parameters);
        self.lab.note_statements(parameters).await?;
        let fsyncs_after = self.lab.fsyncs_per_second().await?;
        end(self.crew, self.server, self.publication).await?;
        let verdict = Verdict::read(self.lab.database()).await?;
        let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
        note("builds", self.work.outputs.len().into());
        note("slots", self.workers.slots.into());
        note("workers", self.workers.count.into());
        note("ahead", self.workers.ahead.into());
        note("build_ms", rounded(self.builder.cost.as_secs_f64() * 1e3, 3).into());
        let outputs = match self.kind {
            OutputKind::Cached => {
                "in the server's cache before the run: the fetch step finds them there".to_owned()
            }
            OutputKind::Fetched => {
                let bytes = self.work.contents.size();
                format!("one signed file of {bytes} bytes each, fetched, verified and republished")
            }
        };
        note("outputs", outputs.into());
        note(
            "fsyncs_per_second",
            Value::from([rounded(self.fsyncs_before, 0), rounded(fsyncs_after, 0)].to_vec()),
        );
        verdict.note(parameters);
        self.lab.note(parameters);
        Ok(verdict)
    }

    /// Ends everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        end(self.crew, self.server, self.publication).await
    }
}

async fn end(crew: Option<Crew>, server: Server, publication: Option<Publication>) -> Result<()> {
    if let Some(crew) = crew {
        crew.stop().await?;
    }
    server.stop().await?;
    if let Some(publication) = publication {
        publication.stop().await?;
    }
    Ok(())
}
