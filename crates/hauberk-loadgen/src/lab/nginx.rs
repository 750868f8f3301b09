//! nginx as the peer that sends files.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One that does not listen by then will not.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// nginx with sendfile, keep-alive without end, no logs, a process for each core. It ends when dropped, and also when this
/// process is killed.
#[derive(Debug)]
pub(crate) struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    /// Serves the files of `root`; its own go to `directory`, which exists. Nothing where nginx is not installed.
    pub(crate) fn start(root: &Path, directory: &Path) -> Result<Option<Self>> {
        // Free at this moment; nginx cannot choose one.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.context("looking for a free port")?.port();
        let (files, own) = (root.display(), directory.display());
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "daemon off; {user} worker_processes auto; pid {own}/pid; error_log {own}/errors;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n\
             client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f;\n\
             uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
             server {{ listen 127.0.0.1:{port}; root {files}; }} }}\n"
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).with_context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new("setpriv");
        let path = std::env::var("PATH").unwrap_or_default();
        // Debian has it where users do not look.
        command.env("PATH", format!("{path}:/usr/sbin"));
        command
            .args(["--pdeathsig", "TERM", "nginx", "-c"])
            .arg(&file)
            .arg("-e")
            .arg(directory.join("errors"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().context("starting nginx through setpriv")?;
        let mut nginx = Self { child, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = nginx.child.try_wait().context("looking after nginx")? {
                // As setpriv ends where there is no such program.
                if status.code() == Some(127) {
                    return Ok(None);
                }
                let errors = fs::read_to_string(directory.join("errors")).unwrap_or_default();
                bail!("nginx ended with {status}:\n{}", super::tail(&errors));
            }
            if Instant::now() > deadline {
                bail!("nginx does not listen");
            }
            std::thread::sleep(LOOK);
        }
        Ok(Some(nginx))
    }

    /// Gives its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let process = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(process) = process {
            // It ends its own children in turn; both fail when it has ended already.
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
