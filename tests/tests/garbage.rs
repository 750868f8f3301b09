//! The collector of garbage, at its busiest, on the server's machine and on the workers'.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch, Repository};

/// Builds that run and builds that wait, with a source that only the server has, and outputs that only workers have for a while.
const GRAPH: &str = r#"
  source = builtins.toFile "source-1" "the source\n";
  library = job "library-1" ''
    ${gate "library"}
    cat ${source} > $out; echo library >> $out
  '';
  beside = job "beside-1" ''
    ${gate "beside"}
    cat ${source} > $out; echo beside >> $out
  '';
  first = job "first-1" "sleep 1; cat ${library} > $out; echo first >> $out";
  second = job "second-1" "sleep 1; cat ${library} ${source} > $out; echo second >> $out";
  third = job "third-1" "sleep 1; cat ${first} ${second} ${beside} > $out; echo third >> $out";
  last = job "last-1" "sleep 1; cat ${third} ${library} ${source} > $out; echo last >> $out";
"#;

const BUILDS: [&str; 6] = ["library-1", "beside-1", "first-1", "second-1", "third-1", "last-1"];

/// Collects garbage on `machines` one after the other, again and again, while `during` runs; gives how often each was collected.
async fn while_collecting<T>(
    machines: &[Launch],
    during: impl Future<Output = Result<T>>,
) -> Result<(T, usize)> {
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let collecting = || -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            for collector in machines {
                collector.run()?;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let (send, mut ended) = tokio::sync::oneshot::channel();
    let mut collected = Ok(());
    // The scope's thread needs what is borrowed here, and the future is polled beside it by this runtime's own thread.
    let result = thread::scope(|scope| {
        let running = scope.spawn(|| {
            let result = collecting();
            let _ = send.send(());
            result
        });
        let result = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                tokio::select! {
                    result = during => result,
                    _ = &mut ended => Err(anyhow::anyhow!("the collector ended early")),
                }
            })
        });
        over.store(true, Ordering::Relaxed);
        collected = running.join().expect("the collector does not panic");
        result
    });
    collected?;
    Ok((result?, rounds.into_inner()))
}

/// Gives the collector of every machine of the farm.
fn collectors(farm: &Farm) -> Vec<Launch> {
    let workers = farm.workers.iter().map(|host| &host.machine);
    std::iter::once(&farm.server_machine)
        .chain(workers)
        .map(|machine| machine.command("nix-collect-garbage").arg("-d"))
        .collect()
}

async fn texts(farm: &Farm, statement: &str) -> Result<Vec<String>> {
    Ok(farm.query(statement, &[]).await?.iter().map(|row| row.get(0)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_costs_no_build_at_its_busiest() -> Result<()> {
    built_while_collecting().await?.0.stop_all()
}

/// Builds everything while garbage is collected, and gives the farm and what it builds from.
async fn built_while_collecting() -> Result<(Farm, Repository)> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (repository, specification) = farm.repository("garbage", GRAPH)?;
    let collectors = collectors(&farm);

    let ((), rounds) = while_collecting(&collectors, async {
        farm.start_register(&[specification])?;
        for gate in ["library", "beside"] {
            farm.gates.wait_for_arrivals(gate, 1, Deadline::seconds(120))?;
        }
        // Some are running, the others wait for them: nobody may lose anything by this.
        for collector in &collectors {
            collector.run()?;
        }
        for gate in ["library", "beside"] {
            farm.gates.open(gate)?;
        }
        farm.wait_for_the_end(Deadline::seconds(240)).await
    })
    .await?;
    assert!(rounds > 3, "{rounds}");
    farm.expect_states(&BUILDS.map(|name| (name, "succeeded"))).await?;
    let tries: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(tries, BUILDS.len() as i64, "{}", farm.describe_builds().await);

    Ok((farm, repository))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it waits until temporary roots are over, which takes minutes"]
async fn it_takes_what_nobody_wants_any_more() -> Result<()> {
    let (mut farm, repository) = built_while_collecting().await?;

    // The server has every output, and the workers need to keep none: theirs can go.
    let outputs = texts(&farm, "select path from outputs").await?;
    let derivations = texts(&farm, "select path from derivations").await?;
    for host in &farm.workers {
        let roots = host.machine.directory().join("spool/roots");
        hauberk_tests::wait_for("the worker has dropped its roots", Deadline::seconds(60), || {
            Ok((std::fs::read_dir(&roots)?.next().is_none()).then_some(()))
        })?;
        // Connections that stand for the sake of temporary roots take a while to go.
        hauberk_tests::wait_for(
            "the worker's store is free of the farm's paths",
            Deadline::seconds(300),
            || {
                host.machine.command("nix-collect-garbage").arg("-d").run()?;
                let gone = |path: &String| !host.machine.outside(path).exists();
                Ok(outputs.iter().chain(&derivations).all(gone).then_some(()))
            },
        )?;
    }
    // The evaluation is the newest: its derivations stay on the server.
    farm.server_machine.command("nix-collect-garbage").arg("-d").run()?;
    for path in &derivations {
        assert!(farm.server_machine.outside(path).exists(), "{path} is gone");
    }

    // Two evaluations later nobody wants them any more.
    for number in 2..=3 {
        let other = format!("other = job \"other-{number}\" \"echo {number} > $out\";");
        repository.write("release.nix", &hauberk_tests::jobs(&other))?;
        repository.commit(&format!("Build something else, {number}"))?;
        farm.look_now("garbage").await?;
        farm.wait_for_evaluations(number, Deadline::seconds(60)).await?;
        farm.wait_for_the_end(Deadline::seconds(60)).await?;
    }
    let server = &farm.server_machine;
    hauberk_tests::wait_for(
        "the derivations of the first evaluation are gone",
        Deadline::seconds(60),
        || {
            server.command("nix-collect-garbage").arg("-d").run()?;
            Ok(derivations.iter().all(|path| !server.outside(path).exists()).then_some(()))
        },
    )?;
    farm.expect_states(&[("other-2", "succeeded"), ("other-3", "succeeded")]).await?;
    farm.stop_all()
}
