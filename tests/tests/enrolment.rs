//! Machines that join by a token, and workers that are removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Result;
use hauberk_tests::{
    Deadline, Farm, FarmConfig, Launch, Machine, MachineConfig, Process, hauberk_program, program_beside,
};

/// The user workers run as: nobody, whom their daemons do not trust.
const USER: u32 = 65534;

/// Announces servers by a real avahi: each line of `$1` is `NAME<TAB>KEY`.
const ANNOUNCE: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --system --fork --nopidfile
avahi-daemon --no-drop-root --no-rlimits --no-chroot --daemonize
tab=$(printf '\t')
while IFS=$tab read -r name key; do
    avahi-publish-service "$name" _hauberk._tcp 5555 farm=hauberk version=1 log-port=5556 publish-port=5557 store=/nix/store "key=$key" &
done <"$1"
wait
"#;

/// Work that waits at a gate, and some that needs it.
const GRAPH: &str = r#"
  first = job "first-1" ''
    ${gate "first"}
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out; echo second >> $out";
"#;

/// Runs a command of an operator against the farm's database; gives what it printed.
fn operate(farm: &Farm, arguments: &[&str]) -> Result<String> {
    let said =
        farm.hauberk().args(arguments).args(["--database", &farm.postgres.connection_string()]).run()?;
    // What is for people is in the log, beside it.
    Ok(said.lines().find(|line| line.starts_with("hauberk1-")).unwrap_or(&said).trim().to_owned())
}

/// A machine with a daemon and nothing of the farm, and the directory for a worker's state.
fn newcomer(farm: &mut Farm, name: &str) -> Result<(Machine, PathBuf)> {
    let config = MachineConfig {
        name: name.to_owned(),
        trusted_public_keys: vec![farm.server_signing_key().to_owned()],
        gates: Some(farm.gates.directory().to_owned()),
        ..MachineConfig::default()
    };
    let machine = Machine::start(&farm.directory().join("machines"), &config)?;
    farm.network.attach(&machine)?;
    let state = machine.directory().join("state");
    fs::create_dir_all(&state)?;
    chown(&state, Some(USER), Some(USER))?;
    Ok((machine, state))
}

fn worker(machine: &Machine, state: &Path) -> Result<Launch> {
    Ok(machine.command(hauberk_program()?).args(["remote-worker", "--spool"]).arg(state).user(USER))
}

fn joined() -> &'static str {
    "select exists (select from workers where name = $1 and epoch = (select max(epoch) from server_epochs))"
}

