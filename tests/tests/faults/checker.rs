//! The checker must find each kind of fault that is planted into sound tables, logs and outputs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};

/// Statements that break sound tables, and the rules that must then be found broken. One may break others too.
const PLANTED: &[(&str, &str)] = &[
    (
        "drop index attempts_one_open;
         insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch
         from attempts where ended_at is null",
        "a build has several open attempts",
    ),
    (
        "update attempts set ended_at = now(), class = 'canceled' where ended_at is null",
        "a build is under way without an open attempt",
    ),
    (
        "update builds set attempt_id = null where state = 'running'",
        "a build is under way without an open attempt",
    ),
    (
        "update builds set state = 'ready' where state = 'running'",
        "an attempt is open whose build is not under way",
    ),
    (
        "update builds set state = 'assigned' where state = 'running'",
        "a build and its open attempt are not at the same step",
    ),
    (
        "update builds set state = 'built' where state = 'running'",
        "a build and its open attempt are not at the same step",
    ),
    (
        "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, ended_at, class)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch, now(), 'succeeded'
         from attempts where class = 'succeeded'",
        "a build ended more than once",
    ),
    (
        "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, ended_at, class)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch, now(), 'silent'
         from attempts where class = 'build_failed'",
        "a build ended more than once",
    ),
    // A failure, and in the same generation a success: that of an older one is not a fault any more.
    (
        "update attempts set class = 'timed_out' where class = 'build_failed';
         insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, ended_at, class)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch, now(), 'succeeded'
         from attempts where class = 'timed_out';
         update builds set generation = 2, state = 'ready', attempt_id = null, finished_at = null where state = 'failed'",
        "a build ended more than once",
    ),
    (
        "update builds b set state = 'succeeded' from attempts a where b.state = 'failed' and a.id = b.attempt_id",
        "an attempt failed by the package's fault whose build did not",
    ),
    (
        "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, ended_at, class)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch, now(), 'output_limit'
         from attempts where class = 'succeeded'",
        "an attempt failed by the package's fault whose build did not",
    ),
    (
        "update builds set state = 'ready', attempt_id = null, finished_at = null where state = 'failed'",
        "an attempt failed by the package's fault whose build did not",
    ),
    ("delete from attempts where class = 'succeeded'", "a build succeeded without an attempt that did"),
    (
        "update builds set generation = 2 where state = 'succeeded'",
        "a build succeeded without an attempt that did",
    ),
    (
        "update builds set state = 'canceled' where state = 'succeeded'",
        "an attempt succeeded whose build did not",
    ),
    (
        "update outputs o set nar_hash = null from builds b where b.id = o.build_id and b.state = 'succeeded'",
        "an output of a build that succeeded is not known",
    ),
    (
        "update attempt_outputs set nar_hash = sha256('another')",
        "an attempt that succeeded did not give what its build gives",
    ),
    ("delete from attempt_outputs", "an attempt that succeeded did not give what its build gives"),
    (
        "update attempts set class = 'worker_lost' where class = 'build_failed'",
        "a build failed without an attempt that tells why",
    ),
    (
        "update builds set state = 'failed_other' where state = 'failed'",
        "a build failed without an attempt that tells why",
    ),
    (
        "update builds set failed_build_id = id where state = 'failed_dependency'",
        "a build failed for a dependency that did not",
    ),
    (
        "delete from build_dependencies e using builds b where b.id = e.build_id and b.state = 'failed_dependency'",
        "a build failed for a dependency that did not",
    ),
    (
        "update builds set state = 'waiting', finished_at = null where state = 'failed_dependency'",
        "a build waits for one that failed",
    ),
    (
        "update builds set unmet = unmet + 1 where state = 'waiting'",
        "the counter of unmet dependencies is wrong",
    ),
    ("update builds set unmet = 0 where state = 'waiting'", "a build waits for nothing"),
    (
        "update builds set unmet = 0, state = 'deferred' where state = 'waiting'",
        "a build waits for nothing",
    ),
    (
        "update builds set state = 'ready' where state = 'waiting'",
        "a build does not wait for its dependencies",
    ),
    ("update attempts set number = 2", "attempts of a build are missing or numbered twice"),
    (
        "update builds set finished_at = finished_at - interval '1 hour' where status >= 0",
        "a build went on after its end",
    ),
    (
        "update builds set finished_at = null where state = 'failed_dependency'",
        "a build that ended has no time of its end",
    ),
    (
        "update builds set farm_faults = 1 where state = 'succeeded'",
        "the farm's faults are not those of the attempts",
    ),
    (
        "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, ended_at, class)
         select build_id, derivation_id, generation, number + 1, 'retry', worker_id, session, epoch, now(), 'worker_lost'
         from attempts where class = 'succeeded'",
        "the farm's faults are not those of the attempts",
    ),
    ("update server_epochs set ended_at = now()", "an open attempt has no server"),
    (
        "update workers set epoch = null, last_seen_at = now() - interval '1 hour';
         update attempts set assigned_at = assigned_at - interval '1 hour';
         update server_epochs set started_at = started_at - interval '1 hour'",
        "an open attempt has outlived its lease",
    ),
    ("select 1", "a build has not ended"),
    ("select 1", "an attempt has not ended"),
    (
        "update attempts set log_complete = false where class = 'build_failed'",
        "the log of an attempt that ended by its worker's word is not complete",
    ),
];

