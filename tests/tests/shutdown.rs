//! Processes that are asked to end.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig};

#[tokio::test]
async fn a_stopping_worker_hands_its_build_back() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    farm.start_server()?;
    farm.start_worker(0)?;
    let (_, specification) = farm.repository(
        "handing",
        r#"slow = job "slow-1" ''
             sleep 1000 & helper=$!
             ${gate "slow"}
             kill $helper
             touch $out
           '';"#,
    )?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("slow", 1, Deadline::seconds(60))?;
    farm.start_worker(1)?;
    if let Some(mut process) = farm.workers[0].process.take() {
        process.stop(Deadline::seconds(60))?;
    }
    // No builder is left on its machine.
    let left = farm.workers[0].machine.command("pgrep").args(["-f", "gates|sleep 1000"]).output()?;
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "processes of the build are left");
    farm.gates.wait_for_arrivals("slow", 2, Deadline::seconds(60))?;
    farm.gates.open("slow")?;
    farm.wait_for_build("slow-1", &["succeeded"], Deadline::seconds(60)).await?;
    farm.stop_all()
}

#[tokio::test]
async fn server_and_register_stop_under_a_running_build() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository(
        "running",
        r#"slow = job "slow-1" ''
             ${gate "slow"}
             touch $out
           '';"#,
    )?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("slow", 1, Deadline::seconds(60))?;
    for process in [&mut farm.register, &mut farm.server].into_iter().flatten() {
        process.stop(Deadline::seconds(40))?;
    }
    // The build goes on, and the next server takes its result.
    if let Some(server) = &mut farm.server {
        server.restart()?;
        server.wait_ready(Deadline::seconds(60))?;
    }
    farm.gates.open("slow")?;
    farm.wait_for_build("slow-1", &["succeeded"], Deadline::seconds(90)).await?;
    assert_eq!(farm.gates.arrivals("slow"), 1, "it was not built again");
    farm.register = None;
    farm.stop_all()
}
