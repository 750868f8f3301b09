//! Two servers at one database, with nothing in common but that: keys, caches and stores of their own, and real builds.

use std::fs;

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, Machine, MachineConfig, Process, Specification};

const GRAPH: &str = r#"
  source = builtins.toFile "source-1" "the source\n";
  first = job "first-1" ''
    ${gate "first"}
    echo the first is built
    cat ${source} > $out; echo first >> $out
  '';
  second = job "second-1" "cat ${first} ${source} > $out; echo second >> $out";
  third = job "third-1" ''
    ${gate "third"}
    cat ${second} > $out
  '';
"#;

/// The second server.
struct Second {
    process: Process,
    _machine: Machine,
    address: String,
    signing_key: String,
}

impl Second {
    fn url(&self) -> String {
        format!("http://{}:5557", self.address)
    }

    fn start(farm: &mut Farm, more: &[&str]) -> Result<Self> {
        let keys = farm.directory().join("second");
        fs::create_dir_all(&keys)?;
        farm.hauberk().args(["key", "curve"]).arg(keys.join("curve")).run()?;
        farm.hauberk().args(["key", "signing", "second.example-1"]).arg(keys.join("signing")).run()?;
        let signing_key = fs::read_to_string(keys.join("signing.pub"))?.trim().to_owned();
        let machines = farm.directory().join("machines");
        let machine = Machine::start(
            &machines,
            &MachineConfig { name: "second".to_owned(), ..MachineConfig::default() },
        )?;
        let address = farm.network.attach(&machine)?.to_string();
        let mut process = machine
            .command(hauberk_tests::hauberk_program()?)
            .args(["remote-server", "--name", "second", "--database", &farm.postgres.connection_string()])
            .arg("--cache")
            .arg(farm.directory().join("second-cache"))
            .arg("--signing-key")
            .arg(keys.join("signing"))
            .arg("--curve-key")
            .arg(keys.join("curve"))
            .args(["--address", &address, "--heartbeat", "1", "--lease", "4"])
            .args(more)
            .start("second-server", farm.directory())?;
        process.wait_ready(Deadline::seconds(60))?;
        Ok(Self { process, _machine: machine, address, signing_key })
    }
}

/// Lets the build daemon of a worker trust just these keys.
fn trust(machine: &mut Machine, keys: &[&str]) -> Result<()> {
    let file = machine.directory().join("etc-nix/nix.conf");
    let settings = fs::read_to_string(&file)?;
    let kept: Vec<&str> = settings.lines().filter(|line| !line.starts_with("trusted-public-keys")).collect();
    fs::write(&file, format!("{}\ntrusted-public-keys = {}\n", kept.join("\n"), keys.join(" ")))?;
    machine.kill_daemon()?;
    machine.start_daemon()
}

async fn is_at(farm: &mut Farm, worker: &str, server: &str) -> Result<()> {
    farm.wait_until(
        &format!("{worker} is at {server}"),
        Deadline::seconds(90),
        "select exists (select from workers w join server_epochs e using (epoch) join servers s on s.id = e.server_id
                        where w.name = $1 and s.name = $2 and e.ended_at is null)",
        &[&worker, &server],
    )
    .await
}

/// Starts a worker at each server; the build daemon of the second's trusts these keys.
async fn start_workers(farm: &mut Farm, first_name: &str, second: &Second, trusted: &[&str]) -> Result<()> {
    let first_address = farm.publish_url().trim_start_matches("http://").replace(":5557", "");
    let at = |launch: &hauberk_tests::Launch, address: &str| launch.clone().args(["--server", address]);

    // Both know the first server and its key; the first tells them of the second, whose key is another.
    let launches = [farm.workers[0].launch.clone(), farm.workers[1].launch.clone()];
    farm.workers[0].launch = at(&launches[0], &first_address);
    farm.workers[1].launch = at(&launches[1], &first_address);
    for worker in 0..2 {
        farm.start_worker(worker)?;
    }
    is_at(farm, "worker-1", first_name).await?;
    farm.workers[1].process()?.wait_log("the farm has 2 servers", Deadline::seconds(60))?;
    farm.workers[1].process()?.stop(Deadline::seconds(60))?;
    trust(&mut farm.workers[1].machine, trusted)?;
    farm.workers[1].launch = at(&launches[1], &second.address);
    // Of the two that it knows it would go to either: here it has forgotten where the first is, and keeps the key of the second.
    let known = farm.workers[1].machine.directory().join("spool/servers");
    let text = fs::read_to_string(&known)?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&first_address)).collect();
    fs::write(&known, kept.join("\n") + "\n")?;
    farm.start_worker(1)?;
    is_at(farm, "worker-2", "second").await
}

