//! The simulated builder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hauberk_loadgen::simulated::OutputStore;
use hauberk_publish::client::Uploader;
use hauberk_tests::simulated::{Conduct, LogText};
use hauberk_worker::{
    Assignment, AttemptContext, AttemptId, BuildReport, Builder, Load, Origin, Outcome, OutputInfo, Report,
    Server, Unaccepted, UploadOrder,
};

use crate::gates::OpenGates;

/// Stands in for the build daemon.
pub(crate) struct Simulated {
    /// What takes outputs to the server when they cannot be fetched.
    pub(crate) uploader: Uploader,
    /// Where outputs go.
    pub(crate) store: Arc<OutputStore>,
    /// What builders wait for.
    pub(crate) gates: OpenGates,
}

#[async_trait]
impl Builder for Simulated {
    async fn accept(&self, _server: &Server) -> Result<(), Unaccepted> {
        Ok(())
    }

    async fn build(&self, assignment: &Assignment, context: &AttemptContext) -> Report {
        let began = Instant::now();
        context.building(Duration::ZERO);
        let text = LogText::of(assignment.attempt.get());
        let (before, after) = text.halves();
        context.log.write(before.as_bytes());
        let conduct = Conduct::of(assignment.derivation.name());
        if let Some(gate) = &conduct.gate {
            self.gates.wait(gate).await;
        }
        if !conduct.pause.is_zero() {
            tokio::time::sleep(conduct.pause).await;
        }
        context.log.write(after.as_bytes());
        let report = if conduct.succeeds {
            self.outputs(assignment)
        } else {
            BuildReport { exit_status: Some(1), ..BuildReport::failure(Outcome::BuildFailed, "simulated") }
        };
        Report::Finished(BuildReport { build: began.elapsed(), ..report })
    }

    async fn upload(&self, order: &UploadOrder) {
        order.carry_out(&self.uploader).await;
    }

    async fn release(&self, _attempts: &[AttemptId]) {}

    async fn restore(&self, _kept: &[AttemptId]) {}

    fn load(&self) -> Load {
        Load::default()
    }
}

impl Simulated {
    fn outputs(&self, assignment: &Assignment) -> BuildReport {
        let mut outputs = Vec::with_capacity(assignment.outputs.len());
        for (name, path) in &assignment.outputs {
            match self.store.make(path) {
                Ok(info) => outputs.push(OutputInfo {
                    name: name.to_string(),
                    path: path.to_string(),
                    nar_hash: Bytes::copy_from_slice(info.nar_hash.as_bytes()),
                    nar_size: info.nar_size,
                    references: Vec::new(),
                }),
                Err(error) => return BuildReport::failure(Outcome::DiskFull, format!("{error:#}")),
            }
        }
        BuildReport::success(outputs, Origin::Built)
    }
}