/// Rules that tables with running builds break, whatever else is right with them.
const UNFINISHED: &[&str] = &["a build has not ended", "an attempt has not ended"];

/// Some builds have succeeded, one failed with its dependents, some run, and some wait for those.
async fn farm_at_rest() -> Result<SimulatedFarm> {
    let config = SimulatedFarmConfig { crews: 1, workers: 2, slots: 2, ..SimulatedFarmConfig::default() };
    let mut farm = SimulatedFarm::start(config).await?;
    let mut graph = Graph::new("planted");
    graph.add_many("quick", 4);
    let broken = graph.add("fail", &[]);
    let above = graph.add("quick", &[0, broken]);
    graph.add("quick", &[above]);
    let held = graph.add("gate.never", &[0]);
    graph.add("quick", &[held]);
    farm.publish(&graph).await?;
    farm.wait_ended(7).await?;
    farm.wait_running(1).await?;
    farm.wait_until(
        "every log has come",
        "select not exists (select from attempts where ended_at is not null and not log_complete)",
        &[],
    )
    .await?;
    farm.crews[0].process.kill9()?;
    farm.kill_server()?;
    Ok(farm)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_what_is_planted() -> Result<()> {
    let farm = farm_at_rest().await?;
    farm.checker.attended(&farm.tables).await?.require_none()?;
    let found = farm.new_checker().settled(&farm.tables).await?;
    assert_eq!(found.rules(), UNFINISHED, "{found}");

    let mut client = farm.tables.connect().await?;
    for (statements, rule) in PLANTED {
        // Planted, found, and taken back.
        let transaction = client.transaction().await?;
        transaction.batch_execute(statements).await.with_context(|| (*statements).to_owned())?;
        let found = farm.checker.settled_in(&transaction).await?;
        assert!(found.rules().contains(rule), "{statements}\nshould break `{rule}`, and breaks:\n{found}");
        found.require_none().unwrap_err();
    }
    client
        .batch_execute("update attempts set log_bytes = log_bytes + 1 where class = 'build_failed'")
        .await?;
    require_rule(&farm, "a log is not as long as was recorded").await?;
    client
        .batch_execute("update attempts set log_bytes = log_bytes - 1 where class = 'build_failed'")
        .await?;
    plant_in_logs(&farm).await?;
    plant_in_cache(&farm).await
}

async fn plant_in_logs(farm: &SimulatedFarm) -> Result<()> {
    let path: String = farm
        .tables
        .query("select log_path from attempts where class = 'build_failed'", &[])
        .await?
        .first()
        .context("a build has failed")?
        .get(0);
    let file = farm.directory().join("cache/logs").join(path);
    let sound = fs::read(&file)?;
    let mut other = GzEncoder::new(Vec::new(), Compression::fast());
    other.write_all(b"something else\n")?;
    for (contents, rule) in [
        (other.finish()?, "a log is not what the builder wrote"),
        (sound[..sound.len() - 9].to_vec(), "a log cannot be read"),
        (Vec::new(), "a log cannot be read"),
    ] {
        fs::write(&file, contents)?;
        require_rule(farm, rule).await?;
    }
    fs::remove_file(&file)?;
    require_rule(farm, "a log cannot be read").await?;
    fs::write(&file, sound)?;
    Ok(())
}

async fn plant_in_cache(farm: &SimulatedFarm) -> Result<()> {
    let cache = farm.directory().join("cache");
    let narinfos = files_ending(&cache, ".narinfo")?;
    let [first, second] = [&narinfos[0], &narinfos[1]];
    let nar = cache.join("nar").join(
        fs::read_to_string(first)?
            .lines()
            .find_map(|line| line.strip_prefix("URL: nar/").map(str::to_owned))
            .context("a narinfo names its nar")?,
    );
    let rule = "an output is not in the cache as it must be";
    for (file, contents) in [
        (first, fs::read(second)?),
        (first, fs::read_to_string(first)?.replace("Sig: farm", "Sig: barn").into_bytes()),
        (&nar, fs::read(&nar)?.into_iter().rev().collect()),
        (&nar, Vec::new()),
    ] {
        let sound = fs::read(file)?;
        fs::write(file, contents)?;
        require_rule(farm, rule).await?;
        fs::write(file, sound)?;
    }
    fs::remove_file(first)?;
    require_rule(farm, rule).await
}

async fn require_rule(farm: &SimulatedFarm, rule: &str) -> Result<()> {
    let found = farm.new_checker().settled(&farm.tables).await?;
    assert!(found.rules().contains(&rule), "`{rule}` is not found, but:\n{found}");
    Ok(())
}

fn files_ending(directory: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
