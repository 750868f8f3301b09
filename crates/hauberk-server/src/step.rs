//! What goes between the dispatcher and the tasks around it: durable steps, effects, and what came of them.

use std::time::Duration;

use hauberk_database::dispatch::{Built, BuiltOutput, Claim, Claimed, Effects, Ended, Fetched, Reached};
use hauberk_database::late::{Returned, Settled, Verdict};
use hauberk_database::{AttemptId, BuildId, WorkerId};
use hauberk_order::Capabilities;
use hauberk_protocol::ServerMessage;
use hauberk_protocol::proto::{Upload, Welcome};
use hauberk_protocol::socket::RoutingId;
use hauberk_store::StorePath;

use crate::health::HealthPolicy;
use crate::heart::Company;
use crate::outcome::RetryPolicy;
use crate::session::SessionId;

/// How long things take, and how often they are tried.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// A session that was not heard of for so long has lapsed.
    pub(crate) lease: Duration,
    /// A worker that was told to stop an attempt has so long to do it.
    pub(crate) stop_patience: Duration,
    /// What to do after the farm's faults.
    pub(crate) retry: RetryPolicy,
    /// When workers are set aside, and how often they are tried.
    pub(crate) health: HealthPolicy,
    /// Largest log, in bytes of text; 0 = no limit.
    pub(crate) log_limit: u64,
    /// Largest output, in bytes of nar; 0 = no limit.
    pub(crate) output_limit: u64,
    /// What goes before what.
    pub(crate) order: hauberk_order::Policy,
    /// Whether other servers may have attempts.
    pub(crate) company: Company,
}

/// A durable step, for the committer.
#[derive(Debug)]
pub(crate) enum Op {
    /// Give a build to a worker.
    Claim(Claim),
    /// The builder has begun.
    Start {
        /// The attempt.
        attempt: AttemptId,
        /// Its build.
        build: BuildId,
        /// Milliseconds its inputs took.
        inputs_ms: i64,
    },
    /// A worker says that an attempt succeeded.
    Built(Built),
    /// The outputs are in the farm's cache.
    Succeed(Fetched),
    /// An attempt ended without success.
    End(Ended),
}

impl Op {
    /// The build it is about.
    pub(crate) fn build(&self) -> BuildId {
        match self {
            Self::Claim(claim) => claim.build,
            Self::Start { build, .. } => *build,
            Self::Succeed(fetched) => fetched.build,
            Self::Built(built) => built.build,
            Self::End(ended) => ended.build,
        }
    }
}

/// A durable step that has been committed, or could not be.
#[derive(Debug)]
pub(crate) enum Committed {
    /// The claim was granted.
    Granted(Box<Claimed>),
    /// The build was no longer ready.
    NotGranted(Claim),
    /// The word of the worker is recorded.
    Built(AttemptId),
    /// The build has succeeded.
    Succeeded(AttemptId),
    /// The attempt has ended.
    Ended(AttemptId),
    /// The database refuses what was to be recorded of the attempt, and always will.
    Refused(AttemptId),
    /// The attempt is another server's by now: nothing was recorded about it.
    Moved(AttemptId),
    /// What the batch changed besides.
    Effects(Effects),
    /// It is decided what becomes of an attempt that was given up and that a worker came back with; `None` when the database refused to
    /// say.
    TakenBack(AttemptId, WorkerId, Option<Verdict>),
    /// The outputs of an attempt that stood beside another were recorded.
    Settled(AttemptId, Settled),
}

/// A durable step about an attempt that was given up, for the settler.
#[derive(Debug)]
pub(crate) enum Late {
    /// Its worker came back with it.
    TakeBack(Box<Returned>),
    /// It stands beside another, and its outputs are in the farm's cache.
    Succeed(Fetched),
}

impl Late {
    /// The attempt.
    pub(crate) fn attempt(&self) -> AttemptId {
        match self {
            Self::TakeBack(returned) => returned.attempt,
            Self::Succeed(fetched) => fetched.attempt,
        }
    }
}

/// Outputs to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct FetchJob {
    /// The attempt that built them.
    pub(crate) attempt: AttemptId,
    /// Its build.
    pub(crate) build: BuildId,
    /// The worker that has them.
    pub(crate) worker: WorkerId,
    /// Name and version, for people.
    pub(crate) name: String,
    /// What they are to be, names and paths; `None` where only the database knows.
    pub(crate) expected: Option<Vec<(String, StorePath)>>,
    /// What the worker says they are; `None` where only the database knows.
    pub(crate) reported: Option<Vec<BuiltOutput>>,
}

/// Outputs that a worker is to upload.
#[derive(Debug, Clone)]
pub(crate) struct UploadRequest {
    /// The worker that has them.
    pub(crate) worker: WorkerId,
    /// What it is told.
    pub(crate) upload: Upload,
}

/// What the dispatcher wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A message to a worker.
    Send(RoutingId, ServerMessage),
    /// A durable step.
    Commit(Op),
    /// A durable step about an attempt that was given up.
    Late(Late),
    /// Outputs to be fetched.
    Fetch(FetchJob),
    /// The window is to be filled from the database: with the head of every lane, or with what follows in these.
    Refill(Option<Vec<Reached>>),
    /// A worker's session is over.
    SessionEnded(WorkerId, SessionId),
    /// A worker is sick, for this reason.
    SetAside(WorkerId, String),
    /// A worker that was set aside has done a build.
    Recovered(WorkerId),
}

/// A worker that may join, as the database and the transport know it.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    /// The worker.
    pub(crate) worker: WorkerId,
    /// Its enrolled name.
    pub(crate) name: String,
    /// An operator wants it to get no work.
    pub(crate) paused: bool,
    /// An operator wants it to leave.
    pub(crate) draining: bool,
    /// What it can build.
    pub(crate) capabilities: Capabilities,
    /// The session it shall have.
    pub(crate) session: SessionId,
    /// Its address on the socket.
    pub(crate) routing: RoutingId,
    /// What to welcome it with.
    pub(crate) welcome: Welcome,
}
