//! What goes wrong at a start: one clear error that names the thing and the way out, and a documented exit status.

use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Result;
use hauberk_tests::{
    Deadline, Farm, FarmConfig, LabDirectory, Launch, Machine, MachineConfig, Postgres, Specification,
    hauberk_program,
};

const CONFIGURATION: i32 = 3;
const DATABASE: i32 = 4;
const LISTENING: i32 = 5;
const DAEMON: i32 = 6;
const REFUSED: i32 = 7;
const EVALUATION: i32 = 8;

/// Runs to the end and checks the exit status and that the message has every one of `words`.
fn check(launch: &Launch, code: i32, words: &[&str]) -> Result<()> {
    // Nothing here may go on as if nothing were wrong.
    let output = launch.clone().output_within(Deadline::seconds(60))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{launch}\n{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in the message of\n{launch}\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}

fn hauberk() -> Result<Launch> {
    Ok(Launch::here(hauberk_program()?))
}

#[test]
fn databases_that_are_not_there_or_not_ours() -> Result<()> {
    let directory = LabDirectory::create()?;
    let absent = "host=/nonexistent user=hauberk dbname=hauberk";
    check(&hauberk()?.args(["web", "--port", "0", "--database", absent]), DATABASE, &["/nonexistent"])?;
    check(&hauberk()?.args(["database", "status", "--database", absent]), DATABASE, &["/nonexistent"])?;
    check(
        &hauberk()?.args(["web", "--port", "0", "--database", "no=such setting"]),
        CONFIGURATION,
        &["database"],
    )?;

    let postgres = Postgres::create(&directory.path().join("postgres"), false)?;
    let database = postgres.connection_string();
    check(
        &hauberk()?.args(["web", "--port", "0", "--database", &database]),
        DATABASE,
        &["hauberk database migrate"],
    )?;
    hauberk()?.args(["database", "migrate", "--database", &database]).run()?;
    // A schema from the future.
    Launch::here("psql")
        .args([&database, "--command", "insert into hauberk_schema (version, name) values (9999, 'later')"])
        .run()?;
    check(&hauberk()?.args(["web", "--port", "0", "--database", &database]), DATABASE, &["9999"])?;
    check(&hauberk()?.args(["database", "migrate", "--database", &database]), DATABASE, &["9999"])
}

#[test]
fn ports_keys_and_specifications() -> Result<()> {
    let directory = LabDirectory::create()?;
    let postgres = Postgres::create(&directory.path().join("postgres"), false)?;
    let database = postgres.connection_string();
    hauberk()?.args(["database", "migrate", "--database", &database]).run()?;
    let machine = Machine::start(
        directory.path(),
        &MachineConfig { name: "machine".to_owned(), ..MachineConfig::default() },
    )?;
    let inside = || -> Result<Launch> { Ok(machine.command(hauberk_program()?)) };

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    check(&hauberk()?.args(["web", "--database", &database, "--port", &port]), LISTENING, &[&port])?;

    // Keys.
    let keys = directory.subdirectory("keys")?;
    let (curve, signing) = (keys.join("server.curve"), keys.join("server.signing"));
    hauberk()?.args(["key", "curve"]).arg(&curve).run()?;
    hauberk()?.args(["key", "signing", "test-1"]).arg(&signing).run()?;
    assert_eq!(std::fs::metadata(&curve)?.permissions().mode() & 0o777, 0o600);
    let server = |curve: &Path, signing: &Path| -> Result<Launch> {
        Ok(inside()?
            .args(["remote-server", "--database", &database, "--announce", "off", "--cache"])
            .arg(directory.path().join("cache"))
            .arg("--curve-key")
            .arg(curve)
            .arg("--signing-key")
            .arg(signing))
    };
    let absent = keys.join("absent");
    check(&server(&absent, &signing)?, CONFIGURATION, &["keys/absent", "hauberk key curve"])?;
    check(&server(&curve, &absent)?, CONFIGURATION, &["keys/absent", "hauberk key signing"])?;
    let open = keys.join("open.curve");
    std::fs::copy(&curve, &open)?;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644))?;
    check(&server(&open, &signing)?, CONFIGURATION, &["open.curve", "chmod"])?;
    // A key is not overwritten.
    let before = std::fs::read(&curve)?;
    assert!(!hauberk()?.args(["key", "curve"]).arg(&curve).output()?.status.success());
    assert_eq!(std::fs::read(&curve)?, before);

    // The server's own ports.
    let mut first = server(&curve, &signing)?.start("first", directory.path())?;
    first.wait_ready(Deadline::seconds(60))?;
    check(&server(&curve, &signing)?, LISTENING, &["5555"])?;
    first.check_alive()?;
    first.stop(Deadline::seconds(40))?;

    // Specification files.
    let register = |file: &Path| -> Result<Launch> {
        Ok(inside()?
            .args(["register", "--build-remote", "--one-shot", "--database", &database, "--state-directory"])
            .arg(directory.path().join("register"))
            .arg("--specifications")
            .arg(file))
    };
    check(&register(&directory.path().join("absent.toml"))?, CONFIGURATION, &["absent.toml"])?;
    let file = directory.path().join("specifications.toml");
    std::fs::write(&file, Specification::new("x", "file:///x").toml().replace("priority", "priorty"))?;
    check(&register(&file)?, CONFIGURATION, &["specifications.toml", "priorty", "3"])?;
    std::fs::write(&file, "[[specification]\n")?;
    check(&register(&file)?, CONFIGURATION, &["specifications.toml"])
}

