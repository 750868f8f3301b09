//! A whole farm.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, Row, types::ToSql};

use crate::{
    directory::LabDirectory,
    gates::Gates,
    guix::GuixRoot,
    jobs::jobs,
    launch::Launch,
    machine::{Machine, MachineConfig},
    network::Network,
    postgres::Postgres,
    process::Process,
    program::{hauberk_program, require_root},
    repository::Repository,
    specification::Specification,
    tables::Tables,
    wait::Deadline,
};

/// The user workers run as: nobody. Their daemon does not trust it, so signatures count.
const WORKER_USER: u32 = 65534;
/// The name of the server's signing key.
const SERVER_KEY_NAME: &str = "farm.example-1";
/// The ports, each in the server's own network.
const PUBLISH_PORT: u16 = 5557;
const GUIX_PUBLISH_PORT: u16 = 5559;

/// What is particular about a farm.
#[derive(Clone, Debug)]
pub struct FarmConfig {
    /// How many worker machines.
    pub workers: usize,
    /// How many builds each runs at once.
    pub slots: u32,
    /// Whether PostgreSQL waits for the disk.
    pub durable: bool,
    /// The `hauberk` program.
    pub hauberk: PathBuf,
    /// The Guix of the server's machine and of workers beside the others, each with that of its own; none for a farm of Nix alone.
    pub guix: Option<GuixFarm>,
}

/// What a farm that holds Guix's store as well is made of.
#[derive(Clone, Debug)]
pub struct GuixFarm {
    /// The Guix of the server's machine.
    pub server: GuixRoot,
    /// The Guix of each worker's machine; these workers come after those of Nix.
    pub workers: Vec<GuixRoot>,
}

impl FarmConfig {
    /// Two workers of one slot each.
    ///
    /// # Errors
    /// There is no `hauberk` program.
    pub fn new() -> Result<Self> {
        Ok(Self { workers: 2, slots: 1, durable: false, hauberk: hauberk_program()?, guix: None })
    }
}

/// A machine with a worker on it.
#[derive(Debug)]
pub struct WorkerHost {
    /// The remote-worker; `None` until it is started.
    pub process: Option<Process>,
    /// Its machine.
    pub machine: Machine,
    /// How it is started.
    pub launch: Launch,
    /// Its address.
    pub address: String,
    name: String,
}

impl WorkerHost {
    /// Gives the worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the running worker.
    ///
    /// # Errors
    /// It was not started.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("worker {} was not started", self.name))
    }
}

/// A farm: PostgreSQL on the computer, a server machine with register and remote-server, and worker machines.
///
/// Making one sets everything up (keys, schema, enrolment) and starts PostgreSQL and the machines; the farm's own processes
/// are started one by one, so that a test can do it in its order.
#[derive(Debug)]
pub struct Farm {
    /// The register; `None` until it is started.
    pub register: Option<Process>,
    /// The remote-server; `None` until it is started.
    pub server: Option<Process>,
    /// The web process, on the computer itself; `None` until it is started.
    pub web: Option<Process>,
    /// The workers' machines.
    pub workers: Vec<WorkerHost>,
    /// The machine of register and remote-server.
    pub server_machine: Machine,
    /// What joins the machines.
    pub network: Network,
    /// The database.
    pub postgres: Postgres,
    /// Where builders of test jobs wait.
    pub gates: Gates,
    config: FarmConfig,
    server_address: String,
    server_signing_key: String,
    tables: Tables,
    directory: LabDirectory,
}

