//! What has to be built for the jobs of an evaluation: each job, and of what it needs, everything that is to be had
//! nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use hauberk_database::evaluations::JobError;
use hauberk_database::registration::{NewBuild, NewJob, Registration};
use hauberk_store::{Derivation, DrvPath, OutputName, OutputNames, StorePath};

use crate::evaluator::{Evaluated, EvaluatedJob};

/// What is asked of the world on the way down.
pub(crate) trait Facts {
    /// Why it could not tell.
    type Error;

    /// Reads derivations, in their order.
    async fn derivations(&mut self, paths: &[DrvPath]) -> Result<Vec<Derivation>, Self::Error>;

    /// Tells which of these paths the farm has built.
    async fn built(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, Self::Error>;

    /// Tells which of these paths need no build, because they are in the store or can be substituted.
    async fn available(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, Self::Error>;
}

/// Limits where neither job nor derivation says anything. Seconds; 0 = none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) timeout: u32,
    pub(crate) max_silent: u32,
}

/// What becomes of a derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// What is wanted of it is there.
    Available,
    /// It has to be built, or was built by the farm for a job.
    Build,
    /// It cannot be built.
    Refused(&'static str),
}

#[derive(Debug)]
struct Seen {
    derivation: Outline,
    wanted: OutputNames,
    verdict: Verdict,
}

/// What of a derivation is still needed once it was read.
#[derive(Debug)]
struct Outline {
    outputs: Vec<(OutputName, StorePath)>,
    inputs: BTreeMap<DrvPath, OutputNames>,
    system: String,
    features: Vec<String>,
    timeout: Option<u32>,
    max_silent: Option<u32>,
    refusal: Option<&'static str>,
}

impl Outline {
    fn of(derivation: Derivation) -> Self {
        let seconds = |limit: Option<std::time::Duration>| {
            limit.map(|limit| i32::try_from(limit.as_secs()).unwrap_or(i32::MAX).unsigned_abs())
        };
        Self {
            refusal: derivation.kind().refusal(),
            features: derivation.required_system_features().into_iter().collect(),
            timeout: seconds(derivation.timeout()),
            max_silent: seconds(derivation.max_silent()),
            outputs: derivation
                .outputs
                .into_iter()
                .filter_map(|(name, output)| output.path.map(|path| (name, path)))
                .collect(),
            inputs: derivation.input_derivations,
            system: derivation.system,
        }
    }

    fn paths<'a>(&'a self, wanted: &'a OutputNames) -> impl Iterator<Item = &'a StorePath> {
        self.outputs.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, path)| path)
    }
}

/// Walks down from the jobs and gives what is to be registered.
pub(crate) async fn close<F: Facts>(
    evaluated: Evaluated,
    defaults: Defaults,
    facts: &mut F,
) -> Result<Registration, F::Error> {
    let mut seen: HashMap<DrvPath, Seen> = HashMap::new();
    let jobs: BTreeSet<DrvPath> = evaluated.jobs.iter().map(|job| job.derivation.clone()).collect();
    let mut level: BTreeMap<DrvPath, OutputNames> =
        jobs.iter().map(|path| (path.clone(), OutputNames::new())).collect();
    while !level.is_empty() {
        read(&level, &mut seen, facts).await?;
        level = descend(level, &jobs, &mut seen, facts).await?;
    }
    Ok(registration(evaluated, defaults, &seen))
}

/// Reads the derivations of a level that were not read before.
async fn read<F: Facts>(
    level: &BTreeMap<DrvPath, OutputNames>,
    seen: &mut HashMap<DrvPath, Seen>,
    facts: &mut F,
) -> Result<(), F::Error> {
    let unread: Vec<DrvPath> = level.keys().filter(|path| !seen.contains_key(*path)).cloned().collect();
    let derivations = facts.derivations(&unread).await?;
    for (path, derivation) in unread.into_iter().zip(derivations) {
        let derivation = Outline::of(derivation);
        let verdict = derivation.refusal.map_or(Verdict::Available, Verdict::Refused);
        seen.insert(path, Seen { derivation, wanted: OutputNames::new(), verdict });
    }
    Ok(())
}

