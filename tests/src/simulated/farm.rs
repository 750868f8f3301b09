//! A farm whose builders are simulated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hauberk_database::{
    Database, Level, evaluations,
    registration::{self, Published},
    specifications::{self, NewSpecification},
    workers::{self, Enrolment, NewWorker},
};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::nix::SecretKey;

use super::{Graph, LogText, Random};
use crate::{
    checker::Checker,
    clock::Clock,
    directory::LabDirectory,
    gates::Gates,
    launch::Launch,
    machine::{Machine, MachineConfig},
    network::{LongLine, Network},
    postgres::{Postgres, PostgresOptions},
    process::Process,
    program::{hauberk_program, program_beside, require_root},
    tables::Tables,
    wait::{Deadline, wait_for},
};

/// Seconds that anything may take before it is said to hang. The computer may be busy with something else, all the more in the full
/// form of the faults, which is meant to run beside other things.
fn patience() -> u64 {
    if std::env::var("HAUBERK_FAULTS").is_ok_and(|form| form == "full") { 900 } else { 120 }
}

/// The name of the server's signing key.
const SERVER_KEY_NAME: &str = "farm.example-1";

/// Whether there is a second server at the same database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondServer {
    /// There is none.
    Absent,
    /// With the same keys and the same cache directory.
    Shared,
    /// With keys and a cache directory of its own.
    ItsOwn,
}

/// What is particular about a simulated farm.
#[derive(Clone, Debug)]
pub struct SimulatedFarmConfig {
    /// Processes that run workers, each on a machine of its own.
    pub crews: usize,
    /// Workers in each.
    pub workers: usize,
    /// Builds at once on each worker.
    pub slots: u32,
    /// Seconds between signs of life.
    pub heartbeat: u32,
    /// Seconds after which a silent worker is lost.
    pub lease: u32,
    /// More arguments of the server.
    pub server_arguments: Vec<String>,
    /// What is between each crew's machine and the others, where that is no cable.
    pub line: Option<LongLine>,
    /// Size of the workers' spools as `4m`, in memory; without one they lie on the computer's disk.
    pub spool_size: Option<String>,
    /// Size of what holds the outputs of each crew as `4m`, in memory.
    pub outputs_size: Option<String>,
    /// Size of the server's cache and logs as `4m`, in memory.
    pub cache_size: Option<String>,
    /// A second server, on a machine of its own.
    pub second_server: SecondServer,
    /// Size of what holds the database's cluster as `64m`, in memory.
    pub database_size: Option<String>,
    /// Tries after the first, for builds that failed by the farm's fault.
    pub retries: u16,
    /// Seconds before the first of them; each further one takes eight times as long.
    pub retry_delay: f64,
    /// Database, server and workers have clocks of their own, which can be moved.
    pub clocks: bool,
}

impl SimulatedFarmConfig {
    /// 100 slots on four workers in two processes.
    pub fn small() -> Self {
        Self { workers: 2, slots: 25, ..Self::default() }
    }
}

impl Default for SimulatedFarmConfig {
    /// 1,000 slots on 20 workers in two processes; a heartbeat each second, and leases of five.
    fn default() -> Self {
        Self {
            crews: 2,
            workers: 10,
            slots: 50,
            heartbeat: 1,
            lease: 5,
            server_arguments: Vec::new(),
            line: None,
            spool_size: None,
            outputs_size: None,
            cache_size: None,
            second_server: SecondServer::Absent,
            database_size: None,
            retries: 6,
            retry_delay: 0.05,
            clocks: false,
        }
    }
}

/// The clocks of a farm whose parts do not go by the computer's.
#[derive(Debug)]
pub struct Clocks {
    /// The database's.
    pub database: Clock,
    /// The server's.
    pub server: Clock,
    /// All workers'.
    pub workers: Clock,
}

impl Clocks {
    fn create(directory: &Path) -> Result<Self> {
        Ok(Self {
            database: Clock::create(directory, "database")?,
            server: Clock::create(directory, "server")?,
            workers: Clock::create(directory, "workers")?,
        })
    }
}