#[tokio::test]
async fn repositories_and_expressions() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 0, ..FarmConfig::new()? })?;
    let absent = Specification::new("absent", "file:///nonexistent/repository");
    check(
        &farm.register_launch(std::slice::from_ref(&absent))?.arg("--one-shot"),
        EVALUATION,
        &["/nonexistent/repository"],
    )?;
    let (_, wrong) = farm.repository("wrong", "  job = undefined-variable;")?;
    check(
        &farm.register_launch(std::slice::from_ref(&wrong))?.arg("--one-shot"),
        EVALUATION,
        &["undefined-variable"],
    )?;
    // A register that goes on serves the other specifications.
    let (_, good) = farm.repository("good", r#"  fine = job "fine-1" "echo > $out";"#)?;
    farm.start_register(&[absent, wrong, good])?;
    farm.wait_for_build("fine-1", &["ready"], Deadline::seconds(60)).await?;
    let message: Option<String> = farm
        .query("select message from evaluations e join specifications s on s.id = specification_id where s.name = 'wrong' and status = 1 limit 1", &[])
        .await?[0]
        .get(0);
    assert!(message.is_some_and(|message| message.contains("undefined-variable")));
    let error: Option<String> =
        farm.query("select check_error from specifications where name = 'absent'", &[]).await?[0].get(0);
    assert!(error.is_some_and(|error| error.contains("/nonexistent/repository")));
    farm.stop_all()
}

#[tokio::test]
async fn workers_that_cannot_work() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    farm.start_server()?;
    farm.start_worker(1)?;
    let keys = farm.directory().join("keys");
    let public = |name: &str| keys.join(format!("{name}.pub"));

    // No daemon.
    let launch = farm.workers[0].launch.clone();
    check(&launch.args(["--daemon", "/nonexistent/socket"]), DAEMON, &["/nonexistent/socket"])?;

    // A daemon that does not know the server's key.
    let stranger = farm.user_machine("stranger", "other-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")?;
    let (curve, signing) = (farm.key_file("stranger.curve"), farm.key_file("stranger.signing"));
    farm.hauberk().args(["key", "curve"]).arg(&curve).run()?;
    farm.hauberk().args(["key", "signing", "stranger-1"]).arg(&signing).run()?;
    for file in [&curve, &signing] {
        std::os::unix::fs::chown(file, Some(65534), Some(65534))?;
    }
    let spool = stranger.directory().join("spool");
    std::fs::create_dir_all(&spool)?;
    std::os::unix::fs::chown(&spool, Some(65534), Some(65534))?;
    for shared in ["home", "tmp"] {
        std::fs::set_permissions(stranger.directory().join(shared), std::fs::Permissions::from_mode(0o1777))?;
    }
    let worker = stranger
        .command(hauberk_program()?)
        .args(["remote-worker", "--workers", "1", "--name", "stranger", "--curve-key"])
        .arg(&curve)
        .arg("--signing-key")
        .arg(&signing)
        .arg("--server-key")
        .arg(public("server.curve"))
        .arg("--spool")
        .arg(&spool)
        .user(65534);
    // Not enrolled: it is told what to do, and joins once that is done.
    let mut refused = worker.start("refused", farm.directory())?;
    refused.wait_log("hauberk worker add stranger", Deadline::seconds(60))?;
    refused.stop(Deadline::seconds(40))?;
    farm.hauberk()
        .args(["worker", "add", "stranger", "--database", &farm.postgres.connection_string(), "--public-key"])
        .arg(public("stranger.curve"))
        .arg("--signing-key")
        .arg(public("stranger.signing"))
        .run()?;
    // Enrolled, but its daemon would refuse what the server publishes.
    let key = farm.server_signing_key().to_owned();
    check(&worker, DAEMON, &["trusted-public-keys", &key])?;

    // The other worker never noticed.
    farm.check_processes()?;
    farm.workers[1].process()?.check_alive()?;
    farm.stop_all()
}

#[tokio::test]
async fn versions_that_do_not_fit() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    let peer = env!("CARGO_BIN_EXE_other-version");

    // A server of a later version: the worker ends, and says what to do.
    let foreign =
        farm.server_machine.command(peer).args(["server", "0.0.0.0:5555"]).arg(farm.key_file("server.curve"));
    let mut foreign = foreign.start("foreign-server", farm.directory())?;
    foreign.wait_log("listening", Deadline::seconds(10))?;
    let worker = farm.workers[0].launch.clone().args(["--server", "10.77.0.1"]);
    check(&worker, REFUSED, &["version", "update"])?;
    foreign.kill9()?;

    // A worker of a later version: it is told, and the others go on.
    farm.start_server()?;
    farm.start_worker(1)?;
    farm.wait_until_joined(1).await?;
    let launch = farm.workers[0]
        .machine
        .command(peer)
        .args(["worker", "10.77.0.1:5555"])
        .arg(farm.key_file("server.curve.pub"))
        .arg(farm.key_file("worker-1.curve"));
    let answer = launch.run()?;
    assert!(answer.contains("Refused") && answer.contains("version"), "{answer}");
    farm.check_processes()?;
    farm.stop_all()
}
