//! A running program that is watched and ended.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, net::UnixDatagram, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    launch::Launch,
    spawn::spawn,
    wait::{Deadline, wait_for},
};

/// How much of a log an error shows.
const TAIL_LINES: usize = 40;

/// A program that runs, with its output in a file. It is killed when the guard is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    launch: Launch,
    child: Child,
    /// The program's own id, as this computer numbers it; that of `child` unless that is a wrapper.
    id: u32,
    log: PathBuf,
    notices: UnixDatagram,
    ready: bool,
    ended: Option<ExitStatus>,
    /// Its end was waited for: it is no surprise.
    released: bool,
}

impl Process {
    pub(crate) fn start(launch: Launch, name: &str, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        // The socket on which programs tell their supervisor that they are ready (sd_notify(3)).
        let socket = directory.join(format!("{name}.notify"));
        let _ = fs::remove_file(&socket);
        let notices = UnixDatagram::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        notices.set_read_timeout(Some(Duration::from_millis(20)))?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = launch.clone().env("NOTIFY_SOCKET", &socket).command();
        command.stdout(output.try_clone()?).stderr(output);
        let mut child = spawn(command).with_context(|| format!("starting {launch}"))?;
        let mut id = child.id();
        if launch.is_wrapped() {
            id = wait_for(&format!("{name} starts"), Deadline::seconds(10), || {
                if let Some(inner) = children_of(child.id()).first() {
                    return Ok(Some(*inner));
                }
                // It may have come and gone already.
                Ok(child.try_wait()?.map(|_| child.id()))
            })?;
        }
        Ok(Self {
            name: name.to_owned(),
            launch,
            child,
            id,
            log,
            notices,
            ready: false,
            ended: None,
            released: false,
        })
    }

    /// Gives the name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives its process id, as this computer numbers it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Gives the file that holds its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Gives everything it has written so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Gives the end of its output, for messages.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Gives the exit status if it has ended.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// It has ended; the message holds the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.dead(status)),
        }
    }

    /// Checks that it has not ended unless somebody ended it or waited for its end.
    ///
    /// # Errors
    /// It has; the message holds the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if self.released { Ok(()) } else { self.check_alive() }
    }

    fn dead(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!("{} ended by itself, {status}; its log ends:\n{}", self.name, self.log_tail())
    }

    /// Waits until it says that it is ready (READY=1 on its notification socket).
    ///
    /// # Errors
    /// It ends before, or says nothing in time; the message holds the end of its log.
    pub fn wait_ready(&mut self, deadline: Deadline) -> Result<()> {
        while !self.ready {
            let mut notice = [0; 4096];
            match self.notices.recv(&mut notice) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&notice[..length]);
                    self.ready = text.lines().any(|line| line == "READY=1");
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.check_alive()?;
                    if deadline.is_over() {
                        bail!(
                            "{} was not ready within {:?}; its log ends:\n{}",
                            self.name,
                            deadline.patience(),
                            self.log_tail()
                        );
                    }
                }
                Err(error) => return Err(error).context("waiting for a readiness notice"),
            }
        }
        Ok(())
    }

    /// Waits until `text` is in its log.
    ///
    /// # Errors
    /// It ends before, or the text does not come in time.
    pub fn wait_log(&mut self, text: &str, deadline: Deadline) -> Result<()> {
        let what = format!("{} says {text:?}", self.name);
        let outcome = wait_for(&what, deadline, || {
            if self.log_text().contains(text) {
                return Ok(Some(()));
            }
            self.check_alive().map(|()| None)
        });
        outcome.with_context(|| format!("its log ends:\n{}", self.log_tail()))
    }

    /// Waits until it ends by itself and gives its exit status.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait_end(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        self.released = true;
        let what = format!("{} ends", self.name);
        let outcome = wait_for(&what, deadline, || self.try_wait());
        outcome.with_context(|| format!("its log ends:\n{}", self.log_tail()))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            return Err(self.dead(status));
        }
        kill(pid(self.id), signal).with_context(|| format!("sending {signal} to {}", self.name))?;
        if signal == Signal::SIGCONT {
            // What started it stops when it is stopped, and would not see its end.
            let _ = kill(pid(self.child.id()), signal);
        }
        Ok(())
    }

    /// Kills it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended already, or does not go.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = self.wait_end(Deadline::seconds(10))?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!(
                "{} ended with {status} before it was killed; its log ends:\n{}",
                self.name,
                self.log_tail()
            );
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and checks that it does so in order: status 0, and none of its children left.
    ///
    /// # Errors
    /// It ended before, does not end in time, ends with another status, or leaves a child.
    pub fn stop(&mut self, deadline: Deadline) -> Result<()> {
        let before = descendants_of(self.id);
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_end(deadline)?;
        if !status.success() {
            bail!(
                "{} was asked to end and ended with {status}; its log ends:\n{}",
                self.name,
                self.log_tail()
            );
        }
        // A child that its parent killed may still be on its way out.
        wait_for(&format!("the children of {} are gone", self.name), Deadline::seconds(5), || {
            Ok(before.iter().all(|child| !child.is_alive()).then_some(()))
        })
        .with_context(|| format!("children before the end: {before:?}"))
    }

    /// Starts the same program again under the same name; its log goes on in the same file.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.try_wait()?.is_none() {
            bail!("{} still runs", self.name);
        }
        let directory = self.log.parent().context("a log lies in a directory")?.to_owned();
        *self = Self::start(self.launch.clone(), &self.name, &directory)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.try_wait() {
            let _ = kill(pid(self.id), Signal::SIGKILL);
            let _ = kill(pid(self.child.id()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A process and when it started, so that a later one with the same number is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    id: u32,
    command: String,
    started: String,
}

impl Known {
    fn look_up(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        if fields.next() == Some("Z") {
            return None;
        }
        Some(Self {
            id,
            command: head.split_once('(').map_or("", |(_, command)| command).to_owned(),
            // Field 22; the state was field 3.
            started: fields.nth(18)?.to_owned(),
        })
    }

    fn is_alive(&self) -> bool {
        Self::look_up(self.id).is_some_and(|now| now.started == self.started)
    }
}

fn descendants_of(id: u32) -> Vec<Known> {
    let mut found = Vec::new();
    let mut open = vec![id];
    while let Some(parent) = open.pop() {
        for child in children_of(parent) {
            found.extend(Known::look_up(child));
            open.push(child);
        }
    }
    found
}

/// Gives the ids of the children of a process.
pub(crate) fn children_of(id: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| {
            children.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("process ids are small"))
}
