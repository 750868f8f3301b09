//! What the server asks for, checked when it arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use hauberk_protocol::proto;
use hauberk_store::{DrvPath, OutputName, Sha256, StorePath};

use crate::AttemptId;

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The attempt.
    pub attempt: AttemptId,
    /// The build it is a try of, for people.
    pub build: i64,
    /// Whether it is a first try, another one, or a check.
    pub kind: AttemptKind,
    /// What to build.
    pub derivation: DrvPath,
    /// The system it is built for.
    pub system: String,
    /// The outputs it must give.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// What ends it early.
    pub limits: Limits,
    /// Cores for the builder; nothing means that the worker divides its own.
    pub cores: Option<u32>,
    /// 0 is the most urgent, 99 the least.
    pub priority: u32,
    /// What the server knows of the inputs.
    pub inputs: BTreeMap<StorePath, KnownInput>,
    /// Publish servers of workers that built inputs, as these name them.
    pub sources: Vec<String>,
}

/// Most publish servers that are asked for one input before the server.
const MOST_SOURCES: usize = 4;

/// Which try of a build an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// The first, or a kind this version does not know.
    First,
    /// Another one.
    Retry,
    /// A second build to compare with the first.
    Check,
}

/// What ends an attempt early. Nothing means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Time a build may take.
    pub timeout: Option<Duration>,
    /// Time a build may be silent.
    pub max_silent: Option<Duration>,
    /// Bytes of log text.
    pub log_bytes: Option<u64>,
    /// Bytes of all outputs' nars together.
    pub output_bytes: Option<u64>,
}

/// What the server knows of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownInput {
    /// SHA-256 of its nar.
    pub nar_hash: Sha256,
    /// Bytes of its nar.
    pub nar_size: u64,
    /// Where its nar may be had before the server: places in [`Assignment::sources`], in this order.
    pub sources: Vec<usize>,
}

/// Why an Assign cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAssign {
    /// A text is not what its field holds.
    #[error("the assignment's {field} is malformed: {text:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its contents, shortened.
        text: String,
    },
    /// There is nothing to build.
    #[error("the assignment of {derivation} names no outputs")]
    NoOutputs {
        /// The derivation.
        derivation: DrvPath,
    },
}

fn bad(field: &'static str, text: &str) -> BadAssign {
    BadAssign::Field { field, text: text.chars().take(255).collect() }
}

const fn some_unless_zero(number: u64) -> Option<u64> {
    if number == 0 { None } else { Some(number) }
}

impl TryFrom<proto::Assign> for Assignment {
    type Error = BadAssign;

    fn try_from(assign: proto::Assign) -> Result<Self, BadAssign> {
        let kind = match assign.kind() {
            proto::AttemptKind::Check => AttemptKind::Check,
            proto::AttemptKind::Retry => AttemptKind::Retry,
            proto::AttemptKind::First | proto::AttemptKind::Unspecified => AttemptKind::First,
        };
        let attempt =
            AttemptId::new(assign.attempt).ok_or_else(|| bad("attempt", &assign.attempt.to_string()))?;
        let derivation =
            DrvPath::parse(&assign.derivation).map_err(|_| bad("derivation", &assign.derivation))?;
        let mut outputs = BTreeMap::new();
        for output in assign.outputs {
            let name = OutputName::parse(&output.name).map_err(|_| bad("output name", &output.name))?;
            let path = StorePath::parse(&output.path).map_err(|_| bad("output path", &output.path))?;
            outputs.insert(name, path);
        }
        if outputs.is_empty() {
            return Err(BadAssign::NoOutputs { derivation });
        }
        let mut inputs = BTreeMap::new();
        for input in assign.inputs {
            let path = StorePath::parse(&input.path).map_err(|_| bad("input path", &input.path))?;
            let nar_hash = <[u8; 32]>::try_from(input.nar_hash.as_ref())
                .map(Sha256::from_bytes)
                .map_err(|_| bad("input nar hash", &input.path))?;
            let sources = input.sources.iter().filter_map(|place| usize::try_from(*place).ok());
            let sources = sources.filter(|place| *place < assign.sources.len()).take(MOST_SOURCES).collect();
            inputs.insert(path, KnownInput { nar_hash, nar_size: input.nar_size, sources });
        }
        let seconds = |number| some_unless_zero(number).map(Duration::from_secs);
        Ok(Self {
            attempt,
            build: assign.build,
            kind,
            derivation,
            system: assign.system,
            outputs,
            limits: Limits {
                timeout: seconds(assign.timeout_s),
                max_silent: seconds(assign.max_silent_s),
                log_bytes: some_unless_zero(assign.log_limit_bytes),
                output_bytes: some_unless_zero(assign.output_limit_bytes),
            },
            cores: (assign.cores != 0).then_some(assign.cores),
            priority: assign.priority,
            inputs,
            sources: assign.sources,
        })
    }
}
