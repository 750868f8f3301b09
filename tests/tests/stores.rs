//! Register, server and workers with a store each that no other sees.

use std::{
    fs::{self, File, FileTimes},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use hauberk_tests::{
    Deadline, Farm, FarmConfig, Launch, Machine, Process, Repository, Specification, wait_for,
};

/// A source that does not compress, and that a job copies.
const LARGE: &str = r#"
  copy = job "copy-1" "cp ${./large} $out";
  second = job "second-1" "cat ${copy} ${./small} > $out";
"#;

/// Bytes of the large source.
const LARGE_BYTES: usize = 24 << 20;

/// A farm whose register has a machine of its own.
struct Stores {
    farm: Farm,
    register: Machine,
}

impl Stores {
    async fn create() -> Result<Self> {
        let mut farm = Farm::create(FarmConfig { workers: 1, slots: 2, ..FarmConfig::new()? })?;
        let register = farm.register_machine()?;
        Ok(Self { farm, register })
    }

    /// Starts the server, without any store, and the worker.
    async fn start(&mut self) -> Result<()> {
        let launch = self.farm.server_launch().args(["--daemon", "none"]);
        self.start_server(&launch)?;
        self.farm.start_worker(0)?;
        self.farm.wait_until_joined(0).await
    }

    fn start_server(&mut self, launch: &Launch) -> Result<()> {
        let mut server = launch.start("remote-server", self.farm.directory())?;
        server.wait_ready(Deadline::seconds(60))?;
        self.farm.server = Some(server);
        Ok(())
    }

    fn start_register(&mut self, specification: &Specification, options: &[&str]) -> Result<()> {
        let specifications = std::slice::from_ref(specification);
        let launch = self.farm.register_launch_on(&self.register, specifications)?.args(options);
        let mut process = launch.start("register", self.farm.directory())?;
        process.wait_ready(Deadline::seconds(60))?;
        self.farm.register = Some(process);
        Ok(())
    }

    /// Makes the repository of the large source.
    fn large(&self) -> Result<Specification> {
        let (repository, specification) = self.farm.repository("stores", LARGE)?;
        repository.write("small", "small\n")?;
        fs::write(repository.path().join("large"), noise(LARGE_BYTES))?;
        repository.commit("Add sources")?;
        Ok(specification)
    }

    /// Gives the derivations of all builds, and checks that only the register's store and the worker's may have them.
    async fn check_stores(&self) -> Result<Vec<String>> {
        let rows = self.farm.query("select path from derivations order by path", &[]).await?;
        let derivations: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        for derivation in &derivations {
            assert!(self.register.outside(derivation).exists(), "{derivation}");
            assert!(!self.farm.server_machine.outside(derivation).exists(), "{derivation}");
            assert!(narinfo(&self.farm, derivation).exists(), "{derivation}");
        }
        Ok(derivations)
    }

    /// Gives what was sent for an evaluation, the last one being 1.
    async fn sent(&self, place: i64) -> Result<i64> {
        let statement = "select paths from pushes where completed_at is not null order by evaluation_id desc limit 1 offset $1";
        Ok(self.farm.query(statement, &[&(place - 1)]).await?.first().context("nothing was pushed")?.get(0))
    }

    /// Waits until more than `least` bytes of a parcel are on the server, and gives how many.
    fn wait_for_bytes(&mut self, least: u64) -> Result<u64> {
        let pushes = self.farm.cache().join("pushes");
        wait_for("a part of the push is there", Deadline::seconds(90), || {
            let entries = fs::read_dir(&pushes)?.flatten();
            let sizes = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len());
            Ok(sizes.max().filter(|bytes| *bytes > least))
        })
    }

    /// The register's machine sends so much a second, so that there is time to do harm.
    fn throttle(&self, rate: &str) -> Result<()> {
        let queue = ["tbf", "rate", rate, "burst", "64kb", "latency", "50ms"];
        let at = ["qdisc", "add", "dev", "eth0", "root"];
        self.register.command("tc").args(at).args(queue).run().map(|_| ())
    }

    fn unthrottle(&self) -> Result<()> {
        self.register.command("tc").args(["qdisc", "del", "dev", "eth0", "root"]).run().map(|_| ())
    }

    fn server(&mut self) -> Result<&mut Process> {
        self.farm.server.as_mut().context("the server was started")
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.farm.register.as_mut().context("the register was started")
    }
}

