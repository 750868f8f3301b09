//! Throw-away PostgreSQL for tests.
//!
//! The tests of a process share a cluster, which lives as long as one of them uses it and ends with the process,
//! however that ends. Each [`TestDatabase`] is a database of its own, copied from a migrated template.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use deadpool_postgres::Client;
use tokio::sync::Mutex;
use tokio_postgres::NoTls;

use crate::{ConnectionString, Database, migrations};

/// Makes a cluster, says where it is, and runs it until standard input ends. Given: the folder for its folder.
const SCRIPT: &str = r#"
set -eu
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done
directory=$(mktemp -d "$1/hauberk-pg-XXXXXX")
trap 'rm -rf "$directory"' EXIT
initdb --pgdata="$directory/data" --auth=trust --username=farm --encoding=UTF8 --locale=C --no-sync \
    >"$directory/log" 2>&1 || { cat "$directory/log" >&2; exit 1; }
postgres -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 \
    -c shared_buffers=64MB </dev/null >>"$directory/log" 2>&1 &
server=$!
echo "$directory"
read -r _ || true
kill -QUIT $server
wait $server || true
"#;

const PATIENCE: Duration = Duration::from_secs(60);
const TEMPLATE: &str = "farm_template";

static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());
static COUNTER: AtomicU32 = AtomicU32::new(1);

/// A PostgreSQL cluster in a temporary folder, reached through a socket there. Gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    child: Child,
    directory: String,
}

impl Cluster {
    /// Makes a cluster and waits until it answers. As root it is run as user `postgres`.
    ///
    /// # Panics
    /// When PostgreSQL's programs are missing or do not work.
    pub async fn start() -> Self {
        let (child, directory) =
            tokio::task::spawn_blocking(spawn).await.expect("starting PostgreSQL does not panic");
        let cluster = Self { child, directory };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match cluster.location("postgres").config().connect(NoTls).await {
                Ok(_) => return cluster,
                Err(error) if Instant::now() > deadline => {
                    panic!("PostgreSQL in {} does not answer: {error:?}", cluster.directory)
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Gives the connection string of a database in it.
    pub fn location(&self, database: &str) -> ConnectionString {
        format!("host={} user=farm dbname={database}", self.directory)
            .parse()
            .expect("a plain connection string is read")
    }

    async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start().await);
        cluster.execute(&format!("create database {TEMPLATE}")).await;
        let template = Database::open(&cluster.location(TEMPLATE), 1).await.expect("the template opens");
        let mut client = template.client().await.expect("the template answers");
        migrations::migrate(&mut client, None).await.expect("the template migrates");
        drop((client, template));
        cluster.close_sessions(TEMPLATE).await;
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    async fn execute(&self, statement: &str) {
        let (client, connection) =
            self.location("postgres").config().connect(NoTls).await.expect("PostgreSQL answers");
        let (result, ended) = tokio::join!(
            async {
                let result = client.batch_execute(statement).await;
                drop(client);
                result
            },
            connection
        );
        result.expect("the statement runs");
        ended.expect("the connection ends in order");
    }

    /// A backend outlives its client for a moment; a template must have none.
    async fn close_sessions(&self, database: &str) {
        self.execute(&format!(
            "do $$ begin
               while exists (select from pg_stat_activity where datname = '{database}') loop
                 perform pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}';
                 perform pg_sleep(0.01);
                 perform pg_stat_clear_snapshot();
               end loop;
             end $$"
        ))
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself once its input has ended.
        let _ = self.child.wait();
    }
}

fn spawn() -> (Child, String) {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    // The path of the socket must stay under 107 bytes, so TMPDIR is not asked.
    command.args(["-c", SCRIPT, "sh", "/tmp"]).current_dir("/").process_group(0);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell can be run (as root also `setpriv`, of util-linux)");
    let mut directory = String::new();
    let output = child.stdout.take().expect("it was asked for");
    BufReader::new(output).read_line(&mut directory).expect("the shell can be read");
    if directory.is_empty() {
        let mut message = String::new();
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_string(&mut message).expect("the shell can be read");
        }
        panic!("cannot make a PostgreSQL cluster; are initdb and postgres installed?\n{message}");
    }
    (child, directory.trim_end().to_owned())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A migrated, empty database of its own for one test.
#[derive(Debug)]
pub struct TestDatabase {
    database: Database,
    // After the pool, so that the server outlives it.
    _cluster: Arc<Cluster>,
}

impl TestDatabase {
    /// Makes the database, and the cluster if this test is the first.
    ///
    /// # Panics
    /// When PostgreSQL's programs are missing or do not work.
    pub async fn new() -> Self {
        Self::make(&format!("template {TEMPLATE} strategy file_copy")).await
    }

    /// Makes a database without tables.
    ///
    /// # Panics
    /// When PostgreSQL's programs are missing or do not work.
    pub async fn empty() -> Self {
        Self::make("template template0").await
    }

    async fn make(options: &str) -> Self {
        let cluster = Cluster::shared().await;
        let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        cluster.execute(&format!("create database {name} {options}")).await;
        let database = Database::open(&cluster.location(&name), 8).await.expect("the database opens");
        Self { database, _cluster: cluster }
    }

    /// Gives the pool.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Tells where the database is.
    pub fn location(&self) -> &ConnectionString {
        self.database.location()
    }

    /// Takes a connection.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub async fn client(&self) -> Client {
        self.database.client().await.expect("PostgreSQL answers")
    }
}