/// A process full of workers, on its machine.
#[derive(Debug)]
pub struct Crew {
    /// The process.
    pub process: Process,
    /// Its machine.
    pub machine: Machine,
    /// Its address.
    pub address: String,
    /// Its workers' names.
    pub names: Vec<String>,
    /// The directory of its workers' spools, as the computer reaches it.
    pub spools: PathBuf,
    /// The directory of its outputs, as the computer reaches it.
    pub outputs: PathBuf,
}

/// A farm with a real server, a real database, and real workers on machines of their own, whose builders are simulated.
///
/// What is published is remembered, and [`SimulatedFarm::settle`] checks that each build ended as it must.
#[derive(Debug)]
pub struct SimulatedFarm {
    /// The remote-server.
    pub server: Process,
    /// The second server, if there is one, its machine, and its address.
    pub second: Option<(Process, Machine, String)>,
    /// The CURVE key of the second server, if it has one of its own.
    second_key: Option<String>,
    /// The workers.
    pub crews: Vec<Crew>,
    /// The server's machine.
    pub server_machine: Machine,
    /// What joins the machines.
    pub network: Network,
    /// The database.
    pub postgres: Postgres,
    /// The database's machine, where it has one.
    pub database_machine: Option<Machine>,
    /// The farm's clocks, where they can be moved.
    pub clocks: Option<Clocks>,
    /// Where builders wait.
    pub gates: Gates,
    /// The tables.
    pub tables: Tables,
    /// Checks the farm.
    pub checker: Checker,
    config: SimulatedFarmConfig,
    hauberk: PathBuf,
    server_address: String,
    server_key: String,
    database: Database,
    expected: BTreeMap<String, &'static str>,
    graphs: usize,
    directory: LabDirectory,
}

impl SimulatedFarm {
    /// Sets a farm up, starts all of it, and waits until every worker has joined.
    ///
    /// # Errors
    /// The process is not root, something is not installed, or a step fails.
    pub async fn start(config: SimulatedFarmConfig) -> Result<Self> {
        Box::pin(Self::set_up(config)).await
    }

    async fn set_up(config: SimulatedFarmConfig) -> Result<Self> {
        require_root()?;
        let directory = LabDirectory::create()?;
        let root = directory.path().to_owned();
        let keys = directory.subdirectory("keys")?;
        let machines = directory.subdirectory("machines")?;
        let bare = |name: String| MachineConfig { name, without_daemon: true, ..MachineConfig::default() };
        let clocks = if config.clocks { Some(Clocks::create(&root)?) } else { None };
        let database_machine = match config.database_size {
            Some(_) => Some(Machine::start(&machines, &bare("database".to_owned()))?),
            None => None,
        };
        let options = PostgresOptions {
            clock: clocks.as_ref().map(|clocks| &clocks.database),
            small: database_machine.as_ref().zip(config.database_size.as_deref()),
            ..PostgresOptions::default()
        };
        let postgres = Postgres::create_with(&root.join("postgres"), options)?;
        let database = Database::connect_or_create(&postgres.connection_string().parse()?, 4).await?;
        let tables = Tables::new(postgres.connection_string());

        let curve = CurveKeyPair::generate();
        curve.write_new(&keys.join("server.curve"))?;
        let server_signing = SecretKey::generate(SERVER_KEY_NAME)?;
        write_secret(&keys.join("server.signing"), &server_signing)?;
        let worker_signing = SecretKey::generate("workers.example-1")?;
        write_secret(&keys.join("worker.signing"), &worker_signing)?;

        let gates = Gates::create(&root.join("gates"))?;
        let mut network = Network::create(&root)?;
        let server_machine = Machine::start(&machines, &bare("server".to_owned()))?;
        let server_address = network.attach(&server_machine)?.to_string();
        let hauberk = hauberk_program()?;
        let mut cache = root.join("cache");
        fs::create_dir_all(&cache)?;
        if let Some(size) = &config.cache_size {
            server_machine.mount_small(&cache, size)?;
            cache = server_machine.inside(&cache);
        }
        let mut server =
            Self::server_launch(&config, &hauberk, &server_machine, &server_address, &root, &postgres);
        if let Some(clocks) = &clocks {
            server = server.clock(&clocks.server);
        }
        let mut server = server.start("remote-server", &root)?;
        server.wait_ready(Deadline::seconds(patience()))?;

        let checker = Checker::new(
            cache,
            server_signing.public_key(),
            Duration::from_secs(config.lease.into()),
            Some(LogText::of),
        );
        let checker = if config.clocks { checker.with_jumping_clock() } else { checker };
        let mut farm = Self {
            server,
            crews: Vec::new(),
            second: None,
            second_key: None,
            server_machine,
            network,
            postgres,
            database_machine,
            clocks,
            gates,
            tables,
            checker,
            hauberk,
            server_address,
            server_key: curve.public().to_string(),
            database,
            expected: BTreeMap::new(),
            graphs: 0,
            config,
            directory,
        };
        if farm.config.second_server != SecondServer::Absent {
            let machine = Machine::start(&machines, &bare("server-2".to_owned()))?;
            farm.second = Some(farm.start_second(machine)?);
        }
        for number in 1..=farm.config.crews {
            let machine = Machine::start(&machines, &bare(format!("crew-{number}")))?;
            farm.add_crew(machine, &worker_signing).await?;
        }
        farm.wait_joined().await?;
        Ok(farm)
    }

