//! A private PostgreSQL, made from the programs that are installed.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::layout::Layout;

/// How long the database may take to start, after a crash with much to recover too.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end.
const END: Duration = Duration::from_secs(30);
/// Debian keeps PostgreSQL's server programs here, one directory a version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// A socket's path is this long at most (sun_path), and PostgreSQL adds a name.
const SOCKET_DIRECTORY: usize = 107 - "/.s.PGSQL.5432.lock".len();

/// The pause before a database that ended by itself is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// A running cluster.
pub(super) struct Cluster {
    /// Ends when the server has been ended.
    keeper: JoinHandle<()>,
    ending: CancellationToken,
    location: String,
    /// Removed when the cluster ends.
    _sockets: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts the cluster in the state directory, which is made if it is not there.
    pub(super) async fn start(layout: &Layout) -> anyhow::Result<Self> {
        let data = layout.cluster();
        let account = Account::choose()?;
        let version = fs::read_to_string(data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
        let programs = Programs::find(version.as_deref())?;
        if version.is_none() {
            make(layout, &programs, &account).await?;
        }
        let (sockets, temporary) = socket_directory(layout, &account)?;

        let postgres = Postgres { account, program: programs.file("postgres"), data, sockets };
        let mut server = postgres.spawn()?;
        wait(&mut server, &postgres.sockets).await?;
        info!("the database is up, in {}", postgres.data.display());
        let location = format!("host={} user=hauberk dbname=hauberk", quoted(&postgres.sockets));
        let ending = CancellationToken::new();
        let keeper = tokio::spawn(keep(postgres, server, ending.clone()));
        Ok(Self { keeper, ending, location, _sockets: temporary })
    }

    /// The connection string of the farm's database.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Ends it: clients are disconnected, everything is written.
    pub(super) async fn stop(self) {
        self.ending.cancel();
        if let Err(error) = self.keeper.await {
            warn!(error = &error as &dyn std::error::Error, "cannot wait for the database");
        }
    }
}

/// How the server program is run.
struct Postgres {
    account: Account,
    program: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
}

impl Postgres {
    fn spawn(&self) -> anyhow::Result<Child> {
        let mut command = self.account.command(&self.program);
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.sockets);
        command.args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"]);
        // A line of the supervisor's log says when.
        command.args(["-c", "log_line_prefix=", "-c", "max_connections=60"]);
        let mut server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if let Some(log) = server.stderr.take() {
            tokio::spawn(async move {
                let mut lines = BufReader::new(log).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("LOG:") {
                        debug!("postgresql: {line}");
                    } else {
                        warn!("postgresql: {line}");
                    }
                }
            });
        }
        Ok(server)
    }
}

/// Starts the server again whenever it ends by itself, until it is to end.
async fn keep(postgres: Postgres, mut server: Child, ending: CancellationToken) {
    loop {
        tokio::select! {
            () = ending.cancelled() => return end(server).await,
            status = server.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                warn!("the database ended by itself ({status}); it is started again");
            }
        }
        server = loop {
            tokio::select! {
                () = ending.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
            match postgres.spawn() {
                Ok(server) => break server,
                Err(error) => warn!("{error:#}"),
            }
        };
    }
}

/// Ends the server in order.
async fn end(mut server: Child) {
    let Some(pid) = server.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    // SIGINT is PostgreSQL's "fast" shutdown.
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGINT) {
        debug!(error = &error as &dyn std::error::Error, "the database has ended already");
    }
    match timeout(END, server.wait()).await {
        Ok(Ok(_)) => info!("the database has ended"),
        Ok(Err(error)) => warn!(error = &error as &dyn std::error::Error, "cannot wait for the database"),
        Err(_) => warn!("the database does not end; it is killed and will recover at the next start"),
    }
}

