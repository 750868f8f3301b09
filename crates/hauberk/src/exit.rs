//! Exit codes, and which failure gives which.

use std::process::ExitCode;

use hauberk_database::DatabaseError;
use hauberk_database::operators::OperatorError;
use hauberk_protocol::keys::KeyFileError;
use hauberk_protocol::socket::SocketError;
use hauberk_register::RegisterError;
use hauberk_server::ServerError;
use hauberk_web::WebError;
use hauberk_worker::WorkerError;

/// What the program's exit status means. Part of its interface: `hauberk help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Other = 1,
    /// A specification, key file or value that cannot be used. (2 is a wrong command line.)
    Configuration = 3,
    /// The database cannot be reached, or its schema is of an unknown version.
    Database = 4,
    /// A port is in use, or may not be listened on.
    Listen = 5,
    /// The build daemon cannot be reached, or does not accept the server's key.
    Daemon = 6,
    /// The server refuses the worker: not enrolled, or another protocol version.
    Refused = 7,
    /// With `register --one-shot`: an evaluation failed.
    Evaluation = 8,
    /// With `build wait`: a build failed.
    BuildFailed = 9,
    /// With `build wait`: none failed, and one was canceled.
    BuildCanceled = 10,
    /// With `build wait`: the time was over first.
    TimedOut = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program ends, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with a code.
    pub(crate) fn new(code: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// A failure that has no code of its own.
    pub(crate) fn other(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Other, error)
    }

    /// A value that cannot be used.
    pub(crate) fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Configuration, error)
    }

    /// All causes in a line.
    pub(crate) fn text(&self) -> String {
        let chain: Vec<_> = self.error.chain().map(ToString::to_string).collect();
        chain.join(": ")
    }

    /// Tells the user, with all causes in a line.
    pub(crate) fn report(&self) {
        tracing::error!(exit.code = self.code as u8, "{}", self.text());
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::new(Exit::Database, error)
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let code = match &error {
            OperatorError::Database(_) => Exit::Database,
            OperatorError::NoBuilds(_)
            | OperatorError::NotUnfinished(_)
            | OperatorError::NoEvaluation(_)
            | OperatorError::NoSpecification(_)
            | OperatorError::Disabled(_)
            | OperatorError::NoWorker(_)
            | OperatorError::NameTaken(_)
            | OperatorError::KeyTaken(_)
            | OperatorError::NoToken(_)
            | OperatorError::NoServerKey
            | OperatorError::DifferentServerKeys(_)
            | OperatorError::NotNewest { .. }
            | OperatorError::Running(_)
            | OperatorError::NoJobs(_) => Exit::Configuration,
        };
        Self::new(code, error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::configuration(error)
    }
}

fn socket(error: &SocketError) -> Exit {
    match error {
        SocketError::InUse { .. } | SocketError::Bind { .. } => Exit::Listen,
        SocketError::NoCurve { .. } => Exit::Configuration,
        SocketError::Connect { .. } | SocketError::Setup { .. } | SocketError::Broken { .. } => Exit::Other,
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let code = match &error {
            ServerError::Database(_) => Exit::Database,
            ServerError::Socket(error) => socket(error),
            ServerError::Listen { .. } => Exit::Listen,
            ServerError::Daemon(_) => Exit::Daemon,
            ServerError::Cache(_)
            | ServerError::Inbox(_)
            | ServerError::Products(_)
            | ServerError::Logs { .. }
            | ServerError::OtherStore { .. }
            | ServerError::NoStore
            | ServerError::Superseded { .. } => Exit::Configuration,
            ServerError::Publish(_)
            | ServerError::Client(_)
            | ServerError::Discovery(_)
            | ServerError::Probe(_)
            | ServerError::TakenOver { .. }
            | ServerError::Ended { .. } => Exit::Other,
        };
        Self::new(code, error)
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        let code = match &error {
            WorkerError::Config(_) | WorkerError::Spool(_) => Exit::Configuration,
            WorkerError::Daemon { .. } | WorkerError::Untrusted { .. } => Exit::Daemon,
            WorkerError::Listen { .. } => Exit::Listen,
            WorkerError::Refused { .. } => Exit::Refused,
            WorkerError::Socket(error) => socket(error),
            WorkerError::Discovery(_) => Exit::Other,
        };
        Self::new(code, error)
    }
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Self {
        let code = match &error {
            WebError::Database(_) => Exit::Database,
            WebError::Listen { .. } => Exit::Listen,
        };
        Self::new(code, error)
    }
}

impl From<RegisterError> for Failure {
    fn from(error: RegisterError) -> Self {
        let code = match &error {
            RegisterError::Database(_) => Exit::Database,
            RegisterError::StateDirectory { .. } => Exit::Configuration,
            RegisterError::EvaluationFailed { .. } => Exit::Evaluation,
            RegisterError::Git(_) | RegisterError::Substitutes(_) => Exit::Other,
        };
        Self::new(code, error)
    }
}
