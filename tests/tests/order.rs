//! The order of dispatch through the real server: shares, emergencies, priorities and age.

use anyhow::Result;
use hauberk_database::priority_control::{self, Subject};
use hauberk_database::{BuildId, Level, Priority, begin, commit, control};
use hauberk_tests::Deadline;
use hauberk_tests::simulated::{Graph, SecondServer, SimulatedFarm, SimulatedFarmConfig};

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
    // `replay` tells the order's own error, without what a busy machine adds between the end of a build and the server's hearing of it.
    assert!((share - 0.25).abs() / 0.25 <= 0.1, "{share}");
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
    // While the outputs of one are fetched, the slot does something else: one build or two, and some more where the machine is busy.
    for number in 1..=3 {
        for tag in ["first", "second"] {
            let overtaken = overtaken_by(&farm, &format!("quick-{tag}-{number:05}")).await?;
            let before = if tag == "second" && number == 1 { order.len() } else { 12 };
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

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_keeps_nothing_before_everything_not_even_where_its_server_is_killed() -> Result<()> {
    let mut farm = farm(1, &[]).await?;
    // The last one needs all the others, the first of which fails; an operator has put it before everything.
    let mut graph = Graph::new("rescue");
    let first = graph.add("failgate.now", &[]);
    let mut needed: Vec<usize> = (0..80).map(|_| graph.add("slow", &[])).collect();
    needed.push(first);
    graph.add("quick", &needed);
    farm.publish_for(&graph, "rescue", level(9)?, 100).await?;
    farm.wait_running(1).await?;
    let subject = Subject::Build(id(&farm, "quick-rescue-%").await?);
    let mut client = farm.database().client().await?;
    let transaction = begin(&mut client).await?;
    let changed = priority_control::set_emergency(&transaction, subject, true, "test").await?;
    assert_eq!(changed.map(|changed| changed.builds.len()), Some(82));
    commit(transaction).await?;
    let mut graph = Graph::new("daily");
    graph.add_many("quick", 40);
    farm.publish_for(&graph, "daily", level(3)?, 100).await?;

    // The failure is recorded, and then the server is killed before it could decide anything, as the graph is locked.
    let transaction = begin(&mut client).await?;
    control::lock_graph(&transaction).await?;
    farm.gates.open("now")?;
    farm.wait_until("the failure is noted", "select exists (select from order_notes)", &[]).await?;
    farm.kill_server()?;
    commit(transaction).await?;
    drop(client);
    farm.restart_server()?;
    farm.wait_until("the note is settled", "select not exists (select from order_notes)", &[]).await?;
    farm.wait_all_ended(300).await?;

    let statement = "select count(*) filter (where b.name like 'slow-rescue-%' and a.assigned_at < daily.began),
                            count(*) filter (where b.name like 'slow-rescue-%' and a.assigned_at > daily.ended)
                     from attempts a join builds b on b.id = a.build_id,
                          (select min(d.assigned_at) as began, max(d.assigned_at) as ended
                           from attempts d join builds n on n.id = d.build_id where n.name like 'quick-daily-%') daily
                     where a.number = 1";
    let row = &farm.tables.query(statement, &[]).await?[0];
    let (before, after): (i64, i64) = (row.get(0), row.get(1));
    eprintln!("{before} of 80 came before the others, {after} after them");
    assert!(before < 40 && before + after >= 78, "{before} {after}");
    // Those that had ended when it was decided stay as they were.
    let lowered = "select bool_and(not b.emergency and b.priority = 99)
                   from attempts a join builds b on b.id = a.build_id
                   where b.name like 'slow-rescue-%' and a.assigned_at > (
                       select max(d.assigned_at) from attempts d join builds n on n.id = d.build_id
                       where n.name like 'quick-daily-%')";
    assert!(farm.tables.query(lowered, &[]).await?[0].get::<_, bool>(0));
    farm.settle().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_spreads_over_the_machines() -> Result<()> {
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig {
        crews: 1,
        workers: 4,
        slots: 4,
        ..SimulatedFarmConfig::default()
    })
    .await?;
    farm.wait_joined().await?;
    let busy = "select count(*) from attempts where ended_at is null group by worker_id order by 1";
    for round in 1..=3 {
        let mut graph = Graph::new(&format!("burst{round}"));
        graph.add_many("gate.now", 4);
        farm.publish(&graph).await?;
        farm.wait_running(4 * round).await?;
        let busy: Vec<i64> = farm.tables.query(busy, &[]).await?.iter().map(|row| row.get(0)).collect();
        assert_eq!(busy, [i64::try_from(round)?; 4], "as many at each worker");
    }
    farm.gates.open("now")?;
    farm.wait_all_ended(120).await?;
    farm.settle().await?;
    farm.stop()
}

/// How a specification that used the farm before stands against one that did not.
#[derive(Debug)]
struct Catching {
    /// Slot-seconds that the quiet one used, while both had something to wait for.
    quiet: f64,
    /// Those of the busy one.
    busy: f64,
}

/// Lets a specification use 80 slot-seconds, which end twelve hours ago, so that 40 count; and then wait together with another for two
/// slots at two servers, or one. The (first) server is killed before it, so that it reads what was used, and, `again`, while the quiet one catches up.
async fn catch_up(second: SecondServer, again: bool) -> Result<Catching> {
    let count = if second == SecondServer::Absent { 1 } else { 2 };
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig {
        crews: count,
        workers: 1,
        slots: 2,
        second_server: second,
        ..SimulatedFarmConfig::default()
    })
    .await?;
    farm.wait_joined().await?;
    for tag in ["warm", "busy"] {
        let mut graph = Graph::new(tag);
        graph.add_many("slow", 8);
        farm.publish_for(&graph, tag, Level::LEAST_URGENT, 100).await?;
        farm.wait_all_ended(120).await?;
    }
    let mut graph = Graph::new("hold");
    graph.add_many("gate.now", 2 * count);
    farm.publish_for(&graph, "hold", level(0)?, 100).await?;
    farm.wait_running(2 * count).await?;
    for name in ["busy", "quiet"] {
        let mut graph = Graph::new(&format!("{name}-now"));
        graph.add_many("slow", 400);
        farm.publish_for(&graph, name, Level::LEAST_URGENT, 100).await?;
    }
    let before = "update attempts a
                  set assigned_at = now() - interval '12 hours 10 s', started_at = now() - interval '12 hours 10 s',
                      built_at = now() - interval '12 hours', ended_at = now() - interval '12 hours'
                  from builds b where b.id = a.build_id and b.name like 'slow-busy-0%'";
    // As each of the servers would have kept it then.
    let kept = "insert into specification_usage (server_id, specification_id, slot_seconds, at)
                select e.server_id, l.specification_id, 10 * count(*), now() - interval '12 hours'
                from attempts a join builds b on b.id = a.build_id and b.name like 'slow-busy-0%'
                join lanes l on l.id = a.lane_id join server_epochs e on e.epoch = a.epoch group by 1, 2
                on conflict (server_id, specification_id) do update set slot_seconds = excluded.slot_seconds, at = excluded.at";
    farm.kill_server()?;
    if let Some((process, _, _)) = farm.second.as_mut() {
        process.kill9()?;
    }
    // Builds count with what they should take as soon as they are given out: not with the minute of what nobody knows.
    let expected = "update builds set expected_ms = 150 where name like 'slow-%-now-%'";
    farm.tables.query(expected, &[]).await?;
    farm.tables.query(before, &[]).await?;
    farm.tables.query(kept, &[]).await?;
    if let Some((process, _, _)) = farm.second.as_mut() {
        process.restart()?;
    }
    farm.restart_server()?;
    farm.wait_joined().await?;
    farm.gates.open("now")?;
    if again {
        farm.wait_until(
            "a part is made up for",
            "select count(*) >= 60 from attempts a join builds b on b.id = a.build_id where b.name like 'slow-quiet-now-%'",
            &[],
        )
        .await?;
        farm.kill_server()?;
        farm.restart_server()?;
    }
    farm.wait_all_ended(300).await?;
    let statement = "
        with ours as (
            select case when b.name like '%-quiet-%' then 'quiet' else 'busy' end as name, a.assigned_at as began,
                   coalesce(a.built_at, a.ended_at) as ended
            from attempts a join builds b on b.id = a.build_id where b.name like 'slow-%-now-%'
        ), contended as (select min(last) as until from (select max(began) as last from ours group by name) each)
        select name, sum(extract(epoch from least(ended, until) - began))::float8
        from ours, contended where began < until group by name order by name desc";
    let rows = farm.tables.query(statement, &[]).await?;
    let used =
        |name: &str| rows.iter().find(|row| row.get::<_, &str>(0) == name).map_or(0.0, |row| row.get(1));
    let catching = Catching { quiet: used("quiet"), busy: used("busy") };
    eprintln!("{second:?}, killed again: {again}: {catching:?}");
    farm.settle().await?;
    if let Some((mut process, _, _)) = farm.second.take() {
        process.stop(Deadline::seconds(40))?;
    }
    farm.stop()?;
    Ok(catching)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn what_was_used_half_a_day_before_counts_half_and_is_made_up_for() -> Result<()> {
    let Catching { quiet, busy } = catch_up(SecondServer::Absent, false).await?;
    assert!((34.0..46.0).contains(&(quiet - busy)), "{quiet} {busy}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_before_is_made_up_for_once_also_where_the_server_is_killed_meanwhile() -> Result<()> {
    let Catching { quiet, busy } = catch_up(SecondServer::Absent, true).await?;
    assert!((34.0..46.0).contains(&(quiet - busy)), "{quiet} {busy}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn what_was_used_before_is_made_up_for_once_by_two_servers_together() -> Result<()> {
    let Catching { quiet, busy } = catch_up(SecondServer::Shared, false).await?;
    // Wherever the workers are now, and whichever gave it out.
    assert!((30.0..50.0).contains(&(quiet - busy)), "{quiet} {busy}");
    Ok(())
}
