//! One attempt: the derivation, its inputs, the build, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hauberk_daemon::{BuildDaemon, BuildMode, BuildTarget, ClientOptions, DaemonError};
use hauberk_protocol::proto::{DeclineReason, Origin, Outcome, OutputInfo};
use hauberk_store::nar::{Limits, Node};
use hauberk_store::{Derivation, Sha256, StorePath};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::health::Witness;
use super::inputs::{Fetched, InputError, Sources};
use super::memory::Meter;
use super::oom::OomKills;
use super::processes::ProcessId;
use super::sink::BuildLog;
use super::verdict::{self, Verdict};
use super::{Machine, sources};
use crate::assignment::{Assignment, AttemptKind};
use crate::builder::{AttemptContext, BuildReport, DeclineReport, Report};

/// The largest derivation that is read, in bytes of its nar.
const LARGEST_DERIVATION: u64 = 64 << 20;

/// Most missing paths that a result lists.
const MOST_MISSING: usize = 10_000;

/// How much later than the daemon the worker itself ends a build that is over its time.
const OVERTIME: Duration = Duration::from_secs(60);

/// An end of an attempt before its build.
enum Early {
    Report(Report),
    Daemon(DaemonError),
}

impl From<DaemonError> for Early {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error)
    }
}

impl From<BuildReport> for Early {
    fn from(report: BuildReport) -> Self {
        Self::Report(Report::Finished(report))
    }
}

impl From<DeclineReport> for Early {
    fn from(report: DeclineReport) -> Self {
        Self::Report(Report::Declined(report))
    }
}

/// Runs an attempt and writes its end to its log.
pub(super) async fn run(machine: &Machine, assignment: &Assignment, context: &AttemptContext) -> Report {
    let begun = Instant::now();
    let mut witness = machine.disks.witness();
    context.log.note(&format!(
        "worker {}, attempt {} of build {}: {}",
        machine.name, assignment.attempt, assignment.build, assignment.derivation
    ));
    let ended = Run { machine, assignment, context, witness: &mut witness, begun, inputs: None }.run().await;
    let report = match ended {
        Ok(report) => Report::Finished(report),
        Err(Early::Report(report)) => report,
        Err(Early::Daemon(error)) => {
            let _ = witness.look();
            Report::Finished(match witness.disk_full() {
                Some(full) => BuildReport::failure(Outcome::DiskFull, full),
                None => BuildReport::failure(Outcome::Daemon, chain(&error)),
            })
        }
    };
    match &report {
        Report::Finished(report) if report.outcome == Outcome::Succeeded => {
            let seconds = begun.elapsed().as_secs_f64();
            info!("built {} in {seconds:.1} s", assignment.derivation);
            context.log.note(&format!("succeeded after {seconds:.1} s"));
        }
        Report::Finished(report) => {
            let outcome = report.outcome.as_str_name();
            info!(build.outcome = outcome, "attempt {} failed: {}", assignment.attempt, report.message);
            context.log.note(&format!("failed: {}", report.message));
        }
        Report::Declined(declined) => context.log.note(&format!("declined: {}", declined.message)),
    }
    report
}

struct Run<'a> {
    machine: &'a Machine,
    assignment: &'a Assignment,
    context: &'a AttemptContext,
    witness: &'a mut Witness,
    begun: Instant,
    /// How long the inputs took, once they are there.
    inputs: Option<Duration>,
}

