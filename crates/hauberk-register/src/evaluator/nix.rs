//! The evaluator `nix`: `nix-instantiate` over an expression in a checkout.
//!
//! A small expression of ours walks the user's and describes each derivation that it finds. An error that Nix can catch
//! is that of one job, and is evaluated again alone to learn what it is. Any other ends the program; then the attributes
//! are evaluated in ever smaller parts, until it is known which of them are at fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hauberk_daemon::strip_ansi;
use hauberk_database::Level;
use hauberk_database::evaluations::JobError;
use hauberk_store::DrvPath;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{Evaluated, EvaluatedJob, EvaluatorError};
use crate::child::{self, ChildError, Limits};
use crate::daemon::NixDaemon;

const JOBS: &str = include_str!("jobs.nix");
/// Bytes of the list of jobs: some three hundred for each.
const MAX_OUTPUT: usize = 512 * 1024 * 1024;
const MAX_LOG: u64 = 64 * 1024 * 1024;
/// Failed jobs that are evaluated again for their message, and the time for each.
const MAX_EXPLAINED: usize = 20;
const EXPLAIN_TIME: Duration = Duration::from_secs(300);
/// Runs that the search for faulty attributes may take.
const MAX_PARTS: usize = 200;
const MAX_MESSAGE: usize = 2000;

/// A run of the evaluator.
#[derive(Debug)]
pub(crate) struct Nix<'a> {
    /// The trees of the inputs, by name.
    pub(crate) inputs: BTreeMap<String, PathBuf>,
    /// The expression's file.
    pub(crate) file: PathBuf,
    pub(crate) arguments: &'a BTreeMap<String, serde_json::Value>,
    pub(crate) systems: Option<&'a [String]>,
    pub(crate) timeout: Duration,
    pub(crate) daemon: &'a NixDaemon,
    /// A folder to be at home in.
    pub(crate) home: &'a Path,
    /// Where its standard error goes.
    pub(crate) log: &'a Path,
}

#[derive(Serialize)]
struct Parameters<'a> {
    file: &'a Path,
    arguments: &'a BTreeMap<String, serde_json::Value>,
    inputs: &'a BTreeMap<String, PathBuf>,
    systems: Option<&'a [String]>,
    #[serde(flatten)]
    question: Question<'a>,
}

/// What is asked of `jobs.nix`.
#[derive(Debug, Clone, Copy)]
enum Question<'a> {
    /// The jobs at and below these attribute paths.
    Jobs(&'a [Vec<String>]),
    /// The attributes of the set at a path, if it is one that is searched for jobs.
    Names(&'a [String]),
    /// One job, or what is wrong with it.
    Only(&'a Place),
}

impl Serialize for Question<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Asked<'a> {
            paths: Option<&'a [Vec<String>]>,
            names: Option<&'a [String]>,
            only: Option<&'a Place>,
        }
        let (paths, names, only) = match *self {
            Self::Jobs(paths) => (Some(paths), None, None),
            Self::Names(path) => (None, Some(path), None),
            Self::Only(place) => (None, None, Some(place)),
        };
        Asked { paths, names, only }.serialize(serializer)
    }
}

/// Where a job is in the expression.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    path: Vec<String>,
    suffix: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Job(Described),
    Failed {
        name: String,
        #[serde(flatten)]
        place: Place,
        error: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    drv_path: String,
    priority: Option<i64>,
    scheduling_priority: Option<i64>,
    timeout: Option<i64>,
    max_silent: Option<i64>,
}

