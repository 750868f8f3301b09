//! A throw-away PostgreSQL that waits for the disk as a real one does.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use hauberk_database::ConnectionString;

/// Makes a cluster, says so, and runs it until standard input ends. Given: the directory it is made in, its settings,
/// and the data of a cluster to copy, or nothing.
const SCRIPT: &str = r#"
set -eu
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done
cd "$1"
if [ -n "$3" ]; then
    cp -a "$3" data
    # Else the copy is still on its way to the disk while commits wait for theirs.
    sync -f data
else
    initdb --pgdata=data --auth=trust --username=farm --encoding=UTF8 --locale=C >log 2>&1 || { cat log >&2; exit 1; }
fi
settings=$2
postgres -D data -c listen_addresses= -c unix_socket_directories="$1" $settings </dev/null >>log 2>&1 &
server=$!
until pg_isready --quiet --host="$1" --username=farm --dbname=postgres; do
    kill -0 $server || { cat log >&2; exit 1; }
    sleep 0.02
done
if [ -z "$3" ]; then
    createdb --host="$1" --username=farm farm >>log 2>&1 || { cat log >&2; exit 1; }
fi
echo "$server"
read -r _ || true
kill -INT $server
wait $server || true
"#;

/// What differs from PostgreSQL's own settings: memory and log space of a small server. `fsync`, `synchronous_commit` and
/// `full_page_writes` are on, as they are by default.
pub(crate) const SETTINGS: &str =
    "-c shared_buffers=512MB -c max_wal_size=4GB -c max_connections=200 -c track_io_timing=on";

/// A PostgreSQL cluster, reached through a socket in its directory. It ends when dropped, and also when this process is killed.
#[derive(Debug)]
pub(crate) struct Postgres {
    shell: Child,
    process: u32,
    directory: PathBuf,
}

impl Postgres {
    /// Makes a cluster in `directory`, which exists, with an empty database, or with all that the data of another cluster hold. As root
    /// it is run as user `postgres`. `more_settings` are further arguments, parted by blanks.
    pub(crate) fn start(directory: &Path, like: Option<&Path>, more_settings: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres")?
                .context("there is no user postgres: install Debian's package postgresql")?;
            chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .with_context(|| format!("giving {} to user postgres", directory.display()))?;
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
        }
        command.args(["-c", SCRIPT, "sh"]).arg(directory).arg(format!("{SETTINGS} {more_settings}"));
        command.arg(like.unwrap_or(Path::new("")));
        // Away from the terminal's Ctrl-C: the laboratory ends it in order.
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn().context("running a shell for PostgreSQL")?;
        let mut line = String::new();
        if let Some(output) = shell.stdout.take() {
            BufReader::new(output).read_line(&mut line).context("waiting for PostgreSQL")?;
        }
        let Ok(process) = line.trim().parse() else {
            let mut message = String::new();
            if let Some(mut errors) = shell.stderr.take() {
                errors.read_to_string(&mut message).context("reading PostgreSQL's complaint")?;
            }
            bail!(
                "PostgreSQL does not start; is Debian's package postgresql installed?\n{}",
                message.trim_end()
            );
        };
        Ok(Self { shell, process, directory: directory.to_owned() })
    }

    /// Gives what `--database` wants.
    pub(crate) fn location(&self) -> Result<ConnectionString> {
        let text = format!("host={} user=farm dbname=farm", self.directory.display());
        text.parse().context("naming the database")
    }

    /// Ends it, and gives its data.
    pub(crate) fn into_data(self) -> PathBuf {
        self.directory.join("data")
    }

    /// Gives the id of its first process, the parent of the others.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Gives the end of its log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        super::tail(&fs::read_to_string(self.directory.join("log")).unwrap_or_default())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It ends by itself once its input has ended.
        let _ = self.shell.wait();
    }
}