    fn start_second(&mut self, machine: Machine) -> Result<(Process, Machine, String)> {
        let address = self.network.attach(&machine)?.to_string();
        let mut root = self.directory.path().to_owned();
        if self.config.second_server == SecondServer::ItsOwn {
            root = self.directory.subdirectory("second")?;
            let (keys, cache) = (root.join("keys"), root.join("cache"));
            fs::create_dir_all(&keys)?;
            fs::create_dir_all(&cache)?;
            let curve = CurveKeyPair::generate();
            curve.write_new(&keys.join("server.curve"))?;
            self.second_key = Some(curve.public().to_string());
            let signing = SecretKey::generate("second.example-1")?;
            write_secret(&keys.join("server.signing"), &signing)?;
            self.checker = self.checker.anew().with_other_server("farm-2", cache, signing.public_key());
        }
        let launch =
            Self::server_launch(&self.config, &self.hauberk, &machine, &address, &root, &self.postgres);
        // The last name counts.
        let mut process =
            launch.args(["--name", "farm-2"]).start("remote-server-2", self.directory.path())?;
        process.wait_ready(Deadline::seconds(patience()))?;
        Ok((process, machine, address))
    }

    fn server_launch(
        config: &SimulatedFarmConfig,
        hauberk: &Path,
        machine: &Machine,
        address: &str,
        root: &Path,
        postgres: &Postgres,
    ) -> Launch {
        machine
            .command(hauberk)
            .args(["remote-server", "--database", &postgres.connection_string(), "--cache"])
            .arg(root.join("cache"))
            .arg("--signing-key")
            .arg(root.join("keys/server.signing"))
            .arg("--curve-key")
            .arg(root.join("keys/server.curve"))
            .args(["--publish-url", &format!("http://{address}:5557")])
            .args(["--name", "farm", "--daemon", "none", "--announce", "off", "--fetches", "32"])
            .args(["--heartbeat", &config.heartbeat.to_string(), "--lease", &config.lease.to_string()])
            .args(["--retries", &config.retries.to_string()])
            .args(["--retry-delay", &config.retry_delay.to_string()])
            .args(&config.server_arguments)
    }

