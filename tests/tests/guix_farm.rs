//! A farm that holds Guix's store beside Nix's, with real guix-daemons on server and workers.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use hauberk_daemon::BuildDaemon;
use hauberk_store::{OutputName, nar::Node};
use hauberk_tests::{
    Deadline, Farm, FarmConfig, GuixFarm, GuixRoot, GuixStore, Launch, Machine, MachineConfig, Recipe,
    WorkerHost,
};

/// Two outputs, of which one refers to the other.
const LOW: Recipe<'static> = Recipe {
    name: "low-1",
    script: "mkdir $out $doc; echo low > $out/file; ln -s $out $doc/low",
    inputs: &[],
    sources: &[],
    environment: &[],
    outputs: &["doc"],
    fixed: None,
};

/// A farm with one worker of Nix and one with each Guix there is; the server has the newest.
fn farm(roots: &[GuixRoot]) -> Result<Farm> {
    let guix = GuixFarm { server: roots[0].clone(), workers: roots.to_vec() };
    Farm::create(FarmConfig { workers: 1, guix: Some(guix), ..FarmConfig::new()? })
}

/// Lets the machine's daemon accept what the server signs, as an operator does.
fn authorize(farm: &Farm, machine: &Machine) -> Result<()> {
    let key = fs::read_to_string(farm.key_file("server.guix.pub"))?;
    machine.guix("sh")?.args(["-c", &format!("echo '{key}' | guix archive --authorize")]).run()?;
    Ok(())
}

/// Starts everything, with the server's key authorised on all machines of Guix.
async fn start(farm: &mut Farm) -> Result<()> {
    for host in &farm.workers[1..] {
        authorize(farm, &host.machine)?;
    }
    farm.start_all().await
}

/// Gives the name of the worker that a build succeeded on.
async fn worker_of(farm: &Farm, build: &str) -> Result<String> {
    let rows = farm
        .query(
            "select w.name from builds b join attempts a on a.id = b.attempt_id join workers w on w.id = a.worker_id \
             where b.name = $1",
            &[&build],
        )
        .await?;
    Ok(rows.first().with_context(|| format!("{build} was not built"))?.get(0))
}

