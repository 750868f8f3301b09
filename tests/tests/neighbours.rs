//! Workers that fetch inputs from the workers that built them.

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig};

/// A base that is worth a connection, and what needs it.
const GRAPH: &str = r#"
  base = job "base-1" ''
    ${gate "base"}
    dd if=/dev/zero bs=1M count=4 | openssl enc -aes-128-ctr -nosalt -out $out \
      -K 00112233445566778899aabbccddeeff -iv 00112233445566778899aabbccddeeff
  '';
  top = job "top-1" "md5sum < ${base} > $out; echo ${base} >> $out";
"#;

/// The base is built by the first worker, which gets nothing more then, and the rest by the second. Gives where that had the base from.
async fn source_of_the_base(farm: &mut Farm) -> Result<String> {
    farm.start_server()?;
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    let (_, specification) = farm.repository("neighbours", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("base", 1, Deadline::seconds(60))?;
    let database = farm.postgres.connection_string();
    farm.hauberk().args(["worker", "pause", "worker-1", "--database", &database]).run()?;
    farm.start_worker(1)?;
    farm.wait_until_joined(1).await?;
    farm.gates.open("base")?;
    farm.wait_for_the_end(Deadline::seconds(120)).await?;
    farm.expect_states(&[("base-1", "succeeded"), ("top-1", "succeeded")]).await?;
    let base = farm.output_of("base-1").await?;
    let said = format!("fetched {base} from ");
    let log = farm.workers[1].process()?.log_text();
    let place = log.lines().find_map(|line| Some(line.split_once(&said)?.1.to_owned()));
    let place = place.with_context(|| format!("it was not fetched:\n{log}"))?;
    farm.stop_all()?;
    Ok(place)
}

#[tokio::test]
async fn an_input_comes_from_its_builder() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    let place = source_of_the_base(&mut farm).await?;
    assert!(place.starts_with(&format!("http://{}:5558", farm.workers[0].address)), "{place}");
    Ok(())
}

#[tokio::test]
async fn an_input_comes_from_the_server_if_its_builder_cannot_be_reached() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    // The server reaches the first worker, the second does not.
    let table = format!(
        "table inet neighbours {{\nchain input {{\ntype filter hook input priority 0\nip saddr {} tcp dport 5558 drop\n}}\n}}",
        farm.workers[1].address
    );
    farm.workers[0].machine.command("nft").arg(table).run()?;
    let place = source_of_the_base(&mut farm).await?;
    assert!(place.starts_with(&farm.publish_url()), "{place}");
    Ok(())
}

#[tokio::test]
async fn what_a_hidden_builder_has_comes_from_the_server() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    let host = &mut farm.workers[0];
    host.launch = host.launch.clone().arg("--upload");
    let place = source_of_the_base(&mut farm).await?;
    assert!(place.starts_with(&farm.publish_url()), "{place}");
    Ok(())
}