impl Nix<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// [`EvaluatorError`].
    pub(crate) async fn run(&self, stop: &CancellationToken) -> Result<Evaluated, EvaluatorError> {
        let log = tokio::fs::File::create(self.log)
            .await
            .map_err(|source| EvaluatorError::File { path: self.log.to_owned(), source })?;
        let deadline = Instant::now() + self.timeout;
        let entries = match self.entries(&[Vec::new()], deadline, Some(log), stop).await {
            Err(EvaluatorError::Expression { message }) => self.search(message, deadline, stop).await,
            entries => entries,
        };
        let entries = entries.map_err(|error| match error {
            // The last of several programs had only what was left of the time.
            EvaluatorError::Child(ChildError::TimedOut { program, .. }) => {
                EvaluatorError::Child(ChildError::TimedOut { program, seconds: self.timeout.as_secs() })
            }
            error => error,
        })?;

        let mut evaluated = Evaluated::default();
        let mut names = BTreeSet::new();
        let mut explained = 0;
        for entry in entries {
            let (name, job) = match entry {
                Entry::Job(described) => {
                    let name = described.name.clone();
                    (name, self.job(described))
                }
                Entry::Failed { name, error: Some(error), .. } => (name, Err(error)),
                Entry::Failed { name, place, error: None } => {
                    explained += 1;
                    let message = if explained <= MAX_EXPLAINED {
                        self.explain(&place, stop).await?
                    } else {
                        "does not evaluate; the first ones that do not are explained".to_owned()
                    };
                    (name, Err(message))
                }
            };
            if !names.insert(name.clone()) {
                continue;
            }
            match job {
                Ok(job) => evaluated.jobs.push(job),
                Err(message) => evaluated.errors.push(JobError { name, message }),
            }
        }
        Ok(evaluated)
    }

    /// Lists the jobs at and below some attribute paths.
    async fn entries(
        &self,
        paths: &[Vec<String>],
        deadline: Instant,
        log: Option<tokio::fs::File>,
        stop: &CancellationToken,
    ) -> Result<Vec<Entry>, EvaluatorError> {
        let log_limit = if log.is_some() { MAX_LOG } else { 0 };
        let limits = Limits { time: left(deadline), output: MAX_OUTPUT, log: log_limit };
        let output = self.instantiate(Question::Jobs(paths), limits, log, stop).await?;
        serde_json::from_slice(&output).map_err(EvaluatorError::Output)
    }

    /// Finds the attributes that end the evaluator, which said `message`, and lists the jobs of all others.
    ///
    /// It is the expression's own error if that cannot be told, or if nothing else is left.
    async fn search(
        &self,
        message: String,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Vec<Entry>, EvaluatorError> {
        let mut parts: Vec<(Vec<Vec<String>>, String)> = vec![(vec![Vec::new()], message.clone())];
        let mut entries = Vec::new();
        let mut good = false;
        let mut runs = 0;
        // Every part on the stack is known to fail, with its message.
        while let Some((mut paths, fault)) = parts.pop() {
            runs += 1;
            if runs > MAX_PARTS {
                return Err(EvaluatorError::Expression { message });
            }
            if let [path] = paths.as_slice() {
                let limits = Limits { time: left(deadline), output: MAX_OUTPUT, log: 0 };
                let names: Vec<String> =
                    match self.instantiate(Question::Names(path), limits, None, stop).await {
                        Ok(output) => serde_json::from_slice(&output).map_err(EvaluatorError::Output)?,
                        Err(EvaluatorError::Expression { .. }) => Vec::new(),
                        Err(error) => return Err(error),
                    };
                if names.is_empty() {
                    entries.push(Entry::Failed {
                        name: path.join("."),
                        place: Place { path: path.clone(), suffix: Vec::new() },
                        error: Some(fault),
                    });
                    continue;
                }
                paths = names.into_iter().map(|name| [path.as_slice(), &[name]].concat()).collect();
            }
            let second = paths.split_off(paths.len().div_ceil(2));
            for part in [paths, second].into_iter().filter(|part| !part.is_empty()) {
                match self.entries(&part, deadline, None, stop).await {
                    Ok(found) => {
                        good |= !found.is_empty();
                        entries.extend(found);
                    }
                    Err(EvaluatorError::Expression { message }) => parts.push((part, message)),
                    Err(error) => return Err(error),
                }
            }
        }
        if good { Ok(entries) } else { Err(EvaluatorError::Expression { message }) }
    }

    /// Learns why a job does not evaluate.
    async fn explain(&self, place: &Place, stop: &CancellationToken) -> Result<String, EvaluatorError> {
        let limits = Limits { time: EXPLAIN_TIME.min(self.timeout), output: MAX_OUTPUT, log: 0 };
        match self.instantiate(Question::Only(place), limits, None, stop).await {
            Ok(_) => Ok("did not evaluate with the others, and does alone".to_owned()),
            Err(EvaluatorError::Expression { message }) => Ok(message),
            Err(EvaluatorError::Child(error @ ChildError::TimedOut { .. })) => Ok(error.to_string()),
            Err(error) => Err(error),
        }
    }

    /// Runs `nix-instantiate` and gives what it printed.
    async fn instantiate(
        &self,
        question: Question<'_>,
        limits: Limits,
        log: Option<tokio::fs::File>,
        stop: &CancellationToken,
    ) -> Result<Vec<u8>, EvaluatorError> {
        let parameters = Parameters {
            file: &self.file,
            arguments: self.arguments,
            inputs: &self.inputs,
            systems: self.systems,
            question,
        };
        let parameters = serde_json::to_string(&parameters).map_err(EvaluatorError::Output)?;
        let mut command = Command::new("nix-instantiate");
        // Evaluation alone writes no derivations: that is what read-write mode is for. Restricted, an expression sees the
        // checkouts and the store, and nothing else of this machine.
        command.args(["--eval", "--strict", "--json", "--read-write-mode"]);
        command.args(["--option", "restrict-eval", "true"]);
        for (name, path) in &self.inputs {
            command.arg("-I").arg(format!("{name}={}", path.display()));
        }
        command.args(["--argstr", "parameters", &parameters, "--expr", JOBS]);
        command
            .current_dir(self.home)
            .env_remove("NIX_PATH")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env("NIX_REMOTE", self.daemon.remote())
            .env("HOME", self.home)
            .env("TERM", "dumb");
        let finished = child::run(command, limits, log, stop).await.map_err(EvaluatorError::Child)?;
        if finished.status.success() {
            return Ok(finished.output);
        }
        let message = self
            .complaint(&finished.errors)
            .unwrap_or_else(|| format!("nix-instantiate ended with {}", finished.ending()));
        if is_daemon_fault(&message) {
            return Err(EvaluatorError::Daemon { message });
        }
        Err(EvaluatorError::Expression { message })
    }

    /// Finds what Nix complained of, and makes one line of it, with the place in the checkout.
    fn complaint(&self, errors: &str) -> Option<String> {
        let text = strip_ansi(errors);
        let begin = text.rfind("\nerror:").map(|at| at + 1).or_else(|| text.find("error:"))?;
        let mut lines = text[begin + "error:".len()..].lines().map(str::trim);
        let mut message: String = lines.by_ref().find(|line| !line.is_empty())?.to_owned();
        let place = lines.find_map(|line| line.strip_prefix("at ").map(|place| place.trim_end_matches(':')));
        if let Some(place) = place.filter(|place| !place.starts_with('«')) {
            message = format!("{message}, at {place}");
        }
        for path in self.inputs.values() {
            message = message.replace(&format!("{}/", path.display()), "");
        }
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        Some(message)
    }

    fn job(&self, described: Described) -> Result<EvaluatedJob, String> {
        let derivation = DrvPath::parse(&described.drv_path).map_err(|error| error.to_string())?;
        let name = match described.name.as_str() {
            "" => derivation.derivation_name().to_owned(),
            _ => described.name,
        };
        let priority = match (described.priority, described.scheduling_priority) {
            (Some(own), _) => Level::try_from(own).map_err(|error| format!("hauberk.priority: {error}"))?,
            (None, Some(hydra)) => from_hydra(hydra),
            (None, None) => Level::LEAST_URGENT,
        };
        let seconds = |what: &str, seconds: Option<i64>| {
            seconds
                .map(|number| {
                    u32::try_from(number)
                        .ok()
                        .filter(|seconds| i32::try_from(*seconds).is_ok())
                        .ok_or_else(|| format!("meta.{what} is {number}, and not a number of seconds"))
                })
                .transpose()
        };
        Ok(EvaluatedJob {
            name,
            derivation,
            priority,
            timeout: seconds("timeout", described.timeout)?,
            max_silent: seconds("maxSilent", described.max_silent)?,
        })
    }
}

