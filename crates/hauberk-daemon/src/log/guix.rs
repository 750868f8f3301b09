//! The trace lines of a Guix daemon.

use std::collections::HashMap;

use hauberk_store::{DrvPath, StorePath};

use super::{LogEvent, LogSink};
use crate::failure::{FailureReason, named_derivation, strip_ansi};

/// What begins a trace line.
const MARK: &[u8] = b"@ ";

/// Longest trace line kept while its end has not arrived.
const LONGEST_TRACE: usize = 64 << 10;

/// Builds remembered at a time.
const MOST_BUILDS: usize = 1 << 16;

/// How a build ended, by the traces of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuixOutcome {
    Succeeded,
    Failed { reason: FailureReason, message: String },
}

/// Turns the lines of one operation into events, and remembers how builds ended.
#[derive(Debug)]
pub(crate) struct GuixLog {
    multiplexed: bool,
    /// Builders by process number.
    running: HashMap<u64, DrvPath>,
    /// How often each derivation's builder was started.
    started: HashMap<DrvPath, u32>,
    /// What the daemon's words said of failures.
    said: HashMap<DrvPath, (FailureReason, String)>,
    outcomes: HashMap<DrvPath, GuixOutcome>,
    /// The builder whose output goes on for so many bytes.
    output: Option<(u64, u64)>,
    /// A trace line whose end has not arrived.
    held: Vec<u8>,
}

impl GuixLog {
    /// Starts; `multiplexed` tells whether builders' output comes marked.
    pub(crate) fn new(multiplexed: bool) -> Self {
        Self {
            multiplexed,
            running: HashMap::new(),
            started: HashMap::new(),
            said: HashMap::new(),
            outcomes: HashMap::new(),
            output: None,
            held: Vec::new(),
        }
    }

    /// Gives how the build of `derivation` ended, if it did.
    pub(crate) fn outcome(&self, derivation: &DrvPath) -> Option<&GuixOutcome> {
        self.outcomes.get(derivation)
    }

    /// Gives how often the builder of `derivation` was started.
    pub(crate) fn times_started(&self, derivation: &DrvPath) -> u32 {
        self.started.get(derivation).copied().unwrap_or(0)
    }

    /// Gives what the daemon's words said about a failure of `derivation`.
    pub(crate) fn said(&self, derivation: &DrvPath) -> Option<&(FailureReason, String)> {
        self.said.get(derivation)
    }

