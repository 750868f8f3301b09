//! Machines that run low: disks that fill, garbage that is collected, pressure.

use std::io::Write as _;

use hauberk_worker::{PressureLimits, Reserve};

use super::*;

const MIB: u64 = 1 << 20;

/// Says what the worker lacks as soon as that is (not) nothing, passing over all other messages; gives the credit it heard of meanwhile, too.
async fn hear_of_shortage(server: &mut ScriptedServer, short: bool) -> (String, Option<u64>) {
    let mut credit = None;
    loop {
        match server.next().await.body {
            WorkerBody::Heartbeat(heartbeat) => {
                let shortage = heartbeat.load.unwrap().shortage;
                if shortage.is_empty() != short {
                    return (shortage, credit);
                }
            }
            WorkerBody::Credit(more) => credit = Some(more.granted),
            other => panic!("{other:?}"),
        }
    }
}

/// Adds a file that nothing needs to the store of the machine.
fn add_garbage(machine: &Machine, name: &str, bytes: u64) -> StorePath {
    let file = machine.path().join(name);
    std::fs::write(&file, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    let path = machine.run("nix-store", &["--add", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    StorePath::parse(&path).unwrap()
}

async fn farm_with_small_store(size: &str, change: impl FnOnce(&mut Config)) -> Farm {
    let disks = machine::Disks { store: Some(size), ..machine::Disks::default() };
    let mut farm = Farm::set_up_with(true, TrustCheck::Require, disks).await;
    change(&mut farm.config);
    farm.start_worker();
    farm
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_work_is_asked_for_while_a_disk_is_low() {
    let reserve = Reserve { disk_bytes: 32 * MIB, ..Reserve::default() };
    let mut farm = farm_with_small_store("96m", |config| config.reserve = reserve).await;
    farm.server.join_with_credit(2).await;
    let finished = farm.build_script("before", "echo > $out", |_| {}).await;
    assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");

    let garbage = add_garbage(&farm.machine, "garbage", 70 * MIB);
    let (shortage, _) = hear_of_shortage(&mut farm.server, true).await;
    assert!(
        shortage.starts_with("the disk of the store has ") && shortage.ends_with(" less than 32 MiB"),
        "{shortage}"
    );
    // What comes all the same, because it was under way, is built; no credit follows.
    let drv = farm.store.instantiate(&script("under-way", "echo > $out", ""));
    let assign = farm.assignment(&drv);
    let attempt = assign.attempt;
    farm.server.send(assign);
    farm.server.expect_started(attempt).await;
    let finished = farm.server.expect_finished(attempt).await;
    assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");
    farm.server.ack(attempt);
    for _ in 0..5 {
        let message = farm.server.next().await.body;
        assert!(matches!(message, WorkerBody::Heartbeat(_)), "{message:?}");
    }
    // Metrics tell it, too.
    let url = format!("http://127.0.0.1:{}/metrics", farm.worker_port);
    let metrics = get(&url).await;
    assert!(metrics.contains("hauberk_worker_short{of=\"store_disk\"} 1"), "{metrics}");
    assert!(metrics.contains("hauberk_worker_short{of=\"spool_disk\"} 0"), "{metrics}");

    // A worker that joins while it lacks something asks for nothing, and says so at once.
    farm.server.send_without_session(proto::HelloAgain {});
    farm.server.join().await;
    let (_, credit) = hear_of_shortage(&mut farm.server, true).await;
    assert_eq!(credit, None);

    farm.machine.run("nix-store", &["--delete", &garbage.to_string()]);
    let (_, credit) = hear_of_shortage(&mut farm.server, false).await;
    if credit.is_none() {
        farm.server.expect_credit(2).await;
    }
    let finished = farm.build_script("after", "echo > $out", |_| {}).await;
    assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_collects_what_is_needed_and_nothing_that_runs_needs() {
    let mut farm = farm_with_small_store("128m", |config| {
        config.reserve = Reserve { disk_bytes: 32 * MIB, ..Reserve::default() };
        config.collect_bytes = Some(20 * MIB);
    })
    .await;
    farm.server.join_with_credit(2).await;
    // An attempt that waits, with an input that came from the server and that nothing else keeps.
    let gate = farm.machine.path().join("gate");
    let wait = format!("while ! test -e {}; do sleep 0.05; done; cat $dep > $out", gate.display());
    let dependency = script("dependency", "echo data > $out", "");
    let drv = farm.store.instantiate(&script("waits", &wait, &format!("dep = {dependency};")));
    let dependency =
        StorePath::parse(&farm.store.run("nix-build", &["--no-out-link", "-E", &dependency])).unwrap();
    let assign = farm.assignment(&drv);
    let attempt = assign.attempt;
    farm.server.send(assign);
    farm.server.expect_started(attempt).await;

    let mut garbage = Vec::new();
    for number in 0..4 {
        let name = format!("garbage-{number}");
        garbage.push(add_garbage(&farm.machine, &name, 24 * MIB + number));
    }
    hear_of_shortage(&mut farm.server, true).await;
    hear_of_shortage(&mut farm.server, false).await;
    let mut left = 0;
    for path in &garbage {
        left += usize::from(farm.machine.is_valid(path).await);
    }
    assert!((1..4).contains(&left), "a bounded number of bytes is collected: {left} of 4 are left");
    assert!(farm.machine.is_valid(&dependency).await);
    std::fs::File::create(&gate).unwrap().write_all(b"x").unwrap();
    let finished = farm.server.expect_finished(attempt).await;
    assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");

    let metrics = get(&format!("http://127.0.0.1:{}/metrics", farm.worker_port)).await;
    let collected =
        metrics.lines().find_map(|line| line.strip_prefix("hauberk_worker_collected_bytes_total "));
    assert!(collected.unwrap().parse::<f64>().unwrap() >= 20.0 * MIB as f64, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pressure_keeps_work_away_or_is_an_error_where_the_kernel_does_not_tell_it() {
    let pressure = PressureLimits { cpu: Some(1), ..PressureLimits::default() };
    let mut farm = farm_with_small_store("64m", |config| {
        config.reserve = Reserve { pressure, ..Reserve::default() };
    })
    .await;
    if std::fs::read_to_string("/proc/pressure/cpu").is_err() {
        let error = farm.worker_ended().await.unwrap_err().to_string();
        assert!(error.contains("/proc/pressure/cpu") && error.contains("--maximum-pressure"), "{error}");
        return;
    }
    farm.server.join().await;
    // Two that never rest on each processor: somebody waits.
    let count = 2 * std::thread::available_parallelism().unwrap().get();
    let mut busy: Vec<_> = (0..count)
        .map(|_| std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
        .collect();
    let (shortage, _) = hear_of_shortage(&mut farm.server, true).await;
    for process in &mut busy {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(shortage.starts_with("the cpu pressure is "), "{shortage}");
}

async fn get(url: &str) -> String {
    let url = url.strip_prefix("http://").unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    text
}
