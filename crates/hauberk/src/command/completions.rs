//! `hauberk completions`: what a shell completes.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Arguments;
use crate::exit::Failure;
use crate::output::print;

/// Print what a shell reads to complete commands and options
///
/// For bash, into /usr/share/bash-completion/completions/hauberk or ~/.local/share/bash-completion/completions/hauberk.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "hauberk", &mut script);
    print(&String::from_utf8_lossy(&script))
}
