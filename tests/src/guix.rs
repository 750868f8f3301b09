//! A real Guix, from a root file system of another Debian release.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hauberk_daemon::{BuildDaemon, ClientOptions, ConnectOptions, Connection, DaemonAddress};
use hauberk_database::{
    Client, Database, EvaluationId, Level, evaluations,
    registration::{self, NewBuild, NewJob, Registration},
    specifications::{self, NewSpecification},
};
use hauberk_register::{NixDaemon, PushWhen, Stores};
use hauberk_store::{
    Derivation, DrvPath, OutputName, StoreDirectory, StorePath,
    derivation::{Output, VerifiedClosure, VerifyError},
    nar::Node,
};
use tokio::net::UnixStream;

/// Where trees are looked for unless `HAUBERK_GUIX_TREES` names another directory.
const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/trees");

/// The releases of Debian that have Guix: 1.5 (or later) and 1.2.
const SUITES: [&str; 2] = ["sid", "bullseye"];

/// How long a server is looked for that derivations are brought to.
const PATIENCE: Duration = Duration::from_secs(30);

/// What builders find on their search path: everything that busybox has under one of these names.
const TOOLS: [&str; 9] = ["sh", "cat", "cp", "dd", "echo", "ln", "mkdir", "sleep", "test"];

/// The root file system of a Debian release with Guix installed, as `tests/trees` makes it.
#[derive(Clone, Debug)]
pub struct GuixRoot {
    path: PathBuf,
    suite: &'static str,
}

impl GuixRoot {
    /// Finds those that are there. Without any, the caller has nothing to test with: it says so on the standard error, or fails
    /// if `HAUBERK_GUIX_REQUIRED` is set.
    ///
    /// # Errors
    /// There is none, and there has to be one.
    pub fn all() -> Result<Vec<Self>> {
        let place = std::env::var_os("HAUBERK_GUIX_TREES")
            .filter(|place| !place.is_empty())
            .map_or_else(|| PathBuf::from(PLACE), PathBuf::from);
        // The lines of a machine's mount table have no `..` in them.
        let place = place.canonicalize().unwrap_or(place);
        let found: Vec<Self> = SUITES
            .into_iter()
            .map(|suite| Self { path: place.join(suite), suite })
            .filter(|root| root.path.join("usr/bin/guix-daemon").is_file())
            .collect();
        if found.is_empty() {
            let why = format!(
                "no Guix in {}: make it with tests/run --with-guix, or by tests/trees",
                place.display()
            );
            if std::env::var_os("HAUBERK_GUIX_REQUIRED").is_some() {
                bail!(why);
            }
            eprintln!("LEFT OUT: {why}");
        }
        Ok(found)
    }

    /// Finds the newest, as [`GuixRoot::all`] does.
    ///
    /// # Errors
    /// As [`GuixRoot::all`].
    pub fn newest() -> Result<Option<Self>> {
        Ok(Self::all()?.into_iter().next())
    }

    /// Gives where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the release's name.
    pub fn suite(&self) -> &str {
        self.suite
    }
}

/// The store of a Guix daemon, to put derivations into.
#[derive(Debug)]
pub struct GuixStore {
    daemon: Connection<UnixStream>,
    tools: StorePath,
    verified: VerifiedClosure,
    made: BTreeMap<DrvPath, Derivation>,
}

/// Begins an evaluation of a specification of this name.
async fn begin(client: &Client, specification: &str) -> Result<EvaluationId> {
    let new = NewSpecification {
        name: specification,
        definition: &serde_json::json!({}),
        priority: Level::try_from(5)?,
        shares: 100,
        enabled: true,
        public: true,
    };
    let specification = specifications::upsert(client, new).await?;
    Ok(evaluations::start(client, specification, &[]).await?)
}

fn outputs_of(derivation: &Derivation) -> BTreeMap<OutputName, StorePath> {
    let outputs = derivation.outputs.iter();
    outputs.filter_map(|(name, output)| Some((name.clone(), output.path.clone()?))).collect()
}

