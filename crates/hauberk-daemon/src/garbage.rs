//! Collecting garbage.

use std::{collections::BTreeSet, path::PathBuf};

use hauberk_store::StorePath;

/// What to do about garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GarbageAction {
    /// Lists what roots keep alive.
    ListLive,
    /// Lists what nothing keeps alive.
    ListDead,
    /// Deletes what nothing keeps alive.
    DeleteDead,
    /// Deletes these paths; an error if one is alive.
    Delete(BTreeSet<StorePath>),
}

/// A request to collect garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageRequest {
    /// What to do.
    pub action: GarbageAction,
    /// Stops after this many bytes are freed; nothing means no limit.
    pub max_freed: Option<u64>,
}

impl GarbageRequest {
    /// Asks for `action` without a limit.
    pub const fn new(action: GarbageAction) -> Self {
        Self { action, max_freed: None }
    }
}

/// What came of a request to collect garbage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// The paths listed or deleted, as the daemon spells them: left-overs such as `….lock` are among them.
    pub paths: Vec<String>,
    /// Bytes freed; for lists 0.
    pub bytes_freed: u64,
}

/// A link that keeps a path alive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// The link, or a note in braces such as `{censored}` or `{temp:123}`.
    pub link: PathBuf,
    /// The path it keeps.
    pub target: StorePath,
}
