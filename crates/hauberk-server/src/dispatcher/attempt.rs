//! What is known of an attempt that is open.

use std::time::Instant;

use hauberk_database::dispatch::BuiltOutput;
use hauberk_database::{AttemptId, BuildId, WorkerId};
use hauberk_protocol::proto::Finished;
use hauberk_store::StorePath;

use crate::session::SessionId;
use crate::step::FetchJob;

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Assign was sent, as this message of this session, at this moment.
    Assigned { session: SessionId, sequence: u64, at: Instant },
    /// The worker has it, by its own word.
    Running,
    /// Its worker has no session: found at the server's start, or the worker's connection broke.
    Unheard { until: Instant },
    /// The worker's word that it succeeded is being recorded, and its outputs are being fetched.
    Concluding,
    /// The outputs are being fetched, or wait for it.
    Fetching,
    /// Its end is being recorded without its worker's word. What the worker says of it now comes late.
    GivingUp,
    /// Its end by its worker's word, or its success, is being recorded.
    Ending,
}

impl Phase {
    /// Whether the worker is at it, as far as the server knows.
    pub(super) fn is_with_worker(self) -> bool {
        match self {
            Self::Assigned { .. } | Self::Running | Self::Unheard { .. } => true,
            Self::Concluding | Self::Fetching | Self::GivingUp | Self::Ending => false,
        }
    }
}

/// An attempt that is open.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Its build.
    pub(super) build: BuildId,
    /// The worker it was given to.
    pub(super) worker: WorkerId,
    /// Name and version of the build.
    pub(super) name: String,
    /// Attempts of the build that failed by the farm's fault before.
    pub(super) farm_faults: i16,
    /// It had been given up, and stands beside another until its outputs are checked.
    pub(super) late: bool,
    /// An operator wants it stopped, and the worker was told; it is given up at this moment.
    pub(super) stop_by: Option<Instant>,
    /// The result that came while it was being given up.
    pub(super) said: Option<Box<Finished>>,
    /// What it is to give: names and paths. Not known of one that an earlier start of the server gave out.
    pub(super) outputs: Option<Vec<(String, StorePath)>>,
    /// How far it has come.
    pub(super) phase: Phase,
}

impl Attempt {
    /// What is to be fetched of it, `id`: what its worker has just `reported`, or what the database knows.
    pub(super) fn fetch(&mut self, id: AttemptId, reported: Option<Vec<BuiltOutput>>) -> FetchJob {
        FetchJob {
            attempt: id,
            build: self.build,
            worker: self.worker,
            name: self.name.clone(),
            expected: self.outputs.take(),
            reported,
        }
    }
}

/// Who decided that an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Its worker said so, or has been told so: it need not keep anything of it.
    Worker,
    /// The server, without the worker's word.
    Server,
}

/// What was decided about an attempt before it was heard that it is recorded: other connections to the database may see it
/// sooner than the committer's answer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Early {
    /// Ended in favour of another.
    Superseded,
    /// To be stopped.
    Stopped,
}
