//! The command line.

use clap::{Parser, Subcommand};

use crate::command::{
    audit, build, cache, completions, database, evaluation, gc, key, register, remote_server, remote_worker,
    status, up, web, worker,
};
use crate::logging::Logging;

/// A build farm for GNU Guix and Nix
///
/// `hauberk up` runs a whole farm on this machine. On a farm of several machines, each process is a command: `register` turns
/// repositories into builds, `remote-server` hands them to `remote-worker`s, and `web` shows everything.
#[derive(Debug, Parser)]
#[command(
    name = "hauberk",
    version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("HAUBERK_COMMIT"), ")"),
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit status: 0 done; 1 any other failure; 2 wrong command line; 3 configuration (specification, key file, value); \
                  4 database; 5 cannot listen; 6 build daemon; 7 refused by the server; 8 evaluation failed (register --one-shot); of `build wait`: 9 a build failed; 10 a build was canceled; 11 the time was over."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) logging: Logging,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Register(register::Options),
    RemoteServer(Box<remote_server::Options>),
    RemoteWorker(Box<remote_worker::Options>),
    Web(web::Options),
    Up(up::Options),
    Cache(cache::Options),
    Gc(gc::Options),
    Key(key::Options),
    Worker(worker::Options),
    Build(build::Options),
    Evaluation(evaluation::Options),
    Status(status::Options),
    Audit(audit::Options),
    Database(database::Options),
    Completions(completions::Options),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} says nothing about itself", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{}: {} says nothing about itself",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn a_key_may_begin_with_a_hyphen() {
        let key = "-:3{i*f[cWyYM!Q@?mD%rT#7gk9)Bv2/Hn5&Zs1<";
        for line in [
            vec!["hauberk", "remote-worker", "--server-key", key, "--curve-key", "c", "--signing-key", "s"],
            vec!["hauberk", "worker", "add", "anna", "--public-key", key, "--signing-key", "s"],
        ] {
            Arguments::try_parse_from(line).unwrap();
        }
    }
}