/// Takes Hydra's priority, whose default is 100 and where more is more urgent, a hundred for each of our steps.
fn from_hydra(priority: i64) -> Level {
    let steps = priority.saturating_sub(100).div_euclid(100).clamp(0, 9);
    Level::try_from(9 - steps).unwrap_or_default()
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn is_daemon_fault(message: &str) -> bool {
    message.starts_with("cannot connect to socket at")
        || message.starts_with("cannot open connection to remote store")
        || message.contains("Nix daemon disconnected unexpectedly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_of_hydra_are_mapped() {
        for (hydra, ours) in [(-5, 9), (100, 9), (199, 9), (200, 8), (1000, 0), (i64::MAX, 0)] {
            assert_eq!(from_hydra(hydra).get(), ours, "{hydra}");
        }
    }

    #[test]
    fn what_nix_complains_of_becomes_a_line() {
        let arguments = BTreeMap::new();
        let nix = Nix {
            inputs: [("source".to_owned(), PathBuf::from("/state/trees/abc/source"))].into(),
            file: PathBuf::new(),
            arguments: &arguments,
            systems: None,
            timeout: Duration::from_secs(1),
            daemon: &NixDaemon::default(),
            home: Path::new("/"),
            log: Path::new("/"),
        };
        for (errors, wanted) in [
            (
                "warning: x\n\u{1b}[31;1merror:\u{1b}[0m undefined variable 'foo'\n\n       at \
                 /state/trees/abc/source/release.nix:3:5:\n\n            2| let\n",
                Some("undefined variable 'foo', at release.nix:3:5"),
            ),
            ("error: too late\n(use '--show-trace' to show)\n", Some("too late")),
            ("error:\n   something\n   at «string»:1:1:\n", Some("something")),
            ("killed\n", None),
        ] {
            assert_eq!(nix.complaint(errors).as_deref(), wanted);
        }
    }
}