    async fn add_crew(&mut self, machine: Machine, signing: &SecretKey) -> Result<()> {
        let address = match &self.config.line {
            Some(line) => self.network.attach_by_line(&machine, line)?,
            None => self.network.attach(&machine)?,
        };
        let address = address.to_string();
        let keys = self.directory.path().join("keys");
        let signing_key = signing.public_key().to_string();
        let client = self.database.client().await?;
        let mut names = Vec::new();
        for number in 1..=self.config.workers {
            let name = format!("{}-{number}", machine.name());
            let curve = CurveKeyPair::generate();
            curve.write_new(&keys.join(&name))?;
            let worker = NewWorker {
                name: &name,
                public_key: &curve.public().to_string(),
                signing_key: &signing_key,
                enrolled_by: "test",
            };
            match workers::add(&client, worker).await? {
                Enrolment::Done(_) => names.push(name),
                other => bail!("{name} cannot be enrolled: {other:?}"),
            }
        }
        drop(client);
        let directory = machine.directory().to_owned();
        for name in ["spools", "outputs"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let mut spools = directory.join("spools");
        if let Some(size) = &self.config.spool_size {
            machine.mount_small(&spools, size)?;
            spools = machine.inside(&spools);
        }
        let mut outputs = directory.join("outputs");
        if let Some(size) = &self.config.outputs_size {
            machine.mount_small(&outputs, size)?;
            outputs = machine.inside(&outputs);
        }
        let process = self
            .crew_launch(&machine, &address, &names, &keys, &directory)?
            .start(machine.name(), self.directory.path())?;
        self.crews.push(Crew { process, machine, address, names, spools, outputs });
        Ok(())
    }

    /// How a crew is started that has its workers' keys in `keys`, and spools and outputs in `directory`.
    fn crew_launch(
        &self,
        machine: &Machine,
        address: &str,
        names: &[String],
        keys: &Path,
        directory: &Path,
    ) -> Result<Launch> {
        for name in ["spools", "outputs"] {
            fs::create_dir_all(directory.join(name))?;
        }
        // Of servers with keys of their own, every other crew has been told of the second only; it hears of the first there.
        let of_second = self.second_key.as_ref().filter(|_| machine.name().ends_with(['2', '4', '6', '8']));
        let second = self.second.as_ref().map(|(_, _, address)| address);
        let servers: Vec<&String> = match (of_second, second) {
            (Some(_), Some(second)) => vec![second],
            (None, Some(_)) if self.second_key.is_some() => vec![&self.server_address],
            _ => std::iter::once(&self.server_address).chain(second).collect(),
        };
        let mut launch = machine
            .command(program_beside("simulated-workers")?)
            .args(["--server-key", of_second.unwrap_or(&self.server_key)])
            .args(["--names", &names.join(","), "--slots", &self.config.slots.to_string()])
            .args(["--listen", address, "--keys"])
            .arg(keys)
            .arg("--signing-key")
            .arg(self.directory.path().join("keys/worker.signing"))
            .arg("--spools")
            .arg(directory.join("spools"))
            .arg("--store")
            .arg(directory.join("outputs"))
            .arg("--gates")
            .arg(self.gates.directory());
        for server in servers {
            launch = launch.args(["--server", &format!("{server}:5555")]);
        }
        if let Some(clocks) = &self.clocks {
            launch = launch.clock(&clocks.workers);
        }
        Ok(launch)
    }

    /// Starts a second process with the names and keys of a crew, counted from 0, beside it, with spools of its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn twin_of_crew(&self, crew: usize) -> Result<Process> {
        self.beside_crew(crew, "twin", &self.directory.path().join("keys"))
    }

    /// Starts a second process with the names of a crew, counted from 0, but keys that nobody knows.
    ///
    /// # Errors
    /// It does not start.
    pub fn stranger_named_as_crew(&self, crew: usize) -> Result<Process> {
        let keys = self.directory.subdirectory("stranger-keys")?;
        for name in &self.crews[crew].names {
            CurveKeyPair::generate().write_new(&keys.join(name))?;
        }
        self.beside_crew(crew, "stranger", &keys)
    }

    /// Has the liar claim results of all attempts once more, and waits until the server has heard.
    ///
    /// # Errors
    /// It has ended, or does not do it in time.
    pub fn lie_again(&self, liar: &mut Process) -> Result<()> {
        let again = self.liar_again();
        fs::write(&again, "").with_context(|| format!("writing {}", again.display()))?;
        wait_for("the liar lies again", Deadline::seconds(patience()), || {
            liar.check_alive()?;
            Ok((!again.exists()).then_some(()))
        })
    }

    fn liar_again(&self) -> PathBuf {
        self.directory.path().join("lie-again")
    }

    /// Reads a counter of the server at `address`, given by its name with the labels; 0 if it is not there yet.
    ///
    /// # Errors
    /// The server does not tell its metrics, or not as they must be.
    pub fn counter(&self, address: &str, name: &str) -> Result<u64> {
        let url = format!("http://{address}:5557/metrics");
        let text = self.server_machine.command("curl").args(["--silent", "--fail", &url]).run()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
        value.trim().parse().with_context(|| format!("{name} is {value}"))
    }