/// Decides about a level and gives the next: what the builds of this one need.
async fn descend<F: Facts>(
    level: BTreeMap<DrvPath, OutputNames>,
    jobs: &BTreeSet<DrvPath>,
    seen: &mut HashMap<DrvPath, Seen>,
    facts: &mut F,
) -> Result<BTreeMap<DrvPath, OutputNames>, F::Error> {
    let mut open: Vec<(DrvPath, OutputNames)> = Vec::new();
    let mut paths = BTreeSet::new();
    for (drv, wanted) in level {
        let Some(entry) = seen.get_mut(&drv) else { continue };
        entry.wanted.extend(wanted.iter().cloned());
        if entry.verdict != Verdict::Available {
            continue;
        }
        if jobs.contains(&drv) {
            paths.extend(entry.derivation.outputs.iter().map(|(_, path)| path.clone()));
        } else {
            paths.extend(entry.derivation.paths(&wanted).cloned());
        }
        open.push((drv, wanted));
    }
    let built = facts.built(&paths).await?;
    paths.retain(|path| !built.contains(path));
    let available = facts.available(&paths).await?;

    let mut next: BTreeMap<DrvPath, OutputNames> = BTreeMap::new();
    for (drv, wanted) in open {
        let Some(entry) = seen.get_mut(&drv) else { continue };
        let outline = &entry.derivation;
        if jobs.contains(&drv) {
            // A job is always a build. One that was built needs nothing below it.
            entry.verdict = Verdict::Build;
            if outline.outputs.iter().all(|(_, path)| built.contains(path)) {
                continue;
            }
        } else {
            let there = |path: &StorePath| built.contains(path) || available.contains(path);
            if outline.paths(&wanted).all(there) {
                continue;
            }
            entry.verdict = Verdict::Build;
        }
        for (input, outputs) in &outline.inputs {
            next.entry(input.clone()).or_default().extend(outputs.iter().cloned());
        }
    }
    // What was asked before need not be asked again.
    next.retain(|drv, wanted| {
        seen.get(drv)
            .is_none_or(|entry| entry.verdict == Verdict::Available && !wanted.is_subset(&entry.wanted))
    });
    Ok(next)
}

