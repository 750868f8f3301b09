//! What runs attempts: the build daemon of the machine, or a simulated builder behind the same session and wire.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hauberk_protocol::proto::{self, AttemptPhase, DeclineReason, Load, Origin, Outcome, OutputInfo};
use tokio::sync::{mpsc, watch};

use crate::log::AttemptLog;
use crate::machine::Shortage;
use crate::upload::UploadOrder;
use crate::{Assignment, AttemptId};

/// Runs attempts for a worker.
#[async_trait]
pub trait Builder: Send + Sync + 'static {
    /// Finds out whether results and inputs of this server can be used here; called after each Welcome of a server whose keys
    /// were not seen before, and before any work is asked for.
    ///
    /// # Errors
    /// [`Unaccepted`], which ends the worker or is tried again.
    async fn accept(&self, server: &Server) -> Result<(), Unaccepted>;

    /// Runs one attempt to its end. The future is dropped when the attempt is canceled: what it started must end with it.
    async fn build(&self, assignment: &Assignment, context: &AttemptContext) -> Report;

    /// Uploads what the server cannot fetch, again and again until it has it. The future is dropped when it is not wanted any more.
    ///
    /// One whose results can always be fetched need not know how.
    async fn upload(&self, order: &UploadOrder) {
        tracing::warn!(attempt.id = %order.attempt, "the results of attempt {} cannot be uploaded", order.attempt);
    }

    /// No longer serves the outputs of `attempts`.
    async fn release(&self, attempts: &[AttemptId]);

    /// Told once at start which attempts of an earlier process still have outputs to be served.
    async fn restore(&self, kept: &[AttemptId]);

    /// Measures the machine for a heartbeat.
    fn load(&self) -> Load;

    /// What the machine lacks to take work now, and when that changes; by default never anything.
    fn shortage(&self) -> Option<watch::Receiver<Shortage>> {
        None
    }
}

/// The server as a builder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, for people.
    pub name: String,
    /// Base URL of its publish server.
    pub publish_url: String,
    /// The keys it signs with for the worker's store directory.
    pub signing_keys: Vec<String>,
    /// A path that nobody needs, with the server's signature.
    pub trust_probe: Option<TrustProbe>,
}

/// A path to try a key with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustProbe {
    /// The text of its narinfo.
    pub narinfo: String,
    /// Its nar.
    pub nar: bytes::Bytes,
    /// Both as a signed export stream, from a server that signs as Guix does; empty from others.
    pub export: bytes::Bytes,
}

/// Why a server is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Unaccepted {
    /// The build daemon does not take what the server signs, and will not until the operator changes something.
    #[error("{message}")]
    Refused {
        /// What was refused, and the commands that mend it.
        message: String,
    },
    /// It could not be found out now.
    #[error("cannot find out whether the build daemon accepts the server's key")]
    Unknown {
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What belongs to one running attempt.
#[derive(Debug)]
pub struct AttemptContext {
    /// Its log.
    pub log: AttemptLog,
    /// The server that asked for it.
    pub server: Arc<Server>,
    pub(crate) attempt: AttemptId,
    pub(crate) events: mpsc::UnboundedSender<Progress>,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Started { attempt: AttemptId, inputs: Duration },
    Phase { attempt: AttemptId, phase: AttemptPhase },
}

impl AttemptContext {
    /// Tells the server that the inputs, which took this long, are there and the build begins.
    pub fn building(&self, inputs: Duration) {
        // Nobody listens any more when the worker ends; then nobody needs to know.
        let _ = self.events.send(Progress::Started { attempt: self.attempt, inputs });
    }

    /// Takes note that the build is over and its outputs are being registered.
    pub fn finishing(&self) {
        let _ = self.events.send(Progress::Phase { attempt: self.attempt, phase: AttemptPhase::Finishing });
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// With a result.
    Finished(BuildReport),
    /// It was not run.
    Declined(DeclineReport),
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Exit status of the builder, or 128 + signal, where it is known.
    pub exit_status: Option<i32>,
    /// One line for people.
    pub message: String,
    /// All outputs, on success.
    pub outputs: Vec<OutputInfo>,
    /// Whether the outputs were built in this attempt.
    pub origin: Origin,
    /// Inputs that could not be had.
    pub missing: Vec<String>,
    /// Time the inputs took.
    pub inputs: Duration,
    /// Time the build took.
    pub build: Duration,
    /// Largest memory use of the builder in bytes, 0 where it is not known.
    pub peak_memory: u64,
}

impl BuildReport {
    /// A result without outputs.
    pub fn failure(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            exit_status: None,
            message: message.into(),
            outputs: Vec::new(),
            origin: Origin::Unspecified,
            missing: Vec::new(),
            inputs: Duration::ZERO,
            build: Duration::ZERO,
            peak_memory: 0,
        }
    }

    /// A success.
    pub fn success(outputs: Vec<OutputInfo>, origin: Origin) -> Self {
        Self { outputs, origin, ..Self::failure(Outcome::Succeeded, "") }
    }

    pub(crate) fn into_finished(self, attempt: AttemptId, log: proto::LogTotals) -> proto::Finished {
        proto::Finished {
            attempt: attempt.get(),
            outcome: self.outcome.into(),
            exit_status: self.exit_status,
            message: one_line(&self.message),
            outputs: self.outputs,
            origin: self.origin.into(),
            missing: self.missing,
            inputs_ms: crate::session::milliseconds(self.inputs),
            build_ms: crate::session::milliseconds(self.build),
            peak_memory_bytes: self.peak_memory,
            log: Some(log),
        }
    }
}

/// Why an attempt was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclineReport {
    /// The kind of reason.
    pub reason: DeclineReason,
    /// One line for people.
    pub message: String,
    /// The paths it is about.
    pub paths: Vec<String>,
}

/// The longest message of a result, in characters.
const LONGEST_MESSAGE: usize = 2000;

/// Makes one line of bounded length of a text, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if let Some((cut, _)) = line.char_indices().nth(LONGEST_MESSAGE) {
            line.truncate(cut);
            line.push('…');
            break;
        }
    }
    line
}