/// Runs a command of the operator's, on the first server's machine.
fn operate(farm: &Farm, arguments: &[&str]) -> Result<String> {
    let launch = farm.hauberk_on_server().args(arguments);
    launch.args(["--database", &farm.postgres.connection_string()]).run()
}

fn direct(farm: &Farm, how: &str, worker: &str) -> Result<()> {
    operate(farm, &["worker", how, worker]).map(|_| ())
}

/// Which server gave the build out, and which has its output.
async fn servers_of(farm: &Farm, build: &str) -> Result<(String, String)> {
    let rows = farm
        .query(
            "select s.name, h.name from builds b join attempts a on a.build_id = b.id and a.class = 'succeeded'
             join server_epochs e using (epoch) join servers s on s.id = e.server_id
             join outputs o on o.build_id = b.id join servers h on h.id = o.server_id where b.name = $1",
            &[&build],
        )
        .await?;
    let row = rows.first().context("it has an attempt")?;
    Ok((row.get(0), row.get(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_with_keys_caches_and_stores_of_their_own() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, slots: 1, ..FarmConfig::new()? })?;
    farm.start_server()?;
    let first_name: String = farm.query("select name from servers", &[]).await?[0].get(0);
    let mut second = Second::start(&mut farm, &[])?;
    let keys = (farm.server_signing_key().to_owned(), second.signing_key.clone());
    start_workers(&mut farm, &first_name, &second, &[&keys.1]).await?;

    let listed = operate(&farm, &["worker", "list"])?;
    let is_listed = |worker: &str, server: &str| {
        listed
            .lines()
            .any(|line| line.starts_with(worker) && line.split_whitespace().any(|word| word == server))
    };
    ensure!(is_listed("worker-1", &first_name) && is_listed("worker-2", "second"), "{listed}");

    // The first builds what the second's worker needs, which has room and waits for it.
    direct(&farm, "pause", "worker-2")?;
    let (_, specification) = farm.repository("servers", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(120))?;
    direct(&farm, "pause", "worker-1")?;
    direct(&farm, "resume", "worker-2")?;
    farm.gates.open("first")?;
    farm.wait_for_build("first-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_build("second-1", &["succeeded"], Deadline::seconds(120)).await?;
    let told = "select extract(epoch from s.assigned_at - f.ended_at)::float8 from attempts f join builds b on b.id = f.build_id
                cross join attempts s join builds c on c.id = s.build_id where b.name = 'first-1' and c.name = 'second-1'";
    let seconds: f64 = farm.query(told, &[]).await?[0].get(0);
    ensure!(seconds < 15.0, "the second server was not told by the first that a build is ready: {seconds} s");
    // An operator beside the first server cancels what the second's worker runs.
    farm.gates.wait_for_arrivals("third", 1, Deadline::seconds(120))?;
    let third: i64 = farm.query("select id from builds where name = 'third-1'", &[]).await?[0].get(0);
    operate(&farm, &["build", "cancel", &third.to_string()])?;
    farm.wait_for_build("third-1", &["canceled"], Deadline::seconds(60)).await?;
    assert_eq!(servers_of(&farm, "first-1").await?, (first_name.clone(), first_name.clone()));
    assert_eq!(servers_of(&farm, "second-1").await?, ("second".to_owned(), "second".to_owned()));
    let tries: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(tries, 3, "{}", farm.describe_builds().await);

    // A user of the second server has all of it, and trusts nobody else.
    let user = Machine::start(
        &farm.directory().join("machines"),
        &MachineConfig {
            name: "user".to_owned(),
            trusted_public_keys: vec![second.signing_key.clone()],
            substituters: vec![second.url()],
            ..MachineConfig::default()
        },
    )?;
    farm.network.attach(&user)?;
    let output = farm.output_of("second-1").await?;
    user.command("nix-store").args(["--realise", &output]).run()?;
    assert_eq!(fs::read_to_string(user.outside(&output))?, "the source\nfirst\nthe source\nsecond\n");
    // And what is only asked for: an output of the first that nobody there has needed would come as well.
    let log = format!("{}/log/{}", second.url(), farm.output_of("first-1").await?.replace("/nix/store/", ""));
    let answer = user.command("curl").args(["--silent", "--include", &log]).run()?;
    ensure!(answer.starts_with("HTTP/1.1 307 ") && answer.contains(&farm.publish_url()), "{answer}");
    let text = user.command("curl").args(["--silent", "--location", "--compressed", &log]).run()?;
    ensure!(text.contains("the first is built"), "{text}");
    // What nobody has is nowhere, and found to be so at once.
    let nothing = format!("{}/00000000000000000000000000000000.narinfo", second.url());
    let answer = user.command("curl").args(["--silent", "--include", &nothing]).run()?;
    ensure!(answer.starts_with("HTTP/1.1 404 "), "{answer}");

    // Without the second, its worker goes to the first.
    trust(&mut farm.workers[1].machine, &[&keys.0, &keys.1])?;
    second.process.kill9()?;
    is_at(&mut farm, "worker-2", &first_name).await?;
    farm.stop_all()
}

/// Builds that need 6 MB of disk.
const HUNGRY: &str = r#"
  eat = name: script: job name "head -c 6000000 /dev/zero > big\n${script}\necho done > $out";
  one = eat "one-1" "";
  two = eat "two-1" "";
  three = eat "three-1" (gate "three");
"#;

const MORE: &str = r#"
  eat = name: job name "head -c 6000000 /dev/zero > big\necho done > $out";
  probe1 = eat "probe1-1";
  probe2 = eat "probe2-1";
  probe3 = eat "probe3-1";
  probe4 = eat "probe4-1";
  probe5 = eat "probe5-1";
"#;

const ASIDE: &str =
    "select exists (select from workers where name = 'worker-1' and paused and set_aside_at is not null)";
const FAILED: &str = "select count(distinct b.name) >= $2 from attempts a join builds b on b.id = a.build_id
                      join workers w on w.id = a.worker_id join server_epochs e on e.epoch = a.epoch join servers s on s.id = e.server_id
                      where a.class = 'disk_full' and w.name = 'worker-1' and b.name like $1 and s.name = $3";

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_worker_stays_set_aside_at_the_next_server_and_is_never_the_last_of_all() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, slots: 3, ..FarmConfig::new()? })?;
    let hasty = ["--sweep", "1", "--retries", "30", "--retry-delay", "1", "--probe-pause", "2"];
    let mut server = farm
        .server_launch()
        .args(["--heartbeat", "1", "--lease", "4"])
        .args(hasty)
        .start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    let first_name: String = farm.query("select name from servers", &[]).await?[0].get(0);
    let second = Second::start(&mut farm, &hasty)?;
    let keys = (farm.server_signing_key().to_owned(), second.signing_key.clone());
    // The first worker's builders run on a disk that is full, which the daemon sees once it starts anew.
    let builds = farm.workers[0].machine.directory().join("tmp");
    farm.workers[0].machine.mount_small(&builds, "64m")?;
    trust(&mut farm.workers[0].machine, &[&keys.0, &keys.1])?;
    let filler = farm.workers[0].machine.inside(&builds).join("filler");
    fs::write(&filler, vec![1; 60 << 20])?;
    let launch = farm.workers[0].launch.clone();
    farm.workers[0].launch = launch.args(["--minimum-disk-space", "0", "--build-directory"]).arg(&builds);
    start_workers(&mut farm, &first_name, &second, &[&keys.0, &keys.1]).await?;

    // What fails there does otherwise at the second server, which the first learns from the database.
    direct(&farm, "pause", "worker-2")?;
    let (_, hungry) = farm.repository("hungry", HUNGRY)?;
    farm.start_register(std::slice::from_ref(&hungry))?;
    let (like, count) = ("%", 3_i64);
    farm.wait_until("three fail", Deadline::seconds(120), FAILED, &[&like, &count, &first_name]).await?;
    direct(&farm, "resume", "worker-2")?;
    for name in ["one-1", "two-1"] {
        farm.wait_for_build(name, &["succeeded"], Deadline::seconds(120)).await?;
    }
    farm.gates.wait_for_arrivals("three", 1, Deadline::seconds(120))?;
    // From now on the first worker is the last that takes work, of both servers together.
    direct(&farm, "pause", "worker-2")?;
    farm.gates.open("three")?;
    farm.wait_for_build("three-1", &["succeeded"], Deadline::seconds(60)).await?;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    ensure!(!farm.query(ASIDE, &[]).await?[0].get::<_, bool>(0), "the last worker is set aside");
    direct(&farm, "resume", "worker-2")?;
    farm.wait_until("the sick worker is set aside", Deadline::seconds(60), ASIDE, &[]).await?;
    let shown = operate(&farm, &["worker", "show", "worker-1"])?;
    ensure!(shown.contains("set aside by the farm: 3 builds in a row failed here"), "{shown}");

    // More work than one worker does, and none for the healthy one.
    direct(&farm, "pause", "worker-2")?;
    let (_, more) = farm.repository("more", MORE)?;
    if let Some(mut register) = farm.register.take() {
        register.stop(Deadline::seconds(60))?;
    }
    farm.start_register(&[hungry, more])?;
    farm.wait_for_evaluations(2, Deadline::seconds(120)).await?;
    // The first server dies; its worker goes to the second, and is as sick there: it is tried, and fails.
    if let Some(mut server) = farm.server.take() {
        server.kill9()?;
    }
    is_at(&mut farm, "worker-1", "second").await?;
    ensure!(farm.query(ASIDE, &[]).await?[0].get::<_, bool>(0), "the second server gives a sick worker work");
    let (like, count, name) = ("probe%", 1_i64, "second");
    farm.wait_until("a probe fails", Deadline::seconds(120), FAILED, &[&like, &count, &name]).await?;
    ensure!(farm.query(ASIDE, &[]).await?[0].get::<_, bool>(0), "a probe that fails changes nothing");
    // Once its disk has room, a probe gives it work again.
    fs::remove_file(&filler)?;
    let well =
        "select exists (select from workers where name = 'worker-1' and not paused and set_aside_at is null)";
    farm.wait_until("the worker takes work again", Deadline::seconds(180), well, &[]).await?;
    farm.wait_for_the_end(Deadline::seconds(180)).await?;
    farm.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_added_to_the_store_of_the_server() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, slots: 1, ..FarmConfig::new()? })?;
    let key = farm.server_signing_key().to_owned();
    trust(&mut farm.server_machine, &[&key])?;
    let launch = farm.server_launch().arg("--add-to-store");
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    let graph = r#"
      low = job "low-1" "echo low > $out";
      high = job "high-1" "mkdir $out; ln -s ${low} $out/low; ln -s $out $out/self";
    "#;
    let (_, specification) = farm.repository("servers", graph)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("high-1", &["succeeded"], Deadline::seconds(120)).await?;
    for build in ["low-1", "high-1"] {
        let output = farm.output_of(build).await?;
        farm.server_machine.command("nix-store").args(["--check-validity", &output]).run()?;
        farm.server_machine.command("nix-store").args(["--verify-path", &output]).run()?;
    }
    let output = farm.output_of("high-1").await?;
    assert_eq!(fs::read_to_string(farm.server_machine.outside(&farm.output_of("low-1").await?))?, "low\n");
    let references =
        farm.server_machine.command("nix-store").args(["--query", "--references", &output]).run()?;
    assert_eq!(references.lines().count(), 2, "{references}");
    farm.stop_all()
}

