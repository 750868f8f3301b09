//! Finding what the laboratory needs of the computer it runs on.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Finds the `hauberk` program: `HAUBERK_PROGRAM`, or beside the running program, or beside its directory (tests).
///
/// # Errors
/// There is none; the message says how to build it.
pub fn hauberk_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HAUBERK_PROGRAM") {
        return Ok(PathBuf::from(path));
    }
    program_beside("hauberk")
        .context("build it first with `cargo build -p hauberk`, or name it in HAUBERK_PROGRAM")
}

/// Finds a program beside the running program, or beside its directory (tests).
///
/// # Errors
/// There is none.
pub fn program_beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let found =
        own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no `{name}` program beside {}", own.display()))
}

/// Checks that the laboratory may make namespaces.
///
/// # Errors
/// The process is not root.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the laboratory makes namespaces and mounts, which needs root: run it with sudo");
    }
    Ok(())
}

/// Gives a TCP port that was free on loopback a moment ago.
///
/// # Errors
/// No port can be had.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("looking for a free port")?.local_addr()?.port())
}

/// Finds a PostgreSQL program: the newest of Debian's, which are not on the search path, or one that is.
pub(crate) fn postgres_program(name: &str) -> Result<PathBuf> {
    let mut newest: Option<(u32, PathBuf)> = None;
    if let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") {
        for entry in entries.flatten() {
            let Some(version) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let candidate = entry.path().join("bin").join(name);
            if candidate.is_file() && newest.as_ref().is_none_or(|(other, _)| *other < version) {
                newest = Some((version, candidate));
            }
        }
    }
    match newest {
        Some((_, path)) => Ok(path),
        None => {
            on_search_path(name).with_context(|| format!("no `{name}` found: install Debian's postgresql"))
        }
    }
}

fn on_search_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
