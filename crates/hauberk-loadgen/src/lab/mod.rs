//! The laboratory: a throw-away PostgreSQL, a real server, and workers that only simulate the builder.

mod directory;
mod disk;
mod nginx;
mod postgres;
mod queue;
mod server;
mod statements;
mod store;
mod usage;
mod verdict;
mod web;
mod worker_process;
mod workers;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use hauberk_database::evaluations;
use hauberk_database::registration::{self, Registration};
use hauberk_database::specifications::{self, NewSpecification};
use hauberk_database::{Database, Level};
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_store::signature::nix::SecretKey;
use serde_json::{Map, Value};

pub(crate) use nginx::Nginx;
pub(crate) use queue::Queue;
pub(crate) use server::Server;
pub(crate) use store::RealStore;
pub(crate) use usage::{Memory, Usage, processor_seconds};
pub(crate) use verdict::Verdict;
pub(crate) use web::WebProcess;
pub(crate) use worker_process::WorkerProcess;
pub(crate) use workers::{Crew, Published, Workers};

use directory::LabDirectory;
use postgres::Postgres;
use server::ServerSetup;

/// Connections of the load generator to the database.
const POOL: usize = 4;
/// How many lines of a log an error shows.
const TAIL: usize = 30;

/// What the order of dispatch is made of besides priority and age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// Shares, paths and ageing count, and the indexes for them are kept.
    Whole,
    /// Nothing of that counts, nor are there indexes for it.
    PriorityAndAge,
}

/// Indexes that only the whole order asks.
const ORDER_INDEXES: [&str; 2] = ["builds_ready_age", "builds_ready_shared"];

/// Where and with what a laboratory is made.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabOptions {
    /// The `hauberk` program [default: the one beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    hauberk: Option<PathBuf>,

    /// Where to put the database, the server's cache and the workers' outputs; on a disk, to mean anything
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = "/var/tmp")]
    directory: PathBuf,

    /// Leave the laboratory's directory behind, for a look at logs and data
    #[arg(long, global = true)]
    keep: bool,

    /// What the server writes into its log
    #[arg(long, global = true, value_name = "FILTER", default_value = "info")]
    server_log: String,

    /// One more argument for `hauberk remote-server`, as `--server-argument=--fetches=32`; may be given several times
    #[arg(long, global = true, value_name = "ARGUMENT", allow_hyphen_values = true)]
    server_argument: Vec<String>,

    /// Note what each statement of the database cost, in all its calls (Debian: `postgresql-contrib`); costs a few parts in a hundred
    /// itself
    #[arg(long, global = true)]
    statements: bool,

    /// Seconds after which a run that does not end is given up
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) seconds: u64,
}

/// A database and the keys of a farm; servers and workers are started on it.
///
/// What it started ends with it, whatever way it ends.
#[derive(Debug)]
pub(crate) struct Lab {
    options: LabOptions,
    program: PathBuf,
    database: Database,
    postgres: Postgres,
    curve: CurvePublicKey,
    signing_key: SecretKey,
    // Last, so that it goes when nobody uses it any more.
    directory: LabDirectory,
}

impl LabOptions {
    /// The same, for a server with this order.
    pub(crate) fn ordered(&self, ordering: Ordering) -> Self {
        let mut options = self.clone();
        options.server_argument.push(match ordering {
            Ordering::Whole => "--ageing=1h".to_owned(),
            Ordering::PriorityAndAge => "--priority-and-age-alone".to_owned(),
        });
        options
    }
}

impl Lab {
    /// Starts PostgreSQL with an empty farm in it, and makes the server's keys.
    pub(crate) async fn start(options: &LabOptions) -> Result<Self> {
        Self::start_with(options, None).await
    }

    /// Does what [`Self::start`] does, with a queue in the farm.
    pub(crate) async fn start_with(options: &LabOptions, queue: Option<&Queue>) -> Result<Self> {
        let program = program(options)?;
        let directory = LabDirectory::create(&options.directory, options.keep)?;
        let cluster = directory.subdirectory("postgres")?;
        let like = queue.map(|queue| queue.data().to_owned());
        let settings = if options.statements { statements::SETTINGS } else { "" };
        let postgres =
            tokio::task::spawn_blocking(move || Postgres::start(&cluster, like.as_deref(), settings))
                .await??;
        let database = Database::connect_or_create(&postgres.location()?, POOL).await?;
        if options.statements {
            statements::install(&database).await?;
        }
        let curve = CurveKeyPair::generate();
        curve.write_new(&directory.path().join("curve")).context("writing the server's CURVE key")?;
        let signing_key = SecretKey::generate("load-farm-1").context("making the server's signing key")?;
        write_secret(&directory.path().join("signing"), &signing_key.to_secret_string())?;
        directory.subdirectory("cache")?;
        let options = options.clone();
        Ok(Self { options, program, database, postgres, curve: *curve.public(), signing_key, directory })
    }

