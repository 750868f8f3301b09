//! The laboratory itself keeps what it promises.

use anyhow::Result;
use hauberk_tests::{Deadline, LabDirectory, Launch, Machine, MachineConfig, Network, Postgres, wait_for};

fn machine(directory: &LabDirectory, name: &str) -> Result<Machine> {
    Machine::start(directory.path(), &MachineConfig { name: name.to_owned(), ..MachineConfig::default() })
}

/// A derivation that compiles a C program in the sandbox.
const PROGRAM: &str = r#"derivation {
  name = "answer"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-e" "-c" "PATH=/bin; echo 'int main(void) { return 42; }' > a.c; gcc a.c -o $out" ];
}"#;

#[test]
fn machines_build_with_the_compiler_and_have_stores_of_their_own() -> Result<()> {
    let directory = LabDirectory::create()?;
    let (one, other) = (machine(&directory, "one")?, machine(&directory, "other")?);
    let expression = directory.path().join("answer.nix");
    std::fs::write(&expression, PROGRAM)?;
    let output = one.command("nix-build").arg("--no-out-link").arg(&expression).run()?;
    let output = output.trim();
    assert_eq!(one.command(output).output()?.status.code(), Some(42));
    assert!(one.outside(output).exists());
    assert!(!other.outside(output).exists());
    assert!(!std::path::Path::new(output).exists(), "the computer's own store must stay untouched");
    Ok(())
}

#[test]
fn a_process_is_killed_stopped_and_started_again() -> Result<()> {
    let directory = LabDirectory::create()?;
    let machine = machine(&directory, "one")?;
    let mut process = machine
        .command("bash")
        .args(["-c", "sleep 1000 & trap 'kill $!; exit 0' TERM; echo up; wait"])
        .user(65534)
        .start("sleeper", directory.path())?;
    process.wait_log("up", Deadline::seconds(10))?;
    process.kill9()?;
    process.restart()?;
    wait_for("it is up again", Deadline::seconds(10), || {
        Ok((process.log_text().matches("up").count() == 2).then_some(()))
    })?;
    process.stop(Deadline::seconds(10))?;
    let mut leaves_a_child = Launch::here("bash")
        .args(["-c", "sleep 1000 & echo up; trap 'exit 0' TERM; wait"])
        .start("leaver", directory.path())?;
    leaves_a_child.wait_log("up", Deadline::seconds(10))?;
    let orphan = Launch::here("pgrep").args(["-P", &leaves_a_child.id().to_string()]).run()?;
    let error = leaves_a_child.stop(Deadline::seconds(10)).expect_err("its child is left");
    assert!(format!("{error:#}").contains("sleep"), "{error:#}");
    Launch::here("kill").arg(orphan.trim()).run()?;
    Ok(())
}

#[test]
fn machines_reach_each_other_until_they_are_cut_off() -> Result<()> {
    let directory = LabDirectory::create()?;
    let (one, other) = (machine(&directory, "one")?, machine(&directory, "other")?);
    let mut network = Network::create(directory.path())?;
    let address = network.attach(&one)?.to_string();
    network.attach(&other)?;
    let _listener = one
        .command("busybox")
        .args(["nc", "-ll", "-p", "4000", "-e", "echo", "hello"])
        .start("listener", directory.path())?;
    let reach = || -> Result<bool> {
        let answer = other.command("busybox").args(["nc", "-w", "1", &address, "4000"]).output()?;
        Ok(answer.stdout == b"hello\n")
    };
    wait_for("one answers", Deadline::seconds(10), || Ok(reach()?.then_some(())))?;
    network.cut(&one)?;
    assert!(!reach()?, "a cut machine answers");
    network.heal(&one)?;
    wait_for("one answers again", Deadline::seconds(10), || Ok(reach()?.then_some(())))?;
    network.unplug(&other)?;
    assert!(!reach()?, "an unplugged machine reaches another");
    network.plug(&other)?;
    wait_for("one answers the other again", Deadline::seconds(20), || Ok(reach()?.then_some(())))?;
    let interfaces = Launch::here("ip").args(["-brief", "link"]).run()?;
    assert!(!interfaces.contains("port1"), "the computer has got an interface: {interfaces}");
    Ok(())
}

#[tokio::test]
async fn postgres_comes_back_after_a_kill() -> Result<()> {
    let directory = LabDirectory::create()?;
    let mut postgres = Postgres::create(&directory.path().join("postgres"), true)?;
    let connect = || async {
        let (client, connection) =
            tokio_postgres::connect(&postgres.connection_string(), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        anyhow::Ok(client)
    };
    connect().await?.batch_execute("create table kept (value integer); insert into kept values (7)").await?;
    postgres.kill9()?;
    postgres.start()?;
    let (client, connection) =
        tokio_postgres::connect(&postgres.connection_string(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let value: i32 = client.query_one("select value from kept", &[]).await?.get(0);
    assert_eq!(value, 7);
    Ok(())
}