/// Finds, for everything that cannot be built, what is at fault: itself, or something it needs.
fn refused(seen: &HashMap<DrvPath, Seen>) -> HashMap<&DrvPath, (&DrvPath, &'static str)> {
    let mut dependents: HashMap<&DrvPath, Vec<&DrvPath>> = HashMap::new();
    let mut refused: HashMap<&DrvPath, (&DrvPath, &'static str)> = HashMap::new();
    let mut open: Vec<&DrvPath> = Vec::new();
    for (drv, entry) in seen {
        match entry.verdict {
            Verdict::Available => {}
            Verdict::Refused(reason) => {
                refused.insert(drv, (drv, reason));
                open.push(drv);
            }
            Verdict::Build => {
                for input in entry.derivation.inputs.keys() {
                    dependents.entry(input).or_default().push(drv);
                }
            }
        }
    }
    while let Some(drv) = open.pop() {
        let fault = refused[drv];
        for &dependent in dependents.get(drv).into_iter().flatten() {
            refused.entry(dependent).or_insert_with(|| {
                open.push(dependent);
                fault
            });
        }
    }
    refused
}

fn registration(evaluated: Evaluated, defaults: Defaults, seen: &HashMap<DrvPath, Seen>) -> Registration {
    let refused = refused(seen);
    let mut registration = Registration { errors: evaluated.errors, ..Registration::default() };
    let mut places: HashMap<&DrvPath, usize> = HashMap::new();
    let mut open: Vec<&DrvPath> = Vec::new();
    let mut jobs: Vec<&EvaluatedJob> = Vec::new();
    for job in &evaluated.jobs {
        match refused.get(&job.derivation) {
            Some((culprit, reason)) => {
                let message = if **culprit == job.derivation {
                    (*reason).to_owned()
                } else {
                    format!("needs {culprit}: {reason}")
                };
                registration.errors.push(JobError { name: job.name.clone(), message });
            }
            None => {
                jobs.push(job);
                open.extend(seen.get_key_value(&job.derivation).map(|(drv, _)| drv));
            }
        }
    }
    while let Some(drv) = open.pop() {
        let Some(entry) = seen.get(drv).filter(|entry| entry.verdict == Verdict::Build) else { continue };
        if places.contains_key(drv) {
            continue;
        }
        places.insert(drv, registration.builds.len());
        registration.builds.push(build(drv, &entry.derivation, defaults, seen));
        open.extend(
            entry.derivation.inputs.keys().filter_map(|input| seen.get_key_value(input).map(|(drv, _)| drv)),
        );
    }
    for job in jobs {
        let Some(&place) = places.get(&job.derivation) else { continue };
        let build = &mut registration.builds[place];
        build.timeout = job.timeout.unwrap_or(build.timeout);
        build.max_silent = job.max_silent.unwrap_or(build.max_silent);
        registration.jobs.push(NewJob { name: job.name.clone(), build: place, priority: job.priority });
    }
    registration
}

fn build(drv: &DrvPath, outline: &Outline, defaults: Defaults, seen: &HashMap<DrvPath, Seen>) -> NewBuild {
    let dependencies = outline
        .inputs
        .iter()
        .filter_map(|(input, wanted)| Some((&seen.get(input)?.derivation, wanted)))
        .flat_map(|(input, wanted)| input.paths(wanted).cloned())
        .collect();
    NewBuild {
        derivation: drv.clone(),
        name: drv.derivation_name().to_owned(),
        system: outline.system.clone(),
        features: outline.features.clone(),
        timeout: outline.timeout.unwrap_or(defaults.timeout),
        max_silent: outline.max_silent.unwrap_or(defaults.max_silent),
        outputs: outline.outputs.clone(),
        dependencies,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hauberk_database::Level;
    use hauberk_store::StoreDirectory;

    use super::*;

    /// A world of packages by number; what is asked is counted.
    #[derive(Default)]
    struct World {
        derivations: HashMap<DrvPath, Derivation>,
        built: HashSet<StorePath>,
        available: HashSet<StorePath>,
        reads: usize,
    }

    impl Facts for World {
        type Error = Infallible;

        async fn derivations(&mut self, paths: &[DrvPath]) -> Result<Vec<Derivation>, Infallible> {
            self.reads += paths.len();
            Ok(paths.iter().map(|path| self.derivations[path].clone()).collect())
        }

        async fn built(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, Infallible> {
            Ok(paths.iter().filter(|path| self.built.contains(*path)).cloned().collect())
        }

        async fn available(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, Infallible> {
            Ok(paths.iter().filter(|path| self.available.contains(*path)).cloned().collect())
        }
    }

    fn drv(number: usize) -> DrvPath {
        DrvPath::parse(&format!("/nix/store/{number:032}-p{number}.drv")).unwrap()
    }

    fn out(number: usize, name: &str) -> StorePath {
        let suffix = if name == "out" { String::new() } else { format!("-{name}") };
        StorePath::parse(&format!("/nix/store/{number:032}-p{number}{suffix}")).unwrap()
    }

    impl World {
        /// Adds a package with outputs `out` and `dev`, whose inputs are outputs of others.
        fn package(&mut self, number: usize, inputs: &[(usize, &str)]) -> &mut Derivation {
            let outputs: Vec<String> = ["dev", "out"]
                .iter()
                .map(|name| format!(r#"("{name}","{}","","")"#, out(number, name)))
                .collect();
            let inputs: Vec<String> =
                inputs.iter().map(|(input, name)| format!(r#"("{}",["{name}"])"#, drv(*input))).collect();
            let text = format!(
                r#"Derive([{}],[{}],[],"x86_64-linux","/bin/sh",[],[])"#,
                outputs.join(","),
                inputs.join(",")
            );
            let derivation = Derivation::parse(&StoreDirectory::nix(), text.as_bytes()).unwrap();
            self.derivations.entry(drv(number)).insert_entry(derivation).into_mut()
        }

        async fn close(&mut self, jobs: &[usize]) -> Registration {
            let job = |number: &usize| EvaluatedJob {
                name: format!("p{number}"),
                derivation: drv(*number),
                priority: Level::default(),
                timeout: (*number == 1).then_some(5),
                max_silent: None,
            };
            let evaluated = Evaluated { jobs: jobs.iter().map(job).collect(), errors: Vec::new() };
            close(evaluated, Defaults { timeout: 100, max_silent: 10 }, self).await.unwrap()
        }
    }

    fn names(registration: &Registration) -> Vec<&str> {
        let mut names: Vec<&str> = registration.builds.iter().map(|build| build.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn a_job_gets_its_whole_unbuilt_closure_and_no_more() {
        let mut world = World::default();
        world.package(1, &[(2, "out"), (3, "out"), (4, "out")]);
        world.package(2, &[(5, "out")]);
        world.package(3, &[(5, "out")]);
        world.package(4, &[(6, "out")]);
        world.package(5, &[]);
        world.package(6, &[]);
        world.built.insert(out(3, "out"));
        world.available.insert(out(4, "out"));
        let registration = world.close(&[1]).await;
        assert_eq!(names(&registration), ["p1", "p2", "p5"]);
        assert_eq!(world.reads, 5, "nothing below what is there is read");
        let top = registration.builds.iter().find(|build| build.name == "p1").unwrap();
        assert_eq!(top.dependencies, [out(2, "out"), out(3, "out"), out(4, "out")]);
        assert_eq!(top.outputs.len(), 2);
        assert_eq!((top.timeout, top.max_silent), (5, 10));
    }

    #[tokio::test]
    async fn jobs_are_builds_even_when_they_are_there() {
        let mut world = World::default();
        world.package(1, &[(2, "out")]);
        world.package(2, &[(3, "out")]);
        world.package(3, &[]);
        for name in ["out", "dev"] {
            world.available.insert(out(1, name));
            world.available.insert(out(2, name));
        }
        assert_eq!(names(&world.close(&[1, 2]).await), ["p1", "p2", "p3"]);
        for name in ["out", "dev"] {
            world.built.insert(out(2, name));
        }
        assert_eq!(names(&world.close(&[1, 2]).await), ["p1", "p2"]);
    }

    #[tokio::test]
    async fn another_output_of_something_available_is_looked_at_again() {
        let mut world = World::default();
        world.package(1, &[(2, "out"), (3, "out")]);
        world.package(2, &[]);
        world.package(3, &[(2, "dev")]);
        world.available.insert(out(2, "out"));
        assert_eq!(names(&world.close(&[1]).await), ["p1", "p2", "p3"]);
        world.available.insert(out(2, "dev"));
        assert_eq!(names(&world.close(&[1]).await), ["p1", "p3"]);
    }

    #[tokio::test]
    async fn what_cannot_be_built_takes_down_only_what_needs_it() {
        let mut world = World::default();
        world.package(1, &[(2, "out")]);
        world.package(2, &[(3, "out"), (5, "out")]);
        let floating = world.package(3, &[]);
        for output in floating.outputs.values_mut() {
            output.path = None;
            output.hash_algo = "r:sha256".into();
        }
        world.package(4, &[(5, "out")]);
        world.package(5, &[]);
        let registration = world.close(&[1, 3, 4]).await;
        assert_eq!(names(&registration), ["p4", "p5"]);
        assert_eq!(registration.jobs.len(), 1);
        let errors: Vec<(&str, bool)> = registration
            .errors
            .iter()
            .map(|error| (error.name.as_str(), error.message.contains("p3.drv: floating")))
            .collect();
        assert_eq!(errors, [("p1", true), ("p3", false)]);
    }
}
