//! Wake-ups that never come, and publications at the worst moment.

use anyhow::{Result, bail};
use hauberk_database::Database;
use hauberk_database::listen::{Event, Listener, READY};
use hauberk_tests::simulated::{Graph, Random, SimulatedFarm, SimulatedFarmConfig, publish};

use crate::form::rounds;

/// A role whose `pg_notify` is another function, that tells nobody anything.
const DEAF: &str = "
create role deaf superuser login;
create schema deaf;
create function deaf.pg_notify(text, text) returns void language sql as 'select';
alter role deaf set search_path = deaf, public, pg_catalog;";

/// What is heard of publications, by everybody who listens for builds that become ready.
struct Ears(Listener);

impl Ears {
    async fn listen(farm: &SimulatedFarm) -> Result<Self> {
        Ok(Self(Listener::connect(&farm.postgres.connection_string().parse()?, &[READY]).await?))
    }

    /// Gives how often publications said so since the last time: notifications come in the order of their transactions, and those of
    /// servers, about what became ready by results, name their start; an order that has changed is told as publications are.
    async fn heard(&mut self, farm: &SimulatedFarm) -> Result<usize> {
        farm.tables.query("select pg_notify('hauberk_ready', 'so far')", &[]).await?;
        let mut count = 0;
        loop {
            match self.0.next().await {
                Event::Notification { payload, .. } if payload == "so far" => return Ok(count),
                Event::Notification { payload, .. } => count += usize::from(payload.is_empty()),
                Event::Reconnected => bail!("what was said meanwhile was not heard"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_wake_up_costs_one_sweep() -> Result<()> {
    let config = SimulatedFarmConfig {
        server_arguments: vec!["--sweep".to_owned(), "2".to_owned()],
        ..SimulatedFarmConfig::small()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    farm.tables.connect().await?.batch_execute(DEAF).await?;
    let deaf = farm.postgres.connection_string().replace("user=hauberk", "user=deaf");
    let deaf = Database::connect(&deaf.parse()?, 1).await?;
    let mut random = Random::of_test("a_lost_wake_up_costs_one_sweep");
    let mut ears = Ears::listen(&farm).await?;
    for _ in 0..rounds(2, 10) {
        let tag = farm.tag();
        let mut graph = Graph::new(&tag);
        graph.add_tangle(50, &mut random);
        farm.expect(&graph);
        publish(&deaf, &graph).await?;
        assert_eq!(ears.heard(&farm).await?, 0, "the wake-up was to be lost");
        farm.settle().await?;
        // What failed may have made others less urgent, which is told in the same way.
        ears.heard(&farm).await?;
    }
    // It would have been heard.
    farm.fill_all_slots().await?;
    assert_eq!(ears.heard(&farm).await?, 1, "a publication wakes everybody");
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_that_listens_is_lost() -> Result<()> {
    let config = SimulatedFarmConfig {
        server_arguments: vec!["--sweep".to_owned(), "3600".to_owned()],
        ..SimulatedFarmConfig::small()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    let mut random = Random::of_test("the_connection_that_listens_is_lost");
    for _ in 0..rounds(3, 30) {
        let tag = farm.tag();
        let mut graph = Graph::new(&tag);
        graph.add_tangle(50, &mut random);
        // Every connection of everybody else, right before the publication.
        farm.tables.end_other_connections().await?;
        let mut tries = 0;
        while let Err(error) = farm.publish(&graph).await {
            // The pool finds out at the first use that its connections are gone.
            tries += 1;
            anyhow::ensure!(tries < 10, "cannot publish: {error:#}");
        }
        farm.settle().await?;
    }
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_are_published_while_results_arrive() -> Result<()> {
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig::small()).await?;
    let mut random = Random::of_test("evaluations_are_published_while_results_arrive");
    let mut graph = Graph::new("grows");
    graph.add_many("slow", 100);
    // Each publication needs builds of those before, which are ending at that moment.
    for _ in 0..rounds(15, 100) {
        graph.add_tangle(40, &mut random);
        farm.publish(&graph).await?;
        farm.checker.always(&farm.tables).await?.require_none()?;
    }
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}