/// Bytes that do not pack, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn narinfo(farm: &Farm, path: &str) -> PathBuf {
    let name = path.rsplit('/').next().unwrap_or_default();
    farm.cache().join(format!("{}.narinfo", name.split('-').next().unwrap_or_default()))
}

/// Makes it so that nobody has used anything for two days.
fn age(directory: &Path) -> Result<()> {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    let times = FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    for folder in [directory.to_owned(), directory.join("nar")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                File::options().write(true).open(&path)?.set_times(times)?;
            }
        }
    }
    Ok(())
}

fn collect(farm: &Farm) -> Result<String> {
    let output = farm
        .hauberk()
        .args(["gc", "--database", &farm.postgres.connection_string(), "--cache"])
        .arg(farm.cache())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn the_demonstration_is_built_though_nobody_shares_a_store() -> Result<()> {
    let mut stores = Stores::create().await?;
    let repository = Repository::create(&stores.farm.directory().join("demonstration"))?;
    repository.copy_from(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/demo"))?;
    repository.commit("Begin")?;
    let specification = Specification::new("demonstration", &repository.url());
    stores.start().await?;
    stores.start_register(&specification, &[])?;
    stores.farm.wait_for_the_end(Deadline::seconds(300)).await?;
    let failed = stores.farm.query("select name from builds where state = 'succeeded'", &[]).await?;
    let succeeded: Vec<String> = failed.iter().map(|row| row.get(0)).collect();
    assert!(succeeded.len() >= 30, "{}", stores.farm.describe_builds().await);
    assert!(succeeded.iter().any(|name| name.starts_with("image")), "{succeeded:?}");
    let lacking = "select count(*) from attempts where class in ('missing_inputs', 'transfer', 'daemon')";
    assert_eq!(stores.farm.query(lacking, &[]).await?[0].get::<_, i64>(0), 0);
    // Rows name the server that holds a nar or a log.
    let nameless = "select (select count(*) from outputs o join builds b on b.id = o.build_id where b.state = 'succeeded' and o.server_id is null) \
                    + (select count(*) from attempts where log_server_id is null)";
    assert_eq!(stores.farm.query(nameless, &[]).await?[0].get::<_, i64>(0), 0);
    let first = stores.check_stores().await?;
    let sent = stores.sent(1).await?;
    assert!(sent > i64::try_from(first.len())?, "{sent} paths were sent for {} builds", first.len());

    // Another source for one program: what is new is sent, and nothing else.
    let source = repository.path().join("src/tree");
    let file = fs::read_dir(&source)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "c"));
    let file = file.context("the library has a source")?;
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("{text}\n/* changed */\n"))?;
    repository.commit("Change a library")?;
    stores.farm.look_now("demonstration").await?;
    stores.farm.wait_for_evaluations(2, Deadline::seconds(90)).await?;
    stores.farm.wait_for_the_end(Deadline::seconds(300)).await?;
    let all = stores.check_stores().await?;
    let (again, new) = (stores.sent(1).await?, i64::try_from(all.len() - first.len())?);
    // The derivations, and the one source.
    assert!(new > 0 && again == new + 1, "{again} paths were sent for {new} new builds");

    // Derivations that only the first evaluation had go; what the last one has stays.
    age(&stores.farm.cache())?;
    let said = collect(&stores.farm)?;
    let last = "select d.path from jobs j join derivations d on d.id = j.derivation_id where evaluation_id = (select max(id) from evaluations)";
    let last: Vec<String> = stores.farm.query(last, &[]).await?.iter().map(|row| row.get(0)).collect();
    let left: Vec<&String> = all.iter().filter(|path| narinfo(&stores.farm, path).exists()).collect();
    assert!(last.iter().all(|path| left.contains(&path)), "{said}");
    assert_eq!(all.len() - left.len(), usize::try_from(new)?, "{said}");
    stores.farm.stop_all()
}