/// An image with its checksum.
fn image(version: u32) -> String {
    format!(
        r#"
          image = job "image-{version}" ''
            mkdir $out
            head -c 3M /dev/urandom > $out/system-{version}.img
            sha256sum < $out/system-{version}.img > $out/sum
          '';
        "#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_comes_from_the_server_that_has_it() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, slots: 1, ..FarmConfig::new()? })?;
    farm.start_server()?;
    let mut second = Second::start(&mut farm, &[])?;
    let first_address = farm.publish_url().trim_start_matches("http://").replace(":5557", "");
    let launch = farm.workers[0].launch.clone();
    farm.workers[0].launch = launch.clone().args(["--server", &first_address]);
    farm.start_worker(0)?;
    farm.workers[0].process()?.wait_log("the farm has 2 servers", Deadline::seconds(60))?;
    let (repository, specification) = farm.repository("servers", &image(1))?;
    let build_outputs = vec![["image", "image", "out", "*.img"]];
    farm.start_register(&[Specification { build_outputs, ..specification }])?;
    let taken = "select exists (select from build_products where name = $1)";
    farm.wait_until("the first has a product", Deadline::seconds(120), taken, &[&"system-1.img"]).await?;

    // The worker moves to the second server, which then has the next one.
    farm.workers[0].process()?.stop(Deadline::seconds(60))?;
    trust(&mut farm.workers[0].machine, &[&second.signing_key])?;
    let known = farm.workers[0].machine.directory().join("spool/servers");
    let text = fs::read_to_string(&known)?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&first_address)).collect();
    fs::write(&known, kept.join("\n") + "\n")?;
    farm.workers[0].launch = launch.args(["--server", &second.address]);
    farm.start_worker(0)?;
    is_at(&mut farm, "worker-1", "second").await?;
    repository.write("release.nix", &hauberk_tests::jobs(&image(2)))?;
    repository.commit("Go on")?;
    farm.look_now("servers").await?;
    farm.wait_until("the second has a product", Deadline::seconds(120), taken, &[&"system-2.img"]).await?;

    // Pages on a machine with neither's cache lead to whoever has it.
    let user = farm.register_machine()?;
    let location = farm.postgres.connection_string();
    let mut web = user
        .command(hauberk_tests::hauberk_program()?)
        .args(["web", "--database", &location, "--port", "8080"])
        .start("web", farm.directory())?;
    web.wait_ready(Deadline::seconds(60))?;
    for (number, url) in [(1, farm.publish_url()), (2, second.url())] {
        let name = format!("system-{number}.img");
        let row = farm.query("select id from build_products where name = $1", &[&name]).await?;
        let page = format!("http://127.0.0.1:8080/download/{}", row[0].get::<_, i64>(0));
        let curl =
            |options: &[&str], url: &str| user.command("curl").arg("--silent").args(options).arg(url).run();
        let head = curl(&["--head"], &page)?.to_lowercase();
        ensure!(head.contains(&format!("location: {url}/product/").to_lowercase()), "{name}: {head}");
        let script = format!("curl --silent --fail --location {page} | sha256sum");
        let sum = user.command("sh").args(["-c", &script]).run()?;
        let output = farm.output_of(&format!("image-{number}")).await?;
        let expected = fs::read_to_string(farm.workers[0].machine.outside(&output).join("sum"))?;
        assert_eq!(sum, expected, "{name}");
        // The other has nothing of it.
        let other = if number == 1 { second.url() } else { farm.publish_url() };
        let location =
            head.lines().find_map(|line| line.strip_prefix("location: ")).context("it leads somewhere")?;
        let path = location.trim().trim_start_matches(&url.to_lowercase());
        let code =
            curl(&["--output", "/dev/null", "--write-out", "%{http_code}"], &format!("{other}{path}"))?;
        assert_eq!(code, "404", "{name}");
    }
    web.stop(Deadline::seconds(40))?;

    // Without the second the worker looks at the first, whose key its daemon does not accept any more, and waits for the second.
    second.process.kill9()?;
    let shunned = "another server is looked for";
    farm.workers[0].process()?.wait_log(shunned, Deadline::seconds(60))?;
    second.process.restart()?;
    second.process.wait_ready(Deadline::seconds(60))?;
    is_at(&mut farm, "worker-1", "second").await?;
    repository.write("release.nix", &hauberk_tests::jobs(&image(3)))?;
    repository.commit("Go on")?;
    farm.look_now("servers").await?;
    farm.wait_until("the second has another", Deadline::seconds(120), taken, &[&"system-3.img"]).await?;
    second.process.stop(Deadline::seconds(60))?;
    farm.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_elsewhere_brings_every_server_what_it_needs() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, slots: 1, ..FarmConfig::new()? })?;
    farm.start_server()?;
    let mut second = Second::start(&mut farm, &[])?;
    let register = farm.register_machine()?;
    let first_address = farm.publish_url().trim_start_matches("http://").replace(":5557", "");
    let launch = farm.workers[0].launch.clone();
    farm.workers[0].launch = launch.clone().args(["--server", &first_address]);
    farm.start_worker(0)?;
    farm.workers[0].process()?.wait_log("the farm has 2 servers", Deadline::seconds(60))?;

    let source = |version: u32| {
        format!(
            r#"first = job "first-{version}" "cat ${{builtins.toFile "text-{version}" "words\n"}} > $out";"#
        )
    };
    let (repository, specification) = farm.repository("servers", &source(1))?;
    let launched = farm
        .register_launch_on(&register, std::slice::from_ref(&specification))?
        .args(["--push-patience", "2"]);
    let mut process = launched.start("register", farm.directory())?;
    process.wait_ready(Deadline::seconds(60))?;
    farm.register = Some(process);
    farm.wait_for_build("first-1", &["succeeded"], Deadline::seconds(120)).await?;
    let pushed = "select count(*) filter (where completed_at is not null), count(distinct bytes), min(paths) from pushes";
    let row = farm.query(pushed, &[]).await?;
    assert_eq!((row[0].get::<_, i64>(0), row[0].get::<_, i64>(1)), (2, 1), "both have all of it");
    assert!(row[0].get::<_, Option<i64>>(2).is_some_and(|paths| paths >= 2));
    let caches = [farm.cache(), farm.directory().join("second-cache")];
    let has = |cache: &std::path::Path, path: &str| {
        let hash = path.trim_start_matches("/nix/store/").split('-').next().unwrap_or_default();
        cache.join(format!("{hash}.narinfo")).exists()
    };
    let derivations =
        |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<String>>();
    let all = derivations(farm.query("select path from derivations", &[]).await?);
    for (cache, path) in caches.iter().flat_map(|cache| all.iter().map(move |path| (cache, path))) {
        ensure!(has(cache, path), "{} has no {path}", cache.display());
    }

    // One is down: the other gets what is new, and the evaluation is published.
    second.process.kill9()?;
    repository.write("release.nix", &hauberk_tests::jobs(&source(2)))?;
    repository.commit("Go on")?;
    farm.look_now("servers").await?;
    farm.wait_for_build("first-2", &["succeeded"], Deadline::seconds(120)).await?;
    let new = derivations(farm.query("select path from derivations order by id desc limit 1", &[]).await?);
    ensure!(has(&caches[0], &new[0]) && !has(&caches[1], &new[0]), "{new:?}");

    // It comes back, and its worker gets what it lacks.
    second.process.restart()?;
    second.process.wait_ready(Deadline::seconds(60))?;
    let (answer, url) = (["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"], second.url());
    let hash =
        new[0].trim_start_matches("/nix/store/").split('-').next().context("it has a hash")?.to_owned();
    let narinfo = format!("{url}/{hash}.narinfo");
    let code = register
        .command("curl")
        .args(answer)
        .arg("--retry-all-errors")
        .args(["--retry", "10", &narinfo])
        .run()?;
    assert_eq!(code, "200");
    second.process.stop(Deadline::seconds(60))?;
    farm.stop_all()
}
