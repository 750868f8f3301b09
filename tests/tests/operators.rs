//! What operators ask and do by the command line, on a farm that runs.

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig};
use serde_json::Value;

/// A build that waits at a gate, one that needs it, one that fails, and what needs that.
const GRAPH: &str = r#"
  first = job "first-1" ''
    echo here it begins
    ${gate "first"}
    echo here it ends
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out";
  bad = job "bad-1" "echo this fails; exit 3";
  needsbad = job "needs-bad-1" "cat ${bad} > $out";
"#;

/// Runs a command of an operator against the farm's database; gives its exit status and what it printed.
fn ask(farm: &Farm, arguments: &[&str]) -> Result<(i32, String)> {
    let output = farm
        .hauberk_on_server()
        .args(arguments)
        .args(["--database", &farm.postgres.connection_string()])
        .output()?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("the command was killed")?, text))
}

/// Runs a command that must succeed.
fn done(farm: &Farm, arguments: &[&str]) -> Result<String> {
    let (status, text) = ask(farm, arguments)?;
    anyhow::ensure!(status == 0, "{arguments:?} ended with {status}: {text}");
    Ok(text)
}

/// Runs a command that must succeed, for programs.
fn json(farm: &Farm, arguments: &[&str]) -> Result<Value> {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let text = done(farm, &arguments)?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed no JSON:\n{text}"))
}

async fn id_of(farm: &Farm, name: &str) -> Result<String> {
    let id: i64 = farm.query("select id from builds where name = $1", &[&name]).await?[0].get(0);
    Ok(id.to_string())
}

#[tokio::test]
async fn operators_see_and_steer_a_farm() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, slots: 2, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    done(&farm, &["worker", "pause", "worker-2", "--reason", "a new disk"])?;
    let (_, specification) = farm.repository("control", GRAPH)?;
    farm.start_register(&[specification])?;
    // What fails is over, and the other waits at its gate.
    farm.wait_for_build("bad-1", &["failed"], Deadline::seconds(90)).await?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(20)).await?;
    // Nothing else begins for now.
    done(&farm, &["worker", "pause", "worker-1"])?;

    status_and_lists(&farm).await?;
    logs(&farm).await?;
    restarts(&mut farm).await?;
    urgency(&farm).await?;

    // Waiting ends with the builds, and tells how by its exit status.
    let first = id_of(&farm, "first-1").await?;
    let bad = id_of(&farm, "bad-1").await?;
    let (status, said) = ask(&farm, &["build", "wait", &first, "--timeout", "1"])?;
    assert_eq!(status, 11, "{said}");
    let follower = farm
        .hauberk_on_server()
        .args(["build", "log", &first, "--follow", "--database", &farm.postgres.connection_string()])
        .start("follower", farm.directory())?;
    done(&farm, &["worker", "resume", "worker-1"])?;
    farm.gates.open("first")?;
    let output = farm.output_of("second-1").await?;
    let (status, said) = ask(&farm, &["build", "wait", &output, &first, "--timeout", "120"])?;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains(&format!("{first} succeeded")), "{said}");
    farm.wait_for_build("bad-1", &["failed"], Deadline::seconds(60)).await?;
    let (status, said) = ask(&farm, &["build", "wait", &bad, &first])?;
    assert_eq!(status, 9, "{said}");
    let mut follower = follower;
    assert!(follower.wait_end(Deadline::seconds(60))?.success());

    evaluations(&mut farm).await?;
    workers(&mut farm)?;
    // All of it stands in the audit, with who did it.
    let audit = json(&farm, &["audit", "--limit", "1000"])?;
    let audit = audit.as_array().context("the audit is a list")?;
    let actions: Vec<&str> = audit.iter().filter_map(|line| line["action"].as_str()).collect();
    for action in [
        "worker.add",
        "worker.pause",
        "worker.resume",
        "worker.remove",
        "build.restart",
        "build.cancel",
        "build.priority",
        "build.emergency",
        "evaluation.cancel",
        "evaluation.restart",
        "evaluation.retry",
        "evaluation.emergency",
        "evaluation.cancel_superseded",
    ] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
    assert!(audit.iter().all(|line| line["who"] == "root"), "{audit:?}");
    let of_build = json(&farm, &["audit", "--build", &bad])?;
    assert!(of_build.as_array().is_some_and(|lines| !lines.is_empty()));
    farm.stop_all()
}

