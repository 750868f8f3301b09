//! `hauberk up`: a farm on one machine without any setting up.

use anyhow::Result;
use hauberk_tests::{
    Deadline, Gates, LabDirectory, Launch, Machine, MachineConfig, Repository, Specification,
    hauberk_program, jobs, wait_for,
};

#[test]
fn up_builds_and_ends_in_order() -> Result<()> {
    let directory = LabDirectory::create()?;
    let gates = Gates::create(&directory.path().join("gates"))?;
    let repository = Repository::create(&directory.path().join("repository"))?;
    repository.write("release.nix", &jobs(r#"fine = job "fine-1" "echo fine > $out";"#))?;
    repository.commit("Begin")?;
    let specifications = directory.path().join("specifications.toml");
    std::fs::write(&specifications, Specification::new("single", &repository.url()).toml())?;
    let state = directory.path().join("state");

    let mut machine = Machine::start(
        directory.path(),
        &MachineConfig {
            name: "single".to_owned(),
            gates: Some(gates.directory().to_owned()),
            ..MachineConfig::default()
        },
    )?;
    let launch = machine
        .command(hauberk_program()?)
        .args(["up", "--workers", "1", "--port", "8080", "--state-directory"])
        .arg(&state)
        .arg("--specifications")
        .arg(&specifications);
    // The worker says which line its daemon lacks and ends; whoever runs the farm adds it.
    let mut up = launch.start("up", directory.path())?;
    wait_for("the farm's key is there", Deadline::seconds(60), || {
        up.check_alive()?;
        Ok(up.log_text().contains("trusted-public-keys").then_some(()))
    })
    .or_else(|error| if up.log_text().contains("ready") { Ok(()) } else { Err(error) })?;
    up.stop(Deadline::seconds(60))?;

    let key = public_key(&state)?;
    let conf = machine.directory().join("etc-nix/nix.conf");
    let text = std::fs::read_to_string(&conf)?
        .replace("trusted-public-keys =", &format!("trusted-public-keys = {key}"));
    std::fs::write(&conf, text)?;
    machine.kill_daemon()?;
    machine.start_daemon()?;
    up.restart()?;
    up.wait_ready(Deadline::seconds(120))?;
    let ask = machine.command("curl").args(["--silent", "http://127.0.0.1:8080/api/latestbuilds?nr=10"]);
    wait_for("the build is succeeded", Deadline::seconds(120), || {
        up.check_alive()?;
        let answer = String::from_utf8_lossy(&ask.output()?.stdout).into_owned();
        Ok((answer.contains("fine") && answer.contains("\"buildstatus\":0")).then_some(()))
    })?;
    up.stop(Deadline::seconds(60))?;
    // Nothing but the machine's own two is left.
    let left = machine.command("pgrep").args(["-l", "hauberk|postgres"]).output()?;
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    Ok(())
}

/// Finds the farm's public signing key.
fn public_key(state: &std::path::Path) -> Result<String> {
    let found = Launch::here("find").arg(state).args(["-name", "*sign*.pub"]).run()?;
    let file = found.lines().next().unwrap_or_default();
    Ok(std::fs::read_to_string(file)?.trim().to_owned())
}
