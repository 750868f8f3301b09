//! The options of a session.

use std::{collections::BTreeMap, time::Duration};

/// What a client may set for its session. The default builds like a farm does: no substitution of outputs by chance, no
/// build hook or offloading, one failed build stops the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Keeps the build directory of a failed build.
    pub keep_failed: bool,
    /// Goes on with the other targets when one fails.
    pub keep_going: bool,
    /// Builds what a substitute server promised but did not deliver.
    pub fallback: bool,
    /// How much the daemon itself says: 0 errors, 1 warnings, 3 what it does, up to 7.
    pub verbosity: u8,
    /// Builds at a time in this session; if not given, 1 (Nix) or the daemon's own setting (Guix).
    pub max_jobs: Option<u32>,
    /// Cores a builder is told to use (`NIX_BUILD_CORES`); 0 means all. If not given, 0 (Nix) or the daemon's own setting
    /// (Guix).
    pub cores: Option<u32>,
    /// Ends a build that runs longer. Whole seconds; zero means no limit, nothing means none (Nix) or the daemon's own setting
    /// (Guix).
    pub timeout: Option<Duration>,
    /// Ends a build that prints nothing for longer. As above.
    pub max_silent: Option<Duration>,
    /// Ends a build whose log grows over this many bytes (Nix). A Nix daemon heeds it from trusted clients only.
    pub max_log_size: Option<u64>,
    /// Fetches outputs from substitute servers where it can.
    pub use_substitutes: bool,
    /// The substitute servers to use in place of the configured ones. A Nix daemon heeds them from trusted clients only.
    pub substitute_urls: Option<Vec<String>>,
    /// Lets the daemon hand builds to other machines (Nix: build hook, Guix: offloading).
    pub offload: bool,
    /// Builds this many times in a row and compares; at most 1 means once.
    pub rounds: u32,
    /// What only a Guix daemon knows.
    pub guix: GuixOptions,
    /// Further settings by name, as in the daemon's configuration.
    pub extra: BTreeMap<String, String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            keep_failed: false,
            keep_going: false,
            fallback: false,
            verbosity: 0,
            max_jobs: None,
            cores: None,
            timeout: None,
            max_silent: None,
            max_log_size: None,
            use_substitutes: false,
            substitute_urls: None,
            offload: false,
            rounds: 1,
            guix: GuixOptions::default(),
            extra: BTreeMap::new(),
        }
    }
}

/// Options only a Guix daemon knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuixOptions {
    /// Reports builds and substitutions by trace lines. Without it failures are told by the daemon's words alone.
    pub build_trace: bool,
    /// Reports the progress of downloads too.
    pub extended_trace: bool,
    /// Marks each chunk of a builder's output with its build. Without it, output cannot be told from the daemon's own
    /// lines, nor from trace lines a builder forges.
    pub multiplexed_output: bool,
    /// How much the daemon says about builds.
    pub build_verbosity: u8,
    /// The user the daemon is told of, which counts for nothing but its messages.
    pub user_name: Option<String>,
    /// Columns of the user's terminal, for the daemon's progress bars.
    pub terminal_columns: Option<u32>,
    /// The user's locale, for the daemon's messages. English ones are understood here, so leave it at C.
    pub locale: Option<String>,
}

impl Default for GuixOptions {
    fn default() -> Self {
        Self {
            build_trace: true,
            extended_trace: true,
            multiplexed_output: true,
            build_verbosity: 0,
            user_name: None,
            terminal_columns: None,
            locale: None,
        }
    }
}