#[tokio::test]
async fn a_push_survives_whatever_is_cut_or_killed() -> Result<()> {
    let mut stores = Stores::create().await?;
    let specification = stores.large()?;
    stores.start().await?;
    stores.throttle("16mbit")?;
    stores.start_register(&specification, &[])?;
    let mut before = stores.wait_for_bytes(2 << 20)?;

    stores.server()?.kill9()?;
    assert_eq!(stores.farm.query("select 1 from builds", &[]).await?.len(), 0, "nothing is published");
    stores.server()?.restart()?;
    stores.server()?.wait_ready(Deadline::seconds(60))?;
    // It goes on; it does not begin anew.
    assert!(stores.wait_for_bytes(before - 1)? >= before);
    before = stores.wait_for_bytes(before + (2 << 20))?;

    stores.farm.network.unplug(&stores.register)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stores.farm.network.plug(&stores.register)?;
    before = stores.wait_for_bytes(before + (2 << 20))?;

    stores.process()?.kill9()?;
    stores.process()?.restart()?;
    stores.process()?.wait_ready(Deadline::seconds(60))?;
    assert!(stores.wait_for_bytes(before - 1)? >= before);
    stores.process()?.wait_log("going on with a parcel", Deadline::seconds(60))?;
    assert_eq!(stores.farm.query("select 1 from builds", &[]).await?.len(), 0, "nothing is published");
    stores.unthrottle()?;

    stores
        .farm
        .wait_until(
            "the evaluation is published",
            Deadline::seconds(90),
            "select exists (select from evaluations where status = 0)",
            &[],
        )
        .await?;
    stores.farm.wait_for_the_end(Deadline::seconds(120)).await?;
    stores.farm.expect_states(&[("copy-1", "succeeded"), ("second-1", "succeeded")]).await?;
    stores.check_stores().await?;
    let output = stores.farm.output_of("copy-1").await?;
    let built = stores.farm.workers[0].machine.outside(&output);
    assert!(fs::read(built)? == noise(LARGE_BYTES), "another source was built from");
    let left = fs::read_dir(stores.farm.cache().join("pushes"))?.count();
    assert_eq!(left, 0, "nothing is left of parcels");
    stores.farm.stop_all()
}

