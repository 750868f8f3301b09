//! A throw-away PostgreSQL cluster.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    clock::Clock,
    launch::Launch,
    machine::Machine,
    process::Process,
    program::postgres_program,
    wait::{Deadline, wait_for},
};

/// The role that owns everything in it.
const ROLE: &str = "hauberk";
/// The database the farm uses.
const DATABASE: &str = "hauberk";

/// What is particular about a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresOptions<'a> {
    /// It waits for the disk.
    pub durable: bool,
    /// The clock it goes by, if not the computer's.
    pub clock: Option<&'a Clock>,
    /// A machine to run on, and the size (as `64m`) of a file system in memory there that holds the cluster.
    pub small: Option<(&'a Machine, &'a str)>,
}

/// A PostgreSQL cluster of its own, reachable through a socket only.
#[derive(Debug)]
pub struct Postgres {
    directory: PathBuf,
    launch: Launch,
    user: u32,
    process: Option<Process>,
}

impl Postgres {
    /// Makes a cluster in `directory` and starts it. Without `durable` it does not wait for the disk.
    ///
    /// # Errors
    /// PostgreSQL is not installed, there is no user `postgres`, or it does not start.
    pub fn create(directory: &Path, durable: bool) -> Result<Self> {
        Self::create_with(directory, PostgresOptions { durable, ..PostgresOptions::default() })
    }

    /// Makes a cluster in `directory` and starts it.
    ///
    /// # Errors
    /// As [`Postgres::create`], or the small file system cannot be mounted.
    pub fn create_with(directory: &Path, options: PostgresOptions<'_>) -> Result<Self> {
        let user = nix::unistd::User::from_name("postgres")?
            .context("there is no user postgres: install Debian's postgresql")?
            .uid
            .as_raw();
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        chown(directory, Some(user), Some(user))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        let cluster = directory.join("cluster");
        let program = |name| -> Result<Launch> {
            let program = postgres_program(name)?;
            Ok(match options.small {
                Some((machine, _)) => machine.command(program),
                None => Launch::here(program),
            })
        };
        let mut initdb = program("initdb")?;
        if let Some((machine, size)) = options.small {
            fs::create_dir_all(&cluster)?;
            machine.mount_small(&cluster, size)?;
            chown(machine.inside(&cluster), Some(user), Some(user))?;
            // As the rest is small, so are the pieces of its journal (MiB).
            initdb = initdb.arg("--wal-segsize=1");
        }
        initdb
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--username={ROLE}"))
            .arg("--pgdata")
            .arg(&cluster)
            .current_dir(directory)
            .user(user)
            .run()
            .context("making a PostgreSQL cluster")?;
        let mut launch = program("postgres")?
            .arg("-D")
            .arg(&cluster)
            .arg("-k")
            .arg(directory)
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_connections=100"])
            // In the cluster's directory, so that nothing is left where it is killed.
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .current_dir(directory)
            .user(user);
        if options.small.is_some() {
            launch = launch.args(["-c", "min_wal_size=2MB", "-c", "max_wal_size=8MB"]);
        }
        if !options.durable {
            launch = launch.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        if let Some(clock) = options.clock {
            launch = launch.clock(clock);
        }
        let mut postgres = Self { directory: directory.to_owned(), launch, user, process: None };
        postgres.start()?;
        Launch::here(postgres_program("createdb")?)
            .arg("--host")
            .arg(directory)
            .args(["--username", ROLE, DATABASE])
            .run()
            .context("making the database")?;
        Ok(postgres)
    }

    /// Gives what `--database` wants.
    pub fn connection_string(&self) -> String {
        format!("host={} user={ROLE} dbname={DATABASE}", self.directory.display())
    }

    /// Starts it, if need be again, and waits until it takes connections.
    ///
    /// # Errors
    /// It runs already or does not start.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("PostgreSQL runs already");
        }
        let deadline = Deadline::seconds(60);
        let mut process = self.launch.start("postgres", &self.directory)?;
        let ready = Launch::here(postgres_program("pg_isready")?)
            .arg("--quiet")
            .arg("--host")
            .arg(&self.directory)
            .args(["--username", ROLE, "--dbname", "postgres"]);
        wait_for("PostgreSQL takes connections", deadline, || {
            if process.try_wait()?.is_some() {
                // After a kill the old cluster's last children may hold its memory for a moment.
                if !process.log_tail().contains("still in use") {
                    process.check_alive()?;
                }
                process = self.launch.start("postgres", &self.directory)?;
            }
            Ok(ready.output()?.status.success().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Tells whether it runs; it ends by itself where there is no room for its journal.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        let ended = match &mut self.process {
            Some(process) => process.try_wait()?.is_some(),
            None => return Ok(false),
        };
        if ended {
            self.process = None;
        }
        Ok(!ended)
    }

    /// Kills the postmaster as a power cut would; its children notice and end.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("PostgreSQL does not run")?.kill9()
    }

    /// Gives the id of the user it runs as.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// It does not.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.as_mut().context("PostgreSQL does not run")?.check_alive()
    }
}
