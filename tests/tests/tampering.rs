//! Results that were changed on their way.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig, wait_for};

const GRAPH: &str = r#"
  text = job "text-1" ''
    ${gate "text"}
    seq 1 20000 > $out
  '';
"#;

/// Whether anything of this path is in the server's cache.
fn is_published(farm: &Farm, output: &str) -> Result<bool> {
    let hash = output.trim_start_matches("/nix/store/").split('-').next().unwrap_or_default().to_owned();
    Ok(farm.cache().join(format!("{hash}.narinfo")).exists())
}

async fn check_refused_then_taken(farm: &mut Farm, mend: impl FnOnce(&Farm) -> Result<()>) -> Result<()> {
    farm.wait_until(
        "the fetch was refused",
        Deadline::seconds(60),
        "select exists (select from attempts where fetch_error is not null or class = 'transfer')",
        &[],
    )
    .await?;
    let reasons: Vec<String> = farm
        .query("select coalesce(fetch_error, message, '') from attempts", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("hash") || reason.contains("signature")),
        "{reasons:?}"
    );
    assert_ne!(farm.state_of("text-1").await?, "succeeded");
    let output = farm.output_of("text-1").await?;
    assert!(!is_published(farm, &output)?, "a changed output was published");
    mend(farm)?;
    farm.wait_for_build("text-1", &["succeeded"], Deadline::seconds(180)).await?;
    assert!(is_published(farm, &output)?);
    // What is served now is what was built.
    let key = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &key)?;
    user.command("nix-store").args(["--realise", &output]).run()?;
    let text = std::fs::read_to_string(user.outside(&output))?;
    assert_eq!(text.lines().count(), 20_000);
    assert_eq!(text.lines().last(), Some("20000"));
    farm.stop_all()
}

#[tokio::test]
async fn a_nar_changed_on_the_network_is_refused() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let flag = farm.directory().join("tamper");
    let log = farm.directory().join("proxy-requests");
    std::fs::write(&flag, "")?;
    let host = &mut farm.workers[0];
    let _proxy = host
        .machine
        .command(env!("CARGO_BIN_EXE_tampering-proxy"))
        .args(["0.0.0.0:5600", "127.0.0.1:5558", "/nar"])
        .arg(&flag)
        .arg(&log)
        .start("proxy", host.machine.directory())?;
    wait_for("the proxy listens", Deadline::seconds(10), || Ok(log.exists().then_some(())))?;
    host.launch = host.launch.clone().args(["--publish-url", &format!("http://{}:5600", host.address)]);
    farm.start_all().await?;
    let (_, specification) = farm.repository("tampering", GRAPH)?;
    farm.gates.open("text")?;
    farm.start_register(&[specification])?;
    check_refused_then_taken(&mut farm, |_| {
        let requests = std::fs::read_to_string(&log)?;
        assert!(requests.contains("changed"), "the nar did not come through the proxy: {requests}");
        Ok(std::fs::remove_file(&flag)?)
    })
    .await
}

#[tokio::test]
async fn an_output_changed_in_the_workers_store_is_refused() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("tampering", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("text", 1, Deadline::seconds(60))?;
    let output = farm.output_of("text-1").await?;
    // The build ends while the server cannot be reached, so that there is time to change what came of it.
    farm.network.cut(&farm.server_machine)?;
    farm.gates.open("text")?;
    let machine = &farm.workers[0].machine;
    wait_for("the output is valid", Deadline::seconds(30), || {
        let check = machine.command("nix-store").args(["--check-validity", &output]).output()?;
        Ok(check.status.success().then_some(()))
    })?;
    let change = |from: &str, to: &str| {
        let script = format!(
            "chmod u+w {output}; sed -i s/{from}/{to}/ {output}; chmod a-w {output}; touch --date=@1 {output}"
        );
        machine.command("sh").args(["-c", &script])
    };
    change("^10000$", "l0000").run()?;
    let mend = change("^l0000$", "10000");
    farm.network.heal(&farm.server_machine)?;
    check_refused_then_taken(&mut farm, |_| mend.run().map(|_| ())).await
}
