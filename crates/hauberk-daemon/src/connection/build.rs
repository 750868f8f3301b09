//! Building.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use hauberk_store::{OutputName, StoreDirectory, StorePath};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Connection,
    call::{Ended, Interpreter},
};
use crate::{
    build::{BuildMode, BuildResult, BuildStatus, BuildTarget, OutputSelection},
    error::{DaemonError, Violation},
    failure::{FailureReason, named_derivation, number_after, strip_ansi},
    frame::Reported,
    log::{GuixLog, GuixOutcome, LogEvent, LogSink},
    operation::Operation,
    options::ClientOptions,
    version::ProtocolVersion,
    wire::{Incoming, Limit, WireError, malformed},
};

/// The first version that tells processor time.
const TELLS_CPU: ProtocolVersion = ProtocolVersion::new(1, 37);

/// Guix: a builder failed.
const GUIX_BUILD_FAILED: u64 = 100;
/// Guix: a time limit.
const GUIX_TIMED_OUT: u64 = 101;

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_ensure_path(
        &mut self,
        path: &StorePath,
        log: &mut dyn LogSink,
    ) -> Result<(), DaemonError> {
        let mut call = self.call(Operation::EnsurePath)?;
        call.request.display(path);
        let mut interpreter = call.interpreter();
        match call.converse(&mut interpreter, log, None, None).await? {
            Ended::Well => {
                let number = call.incoming().number().await;
                call.wire(number)?;
                call.end(());
                Ok(())
            }
            Ended::Refused(reported) => Err(call.refused(reported)),
        }
    }

    pub(super) async fn do_build(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        if self.is_guix() {
            self.build_by_guix(targets, mode, log).await
        } else {
            self.build_by_nix(targets, mode, log).await
        }
    }

    async fn build_by_nix(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError> {
        let mut call = self.call(Operation::BuildPathsWithResults)?;
        call.request.texts(targets.iter().map(ToString::to_string).collect::<Vec<_>>().iter());
        call.request.number(mode.code());
        let mut interpreter = call.interpreter();
        if let Ended::Refused(reported) = call.converse(&mut interpreter, log, None, None).await? {
            return Err(call.refused(reported));
        }
        let (version, directory) = (call.version, call.directory.clone());
        let results = read_results(call.incoming(), version, &directory, targets).await;
        let results = call.wire(results)?;
        let mut results = call.end(results);
        for result in &mut results {
            tell_limits_apart(result, self.options.as_ref());
        }
        for result in &results {
            report(result, &interpreter, log).await;
        }
        Ok(results)
    }

    async fn build_by_guix(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError> {
        // The daemon tells neither what it did for each target nor what came of it, so both are found from the traces and
        // from what is valid before and after.
        let mut outputs = Vec::with_capacity(targets.len());
        for target in targets {
            outputs.push(self.selected_outputs(target).await?);
        }
        let paths: BTreeSet<StorePath> =
            outputs.iter().flat_map(|outputs| outputs.values().cloned()).collect();
        let before = self.do_query_valid_paths(&paths).await?;

        let mut call = self.call(Operation::BuildPaths)?;
        call.request.texts(targets.iter().map(guix_item).collect::<Vec<_>>().iter());
        call.request.number(mode.code());
        let mut interpreter = call.interpreter();
        let ended = call.converse(&mut interpreter, log, None, None).await?;
        let error = match ended {
            Ended::Well => {
                let number = call.incoming().number().await;
                call.wire(number)?;
                call.end(());
                None
            }
            Ended::Refused(reported) => {
                call.end(());
                Some(reported)
            }
        };
        let Interpreter::Guix(traces) = interpreter else {
            return Err(DaemonError::Protocol {
                operation: Operation::BuildPaths,
                violation: Violation::Text { what: "dialect", text: self.info.dialect.to_string() },
            });
        };
        if let Some(reported) = &error
            && !concerns(reported, targets, &traces)
        {
            let (message, status) = (reported.message.clone(), reported.status);
            return Err(DaemonError::Daemon { operation: Operation::BuildPaths, message, status });
        }
        let after = self.do_query_valid_paths(&paths).await?;
        let judge = Judge { mode, before, after, error, traces };
        Ok(targets.iter().zip(outputs).map(|(target, outputs)| judge.result(target, outputs)).collect())
    }

    /// Gives the outputs `target` asks for, by name; a path by itself counts as `out`.
    async fn selected_outputs(
        &mut self,
        target: &BuildTarget,
    ) -> Result<BTreeMap<OutputName, StorePath>, DaemonError> {
        match target {
            BuildTarget::Path(path) => Ok(BTreeMap::from([(OutputName::OUT, path.clone())])),
            BuildTarget::Derivation { derivation, outputs } => {
                let mut all = self.do_query_derivation_outputs(derivation).await?;
                if let OutputSelection::Named(names) = outputs {
                    all.retain(|name, _| names.contains(name));
                }
                Ok(all)
            }
        }
    }
}

/// Tells the limit on silence from that on time where the daemon's words do not: newer versions of Nix name the seconds alone.
fn tell_limits_apart(result: &mut BuildResult, options: Option<&ClientOptions>) {
    let Some(options) = options.filter(|_| result.status == BuildStatus::TimedOut) else { return };
    let seconds =
        number_after(&result.message, "timed out after ").and_then(|number| u64::try_from(number).ok());
    let is = |limit: Option<Duration>| limit.is_some_and(|limit| Some(limit.as_secs()) == seconds);
    if is(options.max_silent) && !is(options.timeout) {
        (result.status, result.reason) = (BuildStatus::Silent, Some(FailureReason::Silent));
    }
}

/// Reports the outcome of a build the results tell of, unless it was reported before.
async fn report(result: &BuildResult, interpreter: &Interpreter, log: &mut dyn LogSink) {
    let Some(derivation) = result.target.derivation() else { return };
    if matches!(interpreter, Interpreter::Nix(before) if before.has_failed(derivation)) {
        return;
    }
    if result.status == BuildStatus::Built {
        log.event(LogEvent::BuildSucceeded { derivation }).await;
    } else if !result.status.is_success() {
        let reason = result.reason.as_ref().unwrap_or(&FailureReason::Other);
        log.event(LogEvent::BuildFailed { derivation, reason, message: &result.message }).await;
    }
}

/// Spells a target for Guix: a derivation by itself means all its outputs.
fn guix_item(target: &BuildTarget) -> String {
    match target {
        BuildTarget::Derivation { derivation, outputs: OutputSelection::All } => derivation.to_string(),
        BuildTarget::Derivation { outputs: OutputSelection::Named(_), .. } | BuildTarget::Path(_) => {
            target.to_string()
        }
    }
}

/// Tells whether an error of a whole request is about its targets, and not a refusal of the request.
fn concerns(reported: &Reported, targets: &[BuildTarget], traces: &GuixLog) -> bool {
    let failed = |target: &BuildTarget| {
        target.derivation().is_some_and(|derivation| {
            matches!(traces.outcome(derivation), Some(GuixOutcome::Failed { .. }))
                || traces.said(derivation).is_some()
        })
    };
    matches!(reported.status, GUIX_BUILD_FAILED | GUIX_TIMED_OUT)
        || FailureReason::from_message(&reported.message).is_some()
        || (reported.message.starts_with("build of ") && reported.message.ends_with("failed"))
        || targets.iter().any(failed)
}

/// Finds out what came of each target of a Guix daemon.
struct Judge {
    mode: BuildMode,
    before: BTreeSet<StorePath>,
    after: BTreeSet<StorePath>,
    error: Option<Reported>,
    traces: GuixLog,
}

impl Judge {
    fn result(&self, target: &BuildTarget, outputs: BTreeMap<OutputName, StorePath>) -> BuildResult {
        let mut result = BuildResult::new(target.clone(), BuildStatus::Misc);
        if let Some(derivation) = target.derivation() {
            result.times_built = self.traces.times_started(derivation);
        }
        match self.failure(target, &outputs) {
            None => {
                result.status = self.success(target, &outputs);
                result.outputs = outputs;
            }
            Some((status, reason, message)) => {
                (result.status, result.reason, result.message) = (status, reason, message);
            }
        }
        result
    }

    fn success(&self, target: &BuildTarget, outputs: &BTreeMap<OutputName, StorePath>) -> BuildStatus {
        if target.derivation().is_some_and(|derivation| self.traces.times_started(derivation) > 0) {
            BuildStatus::Built
        } else if outputs.values().all(|path| self.before.contains(path)) {
            BuildStatus::AlreadyValid
        } else {
            BuildStatus::Substituted
        }
    }

    /// Gives how and why `target` failed, or nothing if it did not.
    fn failure(
        &self,
        target: &BuildTarget,
        outputs: &BTreeMap<OutputName, StorePath>,
    ) -> Option<(BuildStatus, Option<FailureReason>, String)> {
        let derivation = target.derivation();
        if let Some(GuixOutcome::Failed { reason, message }) =
            derivation.and_then(|derivation| self.traces.outcome(derivation))
        {
            return Some((status(reason), Some(reason.clone()), message.clone()));
        }
        let valid = outputs.values().all(|path| self.after.contains(path));
        let Some(error) = &self.error else {
            return (!valid).then(|| {
                let message = "the daemon reports success but the outputs are not valid".to_owned();
                let status =
                    if derivation.is_none() { BuildStatus::NoSubstituters } else { BuildStatus::Misc };
                (status, None, message)
            });
        };
        // A failed check leaves the outputs valid, and is told by the error alone.
        let named = named_derivation(&error.message);
        let meant = named.is_none() || named.as_ref() == derivation;
        if valid && !(self.mode == BuildMode::Check && meant) {
            return None;
        }
        if !meant {
            let message = format!("not built: {}", error.message);
            return Some((BuildStatus::Cancelled, None, message));
        }
        let said = derivation.and_then(|derivation| self.traces.said(derivation));
        if let Some((reason, message)) = said {
            return Some((status(reason), Some(reason.clone()), message.clone()));
        }
        let reason = FailureReason::from_message(&error.message);
        let status = match (&reason, error.status) {
            (Some(reason), _) => status(reason),
            (None, GUIX_BUILD_FAILED) => BuildStatus::PermanentFailure,
            (None, GUIX_TIMED_OUT) => BuildStatus::TimedOut,
            (None, _) => BuildStatus::Misc,
        };
        Some((status, reason, error.message.clone()))
    }
}

/// Gives the status that goes with a reason.
const fn status(reason: &FailureReason) -> BuildStatus {
    match reason {
        FailureReason::ExitCode(_) | FailureReason::Signal(_) => BuildStatus::PermanentFailure,
        FailureReason::TimedOut => BuildStatus::TimedOut,
        FailureReason::Silent => BuildStatus::Silent,
        FailureReason::LogLimit => BuildStatus::LogLimitExceeded,
        FailureReason::HashMismatch | FailureReason::OutputMissing => BuildStatus::OutputRejected,
        FailureReason::NotDeterministic => BuildStatus::NotDeterministic,
        FailureReason::Dependency => BuildStatus::DependencyFailed,
        FailureReason::Cached => BuildStatus::CachedFailure,
        FailureReason::Platform => BuildStatus::InputRejected,
        FailureReason::Other => BuildStatus::Misc,
    }
}

/// Reads the results of a Nix daemon and puts them in the order of `targets`.
async fn read_results<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    version: ProtocolVersion,
    directory: &StoreDirectory,
    targets: &[BuildTarget],
) -> Result<Vec<BuildResult>, WireError> {
    let asked: HashMap<String, &BuildTarget> =
        targets.iter().map(|target| (target.to_string(), target)).collect();
    let mut found = HashMap::new();
    for _ in 0..incoming.count(Limit::ENTRIES).await? {
        let name = incoming.text(Limit::WORD).await?;
        let &target = asked.get(&name).ok_or_else(|| malformed("target that was asked for", &name))?;
        found.insert(target, read_result(incoming, version, directory, target).await?);
    }
    let take = |target: &BuildTarget| {
        found.get(target).cloned().unwrap_or_else(|| {
            let mut result = BuildResult::new(target.clone(), BuildStatus::Misc);
            result.message = "the daemon tells no result".to_owned();
            result
        })
    };
    Ok(targets.iter().map(take).collect())
}