/// What a derivation is made of.
#[derive(Clone, Debug, Default)]
pub struct Recipe<'r> {
    /// Its name.
    pub name: &'r str,
    /// What the shell runs.
    pub script: &'r str,
    /// Derivations whose output `out` the script finds in a variable of that name.
    pub inputs: &'r [(&'r str, &'r DrvPath)],
    /// Sources the script finds in a variable of that name.
    pub sources: &'r [(&'r str, &'r StorePath)],
    /// More of the environment.
    pub environment: &'r [(&'r str, &'r str)],
    /// Outputs beside `out`.
    pub outputs: &'r [&'r str],
    /// The SHA-256 the output must have, in base 16, if that is fixed.
    pub fixed: Option<&'r str>,
}

impl GuixStore {
    /// Connects to the daemon at `address` and adds a shell and some tools, which every derivation refers to.
    ///
    /// # Errors
    /// The daemon does not answer, or there is no static busybox.
    pub async fn open(address: &DaemonAddress) -> Result<Self> {
        let mut daemon = Connection::connect(address, &ConnectOptions::default()).await?;
        daemon.set_options(&ClientOptions::default()).await?;
        let busybox = fs::read("/bin/busybox").context("reading busybox: install busybox-static")?;
        let mut entries = BTreeMap::new();
        for tool in TOOLS {
            let node = match tool {
                "sh" => Node::File { executable: true, contents: busybox.clone() },
                _ => Node::Symlink { target: b"sh".to_vec() },
            };
            entries.insert(tool.as_bytes().to_vec(), node);
        }
        let nar = Node::Directory { entries }.to_nar()?;
        let tools = daemon.add_source("tools", &mut nar.as_slice(), &BTreeSet::new()).await?;
        Ok(Self { daemon, tools, verified: VerifiedClosure::new(), made: BTreeMap::new() })
    }

    /// Gives the connection.
    pub fn daemon(&mut self) -> &mut Connection<UnixStream> {
        &mut self.daemon
    }

    /// Gives the directory of the tools.
    pub fn tools(&self) -> &StorePath {
        &self.tools
    }

    /// Adds a derivation and gives it with its outputs. Its inputs must have been made by this value.
    ///
    /// # Errors
    /// The daemon refuses it.
    pub async fn derivation(
        &mut self,
        recipe: &Recipe<'_>,
    ) -> Result<(DrvPath, BTreeMap<OutputName, StorePath>)> {
        let directory = StoreDirectory::guix();
        let tools = self.tools.to_string();
        let mut env: BTreeMap<Vec<u8>, Vec<u8>> = [("PATH", tools.as_str())]
            .iter()
            .chain(recipe.environment)
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        let mut input_derivations = BTreeMap::new();
        for (variable, drv) in recipe.inputs {
            let outputs = self.daemon.query_derivation_outputs(drv).await?;
            let out = outputs.get(&OutputName::OUT).context("an input without output `out`")?;
            env.insert(variable.as_bytes().to_vec(), out.to_string().into_bytes());
            input_derivations.insert((*drv).clone(), [OutputName::OUT].into_iter().collect());
        }
        for (variable, source) in recipe.sources {
            env.insert(variable.as_bytes().to_vec(), source.to_string().into_bytes());
        }
        let names = ["out"].iter().chain(recipe.outputs).map(|name| OutputName::parse(name));
        let names: Vec<OutputName> = names.collect::<Result<_, _>>()?;
        let sources = recipe.sources.iter().map(|(_, source)| (*source).clone());
        let mut derivation = Derivation {
            outputs: BTreeMap::new(),
            input_derivations,
            input_sources: sources.chain([self.tools.clone()]).collect(),
            system: "x86_64-linux".to_owned(),
            builder: format!("{tools}/sh").into_bytes(),
            args: ["-e", "-c", recipe.script].map(|arg| arg.as_bytes().to_vec()).into(),
            env,
        };
        let (hash_algo, hash) = match recipe.fixed {
            Some(hash) => ("sha256".to_owned(), hash.to_owned()),
            None => Default::default(),
        };
        // Any path does until the right one is told by whoever checks it.
        let unknown = StorePath::from_base_name(&directory, &format!("{}-{}", "0".repeat(32), recipe.name))?;
        for name in &names {
            let (hash_algo, hash) = (hash_algo.clone(), hash.clone());
            let output = Output { path: Some(unknown.clone()), hash_algo, hash };
            derivation.outputs.insert(name.clone(), output);
            derivation.env.insert(name.as_str().as_bytes().to_vec(), Vec::new());
        }
        let some_drv = DrvPath::parse(&format!("{unknown}.drv"))?;
        while let Err(error) = self.verified.add_parsed(&some_drv, &derivation) {
            let VerifyError::Output(wrong) = error else { return Err(error.into()) };
            let output = derivation.outputs.get_mut(&wrong.output).context("an output of its own")?;
            output.path = Some(wrong.computed.clone());
            let variable = wrong.output.as_str().as_bytes().to_vec();
            derivation.env.insert(variable, wrong.computed.to_string().into_bytes());
        }
        let bytes = derivation.to_bytes();
        let name = format!("{}.drv", recipe.name);
        let path = self.daemon.add_text(&name, &bytes, &derivation.references()).await?;
        let drv = DrvPath::try_from(path)?;
        self.verified.add(&drv, &bytes)?;
        let outputs = outputs_of(&derivation);
        self.made.insert(drv.clone(), derivation);
        Ok((drv, outputs))
    }