    /// Reports what one frame tells.
    pub(crate) async fn next(&mut self, bytes: Vec<u8>, sink: &mut dyn LogSink) {
        if bytes.is_empty() {
            return;
        }
        let input = if self.held.is_empty() {
            bytes
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&bytes);
            held
        };
        if !self.multiplexed {
            // The daemon sends each trace in a frame of its own. What else looks like one is a builder's output.
            let alone = input.iter().position(|&byte| byte == b'\n') == Some(input.len() - 1);
            return if alone && input.starts_with(MARK) {
                self.trace(&input, sink).await;
            } else {
                self.words(&input, sink).await;
            };
        }
        let mut rest = input.as_slice();
        while !rest.is_empty() {
            if let Some((pid, left)) = self.output {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                self.output = Some((pid, left - taken as u64)).filter(|&(_, left)| left > 0);
                let derivation = self.running.get(&pid);
                sink.event(LogEvent::BuildOutput { derivation, bytes: &rest[..taken] }).await;
                rest = &rest[taken..];
            } else if rest.starts_with(MARK) || MARK.starts_with(rest) {
                match rest.iter().position(|&byte| byte == b'\n') {
                    Some(end) => {
                        self.trace(&rest[..=end], sink).await;
                        rest = &rest[end + 1..];
                    }
                    None if rest.len() < LONGEST_TRACE => {
                        self.held = rest.to_vec();
                        return;
                    }
                    None => {
                        self.words(rest, sink).await;
                        return;
                    }
                }
            } else {
                let end = rest.windows(3).position(|bytes| bytes == b"\n@ ").map_or(rest.len(), |at| at + 1);
                self.words(&rest[..end], sink).await;
                rest = &rest[end..];
            }
        }
    }

    /// Ends: what was held back for the end of its line is words.
    pub(crate) async fn finish(&mut self, sink: &mut dyn LogSink) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.words(&held, sink).await;
        }
    }

    /// Reports bytes that are no trace: words of the daemon or, where it does not mark it, output of a builder.
    async fn words(&mut self, bytes: &[u8], sink: &mut dyn LogSink) {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_TRACE)]);
        let text = strip_ansi(&text);
        if let (Some(reason), Some(derivation)) =
            (FailureReason::from_message(&text), named_derivation(&text))
        {
            if reason == FailureReason::Dependency {
                self.fail(derivation, reason, text.trim(), sink).await;
            } else if self.said.len() < MOST_BUILDS {
                self.said.insert(derivation, (reason, text.trim().to_owned()));
            }
        }
        if self.multiplexed || self.running.is_empty() {
            sink.event(LogEvent::Message { level: 3, bytes }).await;
        } else {
            let only = if self.running.len() == 1 { self.running.values().next() } else { None };
            sink.event(LogEvent::BuildOutput { derivation: only, bytes }).await;
        }
    }

    /// Reports a trace line, line end and all. What is none that is known counts as words.
    async fn trace(&mut self, line: &[u8], sink: &mut dyn LogSink) {
        let known = match std::str::from_utf8(line) {
            Ok(text) => self.known_trace(&text[MARK.len()..text.len() - 1], sink).await,
            Err(_) => None,
        };
        if known.is_none() {
            self.words(line, sink).await;
        }
    }

    async fn known_trace(&mut self, text: &str, sink: &mut dyn LogSink) -> Option<()> {
        let (kind, rest) = text.split_once(' ')?;
        let mut words = rest.split(' ');
        let first = words.next()?;
        match kind {
            "build-log" => {
                let (pid, length) = (first.parse().ok()?, words.next()?.parse().ok()?);
                self.output = Some((pid, length)).filter(|&(_, length)| length > 0);
            }
            "build-started" => {
                let derivation = DrvPath::parse(first).ok()?;
                let (_, _, log_file, pid) = (words.next()?, words.next()?, words.next()?, words.next()?);
                if self.started.len() < MOST_BUILDS {
                    *self.started.entry(derivation.clone()).or_default() += 1;
                    self.running.insert(pid.parse().ok()?, derivation.clone());
                }
                let log_file = Some(log_file).filter(|file| !file.is_empty());
                sink.event(LogEvent::BuildStarted { derivation: &derivation, machine: None, log_file }).await;
            }
            "build-succeeded" => {
                let derivation = DrvPath::parse(first).ok()?;
                self.stopped(&derivation);
                sink.event(LogEvent::BuildSucceeded { derivation: &derivation }).await;
                self.record(derivation, GuixOutcome::Succeeded);
            }
            "build-failed" => {
                let derivation = DrvPath::parse(first).ok()?;
                let rest = rest[first.len()..].strip_prefix(" - ")?;
                let (reason, message) = self.failure(&derivation, rest);
                self.fail(derivation, reason, &message, sink).await;
            }
            "hash-mismatch" => {
                let path = StorePath::parse(first).ok()?;
                let (algorithm, expected, actual) = (words.next()?, words.next()?, words.next()?);
                sink.event(LogEvent::HashMismatch { path: &path, algorithm, expected, actual }).await;
            }
            "substituter-started" => {
                let path = StorePath::parse(first).ok()?;
                sink.event(LogEvent::SubstitutionStarted { path: &path, from: None }).await;
            }
            "substituter-succeeded" => {
                let path = StorePath::parse(first).ok()?;
                sink.event(LogEvent::SubstitutionSucceeded { path: &path }).await;
            }
            "substituter-failed" => {
                let path = StorePath::parse(first).ok()?;
                let message = rest[first.len()..].trim_start();
                sink.event(LogEvent::SubstitutionFailed { path: &path, message }).await;
            }
            "download-started" | "download-progress" | "download-succeeded" => {
                let path = StorePath::parse(first).ok();
                let url = Some(words.next()?);
                let total = words.next()?.parse().ok();
                let done = match kind {
                    "download-started" => 0,
                    "download-progress" => words.next()?.parse().ok()?,
                    _ => total?,
                };
                sink.event(LogEvent::SubstitutionProgress { path: path.as_ref(), url, done, total }).await;
            }
            _ => return None,
        }
        Some(())
    }

    /// Reads what follows the dash of a `build-failed` trace: `1 MESSAGE`, `timeout` or `cached`.
    fn failure(&self, derivation: &DrvPath, rest: &str) -> (FailureReason, String) {
        let said = self.said.get(derivation);
        match rest.split_once(' ').unwrap_or((rest, "")) {
            ("timeout", _) => match said {
                Some((FailureReason::Silent, words)) => (FailureReason::Silent, words.clone()),
                Some((_, words)) => (FailureReason::TimedOut, words.clone()),
                None => (FailureReason::TimedOut, "build timed out".to_owned()),
            },
            ("cached", _) => (FailureReason::Cached, "build failed before".to_owned()),
            (_, message) => {
                let message = strip_ansi(message);
                let reason = FailureReason::from_message(&message);
                (reason.unwrap_or(FailureReason::Other), message)
            }
        }
    }

    async fn fail(
        &mut self,
        derivation: DrvPath,
        reason: FailureReason,
        message: &str,
        sink: &mut dyn LogSink,
    ) {
        self.stopped(&derivation);
        sink.event(LogEvent::BuildFailed { derivation: &derivation, reason: &reason, message }).await;
        self.record(derivation, GuixOutcome::Failed { reason, message: message.to_owned() });
    }

    fn stopped(&mut self, derivation: &DrvPath) {
        self.running.retain(|_, running| running != derivation);
    }

    fn record(&mut self, derivation: DrvPath, outcome: GuixOutcome) {
        if self.outcomes.len() < MOST_BUILDS {
            self.outcomes.insert(derivation, outcome);
        }
    }
}