async fn actions(farm: &Farm) -> Result<Vec<(String, String, String)>> {
    let rows = farm.query("select action, who, subject from audit order by id", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

#[tokio::test]
async fn a_token_is_all_that_a_new_machine_needs_and_no_other_server_sees_it() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 0, ..FarmConfig::new()? })?;
    let public_key = fs::read_to_string(farm.key_file("server.curve.pub"))?.trim().to_owned();

    // A machine that announces itself as the farm's server before there is one: under a key of its own, and under the server's.
    let key = farm.server_signing_key().to_owned();
    let rogue = farm.user_machine("rogue", &key)?;
    farm.hauberk().args(["key", "curve"]).arg(farm.key_file("rogue.curve")).run()?;
    let rogue_key = fs::read_to_string(farm.key_file("rogue.curve.pub"))?.trim().to_owned();
    let list = farm.directory().join("announced");
    fs::write(&list, format!("evil\t{rogue_key}\nserver\t{public_key}\n"))?;
    let mut listener: Process = rogue
        .command(program_beside("other-version")?)
        .args(["server", "0.0.0.0:5555"])
        .arg(farm.key_file("rogue.curve"))
        .start("rogue", farm.directory())?;
    listener.wait_log("listening", Deadline::seconds(20))?;
    let mut announcer: Process = rogue
        .command("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c", ANNOUNCE, "announce"])
        .arg(&list)
        .start("announcer", farm.directory())?;
    announcer.wait_log("Established", Deadline::seconds(60))?;

    let token = operate(&farm, &["worker", "token", "--server-key", &public_key])?;
    let (machine, state) = newcomer(&mut farm, "newcomer")?;
    let launch = worker(&machine, &state)?;
    let mut process =
        launch.clone().args(["--enrol", &token, "--name", "anna"]).start("anna", farm.directory())?;
    process.wait_log("it is not joined", Deadline::seconds(60))?;
    process.wait_log("cannot reach the announced server", Deadline::seconds(60))?;
    assert!(!listener.log_text().contains("received"), "{}", listener.log_text());

    farm.start_server()?;
    farm.wait_until("anna has joined", Deadline::seconds(90), joined(), &[&"anna"]).await?;
    let (_, specification) = farm.repository("first", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(90))?;
    farm.gates.open("first")?;
    farm.wait_for_build("second-1", &["succeeded"], Deadline::seconds(90)).await?;
    assert!(!listener.log_text().contains("received"), "{}", listener.log_text());
    for file in ["worker.curve", "worker.signing"] {
        assert_eq!(fs::metadata(state.join("keys").join(file))?.mode() & 0o777, 0o600);
    }

    // Later starts need nothing at all, and do no harm with the token.
    process.stop(Deadline::seconds(40))?;
    for arguments in [&[][..], &["--enrol", &token]] {
        let mut again = launch.clone().args(arguments).start("anna", farm.directory())?;
        farm.wait_until("anna has joined again", Deadline::seconds(90), joined(), &[&"anna"]).await?;
        again.stop(Deadline::seconds(40))?;
    }

    // Nobody else joins by it, nor by one that is wrong, revoked or over.
    let other = machine.directory().join("other");
    fs::create_dir_all(&other)?;
    chown(&other, Some(USER), Some(USER))?;
    let refused = async |token: &str, why: &str| -> Result<()> {
        let output = worker(&machine, &other)?
            .args(["--enrol", token, "--name", "berta", "--server", "10.77.0.1"])
            .output_within(Deadline::seconds(60))?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains(why), "{said}");
        Ok(())
    };
    refused(&token, "was used already").await?;
    let wrong =
        format!("{}{}", &token[..token.len() - 4], if token.ends_with("0000") { "1111" } else { "0000" });
    refused(&wrong, "there is no such token").await?;
    let second = operate(&farm, &["worker", "token"])?;
    operate(&farm, &["worker", "token", "revoke", "2"])?;
    refused(&second, "was revoked").await?;
    let listed = operate(&farm, &["worker", "token", "list"])?;
    assert!(listed.contains("used") && listed.contains("revoked"), "{listed}");

    let audited = actions(&farm).await?;
    let has = |action: &str, who: &str, subject: &str| {
        audited.iter().any(|(a, w, s)| a == action && w == who && s == subject)
    };
    assert!(has("token.make", "root", "1"), "{audited:?}");
    assert!(has("worker.enrol", "token 1 of root", "anna"), "{audited:?}");
    assert!(has("token.revoke", "root", "2"), "{audited:?}");
    let guesses = audited.iter().filter(|(action, ..)| action == "worker.enrol.refused").count();
    assert_eq!(guesses, 3, "{audited:?}");
    farm.stop_all()
}

#[tokio::test]
async fn a_worker_that_is_removed_is_out_at_once() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let token = operate(&farm, &["worker", "token", "--name", "anna"])?;
    let (_, specification) = farm.repository("first", GRAPH)?;
    operate(&farm, &["worker", "pause", "worker-1"])?;
    let (machine, state) = newcomer(&mut farm, "newcomer")?;
    // The token lies in a file, as a service would have it.
    let file = machine.directory().join("token");
    fs::write(&file, format!("{token}\n"))?;
    let mut process = worker(&machine, &state)?.arg("--enrol").arg(&file).start("anna", farm.directory())?;
    farm.wait_until("anna has joined", Deadline::seconds(90), joined(), &[&"anna"]).await?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(90))?;

    operate(&farm, &["worker", "remove", "anna"])?;
    let begin = std::time::Instant::now();
    farm.wait_until(
        "what anna ran is given back",
        Deadline::seconds(20),
        "select exists (select from attempts a join builds b on b.id = a.build_id \
         where b.name = 'first-1' and b.state = 'ready' and a.class = 'canceled')",
        &[],
    )
    .await?;
    let status = process.wait_end(Deadline::seconds(20))?;
    println!("a removed worker was out after {} ms", begin.elapsed().as_millis());
    assert_eq!(status.code(), Some(7));
    assert!(process.log_text().contains("was removed from the farm"), "{}", process.log_tail());

    // It does not come back, and its build is made by another.
    let output = worker(&machine, &state)?.output_within(Deadline::seconds(60))?;
    assert_eq!(output.status.code(), Some(7));
    operate(&farm, &["worker", "resume", "worker-1"])?;
    farm.gates.wait_for_arrivals("first", 2, Deadline::seconds(90))?;
    farm.gates.open("first")?;
    farm.wait_for_build("second-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.stop_all()
}
