//! `hauberk up`: a farm on one machine without any setting up.

use anyhow::Result;
use hauberk_tests::{
    Deadline, Gates, LabDirectory, Machine, MachineConfig, Process, Repository, Specification,
    hauberk_program, jobs, wait_for,
};

const GRAPH: &str = r#"
  fine = job "fine-1" ''
    ${gate "fine"}
    echo fine > $out
  '';
  next = job "next-1" "cat ${fine} > $out";
"#;

#[test]
fn up_builds_ends_in_order_and_goes_on_where_it_was() -> Result<()> {
    let directory = LabDirectory::create()?;
    let gates = Gates::create(&directory.path().join("gates"))?;
    let repository = Repository::create(&directory.path().join("repository"))?;
    repository.write("release.nix", &jobs(GRAPH))?;
    repository.commit("Begin")?;
    let specifications = directory.path().join("specifications.toml");
    std::fs::write(&specifications, Specification::new("single", &repository.url()).toml())?;
    let machine = Machine::start(
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
        .arg(directory.path().join("state"))
        .arg("--specifications")
        .arg(&specifications);
    let mut up = launch.start("up", directory.path())?;
    up.wait_ready(Deadline::seconds(120))?;
    gates.wait_for_arrivals("fine", 1, Deadline::seconds(60))?;
    // Ended in the middle of a build: nothing but the machine's own is left.
    up.stop(Deadline::seconds(60))?;
    let left = machine.command("pgrep").args(["-l", "hauberk|postgres|git|gates"]).output()?;
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");

    // Started again, it goes on with what was not finished, and whatever is killed comes back.
    up.restart()?;
    up.wait_ready(Deadline::seconds(120))?;
    for name in ["remote-server", "register", "remote-worker", "web"] {
        let program = format!("hauberk --log-format human {name}");
        machine.command("pkill").args(["-9", "-f", "--", &program]).run()?;
        come_back(&up, &machine, name, &["-f", "--", &program])?;
    }
    machine.command("pkill").args(["-9", "-o", "-x", "postgres"]).run()?;
    come_back(&up, &machine, "the database", &["-x", "postgres"])?;
    gates.open("fine")?;
    let ask = machine.command("curl").args(["--silent", "http://127.0.0.1:8080/api/latestbuilds?nr=10"]);
    let mut answer = String::new();
    let built = wait_for("both builds are succeeded", Deadline::seconds(120), || {
        up.check_alive()?;
        answer = String::from_utf8_lossy(&ask.output()?.stdout).into_owned();
        Ok((answer.matches("\"buildstatus\":0").count() == 2).then_some(()))
    });
    assert!(built.is_ok(), "{answer}\n{}", up.log_tail());

    // It speaks on loopback only.
    let listeners = machine.command("ss").args(["--listening", "--tcp", "--numeric", "--no-header"]).run()?;
    for line in listeners.lines() {
        let address = line.split_whitespace().nth(3).unwrap_or_default();
        assert!(address.starts_with("127.") || address.starts_with("[::1]"), "up listens at {address}");
    }
    up.stop(Deadline::seconds(60))
}

/// Waits until a part that was killed has been seen to end, and runs again.
fn come_back(up: &Process, machine: &Machine, name: &str, pattern: &[&str]) -> Result<()> {
    wait_for(&format!("{name} is there again"), Deadline::seconds(60), || {
        let noticed = up.log_text().contains(&format!("{name} ended by itself"));
        let running = machine.command("pgrep").args(pattern.iter().copied()).output()?.status.success();
        Ok((noticed && running).then_some(()))
    })
}
