//! Child programs under supervision: a process group of their own, limits on time and output, an end on demand.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// What is kept of standard error for messages; the end of it.
const TAIL: usize = 16 * 1024;
/// Time to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// Time to wait for output that a grandchild may still hold open.
const DRAIN: Duration = Duration::from_secs(2);
const CHUNK: usize = 16 * 1024;

/// Bounds for a child program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long it may run.
    pub(crate) time: Duration,
    /// Bytes it may write to standard output.
    pub(crate) output: usize,
    /// Bytes of standard error that go to the log; the rest is dropped, and said so.
    pub(crate) log: u64,
}

/// How a child program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub(crate) errors: String,
}

impl Finished {
    /// Says in words how it ended.
    pub(crate) fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }
}

/// Why a child program did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot run `{program}`; is it installed and on PATH?")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its output could not be read, or its log not be written.
    #[error("lost the output of `{program}`")]
    Output {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ran too long and was killed.
    #[error("`{program}` was stopped after its time limit of {seconds} s")]
    TimedOut {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It wrote too much and was killed.
    #[error("`{program}` was stopped: it wrote more than {bytes} bytes")]
    TooMuchOutput {
        /// The program.
        program: String,
        /// The limit.
        bytes: usize,
    },
    /// We were asked to end.
    #[error("`{program}` was stopped because the register ends")]
    Stopped {
        /// The program.
        program: String,
    },
}

/// Runs a program to its end and gives what it wrote. Standard error also goes to `log`, as it comes.
pub(crate) async fn run(
    mut command: Command,
    limits: Limits,
    log: Option<tokio::fs::File>,
    stop: &CancellationToken,
) -> Result<Finished, ChildError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ChildError::Start { program: program.clone(), source })?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let signal = |signal: Signal| {
        if let Some(group) = group {
            // Nobody is left in the group: that is what was wanted.
            let _ = killpg(group, signal);
        }
    };
    let output = child.stdout.take().expect("it was asked for");
    let errors = child.stderr.take().expect("it was asked for");
    let (sender, mut outputs) = tokio::sync::mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let ended = tokio::try_join!(bounded(output, limits.output), logged(errors, log, limits.log));
        // Nobody waits any more when the program was killed.
        let _ = sender.send(ended).await;
    });

    let fault = |reason: Reason| match reason {
        Reason::Io(source) => ChildError::Output { program: program.clone(), source },
        Reason::TooMuch => ChildError::TooMuchOutput { program: program.clone(), bytes: limits.output },
    };
    let mut ended = None;
    let result = tokio::select! {
        result = async {
            loop {
                tokio::select! {
                    status = child.wait() => {
                        break status.map_err(|source| ChildError::Output { program: program.clone(), source });
                    }
                    outcome = outputs.recv(), if ended.is_none() => match outcome {
                        Some(Err(reason)) => break Err(fault(reason)),
                        outcome => ended = Some(outcome),
                    },
                }
            }
        } => result,
        () = tokio::time::sleep(limits.time) => {
            Err(ChildError::TimedOut { program: program.clone(), seconds: limits.time.as_secs() })
        }
        () = stop.cancelled() => Err(ChildError::Stopped { program: program.clone() }),
    };
    let status = match result {
        Ok(status) => status,
        Err(error) => {
            signal(Signal::SIGTERM);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                signal(Signal::SIGKILL);
                // It cannot refuse; only the kernel can delay it.
                let _ = child.wait().await;
            }
            signal(Signal::SIGKILL);
            reading.abort();
            return Err(error);
        }
    };
    let outcome = match ended {
        Some(outcome) => outcome,
        None => match tokio::time::timeout(DRAIN, outputs.recv()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                signal(Signal::SIGKILL);
                tokio::time::timeout(DRAIN, outputs.recv()).await.unwrap_or_default()
            }
        },
    };
    reading.abort();
    match outcome {
        Some(Ok((output, errors))) => Ok(Finished { status, output, errors }),
        Some(Err(reason)) => Err(fault(reason)),
        None => Err(fault(Reason::Io(std::io::ErrorKind::UnexpectedEof.into()))),
    }
}

/// Why reading ended early.
enum Reason {
    Io(std::io::Error),
    TooMuch,
}

impl From<std::io::Error> for Reason {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

async fn bounded(mut from: impl AsyncRead + Unpin, limit: usize) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(bytes);
        }
        if bytes.len() + count > limit {
            return Err(Reason::TooMuch);
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
}

async fn logged(
    mut from: impl AsyncRead + Unpin,
    mut log: Option<tokio::fs::File>,
    limit: u64,
) -> Result<String, Reason> {
    let mut tail = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = limit;
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&tail).into_owned());
        }
        if let Some(file) = &mut log {
            let part = usize::try_from(left).map_or(count, |left| left.min(count));
            file.write_all(&chunk[..part]).await?;
            left -= part as u64;
            if left == 0 {
                file.write_all(b"\n... the rest is left out\n").await?;
            }
            file.flush().await?;
            if left == 0 {
                log = None;
            }
        }
        tail.extend_from_slice(&chunk[..count]);
        if tail.len() > 2 * TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(60), output: 1000, log: 100 };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn output_errors_and_status_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let file = tokio::fs::File::create(&log).await.unwrap();
        let script =
            "echo out; echo err >&2; i=0; while [ $i -lt 30 ]; do echo more >&2; i=$((i+1)); done; exit 3";
        let finished = run(shell(script), LIMITS, Some(file), &CancellationToken::new()).await.unwrap();
        assert_eq!(finished.output, b"out\n");
        assert!(finished.errors.starts_with("err\nmore\n"));
        assert_eq!(finished.ending(), "exit code 3");
        let logged = std::fs::read_to_string(log).unwrap();
        assert!(logged.starts_with("err\n") && logged.ends_with("left out\n"), "{logged}");
        assert!(logged.len() < 150);
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_output_open_delays_nothing_for_long() {
        let begun = Instant::now();
        let stop = CancellationToken::new();
        let finished = run(shell("sleep 1000 & echo out"), LIMITS, None, &stop).await.unwrap();
        assert_eq!(finished.output, b"out\n");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn limits_and_the_stop_end_the_whole_group() {
        let stop = CancellationToken::new();
        let short = Limits { time: Duration::from_millis(200), ..LIMITS };
        let error = run(shell("sleep 1000"), short, None, &stop).await.unwrap_err();
        assert!(matches!(error, ChildError::TimedOut { .. }), "{error:?}");
        let error = run(shell("yes"), LIMITS, None, &stop).await.unwrap_err();
        assert!(matches!(error, ChildError::TooMuchOutput { .. }), "{error:?}");
        let error = run(Command::new("/nonexistent"), LIMITS, None, &stop).await.unwrap_err();
        assert!(matches!(error, ChildError::Start { .. }), "{error:?}");

        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pids.display());
        let ended = tokio::spawn({
            let stop = stop.clone();
            async move { run(shell(&script), LIMITS, None, &stop).await }
        });
        while !pids.exists() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        let error = ended.await.unwrap().unwrap_err();
        assert!(matches!(error, ChildError::Stopped { .. }), "{error:?}");
        let pid = std::fs::read_to_string(pids).unwrap();
        let process = std::path::PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let deadline = Instant::now() + Duration::from_secs(30);
        // Dead, if perhaps not reaped yet.
        while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "the grandchild lives on");
            tokio::task::yield_now().await;
        }
    }
}