async fn status_and_lists(farm: &Farm) -> Result<()> {
    let status = json(farm, &["status"])?;
    assert_eq!(status["workers"]["connected"], 2, "{status}");
    assert_eq!(status["workers"]["paused"], 2, "{status}");
    assert_eq!(status["workers"]["busy"], 1, "{status}");
    assert_eq!(status["servers"][0]["state"], "running", "{status}");
    let reasons: Vec<&str> =
        status["queue"].as_array().into_iter().flatten().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["dependencies"], "{status}");
    let text = done(farm, &["status"])?;
    for words in
        ["workers: 2 of 2 connected, 2 paused; slots: 1 of 4 busy", "builds that wait: 1", "what it needs"]
    {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }

    let names = |arguments: &[&str]| -> Result<Vec<String>> {
        let list = json(farm, arguments)?;
        let list = list.as_array().context("a list")?.clone();
        Ok(list.iter().filter_map(|build| build["name"].as_str().map(str::to_owned)).collect())
    };
    assert_eq!(names(&["build", "list"])?.len(), 4);
    assert_eq!(names(&["build", "list", "--state", "running"])?, ["first-1"]);
    assert_eq!(names(&["build", "list", "--state", "failed,failed-dependency"])?.len(), 2);
    assert_eq!(names(&["build", "list", "--worker", "worker-1"])?.len(), 2);
    assert_eq!(names(&["build", "list", "--name", "needs-*"])?, ["needs-bad-1"]);
    assert_eq!(names(&["build", "list", "--specification", "absent"])?.len(), 0);
    assert_eq!(names(&["build", "list", "--limit", "1"])?.len(), 1);
    let evaluation = json(farm, &["evaluation", "list"])?[0]["id"].to_string();
    assert_eq!(names(&["build", "list", "--evaluation", &evaluation])?.len(), 4);
    let table = done(farm, &["build", "list"])?;
    let mut lines = table.lines();
    let head = lines.next().context("a line of heads")?;
    let place = head.find("NAME").context("a column of names")?;
    assert!(lines.all(|line| !line[..place].ends_with(|character: char| character != ' ')), "{table}");
    let (status, said) = ask(farm, &["build", "list", "--state", "done"])?;
    assert_eq!(status, 2);
    assert!(said.contains("succeeded"), "{said}");

    // A build is known by its number, its derivation and its outputs.
    let id = id_of(farm, "first-1").await?;
    let shown = json(farm, &["build", "show", &id])?;
    let derivation = shown["derivation"].as_str().context("a derivation")?.to_owned();
    let output = shown["outputs"][0]["path"].as_str().context("an output")?.to_owned();
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["dependents"], 1);
    let base = derivation.rsplit('/').next().unwrap_or_default();
    for name in [derivation.as_str(), base, &output, &format!("{output}/bin/x")] {
        assert_eq!(json(farm, &["build", "show", name])?["id"].to_string(), id, "{name}");
    }
    for (arguments, words) in [
        (["build", "show", "999999"], "hauberk build list"),
        (["build", "show", "absent-1"], "is no build"),
        (["build", "cancel", "999999"], "there is no build 999999"),
        (["evaluation", "show", "999999"], "hauberk evaluation list"),
        (["evaluation", "cancel", "999999"], "hauberk evaluation list"),
        (["worker", "show", "absent"], "hauberk worker list"),
        (["worker", "resume", "absent"], "hauberk worker list"),
    ] {
        let (status, said) = ask(farm, &arguments)?;
        assert_eq!(status, 3, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    Ok(())
}

async fn logs(farm: &Farm) -> Result<()> {
    let bad = id_of(farm, "bad-1").await?;
    assert!(done(farm, &["build", "log", &bad])?.contains("this fails"));
    let cache = farm.cache().display().to_string();
    assert!(done(farm, &["build", "log", &bad, "--cache", &cache])?.contains("this fails"));
    assert!(done(farm, &["build", "log", &bad, "--cache", &cache, "--attempt", "1"])?.contains("this fails"));
    let (status, said) = ask(farm, &["build", "log", &bad, "--attempt", "7"])?;
    assert_eq!(status, 3);
    assert!(said.contains("no attempt 7"), "{said}");
    let waits = id_of(farm, "second-1").await?;
    let (status, said) = ask(farm, &["build", "log", &waits])?;
    assert_eq!(status, 1);
    assert!(said.contains("no worker has tried"), "{said}");
    Ok(())
}

async fn restarts(farm: &mut Farm) -> Result<()> {
    let bad = id_of(farm, "bad-1").await?;
    let needs = id_of(farm, "needs-bad-1").await?;
    assert_eq!(json(farm, &["build", "restart", &bad, "--canceled"])?["revived"], serde_json::json!([]));
    let revived = json(farm, &["build", "restart", &bad, "--failed", "--dependents"])?;
    assert_eq!(revived["revived"].as_array().map(Vec::len), Some(2), "{revived}");
    // No worker takes anything.
    farm.expect_states(&[("bad-1", "ready"), ("needs-bad-1", "waiting")]).await?;
    assert!(done(farm, &["build", "cancel", &bad])?.contains("canceled 2 builds"));
    let (status, said) = ask(farm, &["build", "wait", &bad, &needs])?;
    assert_eq!(status, 10, "{said}");
    assert!(done(farm, &["build", "show", &needs])?.contains("build.cancel"));
    let revived = json(farm, &["build", "restart", &needs, "--dependencies"])?;
    assert_eq!(revived["revived"].as_array().map(Vec::len), Some(2), "{revived}");
    Ok(())
}

async fn urgency(farm: &Farm) -> Result<()> {
    let needs = id_of(farm, "needs-bad-1").await?;
    let changed = json(farm, &["build", "priority", &needs, "7"])?;
    assert_eq!(changed[0]["urgency"]["priority"], 7, "{changed}");
    assert_eq!(
        changed[0]["changed"].as_array().map(Vec::len),
        Some(2),
        "what it needs inherits it: {changed}"
    );
    assert_eq!(json(farm, &["build", "show", &id_of(farm, "bad-1").await?])?["priority"], 7);
    let (status, said) = ask(farm, &["build", "priority", &needs, "100"])?;
    assert_eq!(status, 2, "{said}");
    let changed = json(farm, &["build", "emergency", &needs])?;
    assert_eq!(changed[0]["urgency"]["emergency"], true, "{changed}");
    done(farm, &["build", "emergency", &needs, "--off"])?;
    done(farm, &["build", "priority", &needs, "--reset"])?;
    let evaluation = json(farm, &["evaluation", "list"])?[0]["id"].to_string();
    done(farm, &["evaluation", "emergency", &evaluation])?;
    done(farm, &["evaluation", "emergency", &evaluation, "--off"])?;
    done(farm, &["evaluation", "priority", &evaluation, "12"])?;
    Ok(())
}

async fn evaluations(farm: &mut Farm) -> Result<()> {
    let first = json(farm, &["evaluation", "list", "--specification", "control"])?[0]["id"].to_string();
    let shown = json(farm, &["evaluation", "show", &first])?;
    assert_eq!((&shown["status"], &shown["jobs"]["total"]), (&"succeeded".into(), &4.into()), "{shown}");
    assert!(done(farm, &["evaluation", "cancel", &first])?.contains("canceled 0 builds"));
    let restarted = json(farm, &["evaluation", "restart", &first, "--canceled"])?;
    assert_eq!(
        (&restarted["revived"], restarted["left"].as_array().map(Vec::len)),
        (&serde_json::json!([]), Some(2))
    );
    // Evaluated again, though nothing has changed; the older one gives way.
    done(farm, &["evaluation", "retry", &first])?;
    farm.wait_for_evaluations(2, Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let (status, said) = ask(farm, &["evaluation", "retry", &first])?;
    assert_eq!(status, 3);
    assert!(said.contains("is not the newest of control"), "{said}");
    assert!(done(farm, &["evaluation", "cancel", "--superseded"])?.contains("no evaluation is superseded"));
    done(farm, &["worker", "pause", "worker-1"])?;
    assert!(done(farm, &["evaluation", "restart", &first, "--failed"])?.contains("2 builds"));
    let superseded = json(farm, &["evaluation", "cancel", "--superseded", "--specification", "control"])?;
    assert_eq!(superseded[0]["evaluation"].to_string(), first, "{superseded}");
    // The newer one wants the same builds.
    assert_eq!(superseded[0]["canceled"], serde_json::json!([]), "{superseded}");
    assert!(done(farm, &["evaluation", "list"])?.contains("SPECIFICATION"));
    Ok(())
}

fn workers(farm: &mut Farm) -> Result<()> {
    let shown = done(farm, &["worker", "show", "worker-2"])?;
    assert!(shown.contains("paused because") && shown.contains("a new disk"), "{shown}");
    done(farm, &["worker", "resume", "worker-1", "worker-2"])?;
    let list = json(farm, &["worker", "list"])?;
    assert_eq!(list[0]["slots"], 2, "{list}");
    done(farm, &["worker", "remove", "worker-2"])?;
    let mut removed = farm.workers[1].process.take().context("it runs")?;
    assert_eq!(removed.wait_end(Deadline::seconds(30))?.code(), Some(7), "it is told that it was removed");
    assert_eq!(json(farm, &["worker", "list"])?.as_array().map(Vec::len), Some(1));
    assert_eq!(json(farm, &["worker", "list", "--all"])?.as_array().map(Vec::len), Some(2));
    Ok(())
}
