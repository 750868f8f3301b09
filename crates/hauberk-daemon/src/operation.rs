//! The operations of the worker protocol.

use std::fmt;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An operation of the worker protocol, with the number both dialects know it by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Operation { $($(#[$doc])* $name = $code,)* }

        impl Operation {
            /// Gives the number that begins the operation on the wire; 0 for the handshake, which has none.
            pub const fn code(self) -> u64 {
                self as u64
            }

            /// Gives the name used in messages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

operations! {
    /// The greeting; not an operation of its own on the wire.
    Handshake = 0, "handshake";
    /// Is a path valid?
    IsValidPath = 1, "is-valid-path";
    /// Who refers to a path?
    QueryReferrers = 6, "query-referrers";
    /// Adds a file, text or directory whose path follows from its contents.
    AddToStore = 7, "add-to-store";
    /// Adds a text (Guix).
    AddTextToStore = 8, "add-text-to-store";
    /// Builds derivations (Guix: the results are told by traces).
    BuildPaths = 9, "build-paths";
    /// Makes a path valid by substitution.
    EnsurePath = 10, "ensure-path";
    /// Protects a path for the length of the session.
    AddTempRoot = 11, "add-temp-root";
    /// Registers a symbolic link as a root.
    AddIndirectRoot = 12, "add-indirect-root";
    /// Lists the roots.
    FindRoots = 14, "find-roots";
    /// Exports one path with its metadata.
    ExportPath = 16, "export-path";
    /// Sets the options of the session.
    SetOptions = 19, "set-options";
    /// Collects garbage, or tells what is garbage.
    CollectGarbage = 20, "collect-garbage";
    /// Lists the output paths of a derivation (Guix).
    QueryDerivationOutputs = 22, "query-derivation-outputs";
    /// Gives what is known of a path.
    QueryPathInfo = 26, "query-path-info";
    /// Imports an export stream.
    ImportPaths = 27, "import-paths";
    /// Finds the path with a hash part.
    QueryPathFromHashPart = 29, "query-path-from-hash-part";
    /// Gives what is known of substitutable paths.
    QuerySubstitutablePathInfos = 30, "query-substitutable-path-infos";
    /// Which of many paths are valid?
    QueryValidPaths = 31, "query-valid-paths";
    /// Which of many paths can be substituted?
    QuerySubstitutablePaths = 32, "query-substitutable-paths";
    /// Which derivations in the store give a path?
    QueryValidDerivers = 33, "query-valid-derivers";
    /// Replaces equal files by links.
    OptimiseStore = 34, "optimise-store";
    /// Checks the store.
    VerifyStore = 35, "verify-store";
    /// Gives a path's contents as a NAR (Nix).
    NarFromPath = 38, "nar-from-path";
    /// Adds a path from a NAR and its metadata (Nix).
    AddToStoreNar = 39, "add-to-store-nar";
    /// What would be built, what fetched? (Nix)
    QueryMissing = 40, "query-missing";
    /// Gives the outputs of a derivation by name (Nix).
    QueryDerivationOutputMap = 41, "query-derivation-output-map";
    /// Builds derivations and tells a result for each (Nix).
    BuildPathsWithResults = 46, "build-paths-with-results";
    /// Names the builders that are part of the daemon (Guix).
    BuiltInBuilders = 80, "built-in-builders";
    /// Names the substitute servers the daemon uses (Guix).
    SubstituteUrls = 81, "substitute-urls";
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