/// Waits until it answers, and makes the database if there is none.
async fn wait(server: &mut Child, sockets: &Path) -> anyhow::Result<()> {
    let template = format!("host={} user=hauberk dbname=template1", quoted(sockets));
    let until = Instant::now() + START;
    let client = loop {
        if let Some(status) = server.try_wait().context("cannot look after PostgreSQL")? {
            bail!("PostgreSQL ended at its start ({status}); what it logged stands above");
        }
        match tokio_postgres::connect(&template, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                break client;
            }
            Err(error) if Instant::now() > until => {
                return Err(error).context("PostgreSQL does not answer");
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let known = client
        .query_opt("select 1 from pg_database where datname = 'hauberk'", &[])
        .await
        .context("cannot look for the database")?;
    if known.is_none() {
        client
            .batch_execute("create database hauberk template template0 encoding 'UTF8' locale 'C'")
            .await
            .context("cannot make the database")?;
    }
    Ok(())
}

/// Writes a value of a connection string.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The user PostgreSQL runs as: it refuses root.
struct Account {
    other: Option<User>,
}

impl Account {
    fn choose() -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let user = User::from_name("postgres").context("cannot look up the user `postgres`")?;
        match user {
            Some(user) => Ok(Self { other: Some(user) }),
            None => bail!("PostgreSQL does not run as root, and there is no user `postgres` to run it as"),
        }
    }

    /// A command that runs as the account, and ends when this process does, however that comes.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=INT");
        if let Some(user) = &self.other {
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid))
                .arg("--clear-groups");
        }
        command.arg("--").arg(program).env("LC_ALL", "C");
        // PostgreSQL would tell our service manager that it is ready, when the farm is not yet.
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    fn own(&self, path: &Path) -> anyhow::Result<()> {
        let Some(user) = &self.other else { return Ok(()) };
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("cannot give {} to the user `postgres`", path.display()))
    }
}

/// The directory of PostgreSQL's server programs.
struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Finds them: of the version the cluster was made with, or else the newest.
    fn find(version: Option<&str>) -> anyhow::Result<Self> {
        let mut found: Vec<(Vec<u32>, PathBuf)> = Vec::new();
        for entry in fs::read_dir(DEBIAN).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let directory = entry.path().join("bin");
            let number: Result<Vec<u32>, _> = name.split('.').map(str::parse).collect();
            if let Ok(number) = number
                && directory.join("postgres").is_file()
                && version.is_none_or(|version| version == name)
            {
                found.push((number, directory));
            }
        }
        if let Some((_, directory)) = found.into_iter().max() {
            return Ok(Self { directory });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directory = std::env::split_paths(&path)
            .find(|directory| directory.join("initdb").is_file() && directory.join("postgres").is_file());
        match (directory, version) {
            (Some(directory), _) => Ok(Self { directory }),
            (None, None) => {
                Err(anyhow!("PostgreSQL's programs are not installed; on Debian: apt-get install postgresql"))
            }
            (None, Some(version)) => Err(anyhow!(
                "the state directory's database was made by PostgreSQL {version}, which is not installed; \
                 on Debian: apt-get install postgresql-{version}"
            )),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

async fn make(layout: &Layout, programs: &Programs, account: &Account) -> anyhow::Result<()> {
    let data = layout.cluster();
    if data.is_dir() && fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} holds something that is no PostgreSQL cluster; remove it", data.display());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data)
        .with_context(|| format!("cannot make {}", data.display()))?;
    account.own(&data)?;
    let made = account
        .command(&programs.file("initdb"))
        .arg("-D")
        .arg(&data)
        // The socket's directory lets only this user and root in.
        .args(["-A", "trust", "-U", "hauberk", "-E", "UTF8", "--locale=C"])
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run initdb")?;
    if !made.status.success() {
        let text = String::from_utf8_lossy(&made.stderr).trim().replace('\n', "; ");
        bail!("initdb cannot make a cluster in {}: {text}", data.display());
    }
    Ok(())
}

/// Finds a place for the socket: in the state directory, or, where that has too long a name, in a directory of its own.
fn socket_directory(
    layout: &Layout,
    account: &Account,
) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let own = layout.root().join("sql");
    if own.as_os_str().len() <= SOCKET_DIRECTORY {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .with_context(|| format!("cannot make {}", own.display()))?;
        account.own(&own)?;
        return Ok((own, None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("hauberk-sql-")
        .tempdir()
        .context("cannot make a directory for the database's socket")?;
    account.own(temporary.path())?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