async fn read_result<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    version: ProtocolVersion,
    directory: &StoreDirectory,
    target: &BuildTarget,
) -> Result<BuildResult, WireError> {
    let number = incoming.number().await?;
    let message = strip_ansi(&incoming.message().await?);
    let message = message.trim().strip_prefix("error: ").unwrap_or(message.trim()).to_owned();
    let reason = FailureReason::from_message(&message);
    let status = nix_status(number, reason.as_ref())
        .ok_or(Violation::Number { what: "build status", value: number })?;
    let mut result = BuildResult::new(target.clone(), status);
    result.times_built = incoming.small("number of builds").await?;
    let different = incoming.flag().await?;
    result.start_time = Some(incoming.number().await?).filter(|&time| time > 0);
    result.stop_time = Some(incoming.number().await?).filter(|&time| time > 0);
    if version >= TELLS_CPU {
        result.cpu_user = read_duration(incoming).await?;
        result.cpu_system = read_duration(incoming).await?;
    }
    for _ in 0..incoming.count(Limit::ENTRIES).await? {
        let (name, path) = read_realisation(incoming, directory).await?;
        result.outputs.insert(name, path);
    }
    if status == BuildStatus::Built {
        // Newer versions of Nix do not count.
        result.times_built = result.times_built.max(1);
    }
    if !status.is_success() {
        result.message = message;
        result.reason = reason.or(different.then_some(FailureReason::NotDeterministic));
        result.outputs.clear();
    }
    Ok(result)
}