impl Run<'_> {
    async fn run(mut self) -> Result<BuildReport, Early> {
        let sources =
            sources(&self.context.server, self.assignment, &self.machine.substitutes).map_err(|error| {
                BuildReport::failure(
                    Outcome::Transfer,
                    format!("the server's publish URL cannot be used: {error}"),
                )
            })?;
        // This connection keeps everything the attempt needs from being collected, and builds.
        let Machine { memory, address, connect, .. } = self.machine;
        let (mut daemon, serving) = memory.connect(address, connect).await?;
        daemon.set_options(&self.options()).await?;
        for output in self.assignment.outputs.values() {
            daemon.add_temp_root(output).await?;
        }
        self.fetch("the derivation", [self.assignment.derivation.as_path().clone()], &sources, &mut daemon)
            .await?;
        let derivation = self.read_derivation(&mut daemon).await?;
        self.check_derivation(&derivation)?;

        let wanted: BTreeSet<StorePath> = self.assignment.outputs.values().cloned().collect();
        let all_valid = daemon.query_valid_paths(&wanted).await? == wanted;
        let is_check = self.assignment.kind == AttemptKind::Check;
        if all_valid && !is_check {
            self.context.log.note("the outputs are in this machine's store already");
            return self.success(Origin::AlreadyValid, Measured::default(), &mut daemon).await;
        }
        let inputs = direct_inputs(&derivation, &mut daemon).await?;
        self.compare_inputs(&sources, &mut daemon).await?;
        self.fetch("inputs", inputs, &sources, &mut daemon).await?;
        self.inputs = Some(self.begun.elapsed());

        let mode = if all_valid { BuildMode::Check } else { BuildMode::Normal };
        if mode == BuildMode::Normal {
            self.check_plan(&mut daemon).await?;
        }
        self.context.building(self.begun.elapsed());
        self.build(mode, &mut daemon, serving).await
    }

    fn options(&self) -> ClientOptions {
        ClientOptions {
            max_jobs: Some(1),
            cores: Some(self.assignment.cores.unwrap_or(self.machine.cores)),
            timeout: self.assignment.limits.timeout,
            max_silent: self.assignment.limits.max_silent,
            ..ClientOptions::default()
        }
    }

    async fn fetch(
        &mut self,
        what: &str,
        roots: impl IntoIterator<Item = StorePath>,
        sources: &Sources,
        daemon: &mut dyn BuildDaemon,
    ) -> Result<(), Early> {
        let log = &self.context.log;
        let plan = |planned: Fetched| {
            log.note(&format!(
                "fetching {what}: {} paths, {:.1} MiB",
                planned.paths,
                planned.bytes as f64 / f64::from(1 << 20)
            ));
        };
        let Err(error) = self.machine.fetcher.ensure(roots, sources, daemon, plan).await else {
            return Ok(());
        };
        let _ = self.witness.look();
        let message = chain(&error);
        let mut report = match (self.witness.disk_full(), error) {
            (Some(full), _) => BuildReport::failure(Outcome::DiskFull, full),
            (None, InputError::Missing(paths)) => BuildReport {
                missing: paths.iter().take(MOST_MISSING).map(ToString::to_string).collect(),
                ..BuildReport::failure(Outcome::MissingInputs, message)
            },
            (None, InputError::Transfer { .. }) => BuildReport::failure(Outcome::Transfer, message),
            (None, InputError::Daemon { .. } | InputError::Ask(_)) => {
                BuildReport::failure(Outcome::Daemon, message)
            }
            (None, InputError::Closure(_)) => BuildReport::failure(Outcome::Transfer, message),
        };
        report.inputs = self.begun.elapsed();
        Err(report.into())
    }

    async fn read_derivation(&self, daemon: &mut dyn BuildDaemon) -> Result<Derivation, Early> {
        let path = self.assignment.derivation.as_path();
        let unreadable = |why: String| {
            BuildReport::failure(Outcome::Daemon, format!("cannot read {path} from the store: {why}"))
        };
        let size = daemon.query_path_info(path).await?.map_or(0, |info| info.nar_size);
        if size > LARGEST_DERIVATION {
            return Err(unreadable(format!("it has {size} bytes")).into());
        }
        let mut nar = Vec::new();
        daemon.nar_from_path(path, &mut nar).await?;
        let node = Node::from_nar(&nar, Limits::with_size(LARGEST_DERIVATION))
            .map_err(|error| unreadable(error.to_string()))?;
        let Node::File { contents, .. } = node else {
            return Err(unreadable("it is no file".to_owned()).into());
        };
        Ok(Derivation::parse(&self.machine.store_directory, &contents)
            .map_err(|error| unreadable(error.to_string()))?)
    }

    /// Refuses what this worker cannot build, or what is not what the server meant.
    fn check_derivation(&self, derivation: &Derivation) -> Result<(), DeclineReport> {
        let unsupported = |message: String| DeclineReport {
            reason: DeclineReason::Unsupported,
            message,
            paths: Vec::new(),
        };
        if let Some(refusal) = derivation.kind().refusal() {
            return Err(unsupported(refusal.to_owned()));
        }
        let outputs: BTreeMap<_, _> = derivation
            .outputs
            .iter()
            .filter_map(|(name, output)| Some((name.clone(), output.path.clone()?)))
            .collect();
        if outputs != self.assignment.outputs {
            return Err(unsupported(format!(
                "{} has other outputs than were assigned",
                self.assignment.derivation
            )));
        }
        Ok(())
    }

    /// Compares what is here with what the server knows, so that no closure is spliced of two builds. What differs is replaced by
    /// the farm's, unless something else is being built here now, which may be reading it.
    async fn compare_inputs(&self, sources: &Sources, daemon: &mut dyn BuildDaemon) -> Result<(), Early> {
        let mut different = self.different_inputs(daemon).await?;
        if !different.is_empty()
            && let Ok(_alone) = self.machine.building.try_write()
        {
            let mut left = Vec::new();
            for (path, hash) in different {
                if self.machine.fetcher.repair(&path, hash, sources).await {
                    warn!(store.path = %path, "{path} differed from the farm's, and was replaced by it");
                    self.context
                        .log
                        .note(&format!("{path} differed from the farm's, and was replaced by it"));
                } else {
                    left.push((path, hash));
                }
            }
            different = left;
        }
        let Some((first, _)) = different.first() else { return Ok(()) };
        let message = format!("{} inputs differ from the farm's, the first is {first}", different.len());
        let paths = different.iter().map(|(path, _)| path.to_string()).collect();
        Err(DeclineReport { reason: DeclineReason::InputDiffers, message, paths }.into())
    }

    /// The inputs that are valid here and have another hash than the server knows, each with the server's.
    async fn different_inputs(
        &self,
        daemon: &mut dyn BuildDaemon,
    ) -> Result<Vec<(StorePath, Sha256)>, DaemonError> {
        let listed: BTreeSet<StorePath> = self.assignment.inputs.keys().cloned().collect();
        let mut different = Vec::new();
        if listed.is_empty() {
            return Ok(different);
        }
        for path in &listed {
            daemon.add_temp_root(path).await?;
        }
        for path in daemon.query_valid_paths(&listed).await? {
            let here = daemon.query_path_info(&path).await?;
            let known = self.assignment.inputs.get(&path);
            if let (Some(here), Some(known)) = (here, known)
                && here.nar_hash != known.nar_hash
            {
                different.push((path, known.nar_hash));
            }
        }
        Ok(different)
    }

    /// Makes sure that nothing but this derivation would be built.
    async fn check_plan(&self, daemon: &mut dyn BuildDaemon) -> Result<(), Early> {
        let plan = daemon.query_missing(&[BuildTarget::all(self.assignment.derivation.clone())]).await?;
        let others = plan.will_build.iter().filter(|drv| **drv != self.assignment.derivation);
        let missing: Vec<String> = others
            .map(ToString::to_string)
            .chain(plan.will_substitute.iter().map(ToString::to_string))
            .chain(plan.unknown.iter().map(ToString::to_string))
            .take(MOST_MISSING)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("{} inputs are not there, the first is {}", missing.len(), missing[0]);
        let report = BuildReport::failure(Outcome::MissingInputs, message);
        Err(BuildReport { missing, inputs: self.begun.elapsed(), ..report }.into())
    }

    async fn build(
        self,
        mode: BuildMode,
        daemon: &mut dyn BuildDaemon,
        serving: Option<ProcessId>,
    ) -> Result<BuildReport, Early> {
        let _building = self.machine.building.read().await;
        let mut meter = match serving {
            Some(serving) => self.machine.memory.meter(serving).await,
            None => None,
        };
        let kills = OomKills::now(serving);
        let begun = Instant::now();
        let limits = self.assignment.limits;
        let exceeded = Arc::new(Notify::new());
        let target = BuildTarget::all(self.assignment.derivation.clone());
        let mut silent_watch = self.witness.clone();
        let ended = {
            let mut log =
                BuildLog::new(&self.context.log, limits.log_bytes, Arc::clone(&exceeded), self.witness);
            let targets = [target];
            let build = daemon.build(&targets, mode, &mut log);
            let looking = async {
                loop {
                    tokio::time::sleep(silent_watch.look()).await;
                }
            };
            let overtime = async {
                match limits.timeout {
                    Some(timeout) => tokio::time::sleep(timeout + OVERTIME).await,
                    None => std::future::pending().await,
                }
            };
            let measuring = async {
                match &mut meter {
                    Some(meter) => match meter.watch().await {},
                    None => std::future::pending().await,
                }
            };
            // Whoever wins: a build that is not over is dropped, and the daemon kills its builder.
            tokio::select! {
                result = build => result.map_err(Stopped::Daemon),
                () = exceeded.notified() => Err(Stopped::LogLimit),
                () = overtime => Err(Stopped::Overtime),
                never = looking => never,
                never = measuring => never,
            }
        };
        let measured =
            Measured { build: begun.elapsed(), peak_memory: meter.as_ref().map_or(0, Meter::peak) };
        let disk_full = self.witness.disk_full().or(silent_watch.disk_full()).map(str::to_owned);
        let timed = |report: BuildReport| BuildReport {
            inputs: self.inputs.unwrap_or_default(),
            build: measured.build,
            peak_memory: measured.peak_memory,
            ..report
        };
        let results = match ended {
            Ok(results) => results,
            Err(Stopped::LogLimit) => {
                let limit = limits.log_bytes.unwrap_or_default();
                let message = format!("the build printed more than {limit} bytes");
                return Ok(timed(BuildReport::failure(Outcome::LogLimit, message)));
            }
            Err(Stopped::Overtime) => {
                let message = "the build ran into its time limit, and the daemon did not end it";
                return Ok(timed(BuildReport::failure(Outcome::TimedOut, message)));
            }
            Err(Stopped::Daemon(error)) => {
                let report = match disk_full {
                    Some(full) => BuildReport::failure(Outcome::DiskFull, full),
                    // The kernel may have chosen the daemon, or all of its group.
                    None if kills.are_more() => {
                        BuildReport::failure(Outcome::OutOfMemory, out_of_memory(&chain(&error)))
                    }
                    None => BuildReport::failure(Outcome::Daemon, chain(&error)),
                };
                return Ok(timed(report));
            }
        };
        let Some(result) = results.first() else {
            return Ok(timed(BuildReport::failure(Outcome::Daemon, "the daemon gave no result")));
        };
        match verdict::judge(result, disk_full.is_some(), kills.are_more()) {
            Verdict::Built => self.success(Origin::Built, measured, daemon).await,
            Verdict::AlreadyValid if mode == BuildMode::Check => {
                self.success(Origin::Built, measured, daemon).await
            }
            Verdict::AlreadyValid => self.success(Origin::AlreadyValid, measured, daemon).await,
            Verdict::Failed(outcome) => {
                let message = match (outcome, disk_full) {
                    (Outcome::DiskFull, Some(full)) => full,
                    (Outcome::OutOfMemory, _) => out_of_memory(first_line(&result.message)),
                    _ => first_line(&result.message).to_owned(),
                };
                let message = if message.is_empty() { "the build failed".to_owned() } else { message };
                let report = BuildReport::failure(outcome, message);
                Ok(timed(BuildReport { exit_status: verdict::exit_status(result), ..report }))
            }
        }
    }

    /// Describes and keeps the outputs.
    async fn success(
        &self,
        origin: Origin,
        measured: Measured,
        daemon: &mut dyn BuildDaemon,
    ) -> Result<BuildReport, Early> {
        self.context.finishing();
        let mut outputs = Vec::new();
        let mut total = 0u64;
        for (name, path) in &self.assignment.outputs {
            let Some(info) = daemon.query_path_info(path).await? else {
                let message = format!("output {path} is not there, though the daemon says that it was built");
                return Ok(BuildReport::failure(Outcome::Daemon, message));
            };
            total = total.saturating_add(info.nar_size);
            outputs.push(OutputInfo {
                name: name.to_string(),
                path: path.to_string(),
                nar_hash: info.nar_hash.as_bytes().to_vec().into(),
                nar_size: info.nar_size,
                references: info.references.iter().map(ToString::to_string).collect(),
            });
        }
        let times = |report: BuildReport| BuildReport {
            inputs: self.inputs.unwrap_or_else(|| self.begun.elapsed()),
            build: measured.build,
            peak_memory: measured.peak_memory,
            ..report
        };
        if let Some(limit) = self.assignment.limits.output_bytes.filter(|limit| total > *limit) {
            let message = format!("the outputs have {total} bytes, {limit} are allowed");
            return Ok(times(BuildReport::failure(Outcome::OutputLimit, message)));
        }
        let kept = self.machine.keep(self.assignment, daemon).await;
        if let Err(error) = kept {
            // They may be collected before the server has them; then it asks for another build.
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot keep the outputs of attempt {}", self.assignment.attempt
            );
        }
        Ok(times(BuildReport::success(outputs, origin)))
    }
}

/// What a build took.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    build: Duration,
    /// In bytes, 0 if it is not known.
    peak_memory: u64,
}

/// Why a build did not come to its end.
enum Stopped {
    LogLimit,
    Overtime,
    Daemon(DaemonError),
}

/// The sources, and the outputs of other derivations, that a derivation needs.
async fn direct_inputs(
    derivation: &Derivation,
    daemon: &mut dyn BuildDaemon,
) -> Result<BTreeSet<StorePath>, DaemonError> {
    let mut inputs = derivation.input_sources.clone();
    for (drv, names) in &derivation.input_derivations {
        let outputs = daemon.query_derivation_outputs(drv).await?;
        inputs.extend(outputs.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, path)| path));
    }
    Ok(inputs)
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn out_of_memory(why: &str) -> String {
    format!("the machine ran out of memory: {why}")
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}
