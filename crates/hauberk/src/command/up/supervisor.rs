//! Runs the processes of the farm, and starts again what ends by itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use futures::future::select_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::layout::Layout;
use crate::exit::{Exit, Failure};

/// How long a process may take to serve.
const START: Duration = Duration::from_secs(60);
/// The pause before a process is started again; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that ran so long has earned a short pause again.
const STEADY: Duration = Duration::from_secs(60);

/// A process to run: a subcommand of this very program.
pub(super) struct Program {
    name: &'static str,
    arguments: Vec<OsString>,
}

impl Program {
    pub(super) fn new(name: &'static str, arguments: Vec<OsString>) -> Self {
        Self { name, arguments }
    }
}

struct Running {
    program: Program,
    child: Child,
    since: Instant,
    pause: Duration,
    /// Says `READY=1` as `sd_notify` does.
    ready: UnixDatagram,
}

/// See the module's description.
pub(super) struct Supervisor {
    executable: PathBuf,
    run: PathBuf,
    database: String,
    json: bool,
    running: Vec<Running>,
}

impl Supervisor {
    /// Makes a supervisor of processes that use the database at `database`.
    pub(super) fn new(layout: &Layout, database: &str, json: bool) -> Result<Self, Failure> {
        let executable =
            std::env::current_exe().context("cannot find this program's file").map_err(Failure::other)?;
        Ok(Self { executable, run: layout.run(), database: database.to_owned(), json, running: Vec::new() })
    }

    /// Starts the programs one after the other, each when the one before it serves. False when `stop` came first.
    pub(super) async fn start(
        &mut self,
        programs: Vec<Program>,
        stop: &CancellationToken,
    ) -> Result<bool, Failure> {
        for program in programs {
            let name = program.name;
            let running = self.spawn(program, FIRST_PAUSE)?;
            self.running.push(running);
            let Some(running) = self.running.last_mut() else { return Ok(false) };
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                ready = timeout(START, wait_ready(&running.ready)) => match ready {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(Failure::other(error)),
                    Err(_) => {
                        return Err(Failure::other(anyhow!("{name} does not serve after {} s", START.as_secs())));
                    }
                },
                status = running.child.wait() => return Err(ended_at_start(name, status)),
            }
        }
        Ok(true)
    }

    /// Starts again what ends by itself, until `stop`.
    pub(super) async fn supervise(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        loop {
            let (index, status) = {
                let waits = self.running.iter_mut().map(|running| Box::pin(running.child.wait()));
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    (status, index, _) = select_all(waits) => (index, status),
                }
            };
            let ended = self.running.remove(index);
            let name = ended.program.name;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let pause = if ended.since.elapsed() >= STEADY { FIRST_PAUSE } else { ended.pause };
            warn!("{name} ended by itself ({status}); it is started again in {} s", pause.as_secs());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
            let again = self.spawn(ended.program, (pause * 2).min(LONGEST_PAUSE))?;
            self.running.insert(index, again);
        }
    }

    /// Ends all, the last started first, each within `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) {
        while let Some(mut running) = self.running.pop() {
            let name = running.program.name;
            let Some(pid) = running.child.id().and_then(|pid| i32::try_from(pid).ok()) else { continue };
            // It may have ended by itself just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            match timeout(grace, running.child.wait()).await {
                Ok(_) => info!("{name} has ended"),
                Err(_) => {
                    warn!("{name} does not end; it is killed");
                    if let Err(error) = running.child.kill().await {
                        warn!(error = &error as &dyn std::error::Error, "cannot kill {name}");
                    }
                }
            }
        }
    }

    fn spawn(&self, program: Program, pause: Duration) -> Result<Running, Failure> {
        let spawn = || -> anyhow::Result<Running> {
            let socket = self.run.join(format!("{}.ready", program.name));
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
                }
                _ => {}
            }
            let ready = UnixDatagram::bind(&socket)
                .with_context(|| format!("cannot listen on {}", socket.display()))?;
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig=TERM", "--"])
                .arg(&self.executable)
                .args(["--log-format", if self.json { "json" } else { "human" }])
                .arg(program.name)
                .args(&program.arguments)
                .env("HAUBERK_DATABASE", &self.database)
                .env("NOTIFY_SOCKET", &socket)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                // Ctrl-C is for the supervisor alone: it ends the processes in order.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("cannot start {}", program.name))?;
            if let Some(output) = child.stdout.take() {
                self.relay(program.name, output);
            }
            if let Some(log) = child.stderr.take() {
                self.relay(program.name, log);
            }
            Ok(Running { program, child, since: Instant::now(), pause, ready })
        };
        spawn().map_err(Failure::other)
    }

    /// Puts what a process logs into the one log, each line with the process's name.
    fn relay(&self, name: &'static str, log: impl AsyncRead + Unpin + Send + 'static) {
        let json = self.json;
        tokio::spawn(async move {
            let mut lines = BufReader::new(log).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if json { eprintln!("{line}") } else { eprintln!("{name:13} | {line}") }
            }
        });
    }
}

async fn wait_ready(socket: &UnixDatagram) -> anyhow::Result<()> {
    let mut message = [0; 1024];
    loop {
        let length = socket.recv(&mut message).await.context("cannot hear whether a process is ready")?;
        if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

/// A process that ends before it serves has told why; its code becomes ours.
fn ended_at_start(name: &str, status: std::io::Result<ExitStatus>) -> Failure {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return Failure::other(anyhow::Error::new(error).context(format!("cannot look after {name}")));
        }
    };
    let code = match status.code() {
        Some(2 | 3) => Exit::Configuration,
        Some(4) => Exit::Database,
        Some(5) => Exit::Listen,
        Some(6) => Exit::Daemon,
        Some(7) => Exit::Refused,
        _ => Exit::Other,
    };
    Failure::new(code, anyhow!("{name} did not start ({status}); its own message stands above"))
}
