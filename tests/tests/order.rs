//! The order of dispatch through the real server: shares, emergencies, priorities and age.

use anyhow::Result;
use hauberk_database::priority_control::{self, Subject};
use hauberk_database::{BuildId, Level, Priority, begin, commit};
use hauberk_tests::Deadline;
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};

/// One worker on one machine.
async fn farm(slots: u32, arguments: &[&str]) -> Result<SimulatedFarm> {
    SimulatedFarm::start(SimulatedFarmConfig {
        crews: 1,
        workers: 1,
        slots,
        server_arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..SimulatedFarmConfig::default()
    })
    .await
}

fn level(number: i64) -> Result<Level> {
    Ok(Level::try_from(number)?)
}

async fn id(farm: &SimulatedFarm, name: &str) -> Result<BuildId> {
    let rows = farm.tables.query("select id from builds where name like $1", &[&name]).await?;
    anyhow::ensure!(rows.len() == 1, "{} builds are named {name}", rows.len());
    Ok(BuildId::new(rows[0].get(0)))
}

/// How many builds of other names were given out between the moment in which a build became ready and its own turn.
async fn overtaken_by(farm: &SimulatedFarm, name: &str) -> Result<i64> {
    let statement = "select (select count(*) from attempts o where o.assigned_at > b.ready_at and o.assigned_at < a.assigned_at) \
                     from builds b join attempts a on a.build_id = b.id and a.number = 1 where b.name like $1";
    Ok(farm.tables.query(statement, &[&name]).await?[0].get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn specifications_get_the_slots_their_shares_say() -> Result<()> {
    let mut farm = farm(4, &[]).await?;
    for (name, shares, builds) in [("small", 100, 200), ("large", 300, 420)] {
        let mut graph = Graph::new(name);
        graph.add_many("slow", builds);
        farm.publish_for(&graph, name, Level::LEAST_URGENT, shares).await?;
    }
    farm.wait_all_ended(600).await?;
    // Slot-seconds while both had something to wait for.
    let statement = "
        with ours as (
            select s.name, a.assigned_at as began, coalesce(a.built_at, a.ended_at) as ended
            from attempts a join lanes l on l.id = a.lane_id join specifications s on s.id = l.specification_id
        ), contended as (
            select min(last) as until, (select max(created_at) from builds) as since
            from (select max(began) as last from ours group by name) each
        )
        select name, sum(extract(epoch from least(ended, until) - greatest(began, since)))::float8
        from ours, contended where began < until and ended > since group by name order by name desc";
    let rows = farm.tables.query(statement, &[]).await?;
    let (small, large): (f64, f64) = (rows[0].get(1), rows[1].get(1));
    let share = small / (small + large);
    eprintln!("small {small:.1} s, large {large:.1} s: {share:.4}");
    assert!((share - 0.25).abs() / 0.25 <= 0.05, "{share}");
    farm.settle().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_puts_first_goes_first_with_what_it_needs() -> Result<()> {
    let mut farm = farm(1, &[]).await?;
    let mut graph = Graph::new("hold");
    graph.add("gate.now", &[]);
    farm.publish_for(&graph, "hold", level(0)?, 100).await?;
    farm.wait_running(1).await?;

    let mut graph = Graph::new("many");
    graph.add_many("quick", 60);
    farm.publish_for(&graph, "many", level(3)?, 100).await?;
    // Chains of three that nobody hurries. The longer path alone does not help them past the urgent ones.
    for tag in ["first", "second"] {
        let mut graph = Graph::new(tag);
        let one = graph.add("quick", &[]);
        let two = graph.add("quick", &[one]);
        graph.add("quick", &[two]);
        farm.publish_for(&graph, tag, level(9)?, 100).await?;
    }
    let mut client = farm.database().client().await?;
    let transaction = begin(&mut client).await?;
    let subject = Subject::Build(id(&farm, "quick-first-00003").await?);
    let changed = priority_control::set_emergency(&transaction, subject, true, "test").await?;
    assert_eq!(changed.map(|changed| changed.builds.len()), Some(3));
    let build = id(&farm, "quick-second-00003").await?;
    let urgent = Some(Priority::MOST_URGENT);
    let changed = priority_control::set_priority(&transaction, build, urgent, "test").await?;
    assert_eq!(changed.map(|changed| changed.builds.len()), Some(3));
    commit(transaction).await?;
    drop(client);

    farm.gates.open("now")?;
    farm.wait_all_ended(300).await?;
    let rows = farm
        .tables
        .query(
            "select b.name from attempts a join builds b on b.id = a.build_id order by a.assigned_at, a.id",
            &[],
        )
        .await?;
    let order: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(order[0], "gate.now-hold-00001");
    assert_eq!(order[1], "quick-first-00001", "{order:?}");
    // While the outputs of one are fetched, the slot does something else: one build, or the next as it is being recorded.
    for number in 1..=3 {
        for tag in ["first", "second"] {
            let overtaken = overtaken_by(&farm, &format!("quick-{tag}-{number:05}")).await?;
            let before = if tag == "second" && number == 1 { order.len() } else { 3 };
            assert!(usize::try_from(overtaken)? <= before, "{tag} {number}: {order:?}");
        }
    }
    let place = |name: &str| order.iter().position(|other| other == name);
    assert!(place("quick-second-00003") < Some(30), "{order:?}");
    farm.settle().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starves_where_age_counts() -> Result<()> {
    let mut farm = farm(1, &["--ageing", "3s"]).await?;
    let mut graph = Graph::new("hold");
    graph.add("gate.now", &[]);
    farm.publish_for(&graph, "hold", level(0)?, 100).await?;
    farm.wait_running(1).await?;
    let mut graph = Graph::new("old");
    graph.add_many("quick", 5);
    farm.publish_for(&graph, "old", level(9)?, 100).await?;
    let mut graph = Graph::new("urgent");
    graph.add_many("slow", 60);
    farm.publish_for(&graph, "urgent", level(0)?, 100).await?;
    farm.gates.open("now")?;
    farm.tables
        .wait_until(
            "the old ones are given out",
            Deadline::seconds(120),
            "select count(*) >= 5 from attempts a join builds b on b.id = a.build_id where b.name like 'quick-old-%'",
            &[],
            || Ok(()),
        )
        .await?;
    farm.wait_all_ended(300).await?;
    let row = &farm
        .tables
        .query(
            "select min(extract(epoch from a.assigned_at - b.ready_at))::float8,
                    (select count(*) from attempts o join builds u on u.id = o.build_id
                     where u.name like 'slow-urgent-%' and o.assigned_at > max(a.assigned_at))
             from attempts a join builds b on b.id = a.build_id where b.name like 'quick-old-%'",
            &[],
        )
        .await?[0];
    let (waited, after): (f64, i64) = (row.get(0), row.get(1));
    eprintln!("the old ones waited {waited:.1} s, and {after} urgent ones came after them");
    // Not before their time, and not after all that is more urgent.
    assert!(waited >= 2.5 && after >= 5, "{waited} {after}");
    farm.settle().await?;
    farm.stop()
}
