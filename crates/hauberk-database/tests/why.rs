//! Why a build is not running, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::Farm;
use hauberk_database::dispatch::{AttemptClass, Consequence};
use hauberk_database::why::{self, Reason, Why};
use hauberk_database::workers::{self, Description, Direction};
use hauberk_database::{BuildId, BuildState, seats, usage};

impl Farm {
    async fn why(&self, number: usize) -> Why {
        let build = self.build(number).await;
        let client = self.client().await;
        let why = why::why(&client, build).await.unwrap().unwrap();
        // Each reason can be said in a sentence, and read by programs.
        assert_eq!(why.to_string().lines().count(), why.reasons.len());
        serde_json::to_value(&why).unwrap();
        why::forecast(&client, build).await.unwrap();
        why
    }

    async fn connect(&self, change: impl FnOnce(&mut Description)) {
        let mut description = Description {
            store_directory: "/nix/store".into(),
            systems: vec!["x86_64-linux".into()],
            slots: 1,
            ..Description::default()
        };
        change(&mut description);
        let said = [(self.worker, &description)];
        workers::hello(&self.client().await, self.epoch, &said).await.unwrap();
    }
}

fn kinds(why: &Why) -> Vec<String> {
    let kind = |reason: &Reason| serde_json::to_value(reason).unwrap()["kind"].as_str().unwrap().to_owned();
    why.reasons.iter().map(kind).collect()
}

#[tokio::test]
async fn every_reason_is_told() {
    let farm = Farm::with(&[&[], &[0], &[], &[]]).await;
    let client = farm.client().await;
    assert!(why::why(&client, BuildId::new(999)).await.unwrap().is_none());

    // No worker has been seen.
    assert_eq!(kinds(&farm.why(0).await), ["no-worker"]);
    let why = farm.why(1).await;
    assert_eq!(kinds(&why), ["inputs", "no-worker"]);
    assert!(why.to_string().contains("It waits for 1 build that has not succeeded yet: p0"), "{why}");
    farm.connect(|said| said.systems = vec!["aarch64-linux".into()]).await;
    assert_eq!(kinds(&farm.why(0).await), ["no-worker"]);

    // One is there: with a free slot, kept from it, and asking for what the build does not.
    farm.connect(|_| {}).await;
    assert_eq!(kinds(&farm.why(0).await), ["next"]);
    assert_eq!(kinds(&farm.why(2).await), ["behind"]);
    assert_eq!(kinds(&farm.why(1).await), ["inputs"]);
    workers::direct(&client, "w", Direction::Pause(Some("disk"))).await.unwrap();
    let why = farm.why(0).await;
    assert_eq!(kinds(&why), ["workers-held"]);
    assert!(why.to_string().contains("w (paused: disk)"), "{why}");
    workers::direct(&client, "w", Direction::Resume).await.unwrap();
    farm.connect(|said| {
        said.features = vec!["kvm".into()];
        said.mandatory_features = vec!["kvm".into()];
    })
    .await;
    assert_eq!(kinds(&farm.why(0).await), ["no-worker", "workers-demand"]);
    farm.connect(|_| {}).await;

    // Its slot is taken.
    let claimed = farm.claim(0).await;
    seats::keep(&client, farm.epoch, &[(claimed.attempt, farm.worker)]).await.unwrap();
    assert_eq!(kinds(&farm.why(0).await), ["with-worker"]);
    assert_eq!(kinds(&farm.why(2).await), ["no-free-slot"]);
    assert_eq!(kinds(&farm.why(3).await), ["no-free-slot", "behind"]);
    let foretold = why::forecast(&client, farm.build(3).await).await.unwrap().unwrap();
    let start = foretold.start.unwrap();
    assert!(start.earliest <= start.likely && start.likely <= start.latest && start.likely > 0.0);
    assert!(foretold.end.likely > start.likely);

    // The farm's fault, and the package's.
    farm.end(&claimed, AttemptClass::Transfer, Consequence::Retry { delay: 60.0 }).await;
    seats::keep(&client, farm.epoch, &[]).await.unwrap();
    assert_eq!(kinds(&farm.why(2).await), ["next"]);
    let why = farm.why(0).await;
    assert_eq!((kinds(&why), why.state), (vec!["deferred".to_owned()], BuildState::Deferred));
    assert!(why.to_string().contains("the last as transfer (because)"), "{why}");
    let claimed = farm.claim(2).await;
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert_eq!(kinds(&farm.why(2).await), [""; 0]);
}

#[tokio::test]
async fn a_share_that_is_used_up_is_told() {
    let farm = Farm::with(&[&[], &[]]).await;
    farm.connect(|_| {}).await;
    let client = farm.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('t', '{}');
             insert into lanes (specification_id, store_directory, system)
                 select max(id), '/nix/store', 'x86_64-linux' from specifications;
             update builds set lane_id = (select max(id) from lanes) where name = 'p1'",
        )
        .await
        .unwrap();
    let row = client.query_one("select max(id) from specifications", &[]).await.unwrap();
    usage::keep(&client, farm.server, &[(farm.specification, 900.0), (row.get(0), 100.0)]).await.unwrap();
    let why = farm.why(0).await;
    assert_eq!(kinds(&why), ["over-share"]);
    assert!(why.to_string().contains("s has used 90 %"), "{why}");
    assert_eq!(kinds(&farm.why(1).await), ["next"]);
}
