//! The parts of a NAR, in the order they come.

/// One step through a NAR.
///
/// A NAR is one node. A node is `File` with its `Contents` and `EndFile`, or `Symlink`, or `Directory` with, for each
/// name in order, `Entry` and a node, and then `EndDirectory`. `End` comes once, last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A regular file begins.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// Bytes of its contents.
        size: u64,
    },
    /// The next bytes of the file's contents; never empty.
    Contents(&'a [u8]),
    /// The file is complete.
    EndFile,
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: &'a [u8],
    },
    /// A directory begins.
    Directory,
    /// An entry of the directory: the node that follows has this name.
    Entry {
        /// Its name, greater than the one before.
        name: &'a [u8],
    },
    /// The directory is complete.
    EndDirectory,
    /// The archive is complete.
    End,
}
