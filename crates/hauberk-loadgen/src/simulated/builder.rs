//! A builder that makes its outputs at once, or after a pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hauberk_daemon::PathInfo;
use hauberk_store::{NarHash, StorePath};
use hauberk_worker::{
    Assignment, AttemptContext, AttemptId, AttemptLog, BuildReport, Builder, Load, Origin, Outcome,
    OutputInfo, Report, Server, Unaccepted,
};

use super::{Gauge, OutputStore, Outputs};

/// Writes the logs of simulated builds.
#[async_trait]
pub trait Chatter: std::fmt::Debug + Send + Sync {
    /// Writes the log of one attempt of `build`, and returns when the build is over.
    async fn write(&self, build: i64, log: &AttemptLog);
}

/// Stands in for the build daemon behind a real worker session.
#[derive(Clone, Debug)]
pub struct SimulatedBuilder {
    /// Where outputs come from.
    pub outputs: Outputs,
    /// How long each build takes.
    pub cost: Duration,
    /// Takes note of what is asked.
    pub gauge: Arc<Gauge>,
    /// What builds print; without it, nothing.
    pub chatter: Option<Arc<dyn Chatter>>,
}

#[async_trait]
impl Builder for SimulatedBuilder {
    async fn accept(&self, _server: &Server) -> Result<(), Unaccepted> {
        self.gauge.note_joined();
        Ok(())
    }

    async fn build(&self, assignment: &Assignment, context: &AttemptContext) -> Report {
        self.gauge.note_begun(assignment.build);
        context.building(Duration::ZERO);
        let cost = self.cost.max(self.gauge.pace());
        if !cost.is_zero() {
            take(cost).await;
        }
        if let Some(chatter) = &self.chatter {
            chatter.write(assignment.build, &context.log).await;
        }
        let mut outputs = Vec::with_capacity(assignment.outputs.len());
        for (name, path) in &assignment.outputs {
            let (nar_hash, nar_size) = match &self.outputs {
                Outputs::Shared(shared) => (shared.nar_hash, shared.nar_size),
                Outputs::Fresh(store) => match make(store, path).await {
                    Ok(info) => (info.nar_hash, info.nar_size),
                    Err(error) => {
                        return Report::Finished(BuildReport::failure(
                            Outcome::DiskFull,
                            format!("{error:#}"),
                        ));
                    }
                },
            };
            outputs.push(OutputInfo {
                name: name.to_string(),
                path: path.to_string(),
                nar_hash: bytes_of(&nar_hash),
                nar_size,
                references: Vec::new(),
            });
        }
        self.gauge.note_ended(assignment.build);
        let report = BuildReport::success(outputs, Origin::Built);
        Report::Finished(BuildReport { build: cost, ..report })
    }

    async fn release(&self, attempts: &[AttemptId]) {
        self.gauge.note_released(attempts);
    }

    async fn restore(&self, _kept: &[AttemptId]) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

/// The end of a build that is not left to the runtime's timer, which comes a millisecond or two late: as much as the server needs to give a
/// slot the next build.
const EXACT: Duration = Duration::from_millis(4);

/// Takes so long, to a tenth of a millisecond where not many hundreds do so at once.
async fn take(cost: Duration) {
    let end = Instant::now() + cost;
    tokio::time::sleep(cost.saturating_sub(EXACT)).await;
    let wait = move || std::thread::sleep(end.saturating_duration_since(Instant::now()));
    // It ends early only with the program.
    let _ = tokio::task::spawn_blocking(wait).await;
}

/// Makes an output. One that takes a while must not keep other sessions, and what the server says of earlier builds, waiting.
async fn make(store: &Arc<OutputStore>, path: &StorePath) -> anyhow::Result<PathInfo> {
    if store.is_quick() {
        return store.make(path);
    }
    let (store, path) = (Arc::clone(store), path.clone());
    tokio::task::spawn_blocking(move || store.make(&path)).await?
}

fn bytes_of(hash: &NarHash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}