/// Reads the status of a Nix daemon. It has one for both time limits; its words tell them apart.
fn nix_status(number: u64, reason: Option<&FailureReason>) -> Option<BuildStatus> {
    Some(match number {
        0 => BuildStatus::Built,
        1 => BuildStatus::Substituted,
        2 | 13 => BuildStatus::AlreadyValid, // 13: after resolving its inputs
        3 => BuildStatus::PermanentFailure,
        4 => BuildStatus::InputRejected,
        5 | 15 => BuildStatus::OutputRejected, // 15: hash mismatch
        6 => BuildStatus::TransientFailure,
        7 => BuildStatus::CachedFailure,
        8 if reason == Some(&FailureReason::Silent) => BuildStatus::Silent,
        8 => BuildStatus::TimedOut,
        9 => BuildStatus::Misc,
        10 => BuildStatus::DependencyFailed,
        11 => BuildStatus::LogLimitExceeded,
        12 => BuildStatus::NotDeterministic,
        14 => BuildStatus::NoSubstituters,
        16 => BuildStatus::Cancelled,
        _ => return None,
    })
}

async fn read_duration<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
) -> Result<Option<Duration>, WireError> {
    match incoming.number().await? {
        0 => Ok(None),
        1 => Ok(Some(Duration::from_micros(incoming.number().await?))),
        value => Err(Violation::Number { what: "presence of a duration", value }.into()),
    }
}

/// Reads an output's name off its id, `HASH!NAME`, and its path out of the JSON text that follows.
async fn read_realisation<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    directory: &StoreDirectory,
) -> Result<(OutputName, StorePath), WireError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Realisation {
        out_path: String,
    }
    let id = incoming.text(Limit::WORD).await?;
    let name = id.rsplit_once('!').and_then(|(_, name)| OutputName::parse(name).ok());
    let name = name.ok_or_else(|| malformed("output id", &id))?;
    let text = incoming.text(Limit::REALISATION).await?;
    let path = serde_json::from_str::<Realisation>(&text)
        .ok()
        .and_then(|realisation| StorePath::from_base_name(directory, &realisation.out_path).ok());
    Ok((name, path.ok_or_else(|| malformed("realisation", &text))?))
}