impl Farm {
    /// Sets a farm up.
    ///
    /// # Errors
    /// The process is not root, something is not installed, or a step fails.
    pub fn create(config: FarmConfig) -> Result<Self> {
        require_root()?;
        let directory = LabDirectory::create()?;
        let keys = directory.subdirectory("keys")?;
        let hauberk = Launch::here(&config.hauberk);
        let postgres = Postgres::create(&directory.path().join("postgres"), config.durable)?;
        let database = postgres.connection_string();
        hauberk.clone().args(["database", "migrate", "--database", &database]).run()?;

        hauberk.clone().args(["key", "curve"]).arg(keys.join("server.curve")).run()?;
        hauberk.clone().args(["key", "signing", SERVER_KEY_NAME]).arg(keys.join("server.signing")).run()?;
        let server_signing_key = fs::read_to_string(keys.join("server.signing.pub"))
            .context("reading the server's public signing key")?
            .trim()
            .to_owned();

        let machines = directory.subdirectory("machines")?;
        let gates = Gates::create(&directory.path().join("gates"))?;
        let mut network = Network::create(directory.path())?;
        if config.guix.is_some() {
            hauberk.clone().args(["key", "signing", "--guix"]).arg(keys.join("server.guix.sec")).run()?;
        }
        let server_machine = Machine::start(
            &machines,
            &MachineConfig {
                name: "server".to_owned(),
                guix: config.guix.as_ref().map(|guix| guix.server.clone()),
                ..MachineConfig::default()
            },
        )?;
        let server_address = network.attach(&server_machine)?.to_string();

        let mut workers = Vec::new();
        let of_guix: Vec<Option<GuixRoot>> = std::iter::repeat_n(None, config.workers)
            .chain(config.guix.iter().flat_map(|guix| guix.workers.iter().cloned().map(Some)))
            .collect();
        for (place, guix) in of_guix.into_iter().enumerate() {
            let name = format!("worker-{}", place + 1);
            let curve = keys.join(format!("{name}.curve"));
            let signing = keys.join(format!("{name}.signing"));
            hauberk.clone().args(["key", "curve"]).arg(&curve).run()?;
            match &guix {
                None => {
                    let key_name = format!("{name}.example-1");
                    hauberk.clone().args(["key", "signing", &key_name]).arg(&signing).run()?;
                }
                Some(_) => {
                    hauberk.clone().args(["key", "signing", "--guix"]).arg(&signing).run()?;
                }
            }
            hauberk
                .clone()
                .args(["worker", "add", &name, "--database", &database, "--public-key"])
                .arg(curve.with_extension("curve.pub"))
                .arg("--signing-key")
                .arg(signing.with_extension("signing.pub"))
                .run()?;
            for file in [&curve, &signing] {
                chown(file, Some(WORKER_USER), Some(WORKER_USER))?;
            }
            let machine = Machine::start(
                &machines,
                &MachineConfig {
                    name: name.clone(),
                    trusted_public_keys: vec![server_signing_key.clone()],
                    gates: Some(gates.directory().to_owned()),
                    guix: guix.clone(),
                    ..MachineConfig::default()
                },
            )?;
            let address = network.attach(&machine)?.to_string();
            let spool = machine.directory().join("spool");
            fs::create_dir_all(&spool)?;
            chown(&spool, Some(WORKER_USER), Some(WORKER_USER))?;
            for shared in ["home", "tmp"] {
                fs::set_permissions(machine.directory().join(shared), fs::Permissions::from_mode(0o1777))?;
            }
            let launch = machine
                .command(&config.hauberk)
                .args(["remote-worker", "--name", &name])
                .args(["--workers", &config.slots.to_string()])
                .arg("--curve-key")
                .arg(&curve)
                .arg("--signing-key")
                .arg(&signing)
                .arg("--server-key")
                .arg(keys.join("server.curve.pub"))
                .arg("--spool")
                .arg(&spool)
                .user(WORKER_USER);
            // The kind of the key tells the store.
            workers.push(WorkerHost { process: None, machine, launch, address, name });
        }
        Ok(Self {
            register: None,
            server: None,
            web: None,
            workers,
            server_machine,
            network,
            postgres,
            gates,
            config,
            server_address,
            server_signing_key,
            tables: Tables::new(database),
            directory,
        })
    }

    /// Gives the directory everything lies in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the server's cache directory.
    pub fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Gives the URL the server publishes at, in the farm's network.
    pub fn publish_url(&self) -> String {
        format!("http://{}:{PUBLISH_PORT}", self.server_address)
    }

    /// Gives the URL the server publishes Guix's store at, in the farm's network.
    pub fn guix_publish_url(&self) -> String {
        format!("http://{}:{GUIX_PUBLISH_PORT}", self.server_address)
    }

    /// Gives the server's public signing key, as Nix writes it.
    pub fn server_signing_key(&self) -> &str {
        &self.server_signing_key
    }

    /// Gives the file of a key, for instance `server.curve`.
    pub fn key_file(&self, name: &str) -> PathBuf {
        self.directory.path().join("keys").join(name)
    }