    /// Enrols a worker named `liar`, and starts it on the machine of the first crew; it takes so many attempts.
    ///
    /// # Errors
    /// It cannot be enrolled or started.
    pub async fn liar(&self, attempts: usize) -> Result<Process> {
        let key = self.directory.path().join("keys/liar");
        let curve = CurveKeyPair::generate();
        curve.write_new(&key)?;
        let signing = fs::read_to_string(self.directory.path().join("keys/worker.signing"))?;
        let signing = SecretKey::parse(signing.trim())?.public_key().to_string();
        let worker = NewWorker {
            name: "liar",
            public_key: &curve.public().to_string(),
            signing_key: &signing,
            enrolled_by: "test",
        };
        match workers::add(&self.database.client().await?, worker).await? {
            Enrolment::Done(_) => {}
            other => bail!("the liar cannot be enrolled: {other:?}"),
        }
        // It pretends to have what another has.
        let rows = self
            .tables
            .query("select publish_url from workers where name = $1", &[&self.crews[0].names[0]])
            .await?;
        let publish_url: String = rows.first().context("the first worker has joined")?.get(0);
        self.crews[0]
            .machine
            .command(program_beside("lying-worker")?)
            .args(["--server", &format!("{}:5555", self.server_address), "--server-key", &self.server_key])
            .arg("--key")
            .arg(&key)
            .args(["--name", "liar", "--signing-key", &signing, "--publish-url", &publish_url])
            .args(["--attempts", &attempts.to_string(), "--again"])
            .arg(self.liar_again())
            .start("liar", self.directory.path())
    }

    fn beside_crew(&self, crew: usize, name: &str, keys: &Path) -> Result<Process> {
        let Crew { machine, address, names, .. } = &self.crews[crew];
        let directory = self.directory.subdirectory(name)?;
        let mut process = self
            .crew_launch(machine, address, names, keys, &directory)?
            .start(name, self.directory.path())?;
        process.wait_ready(Deadline::seconds(patience()))?;
        Ok(process)
    }

    /// Gives a checker that has read nothing yet.
    pub fn new_checker(&self) -> Checker {
        self.checker.anew()
    }

    /// Gives the directory everything lies in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the address of the server, without a port.
    pub fn server_address(&self) -> &str {
        &self.server_address
    }

    /// Gives the server's public CURVE key.
    pub fn server_key(&self) -> &str {
        &self.server_key
    }