#[tokio::test]
async fn nothing_is_published_before_a_server_has_it() -> Result<()> {
    let mut stores = Stores::create().await?;
    let (repository, specification) =
        stores.farm.repository("stores", r#"first = job "first-1" "echo 1 > $out";"#)?;
    // Nobody is there, and never was.
    stores.start_register(&specification, &["--push", "always"])?;
    stores.process()?.wait_log("no server has run with this database yet", Deadline::seconds(60))?;
    stores.start().await?;
    stores.farm.look_now("stores").await?;
    stores.farm.wait_for_build("first-1", &["succeeded"], Deadline::seconds(90)).await?;
    stores.process()?.stop(Deadline::seconds(30))?;

    // It was, and is away.
    stores.server()?.kill9()?;
    repository.write("release.nix", &hauberk_tests::jobs(r#"second = job "second-1" "echo 2 > $out";"#))?;
    repository.commit("Go on")?;
    stores.start_register(&specification, &["--push-patience", "1"])?;
    stores
        .farm
        .wait_until(
            "the register says why it publishes nothing",
            Deadline::seconds(60),
            "select exists (select from specifications where check_error like '%cannot push the derivations to server%')",
            &[],
        )
        .await?;
    let rows = stores.farm.query("select status::int from evaluations order by id desc limit 1", &[]).await?;
    assert_eq!(rows[0].get::<_, i32>(0), 2, "it is aborted");
    assert_eq!(stores.farm.query("select 1 from builds where name = 'second-1'", &[]).await?.len(), 0);

    stores.server()?.restart()?;
    stores.server()?.wait_ready(Deadline::seconds(60))?;
    stores.farm.look_now("stores").await?;
    stores.farm.wait_for_build("second-1", &["succeeded"], Deadline::seconds(120)).await?;
    stores.farm.stop_all()
}

#[tokio::test]
async fn what_a_queued_build_needs_is_not_collected() -> Result<()> {
    let mut stores = Stores::create().await?;
    // The server has a store of its own, which is another one.
    let launch = stores.farm.server_launch();
    stores.start_server(&launch)?;
    let (repository, specification) =
        stores.farm.repository("stores", r#"first = job "first-1" "cat ${./source} > $out";"#)?;
    repository.write("source", "a source\n")?;
    repository.commit("Add a source")?;
    stores.start_register(&specification, &[])?;
    stores.farm.wait_for_evaluations(1, Deadline::seconds(90)).await?;
    let derivation = stores.check_stores().await?.remove(0);
    // No last evaluation wants it any more; the build does.
    repository.write("release.nix", &hauberk_tests::jobs(r#"second = job "second-1" "echo 2 > $out";"#))?;
    repository.commit("Go on")?;
    stores.farm.look_now("stores").await?;
    stores.farm.wait_for_evaluations(2, Deadline::seconds(90)).await?;
    age(&stores.farm.cache())?;
    let said = collect(&stores.farm)?;
    assert!(said.starts_with("0 items removed") && narinfo(&stores.farm, &derivation).exists(), "{said}");

    stores.farm.start_worker(0)?;
    stores.farm.wait_for_the_end(Deadline::seconds(120)).await?;
    stores.farm.expect_states(&[("first-1", "succeeded"), ("second-1", "succeeded")]).await?;
    age(&stores.farm.cache())?;
    let said = collect(&stores.farm)?;
    // The derivation and its source.
    assert!(said.starts_with("2 items removed") && !narinfo(&stores.farm, &derivation).exists(), "{said}");
    stores.farm.stop_all()
}

#[tokio::test]
async fn whoever_shares_the_store_is_sent_nothing() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("stores", r#"first = job "first-1" "echo 1 > $out";"#)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("first-1", &["succeeded"], Deadline::seconds(90)).await?;
    assert_eq!(farm.query("select 1 from pushes", &[]).await?.len(), 0);
    let derivations = farm.query("select path from derivations", &[]).await?;
    assert!(!narinfo(&farm, &derivations[0].get::<_, String>(0)).exists());
    farm.stop_all()
}

/// Derivations of a large evaluation.
const MANY: usize = 2000;

/// Tells at which second of its day a line of a log was written.
fn time_of(log: &str, text: &str) -> Result<f64> {
    let line =
        log.lines().find(|line| line.contains(text)).with_context(|| format!("no line has {text:?}"))?;
    let time = line.split(['T', 'Z']).nth(1).with_context(|| format!("no time is in {line:?}"))?;
    time.split(':').try_fold(0.0, |sum, part| Ok(sum * 60.0 + part.parse::<f64>()?))
}

/// Not a test of whether it works: tells what a push takes beside `nix copy` of the same closure.
#[tokio::test]
#[ignore = "a measurement: cargo test -p hauberk-tests --test stores -- --ignored --nocapture"]
async fn a_push_beside_nix_copy() -> Result<()> {
    let mut stores = Stores::create().await?;
    let graph = format!(
        r#"
          copy = job "copy-1" "cp ${{./large}} $out";
          many = job "many-1" (builtins.concatStringsSep "\n" (builtins.genList
            (number: "cat ${{job "one-${{toString number}}" "echo ${{toString number}} > $out"}} >> $out") {MANY}));
        "#
    );
    let (repository, specification) = stores.farm.repository("stores", &graph)?;
    fs::write(repository.path().join("large"), noise(LARGE_BYTES))?;
    repository.commit("Add a source")?;
    let launch = stores.farm.server_launch().args(["--daemon", "none"]);
    stores.start_server(&launch)?;
    stores.start_register(&specification, &[])?;
    stores.farm.wait_for_evaluations(1, Deadline::seconds(240)).await?;
    let row = stores.farm.query("select paths, bytes from pushes", &[]).await?.remove(0);
    let (paths, bytes): (i64, i64) = (row.get(0), row.get(1));
    let log = stores.farm.register.as_ref().map(Process::log_text).unwrap_or_default();
    let seconds = (time_of(&log, "pushed ")? - time_of(&log, " lacks ")?).rem_euclid(24.0 * 3600.0);

    let roots =
        stores.farm.query("select path from derivations where path ~ '(many|copy)-1.drv'", &[]).await?;
    let roots: Vec<String> = roots.iter().map(|row| row.get(0)).collect();
    let began = std::time::Instant::now();
    stores
        .register
        .command("nix")
        .args(["--extra-experimental-features", "nix-command", "copy", "--derivation"])
        .args(["--to", "file:///tmp/copied?compression=zstd"])
        .args(&roots)
        .run()?;
    let copied = began.elapsed().as_secs_f64();
    println!("push: {paths} paths, {bytes} bytes in {seconds:.2} s; nix copy --to file://: {copied:.2} s");
    stores.farm.stop_all()
}