    /// Publishes an evaluation of a specification of this name, with these derivations as its jobs and all that was made as its
    /// builds.
    ///
    /// # Errors
    /// The database refuses it.
    pub async fn register(&self, database: &str, specification: &str, jobs: &[&DrvPath]) -> Result<()> {
        let database = Database::connect(&database.parse()?, 1).await?;
        let mut client = database.client().await?;
        let evaluation = begin(&client, specification).await?;
        self.publish(&mut client, evaluation, jobs).await
    }

    /// Does as [`GuixStore::register`] for servers that have another store: brings what was made to them before. `location` is the daemon that
    /// this one was opened at.
    ///
    /// # Errors
    /// As there, and when no server takes it.
    pub async fn register_elsewhere(
        &mut self,
        database: &str,
        specification: &str,
        jobs: &[&DrvPath],
        location: &NixDaemon,
    ) -> Result<()> {
        let database = Database::connect(&database.parse()?, 1).await?;
        let mut client = database.client().await?;
        let evaluation = begin(&client, specification).await?;
        let stores = Stores::new(StoreDirectory::guix(), PushWhen::Always, Vec::new(), PATIENCE)?;
        let delivery = stores.plan(&client, &mut self.daemon, evaluation).await?;
        let derivations = self.made.keys().map(|drv| drv.as_path().clone()).collect();
        delivery.bring(&derivations, location, &mut self.daemon, &client).await?;
        self.publish(&mut client, evaluation, jobs).await
    }

    /// Publishes an evaluation.
    async fn publish(&self, client: &mut Client, evaluation: EvaluationId, jobs: &[&DrvPath]) -> Result<()> {
        let builds: Vec<NewBuild> = self.made.iter().map(|(drv, made)| self.build_of(drv, made)).collect();
        let jobs = jobs.iter().map(|drv| {
            let build = self.made.keys().position(|made| made == *drv).context("a job that was not made")?;
            Ok(NewJob { name: drv.derivation_name().to_owned(), build, priority: Level::try_from(5)? })
        });
        let registration =
            Registration { jobs: jobs.collect::<Result<_>>()?, builds, ..Registration::default() };
        registration::publish(client, evaluation, &registration).await?;
        Ok(())
    }

    fn build_of(&self, drv: &DrvPath, derivation: &Derivation) -> NewBuild {
        let inputs = derivation.input_derivations.iter().flat_map(|(input, names)| {
            let outputs = self.made.get(input).map(outputs_of).unwrap_or_default();
            outputs
                .into_iter()
                .filter(|(name, _)| names.contains(name))
                .map(|(_, path)| path)
                .collect::<Vec<_>>()
        });
        NewBuild {
            derivation: drv.clone(),
            name: drv.derivation_name().to_owned(),
            system: derivation.system.clone(),
            features: Vec::new(),
            timeout: 600,
            max_silent: 300,
            outputs: outputs_of(derivation).into_iter().collect(),
            dependencies: inputs.collect(),
        }
    }

    /// Adds a derivation whose builder is this script.
    ///
    /// # Errors
    /// As [`GuixStore::derivation`].
    pub async fn script(&mut self, name: &str, script: &str) -> Result<DrvPath> {
        Ok(self.derivation(&Recipe { name, script, ..Recipe::default() }).await?.0)
    }
}
