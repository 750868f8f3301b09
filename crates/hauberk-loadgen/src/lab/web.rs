//! The real `hauberk web` as a process.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::Lab;
use crate::http::BlockingClient;

/// Who does not answer by then will not.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A web process that runs. It is killed when dropped, and also when this process is.
#[derive(Debug)]
pub(crate) struct WebProcess {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl WebProcess {
    /// Starts it on a free port of the loopback interface, and waits until it answers.
    pub(crate) async fn start(lab: &Lab) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
        let port = listener.local_addr().context("reading the free port")?.port();
        drop(listener);
        let log = lab.directory().join("web.log");
        let output = File::options().create(true).append(true).open(&log).context("making web's log")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&lab.program).args(["--log-format", "human", "web"]);
        command.arg("--database").arg(lab.postgres.location()?.reveal());
        command.args(["--listen", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--cache").arg(lab.cache());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().context("starting hauberk web through setpriv")?;
        let mut web = Self { child, port, log };
        let deadline = Instant::now() + PATIENCE;
        while web.client().is_err() {
            let ended = web.child.try_wait().context("looking after web")?;
            if ended.is_some() || Instant::now() > deadline {
                let tail = super::tail(&fs::read_to_string(&web.log).unwrap_or_default());
                bail!("hauberk web does not answer ({ended:?}); its log ends:\n{tail}");
            }
            sleep(LOOK).await;
        }
        Ok(web)
    }

    /// Connects to it.
    pub(crate) fn client(&self) -> Result<BlockingClient> {
        BlockingClient::connect(self.port)
    }
}

impl Drop for WebProcess {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