    /// Makes the tables such as they would be for this order alone.
    pub(crate) async fn set_ordering(&self, ordering: Ordering) -> Result<()> {
        if ordering == Ordering::PriorityAndAge {
            let indexes = ORDER_INDEXES.join(", ");
            let client = self.database.client().await?;
            client.batch_execute(&format!("drop index {indexes}")).await.context("dropping indexes")?;
        }
        Ok(())
    }

    /// Ends what runs, and gives PostgreSQL's data and the directory they are in.
    fn into_data(self) -> (PathBuf, LabDirectory) {
        drop(self.database);
        (self.postgres.into_data(), self.directory)
    }

    /// Gives the farm's database.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Gives the key that the server signs with.
    pub(crate) fn signing_key(&self) -> &SecretKey {
        &self.signing_key
    }

    /// Gives the server's public CURVE key.
    pub(crate) fn curve(&self) -> &CurvePublicKey {
        &self.curve
    }

    /// Gives the server's cache directory.
    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Gives the laboratory's directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Gives a command of `hauberk` on the farm's database.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<std::process::Command> {
        let mut command = std::process::Command::new(&self.program);
        command.args(arguments).arg("--database").arg(self.postgres.location()?.reveal());
        Ok(command)
    }

    /// Starts the server, without a build daemon, and waits until it serves.
    pub(crate) async fn serve(&self) -> Result<Server> {
        self.serve_store(None).await
    }

    /// Starts the server with a build daemon's socket and waits until it serves.
    pub(crate) async fn serve_store(&self, daemon: Option<PathBuf>) -> Result<Server> {
        let setup = ServerSetup {
            program: self.program.clone(),
            database: self.postgres.location()?,
            cache: self.cache(),
            signing_key: self.directory.path().join("signing"),
            curve_key: self.directory.path().join("curve"),
            log: self.options.server_log.clone(),
            arguments: self.options.server_argument.clone(),
            daemon,
            directory: self.directory.path().to_owned(),
        };
        Server::start(setup, &self.database).await
    }

    /// Records an evaluation with these builds and jobs, as register does: all of it becomes visible, and ready, at once.
    pub(crate) async fn publish(&self, registration: &Registration) -> Result<()> {
        self.publish_as("load", 100, registration).await
    }

    /// Does what [`Self::publish`] does, for a specification of this name with so many shares.
    pub(crate) async fn publish_as(
        &self,
        name: &str,
        shares: i32,
        registration: &Registration,
    ) -> Result<()> {
        let mut client = self.database.client().await?;
        let specification = NewSpecification {
            name,
            definition: &Value::Object(Map::new()),
            priority: Level::LEAST_URGENT,
            shares,
            enabled: true,
            public: true,
        };
        let specification = specifications::upsert(&client, specification).await?;
        let evaluation = evaluations::start(&client, specification, &[]).await?;
        let published = registration::publish(&mut client, evaluation, registration).await?;
        if published.new != registration.builds.len() {
            bail!("of {} builds, {} were recorded", registration.builds.len(), published.new);
        }
        Ok(())
    }

    /// Forgets what statements have cost so far.
    pub(crate) async fn forget_statements(&self) -> Result<()> {
        if self.options.statements { statements::forget(&self.database).await } else { Ok(()) }
    }

    /// Notes what statements have cost since then.
    pub(crate) async fn note_statements(&self, parameters: &mut Map<String, Value>) -> Result<()> {
        if self.options.statements {
            parameters.insert("statements".to_owned(), statements::read(&self.database).await?);
        }
        Ok(())
    }

    /// Reads what server, database and load generator have used so far.
    pub(crate) async fn usage(&self, server: &Server) -> Result<Usage> {
        Usage::read(server.process(), self.postgres.process(), &self.database).await
    }

    /// Measures how fast the disk is now.
    pub(crate) async fn fsyncs_per_second(&self) -> Result<f64> {
        let directory = self.directory.path().to_owned();
        tokio::task::spawn_blocking(move || disk::fsyncs_per_second(&directory)).await?
    }

    /// Notes how the laboratory was made.
    pub(crate) fn note(&self, parameters: &mut Map<String, Value>) {
        parameters.insert("postgres_settings".to_owned(), postgres::SETTINGS.replace("-c ", "").into());
        parameters.insert("server_log".to_owned(), self.options.server_log.clone().into());
        if !self.options.server_argument.is_empty() {
            parameters.insert("server_arguments".to_owned(), self.options.server_argument.join(" ").into());
        }
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        parameters.insert("cores".to_owned(), cores.into());
    }

    /// Gives the end of PostgreSQL's log, for messages.
    pub(crate) fn postgres_log(&self) -> String {
        self.postgres.log_tail()
    }
}

fn program(options: &LabOptions) -> Result<PathBuf> {
    let program = match &options.hauberk {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("finding the own program")?.with_file_name("hauberk"),
    };
    if !program.is_file() {
        bail!(
            "there is no program {}; build it with `cargo build --release -p hauberk`, or name it with --hauberk",
            program.display()
        );
    }
    Ok(program)
}

fn write_secret(path: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{text}")
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