#[tokio::test]
async fn one_farm_holds_both_stores() -> Result<()> {
    let roots = GuixRoot::all()?;
    if roots.is_empty() {
        return Ok(());
    }
    let mut farm = farm(&roots)?;
    start(&mut farm).await?;
    let mut store = GuixStore::open(&farm.server_machine.guix_address()).await?;

    // A source, a text that refers to another path, two outputs, and what needs all of them.
    let daemon = store.daemon();
    let nar = Node::file("some source\n").to_nar()?;
    let source = daemon.add_source("source", &mut nar.as_slice(), &BTreeSet::new()).await?;
    let text = source.to_string();
    let script = daemon.add_text("refers", text.as_bytes(), &BTreeSet::from([source.clone()])).await?;
    let (low, _) = store
        .derivation(&Recipe {
            name: "low-1",
            script: "echo building low; mkdir $out $doc; cat $source > $out/file; echo words > $doc/file",
            outputs: &["doc"],
            sources: &[("source", &source)],
            ..Recipe::default()
        })
        .await?;
    let middle = store
        .derivation(&Recipe {
            name: "middle-1",
            script: "cat $script; mkdir $out; ln -s $low $out/low",
            inputs: &[("low", &low)],
            sources: &[("script", &script)],
            ..Recipe::default()
        })
        .await?
        .0;
    let (high, outputs) = store
        .derivation(&Recipe {
            name: "high-1",
            script: "cat $middle/low/file > $out; echo $middle >> $out; dd if=/dev/zero bs=150M count=1 | (sleep 3; cat > /dev/null)",
            inputs: &[("middle", &middle)],
            ..Recipe::default()
        })
        .await?;
    let broken = store.script("broken-1", "echo about to fail; exit 7").await?;
    store.register(&farm.postgres.connection_string(), "guix", &[&high, &broken]).await?;
    let (_, specification) = farm.repository("nix", r#"plain = job "plain-1" "echo nix > $out";"#)?;
    farm.start_register(&[specification])?;

    farm.wait_for_build("plain-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(240)).await?;
    farm.expect_states(&[
        ("low-1", "succeeded"),
        ("middle-1", "succeeded"),
        ("high-1", "succeeded"),
        ("broken-1", "failed"),
        ("plain-1", "succeeded"),
    ])
    .await?;
    assert_eq!(worker_of(&farm, "plain-1").await?, "worker-1");
    for build in ["low-1", "middle-1", "high-1"] {
        assert_ne!(worker_of(&farm, build).await?, "worker-1", "{build} belongs to another store");
    }
    let failed = farm
        .query(
            "select class, exit_status, message from attempts join builds b on b.id = build_id where b.name = 'broken-1'",
            &[],
        )
        .await?;
    assert_eq!(failed.len(), 1, "a package's fault is final");
    assert_eq!((failed[0].get::<_, &str>(0), failed[0].get::<_, Option<i32>>(1)), ("build_failed", Some(7)));

    // What the builder had at once was seen on the worker, whichever daemon ran it.
    let peak =
        "select peak_memory from builds b join attempts a on a.id = b.attempt_id where b.name = 'high-1'";
    let peak: Option<i64> = farm.query(peak, &[]).await?[0].get(0);
    let peak = peak.context("the memory was not measured")? >> 20;
    assert!((150..180).contains(&peak), "{peak} MiB");

    // The log is that of the builder.
    farm.wait_until(
        "the logs are complete",
        Deadline::seconds(30),
        "select bool_and(log_complete) from attempts",
        &[],
    )
    .await?;
    let logs = "select log_path from attempts join builds b on b.id = build_id where b.name = 'low-1' and log_path is not null";
    let path: String = farm.query(logs, &[]).await?[0].get(0);
    let text = Launch::here("gzip").arg("-dc").arg(farm.cache().join("logs").join(path)).run()?;
    assert!(text.lines().any(|line| line == "building low"), "{text}");

    // Stock clients of every Guix take it from the server once they trust it, and not before.
    let output = outputs[&OutputName::OUT].to_string();
    for root in &roots {
        let user = user(&mut farm, root)?;
        let url = farm.guix_publish_url();
        let build = || {
            user.guix("guix").map(|guix| {
                guix.args(["build", "--no-grafts", "--max-silent-time=20"])
                    .arg(format!("--substitute-urls={url}"))
                    .arg(&output)
            })
        };
        // The exit status does not tell: a path that nobody has is no failure of this command.
        let refused = build()?.output()?;
        assert!(!user.outside(&output).exists(), "{}", String::from_utf8_lossy(&refused.stderr));
        let command = format!("curl -fsS {url}/signing-key.pub");
        let key = user.command("sh").args(["-c", &command]).run()?;
        assert_eq!(key.trim(), fs::read_to_string(farm.key_file("server.guix.pub"))?.trim());
        authorize(&farm, &user)?;
        let built = build()?.output()?;
        let said = String::from_utf8_lossy(&built.stderr);
        let text =
            fs::read_to_string(user.outside(&output)).with_context(|| format!("{}: {said}", root.suite()))?;
        assert!(text.starts_with("some source\n"), "{text}");
        user.guix("guix")?.args(["gc", "--verify=contents"]).run()?;
    }
    farm.stop_all()
}

#[tokio::test]
async fn workers_of_guix_upload_as_well() -> Result<()> {
    let roots = GuixRoot::all()?;
    if roots.is_empty() {
        return Ok(());
    }
    let mut farm = farm(&roots)?;
    for host in &mut farm.workers[1..] {
        host.launch = host.launch.clone().arg("--upload");
    }
    start(&mut farm).await?;
    let mut store = GuixStore::open(&farm.server_machine.guix_address()).await?;
    let (low, outputs) = store.derivation(&LOW).await?;
    let high = Recipe {
        name: "high-1",
        script: "cat $low/file > $out; echo $low >> $out",
        inputs: &[("low", &low)],
        ..Recipe::default()
    };
    let (high, _) = store.derivation(&high).await?;
    store.register(&farm.postgres.connection_string(), "guix", &[&high]).await?;
    farm.wait_for_the_end(Deadline::seconds(240)).await?;
    farm.expect_states(&[("low-1", "succeeded"), ("high-1", "succeeded")]).await?;
    let uploaded = |host: &mut WorkerHost| -> Result<usize> {
        Ok(host.process()?.log_text().matches("uploaded the results").count())
    };
    let counts = farm.workers[1..].iter_mut().map(uploaded).collect::<Result<Vec<_>>>()?;
    assert_eq!(counts.iter().sum::<usize>(), 2, "{}", farm.log_tails());
    let user = user(&mut farm, &roots[0])?;
    authorize(&farm, &user)?;
    let output = outputs[&OutputName::OUT].to_string();
    let url = format!("--substitute-urls={}", farm.guix_publish_url());
    user.guix("guix")?.args(["build", "--no-grafts", &url, &output]).run()?;
    assert_eq!(fs::read_to_string(user.outside(&output).join("file"))?, "low\n");
    farm.stop_all()
}

/// Starts a machine with Guix that runs nothing of the farm.
fn user(farm: &mut Farm, root: &GuixRoot) -> Result<Machine> {
    let machines = farm.directory().join("machines");
    let config = MachineConfig {
        name: format!("user-{}", root.suite()),
        guix: Some(root.clone()),
        ..MachineConfig::default()
    };
    let machine = Machine::start(&machines, &config)?;
    farm.network.attach(&machine)?;
    Ok(machine)
}

#[tokio::test]
async fn a_worker_whose_daemon_does_not_trust_the_server_says_what_mends_it() -> Result<()> {
    let roots = GuixRoot::all()?;
    if roots.is_empty() {
        return Ok(());
    }
    let mut farm = farm(&roots)?;
    farm.start_server()?;
    for index in 1..farm.workers.len() {
        let directory = farm.directory().to_owned();
        let WorkerHost { machine, launch, .. } = &mut farm.workers[index];
        let mut process = launch.start(&format!("untrusting-{index}"), &directory)?;
        let status = process.wait_end(Deadline::seconds(60))?;
        let said = process.log_text();
        assert!(!status.success(), "{said}");
        let command = said
            .lines()
            .find(|line| line.trim_start().starts_with("echo '(public-key"))
            .with_context(|| format!("no command in {said}"))?
            .trim();
        assert!(command.ends_with("| guix archive --authorize"), "{command}");
        // Done as it says, it goes on.
        machine.guix("sh")?.args(["-c", command]).run()?;
        farm.start_worker(index)?;
        farm.wait_until_joined(index).await?;
    }
    farm.stop_all()
}

/// A base that is worth a connection is built by one worker of Guix, and what needs it by the other, after `meddle` had its way with the first one. Gives the
/// log of the second, and the base.
async fn with_a_base_of_another(
    meddle: impl FnOnce(&Farm, &Machine, &str) -> Result<()>,
) -> Result<Option<(Farm, String, String)>> {
    let roots = GuixRoot::all()?;
    let (Some(newest), Some(oldest)) = (roots.first(), roots.last()) else { return Ok(None) };
    let guix = GuixFarm { server: newest.clone(), workers: vec![oldest.clone(), newest.clone()] };
    let mut farm = Farm::create(FarmConfig { workers: 0, guix: Some(guix), ..FarmConfig::new()? })?;
    for host in &farm.workers {
        authorize(&farm, &host.machine)?;
    }
    farm.start_server()?;
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    let mut store = GuixStore::open(&farm.server_machine.guix_address()).await?;
    let script = "dd if=/dev/urandom of=$out bs=1M count=2";
    let (base, outputs) = store.derivation(&Recipe { name: "base-1", script, ..Recipe::default() }).await?;
    let database = farm.postgres.connection_string();
    store.register(&database, "guix", &[&base]).await?;
    farm.wait_for_build("base-1", &["succeeded"], Deadline::seconds(120)).await?;
    farm.hauberk()
        .args(["worker", "pause", &worker_of(&farm, "base-1").await?, "--database", &database])
        .run()?;
    let output = outputs[&OutputName::OUT].to_string();
    meddle(&farm, &farm.workers[0].machine, &output)?;
    farm.start_worker(1)?;
    farm.wait_until_joined(1).await?;
    // What is made is registered, so it is made only now.
    let top = Recipe {
        name: "top-1",
        script: "cat $base > $out; echo $base >> $out",
        inputs: &[("base", &base)],
        ..Recipe::default()
    };
    let (top, _) = store.derivation(&top).await?;
    store.register(&database, "guix", &[&base, &top]).await?;
    farm.wait_for_build("top-1", &["succeeded"], Deadline::seconds(180)).await?;
    let attempts: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(attempts, 2, "{}", farm.describe_builds().await);
    let log = farm.workers[1].process()?.log_text();
    assert!(log.contains(&format!("the build daemon fetched {output}")), "{log}");
    Ok(Some((farm, log, output)))
}

#[tokio::test]
async fn an_input_comes_from_its_builder() -> Result<()> {
    let Some((mut farm, log, base)) = with_a_base_of_another(|_, _, _| Ok(())).await? else { return Ok(()) };
    let from = format!("the build daemon gets {base} from http://{}:5558", farm.workers[0].address);
    assert!(log.contains(&from), "{log}");
    farm.stop_all()
}

#[tokio::test]
async fn an_input_comes_from_the_server_if_its_builder_cannot_be_reached() -> Result<()> {
    let hide = |farm: &Farm, machine: &Machine, _: &str| {
        // The server reaches the first worker, the second does not.
        let table = format!(
            "table inet neighbours {{\nchain input {{\ntype filter hook input priority 0\nip saddr {} tcp dport 5558 drop\n}}\n}}",
            farm.workers[1].address
        );
        machine.command("nft").arg(table).run().map(|_| ())
    };
    let Some((mut farm, log, base)) = with_a_base_of_another(hide).await? else { return Ok(()) };
    assert!(!log.contains(&format!("the build daemon gets {base}")), "{log}");
    farm.stop_all()
}

#[tokio::test]
async fn an_input_comes_from_the_server_if_its_builder_gives_something_else() -> Result<()> {
    let tamper = |_: &Farm, machine: &Machine, base: &str| -> Result<()> {
        let file = machine.outside(base);
        let mut bytes = fs::read(&file)?;
        bytes[1_000_000] ^= 1;
        let times = fs::metadata(&file)?;
        fs::remove_file(&file)?;
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, times.permissions())?;
        Ok(())
    };
    let Some((mut farm, log, base)) = with_a_base_of_another(tamper).await? else { return Ok(()) };
    assert!(log.contains(&format!("the build daemon gets {base} from http://")), "{log}");
    assert!(log.contains("and gets it from the server"), "{log}");
    farm.stop_all()
}

/// The server's machine has Guix, and its store gets what is built, once its daemon trusts the server.
async fn outputs_are_added_to_the_store_of(root: &GuixRoot, builder: &GuixRoot) -> Result<()> {
    let guix = GuixFarm { server: root.clone(), workers: vec![builder.clone()] };
    let mut farm = Farm::create(FarmConfig { workers: 0, guix: Some(guix), ..FarmConfig::new()? })?;
    authorize(&farm, &farm.workers[0].machine)?;
    let launch = farm.server_launch().arg("--add-to-store");
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    let database = farm.postgres.connection_string();
    let mut store = GuixStore::open(&farm.server_machine.guix_address()).await?;
    let (low, low_outputs) = store.derivation(&LOW).await?;
    store.register(&database, "guix", &[&low]).await?;
    // A daemon that does not trust the server costs nobody a build.
    farm.wait_for_build("low-1", &["succeeded"], Deadline::seconds(120)).await?;
    let low_paths: Vec<_> = low_outputs.values().collect();
    let server = farm.server.as_mut().context("the server was started")?;
    server.wait_log("must trust this server's signing key", Deadline::seconds(30))?;
    for path in &low_paths {
        assert!(!store.daemon().is_valid_path(path).await?, "{path} was taken on nobody's word");
    }

    authorize(&farm, &farm.server_machine)?;
    let high = Recipe {
        name: "high-1",
        script: "cat $low/file > $out; echo $low >> $out; echo $out >> $out",
        inputs: &[("low", &low)],
        ..Recipe::default()
    };
    let (high, high_outputs) = store.derivation(&high).await?;
    store.register(&database, "guix", &[&high]).await?;
    farm.wait_for_build("high-1", &["succeeded"], Deadline::seconds(120)).await?;
    let high = &high_outputs[&OutputName::OUT];
    let low = &low_outputs[&OutputName::OUT];
    let suite = root.suite();
    for path in [high, low] {
        assert!(
            store.daemon().is_valid_path(path).await?,
            "{suite}: {path} is not there; {}",
            farm.log_tails()
        );
    }
    let info = store.daemon().query_path_info(high).await?.context("it is valid")?;
    assert_eq!(info.references, BTreeSet::from([high.clone(), low.clone()]));
    let text = fs::read_to_string(farm.server_machine.outside(&high.to_string()))?;
    assert_eq!(text, format!("low\n{low}\n{high}\n"));
    farm.server_machine.guix("guix")?.args(["gc", "--verify=contents"]).run()?;
    farm.stop_all()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_added_to_the_store_of_the_server() -> Result<()> {
    let roots = GuixRoot::all()?;
    for root in &roots {
        outputs_are_added_to_the_store_of(root, &roots[0]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_brings_derivations_to_a_server_without_a_store() -> Result<()> {
    let roots = GuixRoot::all()?;
    if roots.is_empty() {
        return Ok(());
    }
    let mut farm = farm(&roots)?;
    for host in &farm.workers[1..] {
        authorize(&farm, &host.machine)?;
    }
    let launch = farm.server_launch().args(["--daemon", "nix", "--daemon", "none"]);
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    for index in 1..farm.workers.len() {
        farm.start_worker(index)?;
        farm.wait_until_joined(index).await?;
    }
    let database = farm.postgres.connection_string();
    let sent =
        "select sum(paths)::bigint, sum(bytes)::bigint, bool_and(completed_at is not null) from pushes";
    let mut before = (0, 0);
    // From a store of each Guix, in turn; much of the second push is there already.
    for (place, root) in roots.iter().enumerate() {
        let register = user(&mut farm, root)?;
        let version = place + 1;
        let socket = register.directory().join("var/guix/daemon-socket/socket");
        let daemon = format!("unix://{}?root={}", socket.display(), register.directory().display());
        let said = register
            .command(env!("CARGO_BIN_EXE_guix-register"))
            .args(["--database", &database, "--version", &version.to_string(), "--daemon", &daemon])
            .run()?;
        let high = said.lines().last().context("it prints outputs")?.to_owned();
        let low = said.lines().next().context("it prints outputs")?.to_owned();
        farm.wait_for_the_end(Deadline::seconds(240)).await?;
        let (low_name, high_name) = (format!("low-{version}"), format!("high-{version}"));
        farm.expect_states(&[(&low_name, "succeeded"), (&high_name, "succeeded")]).await?;
        let row = &farm.query(sent, &[]).await?[0];
        let now: (i64, i64) = (row.get(0), row.get(1));
        assert!(row.get::<_, bool>(2), "a push has no end");
        let (paths, bytes) = (now.0 - before.0, now.1 - before.1);
        before = now;
        if place == 0 {
            assert!(paths >= 6 && bytes > 6 << 20, "{paths} paths, {bytes} bytes");
        } else {
            assert!((3..6).contains(&paths) && bytes < 1 << 20, "{paths} paths, {bytes} bytes");
        }
        // What was built is served, and the register's own store has nothing of it.
        assert!(!register.outside(&high).exists());
        authorize(&farm, &register)?;
        let url = format!("--substitute-urls={}", farm.guix_publish_url());
        register.guix("guix")?.args(["build", "--no-grafts", &url, &high]).run()?;
        let text = fs::read_to_string(register.outside(&high))?;
        assert!(text.starts_with(&format!("source {version}\n{low}\n")), "{text}");
    }
    let attempts: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(attempts, 2 * roots.len() as i64, "{}", farm.describe_builds().await);
    farm.stop_all()
}
