//! What of the outputs is kept, and what becomes of builds whose outputs are removed.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use std::collections::HashSet;

use farm::{Farm, path};
use hauberk_database::ServerId;
use hauberk_database::retention::{self, AsOf, Removal};
use hauberk_store::StorePath;

impl Farm {
    async fn succeed_all(&self, numbers: &[usize]) {
        for number in numbers {
            self.succeed(*number).await;
        }
    }

    /// Removes the outputs of these; gives which of them went.
    async fn remove(&self, numbers: &[usize]) -> Vec<usize> {
        self.remove_from(&[self.server], numbers).await
    }

    /// Removes the outputs of these from the cache of some servers; gives which of them went.
    async fn remove_from(&self, servers: &[ServerId], numbers: &[usize]) -> Vec<usize> {
        let mut client = self.client().await;
        let paths: Vec<StorePath> = numbers.iter().map(|number| path(*number)).collect();
        let paths: Vec<&StorePath> = paths.iter().collect();
        let as_of = AsOf::now(&client).await.unwrap();
        assert!(retention::collect(&mut client, servers, as_of, &paths).await.unwrap());
        let removal = Removal::begin(&mut client, servers, &paths).await.unwrap();
        let gone = numbers.iter().copied().filter(|number| removal.paths.contains(&path(*number))).collect();
        removal.done().await.unwrap();
        gone
    }

    async fn keep(&self, definition: &str) {
        let client = self.client().await;
        let update = format!("update specifications set definition = '{definition}'");
        client.batch_execute(&update).await.unwrap();
    }
}

fn paths(numbers: &[usize]) -> HashSet<StorePath> {
    numbers.iter().map(|number| path(*number)).collect()
}

#[tokio::test]
async fn a_cache_that_servers_share_is_that_of_all_of_them() {
    let farm = Farm::with(&[&[]]).await;
    farm.succeed(0).await;
    let client = farm.client().await;
    let other = "insert into servers (name, host, backend_port, log_port, version) values ('second', '', 1, 2, '0') returning id";
    let second: ServerId = client.query_one(other, &[]).await.unwrap().get(0);
    client.execute("update outputs set server_id = $1", &[&second]).await.unwrap();
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let ids = async |names: &[&str]| {
        let found = retention::servers(&farm.client().await, &named(names)).await.unwrap();
        found.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]).await, [farm.server, second]);
    assert_eq!(ids(&["second", "absent"]).await, [second]);
    let held = async || -> i64 {
        let count = "select count(server_id) from outputs";
        farm.client().await.query_one(count, &[]).await.unwrap().get(0)
    };
    // In a cache of its own, the first has no more than a copy.
    assert_eq!(farm.remove(&[0]).await, [0]);
    assert_eq!(held().await, 1);
    assert_eq!(farm.remove_from(&[farm.server, second], &[0]).await, [0]);
    assert_eq!(held().await, 0);
}

#[tokio::test]
async fn what_unfinished_builds_need_stays() {
    // 2 needs 1, which needs 0.
    let farm = Farm::with(&[&[], &[0], &[1], &[]]).await;
    farm.succeed_all(&[0, 1, 3]).await;
    let client = farm.client().await;
    assert_eq!(retention::needed(&client).await.unwrap(), paths(&[1, 2]));
    assert_eq!(farm.remove(&[0, 1, 3]).await, [0, 3]);
    farm.succeed(2).await;
    assert_eq!(farm.remove(&[1, 2]).await, [1, 2]);
    assert_eq!(retention::needed(&client).await.unwrap(), paths(&[]));
    assert_eq!(farm.states().await, ["succeeded"; 4], "history is as it was");
    farm.check().await;
}

#[tokio::test]
async fn what_went_begins_anew_when_it_is_wanted_and_only_then() {
    let needs: &[&[usize]] = &[&[], &[0], &[]];
    let farm = Farm::with(needs).await;
    farm.succeed_all(&[0, 1, 2]).await;
    assert_eq!(farm.remove(&[0, 1, 2]).await, [0, 1, 2]);
    // An evaluation that wants the first two, as a register finds them: nothing of them is built.
    let built = hauberk_database::registration::succeeded_outputs;
    let all: Vec<StorePath> = (0..3).map(path).collect();
    let asked: Vec<&StorePath> = all.iter().collect();
    assert!(built(&farm.client().await, &asked).await.unwrap().is_empty());
    farm.evaluate(&needs[..2], &[1]).await;
    assert_eq!(farm.states().await, ["ready", "waiting", "succeeded"]);
    farm.check().await;
    farm.succeed_all(&[0, 1]).await;
    assert_eq!(farm.states().await, ["succeeded"; 3]);
    assert_eq!(built(&farm.client().await, &asked).await.unwrap(), paths(&[0, 1]));
}

#[tokio::test]
async fn a_restart_brings_back_what_the_build_needs() {
    use hauberk_database::dispatch::{AttemptClass, Consequence};
    let farm = Farm::with(&[&[], &[0]]).await;
    farm.succeed(0).await;
    let claimed = farm.claim(1).await;
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert_eq!(farm.remove(&[0]).await, [0]);
    let mut client = farm.client().await;
    let id = farm.build(1).await;
    let transaction = hauberk_database::begin(&mut client).await.unwrap();
    let restarted = hauberk_database::control::restart_builds(&transaction, &[id]).await.unwrap();
    hauberk_database::commit(transaction).await.unwrap();
    assert_eq!(restarted.revived.len(), 2);
    assert_eq!(farm.states().await, ["ready", "waiting"]);
    farm.check().await;
}

#[tokio::test]
async fn specifications_say_how_much_is_kept() {
    let farm = Farm::with(&[&[], &[0]]).await;
    farm.succeed_all(&[0, 1]).await;
    let client = farm.client().await;
    let second = farm.evaluate(&[&[], &[0], &[0], &[2]], &[3]).await;
    farm.succeed_all(&[2, 3]).await;
    let first_kept = || async { retention::wanted_first(&farm.client().await).await.unwrap() };
    let kept = || async { retention::wanted(&farm.client().await).await.unwrap() };
    // Nothing is said: the last one before all, and all.
    assert_eq!(first_kept().await, paths(&[0, 2, 3]));
    assert_eq!(kept().await, paths(&[0, 1, 2, 3]));
    farm.keep(r#"{"keep-evaluations": 1}"#).await;
    assert_eq!(kept().await, paths(&[0, 2, 3]));
    farm.keep(r#"{"keep-evaluations": 2}"#).await;
    assert_eq!(first_kept().await, paths(&[0, 1, 2, 3]));
    farm.keep(r#"{"keep-days": 30}"#).await;
    assert_eq!(kept().await, paths(&[0, 1, 2, 3]));
    let old = "update evaluations set created_at = now() - interval '31 days'";
    client.batch_execute(old).await.unwrap();
    assert_eq!(kept().await, paths(&[0, 2, 3]), "the last one stays, however old");
    // A canceled one is none that anybody wants kept.
    client.execute("update evaluations set canceled_at = now() where id = $1", &[&second]).await.unwrap();
    assert_eq!(kept().await, paths(&[0, 1]));
}

#[tokio::test]
async fn a_publication_meanwhile_is_noticed() {
    let farm = Farm::with(&[&[]]).await;
    farm.succeed(0).await;
    let mut client = farm.client().await;
    let as_of = AsOf::now(&client).await.unwrap();
    farm.evaluate(&[&[], &[0]], &[1]).await;
    assert!(!retention::collect(&mut client, &[farm.server], as_of, &[&path(0)]).await.unwrap());
}
