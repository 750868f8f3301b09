//! A worker that lies.

use anyhow::{Result, ensure};
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};
use hauberk_tests::{Deadline, Process, wait_for};

/// What the liar takes: less than would exhaust the tries of a build that it gets again and again.
const LIES: usize = 6;

/// What the liar sends that is ignored: port, reason, how often.
const IGNORED: &[(&str, &str, u64)] = &[
    ("backend", "unknown", 4),
    ("backend", "malformed", 3),
    ("logs", "unknown", 4),
    ("logs", "malformed", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_lies() -> Result<()> {
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig::small()).await?;
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    graph.add_many(&format!("gate.{tag}"), farm.slots());
    farm.publish(&graph).await?;
    farm.wait_running(farm.slots()).await?;
    let honest = farm.attempts_where("true").await?;

    // It joins, claims what is not its own, and waits for work of its own.
    let mut liar = farm.liar(LIES).await?;
    farm.wait_until(
        "the liar has joined",
        "select exists (select from workers where name = 'liar' and epoch is not null)",
        &[],
    )
    .await?;
    let mut more = Graph::new("more");
    more.add_many("failgate.old", 2 * LIES);
    farm.publish(&more).await?;
    liar.wait_log("all lies are told", Deadline::seconds(60))?;
    let lies = i64::try_from(LIES)?;
    farm.wait_until(
        "what it was given is taken back",
        "select count(*) = $1 from attempts a join workers w on w.id = a.worker_id \
         where w.name = 'liar' and a.class in ('transfer', 'worker_lost', 'build_failed', 'declined')",
        &[&lies],
    )
    .await?;
    // Nobody else's attempt has suffered.
    assert_eq!(farm.attempts_where("ended_at is null").await?, honest);
    farm.checker.attended(&farm.tables).await?.require_none()?;
    liar.check_alive()?;
    what_is_not_known_is_counted_and_told(&mut farm)?;
    farm.gates.open(&tag)?;
    farm.gates.open("old")?;
    farm.settle().await?;
    it_speaks_of_old_attempts(&mut farm, &mut liar).await?;
    let believed = farm
        .attempts_where("class in ('succeeded', 'build_failed') and worker_id = (select id from workers where name = 'liar')")
        .await?;
    assert_eq!(believed, 0, "{}", farm.describe().await);
    farm.fill_all_slots().await?;
    farm.stop()
}

/// What is no message, or of no known kind, is counted by port and reason, and told with the peer's address.
fn what_is_not_known_is_counted_and_told(farm: &mut SimulatedFarm) -> Result<()> {
    let address = farm.server_address().to_owned();
    for (port, reason, count) in IGNORED {
        let name = format!("hauberk_messages_ignored_total{{port=\"{port}\",reason=\"{reason}\"}}");
        wait_for(&format!("{name} is {count}"), Deadline::seconds(60), || {
            Ok((farm.counter(&address, &name)? == *count).then_some(()))
        })?;
    }
    let peer = farm.crews[0].address.clone();
    for what in
        ["a message of kind 99, which is not known here", "a log message of kind 99, which is not known here"]
    {
        farm.server.wait_log(&format!("ignored what {peer} sent: {what}"), Deadline::seconds(60))?;
    }
    Ok(())
}

/// Builds that have ended are revived, and run; the liar says of all their attempts, of this generation and the one before, that
/// they ended.
async fn it_speaks_of_old_attempts(farm: &mut SimulatedFarm, liar: &mut Process) -> Result<()> {
    const HOW_ALL_STANDS: &str = "
        select b.id, b.state, b.generation, b.attempt_id, b.finished_at::text, a.id, a.class, a.ended_at::text
        from builds b left join attempts a on a.build_id = b.id order by b.id, a.id";
    let its = "select distinct b.id from builds b join attempts a on a.build_id = b.id \
               join workers w on w.id = a.worker_id where w.name = 'liar' and b.state = 'failed' order by b.id";
    let tried: Vec<i64> = farm.tables.query(its, &[]).await?.iter().map(|row| row.get(0)).collect();
    ensure!(tried.len() > 1, "the liar was given {} builds", tried.len());
    // One stays as it is.
    let revived = &tried[1..];
    farm.gates.close("old")?;
    let database = farm.postgres.connection_string();
    for build in revived {
        let arguments = ["build", "restart", &build.to_string(), "--database", &database];
        farm.hauberk_on_server().args(arguments).run()?;
    }
    farm.wait_running(revived.len()).await?;
    let before = rows(farm, HOW_ALL_STANDS).await?;
    farm.lie_again(liar)?;
    farm.lie_again(liar)?;
    assert_eq!(rows(farm, HOW_ALL_STANDS).await?, before);
    farm.checker.attended(&farm.tables).await?.require_none()?;
    farm.gates.open("old")?;
    farm.settle().await
}

async fn rows(farm: &SimulatedFarm, statement: &str) -> Result<Vec<String>> {
    let statement = format!("select r::text from ({statement}) r");
    Ok(farm.tables.query(&statement, &[]).await?.iter().map(|row| row.get(0)).collect())
}