    /// Gives a launch of `hauberk` on the computer itself.
    pub fn hauberk(&self) -> Launch {
        Launch::here(&self.config.hauberk)
    }

    /// Gives a launch of `hauberk` on the server's machine.
    pub fn hauberk_on_server(&self) -> Launch {
        self.server_machine.command(&self.config.hauberk)
    }

    /// Gives how the server is started.
    pub fn server_launch(&self) -> Launch {
        let launch = self.nix_server_launch();
        match self.config.guix {
            None => launch,
            Some(_) => launch
                .arg("--signing-key")
                .arg(self.key_file("server.guix.sec"))
                .args(["--publish-url", &self.guix_publish_url()]),
        }
    }

    fn nix_server_launch(&self) -> Launch {
        self.hauberk_on_server()
            .args(["remote-server", "--database", &self.postgres.connection_string(), "--cache"])
            .arg(self.cache())
            .arg("--signing-key")
            .arg(self.key_file("server.signing"))
            .arg("--curve-key")
            .arg(self.key_file("server.curve"))
            .args(["--publish-url", &self.publish_url()])
    }

    /// Writes a specification file and gives the launch of a register for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn register_launch(&self, specifications: &[Specification]) -> Result<Launch> {
        self.register_launch_on(&self.server_machine, specifications)
    }

    /// Does as [`Farm::register_launch`] on a machine.
    ///
    /// # Errors
    /// As there.
    pub fn register_launch_on(&self, machine: &Machine, specifications: &[Specification]) -> Result<Launch> {
        let file = self.directory.path().join("specifications.toml");
        let text: Vec<String> = specifications.iter().map(Specification::toml).collect();
        fs::write(&file, text.join("\n"))?;
        Ok(machine
            .command(&self.config.hauberk)
            .args(["register", "--build-remote", "--database", &self.postgres.connection_string()])
            .arg("--specifications")
            .arg(&file)
            .arg("--state-directory")
            .arg(self.directory.subdirectory("register")?))
    }

    /// Starts the remote-server and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_server(&mut self) -> Result<()> {
        let mut process = self.server_launch().start("remote-server", self.directory.path())?;
        process.wait_ready(Deadline::seconds(60))?;
        self.server = Some(process);
        Ok(())
    }

    /// Starts the register and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_register(&mut self, specifications: &[Specification]) -> Result<()> {
        let mut process = self.register_launch(specifications)?.start("register", self.directory.path())?;
        process.wait_ready(Deadline::seconds(60))?;
        self.register = Some(process);
        Ok(())
    }

    /// Starts a worker, counted from 0, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_worker(&mut self, index: usize) -> Result<()> {
        let host = &mut self.workers[index];
        let mut process = host.launch.start(&host.name, self.directory.path())?;
        process.wait_ready(Deadline::seconds(60))?;
        host.process = Some(process);
        Ok(())
    }

    /// Starts server and workers and waits until every worker has found the server and joined.
    ///
    /// # Errors
    /// One of them does not become ready, or a worker does not join.
    pub async fn start_all(&mut self) -> Result<()> {
        self.start_server()?;
        for index in 0..self.workers.len() {
            self.start_worker(index)?;
        }
        for index in 0..self.workers.len() {
            self.wait_until_joined(index).await?;
        }
        Ok(())
    }

    /// Waits until a worker, counted from 0, has a session with the present server.
    ///
    /// # Errors
    /// As [`Farm::wait_until`].
    pub async fn wait_until_joined(&mut self, index: usize) -> Result<()> {
        let name = self.workers[index].name.clone();
        self.wait_until(
            &format!("{name} has joined"),
            Deadline::seconds(60),
            "select exists (select from workers where name = $1 and epoch = (select max(epoch) from server_epochs))",
            &[&name],
        )
        .await
    }

    /// Starts the web process on the computer's loopback.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_web(&mut self, port: u16) -> Result<()> {
        let mut process = self
            .hauberk()
            .args(["web", "--database", &self.postgres.connection_string()])
            .args(["--port", &port.to_string(), "--cache"])
            .arg(self.cache())
            .start("web", self.directory.path())?;
        process.wait_ready(Deadline::seconds(60))?;
        self.web = Some(process);
        Ok(())
    }

    /// Makes a repository whose `release.nix` gives these jobs (see [`jobs`]) and a specification that watches it.
    ///
    /// # Errors
    /// Git fails.
    pub fn repository(&self, name: &str, expressions: &str) -> Result<(Repository, Specification)> {
        let repository = Repository::create(&self.directory.subdirectory("repositories")?.join(name))?;
        repository.write("release.nix", &jobs(expressions))?;
        repository.commit("Begin")?;
        let specification = Specification::new(name, &repository.url());
        Ok((repository, specification))
    }

    /// Asks the register to look at a specification's repository now.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn look_now(&self, specification: &str) -> Result<()> {
        self.query("select pg_notify('hauberk_evaluation', $1)", &[&specification]).await?;
        Ok(())
    }

    /// Starts a machine that runs nothing of the farm and trusts `key`, on the farm's network: a user's computer.
    ///
    /// # Errors
    /// The machine does not come up.
    pub fn user_machine(&mut self, name: &str, key: &str) -> Result<Machine> {
        let machine = Machine::start(
            &self.directory.subdirectory("machines")?,
            &MachineConfig {
                name: name.to_owned(),
                trusted_public_keys: vec![key.to_owned()],
                gates: None,
                substituters: vec![self.publish_url()],
                settings: "connect-timeout = 5\ndownload-attempts = 2\n".to_owned(),
                ..MachineConfig::default()
            },
        )?;
        self.network.attach(&machine)?;
        Ok(machine)
    }

    /// Starts a machine on the farm's network with a store of its own, for a register that shares it with nobody.
    ///
    /// # Errors
    /// The machine does not come up.
    pub fn register_machine(&mut self) -> Result<Machine> {
        let config = MachineConfig { name: "register".to_owned(), ..MachineConfig::default() };
        let machine = Machine::start(&self.directory.subdirectory("machines")?, &config)?;
        self.network.attach(&machine)?;
        Ok(machine)
    }

    /// Checks that nothing that should run has ended.
    ///
    /// # Errors
    /// Something has; the message holds the end of its log.
    pub fn check_processes(&mut self) -> Result<()> {
        let own = [&mut self.register, &mut self.server, &mut self.web].into_iter();
        let workers = self.workers.iter_mut().map(|host| &mut host.process);
        for process in own.chain(workers).flatten() {
            process.check()?;
        }
        Ok(())
    }

    /// Stops all processes of the farm in order and checks how they end.
    ///
    /// # Errors
    /// One of them does not end in order.
    pub fn stop_all(&mut self) -> Result<()> {
        let workers = self.workers.iter_mut().map(|host| &mut host.process);
        let own = [&mut self.register, &mut self.server, &mut self.web];
        for slot in workers.chain(own) {
            if let Some(mut process) = slot.take() {
                process.stop(Deadline::seconds(40))?;
            }
        }
        Ok(())
    }

    /// Makes a connection of its own to the database.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn connect(&self) -> Result<Client> {
        self.tables.connect().await
    }

    /// Asks the database; a lost connection is made again once.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the statement.
    pub async fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.tables.query(statement, parameters).await
    }

    /// Gives the tables, for a checker.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Waits until `statement` gives a row whose first column is true.
    ///
    /// # Errors
    /// A process of the farm ends, or the condition does not come to hold in time; the message shows the builds.
    pub async fn wait_until(
        &mut self,
        what: &str,
        deadline: Deadline,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        let own = [&mut self.register, &mut self.server, &mut self.web];
        let (tables, workers) = (&self.tables, &mut self.workers);
        let mut processes: Vec<_> =
            own.into_iter().chain(workers.iter_mut().map(|host| &mut host.process)).flatten().collect();
        let look_after = || processes.iter_mut().try_for_each(|process| process.check());
        match tables.wait_until(what, deadline, statement, parameters, look_after).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let described = format!("{}{}", self.describe_builds().await, self.log_tails());
                Err(error.context(described))
            }
        }
    }

    /// Waits until the build of this name is in one of these states.
    ///
    /// # Errors
    /// As [`Farm::wait_until`].
    pub async fn wait_for_build(&mut self, name: &str, states: &[&str], deadline: Deadline) -> Result<()> {
        let what = format!("{name} is {}", states.join(" or "));
        self.wait_until(
            &what,
            deadline,
            "select exists (select from builds where name = $1 and state = any($2))",
            &[&name, &states],
        )
        .await
    }

    /// Waits until so many evaluations have succeeded.
    ///
    /// # Errors
    /// As [`Farm::wait_until`].
    pub async fn wait_for_evaluations(&mut self, count: i64, deadline: Deadline) -> Result<()> {
        let what = format!("{count} evaluations have succeeded");
        self.wait_until(&what, deadline, "select count(*) >= $1 from evaluations where status = 0", &[&count])
            .await
    }

    /// Waits until there are builds and none is unfinished.
    ///
    /// # Errors
    /// As [`Farm::wait_until`].
    pub async fn wait_for_the_end(&mut self, deadline: Deadline) -> Result<()> {
        self.wait_until(
            "every build is finished",
            deadline,
            "select count(*) > 0 and bool_and(status >= 0) and not exists (select from evaluations where status < 0) from builds",
            &[],
        )
        .await
    }

    /// Gives the state of the build of this name.
    ///
    /// # Errors
    /// There is none, or several.
    pub async fn state_of(&self, name: &str) -> Result<String> {
        let rows = self.query("select state from builds where name = $1", &[&name]).await?;
        match rows.as_slice() {
            [row] => Ok(row.get(0)),
            _ => bail!("{} builds are named {name}\n{}", rows.len(), self.describe_builds().await),
        }
    }

    /// Checks the states of builds.
    ///
    /// # Errors
    /// One is in another state; the message shows all builds.
    pub async fn expect_states(&self, expected: &[(&str, &str)]) -> Result<()> {
        for (name, state) in expected {
            let found = self.state_of(name).await?;
            if found != *state {
                bail!(
                    "{name} is {found} instead of {state}\n{}{}",
                    self.describe_builds().await,
                    self.log_tails()
                );
            }
        }
        Ok(())
    }

    /// Gives the output path of the build of this name.
    ///
    /// # Errors
    /// There is none.
    pub async fn output_of(&self, name: &str) -> Result<String> {
        let rows = self
            .query(
                "select path from outputs join builds on builds.id = build_id where builds.name = $1 and outputs.name = 'out'",
                &[&name],
            )
            .await?;
        Ok(rows.first().with_context(|| format!("no output of {name} is known"))?.get(0))
    }

    /// Lists builds and their attempts for messages.
    pub async fn describe_builds(&self) -> String {
        let statement = "select b.name, b.state, b.unmet, a.number, w.name, a.class, a.message, a.fetch_error from builds b \
             left join attempts a on a.build_id = b.id left join workers w on w.id = a.worker_id order by b.id, a.number";
        let rows = match self.query(statement, &[]).await {
            Ok(rows) => rows,
            Err(error) => return format!("builds are not known: {error:#}\n"),
        };
        let mut text = String::new();
        for row in rows {
            let name: String = row.get(0);
            let state: String = row.get(1);
            let unmet: i32 = row.get(2);
            text.push_str(&format!("{name}: {state}, {unmet} unmet"));
            if let Some(number) = row.get::<_, Option<i32>>(3) {
                let worker: Option<String> = row.get(4);
                let class: Option<String> = row.get(5);
                let message: Option<String> = row.get(6);
                let fetch_error: Option<String> = row.get(7);
                text.push_str(&format!(
                    "; attempt {number} on {}: {}",
                    worker.as_deref().unwrap_or("?"),
                    class.as_deref().unwrap_or("open")
                ));
                for remark in [message, fetch_error].into_iter().flatten() {
                    text.push_str(&format!(" ({remark})"));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Gives the ends of all logs for messages.
    pub fn log_tails(&self) -> String {
        let own = [&self.register, &self.server, &self.web].into_iter();
        let workers = self.workers.iter().map(|host| &host.process);
        own.chain(workers)
            .flatten()
            .map(|process| format!("--- the log of {} ends:\n{}\n", process.name(), process.log_tail()))
            .collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // The kernel takes seconds to clear a machine away: let it do all of them at once.
        self.server_machine.power_off();
        for host in &mut self.workers {
            host.machine.power_off();
        }
    }
}