    /// Gives the lease.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.config.lease.into())
    }

    /// Gives the number of slots of all workers.
    pub fn slots(&self) -> usize {
        self.config.crews * self.config.workers * usize::try_from(self.config.slots).unwrap_or_default()
    }

    /// Gives the pool of connections that publishes.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Kills the server, without starting it again.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill_server(&mut self) -> Result<()> {
        self.server.kill9()
    }

    /// Starts the server that was killed, and waits until it serves.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn restart_server(&mut self) -> Result<()> {
        self.server.restart()?;
        self.server.wait_ready(Deadline::seconds(patience()))
    }

    /// Waits until every worker has a session with the present server.
    ///
    /// # Errors
    /// As [`SimulatedFarm::wait_until`].
    pub async fn wait_joined(&mut self) -> Result<()> {
        let count = i64::try_from(self.config.crews * self.config.workers)?;
        self.wait_until(
            "every worker has joined",
            "select count(*) >= $1 from workers where epoch in (select epoch from server_epochs where ended_at is null)",
            &[&count],
        )
        .await
    }

    /// Gives a tag that no other graph of the farm has.
    pub fn tag(&mut self) -> String {
        self.graphs += 1;
        format!("g{}", self.graphs)
    }

    /// Publishes an evaluation with these builds.
    ///
    /// # Errors
    /// The database cannot do it.
    pub async fn publish(&mut self, graph: &Graph) -> Result<Published> {
        self.expected.extend(graph.expected());
        publish(&self.database, graph).await
    }

    /// Publishes an evaluation of a specification of this name, with a priority and shares, and remembers how it must end.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses it.
    pub async fn publish_for(
        &mut self,
        graph: &Graph,
        name: &str,
        priority: Level,
        shares: i32,
    ) -> Result<Published> {
        self.expected.extend(graph.expected());
        publish_for(&self.database, graph, name, priority, shares).await
    }

    /// Takes note of a graph that is published elsewhere.
    pub fn expect(&mut self, graph: &Graph) {
        self.expected.extend(graph.expected());
    }

    /// Publishes as many builds as there are slots, all of which wait at a gate, and half as many that need some of them; waits until
    /// every slot is busy. Gives the gate's name.
    ///
    /// # Errors
    /// As [`SimulatedFarm::wait_until`].
    pub async fn fill_with_work(&mut self, random: &mut Random) -> Result<String> {
        let tag = self.tag();
        let mut graph = Graph::new(&tag);
        graph.add_many(&format!("gate.{tag}"), self.slots());
        graph.add_tangle(self.slots() / 2, random);
        self.publish(&graph).await?;
        self.wait_running(self.slots()).await?;
        Ok(tag)
    }

    /// Tells how many builds were published so far.
    pub fn published(&self) -> usize {
        self.expected.len()
    }

    /// Counts attempts for which a condition on table `attempts` holds.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn attempts_where(&self, condition: &str) -> Result<usize> {
        let rows =
            self.tables.query(&format!("select count(*) from attempts where {condition}"), &[]).await?;
        Ok(usize::try_from(rows[0].get::<_, i64>(0))?)
    }

    /// Waits until so many results wait in the spools of a crew, counted from 0.
    ///
    /// # Errors
    /// They do not come, or a spool cannot be read.
    pub async fn wait_results(&mut self, crew: usize, count: usize) -> Result<()> {
        let deadline = Deadline::seconds(patience());
        loop {
            let crew = &self.crews[crew];
            let mut found = 0;
            for name in &crew.names {
                for entry in fs::read_dir(crew.spools.join(name).join("results"))? {
                    // A draft that is on its way to the disk is no result yet.
                    found += usize::from(
                        entry?.file_name().to_str().is_some_and(|name| name.parse::<i64>().is_ok()),
                    );
                }
            }
            if found >= count {
                return Ok(());
            }
            if deadline.is_over() {
                bail!("{found} results wait instead of {count}\n{}", self.describe().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the server has a good part of a long log whose builder still writes: it is in the middle of its stream.
    ///
    /// # Errors
    /// No such log comes, or the database cannot be reached.
    pub async fn wait_long_log(&mut self) -> Result<()> {
        const PART: u64 = 256 << 10;
        let deadline = Deadline::seconds(patience());
        loop {
            let open = "select log_path from attempts where ended_at is null and built_at is null and log_path is not null";
            let rows = self.tables.query(open, &[]).await?;
            let logs = self.directory.path().join("cache/logs");
            let there = |path: &str| fs::metadata(logs.join(path)).is_ok_and(|file| file.len() > PART);
            if rows.iter().any(|row| there(row.get(0))) {
                return Ok(());
            }
            if deadline.is_over() {
                bail!("no long log is under way\n{}", self.describe().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Gives how many slots a crew has.
    pub fn slots_of_crew(&self) -> usize {
        self.slots() / self.config.crews
    }

    /// Waits until so many builders are at work.
    ///
    /// # Errors
    /// As [`SimulatedFarm::wait_until`].
    pub async fn wait_running(&mut self, count: usize) -> Result<()> {
        self.wait_until(
            &format!("{count} builds run"),
            "select count(*) >= $1 from builds where state = 'running'",
            &[&i64::try_from(count)?],
        )
        .await
    }

    /// Waits until so many builds have ended since the farm began.
    ///
    /// # Errors
    /// As [`SimulatedFarm::wait_until`].
    pub async fn wait_ended(&mut self, count: usize) -> Result<()> {
        self.wait_until(
            &format!("{count} builds have ended"),
            "select count(*) >= $1 from builds where status >= 0",
            &[&i64::try_from(count)?],
        )
        .await
    }

    /// Waits until so many attempts have been given up for lost since the farm began.
    ///
    /// # Errors
    /// As [`SimulatedFarm::wait_until`].
    pub async fn wait_lost(&mut self, count: usize) -> Result<()> {
        self.wait_until(
            &format!("{count} attempts are lost"),
            "select count(*) >= $1 from attempts where class = 'worker_lost'",
            &[&i64::try_from(count)?],
        )
        .await
    }

    /// Waits until everything published has ended, however long that takes up to so many seconds.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn wait_all_ended(&mut self, seconds: u64) -> Result<()> {
        let expected = i64::try_from(self.expected.len())?;
        self.wait_within(
            seconds,
            "every build has ended",
            "select count(*) = $1 from builds where status >= 0",
            &[&expected],
        )
        .await
    }

    /// Counts the builds that have ended since the farm began.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn ended(&self) -> Result<usize> {
        let rows = self.tables.query("select count(*) from builds where status >= 0", &[]).await?;
        Ok(usize::try_from(rows[0].get::<_, i64>(0))?)
    }

    /// Waits until `statement` gives a row whose first column is true.
    ///
    /// # Errors
    /// A process of the farm that should run has ended, or the condition does not come to hold; the message shows the states of
    /// builds and the ends of the logs.
    pub async fn wait_until(
        &mut self,
        what: &str,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<()> {
        self.wait_within(patience(), what, statement, parameters).await
    }

    async fn wait_within(
        &mut self,
        seconds: u64,
        what: &str,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<()> {
        let (server, crews) = (&mut self.server, &mut self.crews);
        let look_after = || {
            server.check()?;
            crews.iter_mut().try_for_each(|crew| crew.process.check())
        };
        let waited =
            self.tables.wait_until(what, Deadline::seconds(seconds), statement, parameters, look_after).await;
        match waited {
            Ok(()) => Ok(()),
            Err(error) => {
                let described = self.describe().await;
                Err(error.context(described))
            }
        }
    }

    /// Waits until everything published has ended, every log has come and every spool is empty; then lets the checker read
    /// everything, and compares how the builds ended with how they must.
    ///
    /// # Errors
    /// Something does not end, ends wrongly, or the checker finds something.
    pub async fn settle(&mut self) -> Result<()> {
        let expected = i64::try_from(self.expected.len())?;
        self.wait_until(
            "every build has ended",
            "select count(*) = $1 and not exists (select from attempts where ended_at is null) from builds where status >= 0",
            &[&expected],
        )
        .await?;
        self.wait_until(
            "every log has come",
            "select not exists (select from attempts where not log_complete and coalesce(log_bytes, 0) > 0 \
             and (built_at is not null or class = 'build_failed'))",
            &[],
        )
        .await?;
        self.wait_spools_empty().await?;
        let findings = self.checker.settled(&self.tables).await?;
        if let Err(error) = findings.require_none() {
            return Err(error.context(self.describe().await));
        }
        self.compare_states().await
    }

    async fn wait_spools_empty(&mut self) -> Result<()> {
        let deadline = Deadline::seconds(patience());
        loop {
            let left = self.spooled()?;
            if left.is_empty() {
                return Ok(());
            }
            if deadline.is_over() {
                let shown: Vec<_> = left.iter().take(10).map(|path| path.display().to_string()).collect();
                let described = self.describe().await;
                bail!("{} files stay in the workers' spools: {}\n{described}", left.len(), shown.join(", "));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gives what lies in the workers' spools: results, logs and names of attempts that the server still owes an answer about.
    ///
    /// # Errors
    /// A spool cannot be read.
    pub fn spooled(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for crew in &self.crews {
            for name in &crew.names {
                for kind in ["results", "kept", "logs"] {
                    let directory = crew.spools.join(name).join(kind);
                    for entry in fs::read_dir(&directory)
                        .with_context(|| format!("listing {}", directory.display()))?
                    {
                        found.push(entry?.path());
                    }
                }
            }
        }
        Ok(found)
    }

    async fn compare_states(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let rows = self.tables.query("select name, state from builds", &[]).await?;
        if rows.len() != self.expected.len() {
            wrong.push(format!("{} builds instead of {}", rows.len(), self.expected.len()));
        }
        for row in rows {
            let (name, state): (&str, &str) = (row.get(0), row.get(1));
            let expected = self.expected.get(name).copied().unwrap_or("not published");
            if state != expected {
                wrong.push(format!("{name} is {state} instead of {expected}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(10);
        bail!("builds did not end as they must: {}\n{}", wrong.join("; "), self.describe().await)
    }

    /// Proves that no slot is lost: as many builds as there are slots run all at the same time, as many on each worker as it has
    /// slots, and then everything settles.
    ///
    /// # Errors
    /// As [`SimulatedFarm::settle`].
    pub async fn fill_all_slots(&mut self) -> Result<()> {
        let tag = self.tag();
        let mut graph = Graph::new(&tag);
        graph.add_many(&format!("gate.{tag}"), self.slots());
        self.publish(&graph).await?;
        let workers = i64::try_from(self.config.crews * self.config.workers)?;
        let slots = i64::from(self.config.slots);
        self.wait_until(
            "every slot of every worker is busy",
            "select count(*) = $1 and min(n) = $2 and max(n) = $2 from (select count(*) as n from attempts a \
             join builds b on b.attempt_id = a.id where b.state = 'running' group by a.worker_id) busy",
            &[&workers, &slots],
        )
        .await?;
        self.gates.open(&tag)?;
        self.settle().await
    }

    /// Ends everything in order and checks how it ends.
    ///
    /// # Errors
    /// A process does not end in order.
    pub fn stop(mut self) -> Result<()> {
        for crew in &mut self.crews {
            crew.process.stop(Deadline::seconds(60))?;
        }
        self.server.stop(Deadline::seconds(60))
    }

    /// Tells the states of builds and the ends of logs, for messages.
    pub async fn describe(&self) -> String {
        let states = self
            .tables
            .query(
                "select b.state, coalesce(a.class, 'open'), count(*), min(b.name), max(coalesce(a.message, '')) from builds b \
                 left join attempts a on a.build_id = b.id group by 1, 2 order by 1, 2",
                &[],
            )
            .await;
        let mut text = match states {
            Ok(rows) => rows
                .iter()
                .map(|row| {
                    let (state, class): (&str, &str) = (row.get(0), row.get(1));
                    let (count, name, message): (i64, &str, &str) = (row.get(2), row.get(3), row.get(4));
                    format!("{state}, attempt {class}: {count}, as {name} ({message})\n")
                })
                .collect(),
            Err(error) => format!("builds are not known: {error:#}\n"),
        };
        for process in std::iter::once(&self.server).chain(self.crews.iter().map(|crew| &crew.process)) {
            text.push_str(&format!("--- the log of {} ends:\n{}\n", process.name(), process.log_tail()));
        }
        text
    }

    /// Gives a launch of `hauberk` on the server's machine.
    pub fn hauberk_on_server(&self) -> Launch {
        self.server_machine.command(&self.hauberk)
    }
}

impl Drop for SimulatedFarm {
    fn drop(&mut self) {
        // The kernel takes a while to clear a machine away: let it do all of them at once.
        self.server_machine.power_off();
        if let Some(machine) = &mut self.database_machine {
            machine.power_off();
        }
        for crew in &mut self.crews {
            crew.machine.power_off();
        }
    }
}

/// Publishes an evaluation as register does.
///
/// # Errors
/// The database cannot do it.
pub async fn publish(database: &Database, graph: &Graph) -> Result<Published> {
    publish_for(database, graph, "faults", Level::LEAST_URGENT, 100).await
}

async fn publish_for(
    database: &Database,
    graph: &Graph,
    name: &str,
    priority: Level,
    shares: i32,
) -> Result<Published> {
    let mut client = database.client().await?;
    let definition = serde_json::Value::Object(serde_json::Map::new());
    let specification =
        NewSpecification { name, definition: &definition, priority, shares, enabled: true, public: true };
    let specification = specifications::upsert(&client, specification).await?;
    let evaluation = evaluations::start(&client, specification, &[]).await?;
    Ok(registration::publish(&mut client, evaluation, &graph.registration()?).await?)
}

fn write_secret(path: &Path, key: &SecretKey) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{}", key.to_secret_string().as_str())?)
}
