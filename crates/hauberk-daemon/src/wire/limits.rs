//! What this client takes at most, so that a broken daemon cannot exhaust memory.

/// The most a field may hold, in bytes or entries. What is over it ends the connection before anything is allocated; what
/// is below it is allocated as its bytes arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) most: u64,
}

impl Limit {
    const fn new(what: &'static str, most: u64) -> Self {
        Self { what, most }
    }

    /// Store paths, names, URLs and other words.
    pub(crate) const PATH: Self = Self::new("store path", 4096);
    pub(crate) const WORD: Self = Self::new("word", 64 << 10);
    /// A line or chunk of a log. One line may be many megabytes: some builds print progress without line ends.
    pub(crate) const LOG: Self = Self::new("log line", 256 << 20);
    /// The daemon's message about a failure, which may quote the end of a log.
    pub(crate) const MESSAGE: Self = Self::new("message", 16 << 20);
    /// A chunk of data for the client.
    pub(crate) const DATA: Self = Self::new("data chunk", 256 << 20);
    /// The JSON text of a realisation.
    pub(crate) const REALISATION: Self = Self::new("realisation", 1 << 20);
    /// Paths in a list: the largest stores hold a few millions.
    pub(crate) const PATHS: Self = Self::new("list of paths", 1 << 26);
    /// Entries of other lists.
    pub(crate) const ENTRIES: Self = Self::new("list", 1 << 22);
    /// Fields of an activity or result, traces of an error.
    pub(crate) const FIELDS: Self = Self::new("list of fields", 1 << 10);
}
