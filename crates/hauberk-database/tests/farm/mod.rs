//! A farm's database with a server, a worker and a graph of builds, for tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use hauberk_database::dispatch::{
    self, AttemptClass, AttemptOrigin, Built, BuiltOutput, Claim, Claimed, Consequence, Ended, Fetched,
    KnownPath, Measures,
};
use hauberk_database::evaluations;
use hauberk_database::registration::{self, NewBuild, NewJob, Registration};
use hauberk_database::servers::{self, ServerFacts};
use hauberk_database::specifications::{self, NewSpecification};
use hauberk_database::testing::TestDatabase;
use hauberk_database::workers::{self, NewWorker};
use hauberk_database::{
    BuildId, Client, Epoch, EvaluationId, LaneId, Level, ServerId, SpecificationId, WorkerId, begin, commit,
};
use hauberk_store::{OutputName, StorePath};
use serde_json::json;

pub(crate) fn path(number: usize) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-p{number}")).unwrap()
}

/// Enrols a server.
pub(crate) async fn enrol(client: &Client, name: &str) -> ServerId {
    let facts = ServerFacts {
        address: None,
        stores: Vec::new(),
        name: name.into(),
        host: "host".into(),
        backend_port: 5555,
        log_port: 5556,
        publish_url: None,
        public_key: None,
        version: "0".into(),
    };
    servers::enrol(client, &facts).await.unwrap()
}

pub(crate) fn package(number: usize, needs: &[usize]) -> NewBuild {
    NewBuild {
        derivation: StorePath::parse(&format!("/nix/store/{number:032}-p{number}.drv"))
            .unwrap()
            .try_into()
            .unwrap(),
        name: format!("p{number}"),
        system: "x86_64-linux".into(),
        features: Vec::new(),
        timeout: 3600,
        max_silent: 600,
        outputs: vec![(OutputName::OUT, path(number))],
        dependencies: needs.iter().map(|need| path(*need)).collect(),
    }
}

/// What the cache has of a package that was built.
pub(crate) fn fetched(claimed: &Claimed, number: usize) -> Fetched {
    let known =
        KnownPath { path: path(number), nar_hash: vec![u8::try_from(number).unwrap(); 32], nar_size: 100 };
    Fetched { attempt: claimed.attempt, build: claimed.build, outputs: vec![known] }
}

/// What a worker says of a package that it has built.
pub(crate) fn built(claimed: &Claimed, number: usize) -> Built {
    let output = BuiltOutput {
        name: "out".into(),
        path: path(number),
        nar_hash: vec![u8::try_from(number).unwrap(); 32],
        nar_size: 100,
        references: vec![path(number)],
    };
    Built {
        attempt: claimed.attempt,
        build: claimed.build,
        origin: AttemptOrigin::Built,
        outputs: vec![output],
        measures: Measures { build_ms: Some(5), ..Measures::default() },
    }
}

async fn publish(
    client: &mut Client,
    specification: SpecificationId,
    needs: &[&[usize]],
    jobs: &[usize],
) -> EvaluationId {
    let priority = Level::try_from(5).unwrap();
    let evaluation = evaluations::start(client, specification, &[]).await.unwrap();
    let builds = needs.iter().enumerate().map(|(number, needs)| package(number, needs)).collect();
    let jobs =
        jobs.iter().map(|build| NewJob { name: format!("job{build}"), build: *build, priority }).collect();
    let registration = Registration { builds, jobs, ..Registration::default() };
    registration::publish(client, evaluation, &registration).await.unwrap();
    evaluation
}

/// A farm with a server, a worker and a graph of builds.
pub(crate) struct Farm {
    pub(crate) test: TestDatabase,
    pub(crate) server: ServerId,
    pub(crate) epoch: Epoch,
    pub(crate) worker: WorkerId,
    pub(crate) specification: SpecificationId,
    /// The evaluation that was published first.
    pub(crate) evaluation: EvaluationId,
}

impl Farm {
    /// Publishes packages 0, 1, 2 ..., each with what it needs.
    pub(crate) async fn with(needs: &[&[usize]]) -> Self {
        let test = TestDatabase::new().await;
        let mut client = test.client().await;
        let priority = Level::try_from(5).unwrap();
        let new = NewSpecification {
            name: "s",
            definition: &json!({}),
            priority,
            shares: 100,
            enabled: true,
            public: true,
        };
        let specification = specifications::upsert(&client, new).await.unwrap();
        let jobs: Vec<usize> = (0..needs.len()).collect();
        let evaluation = publish(&mut client, specification, needs, &jobs).await;
        let server = enrol(&client, "srv").await;
        let epoch = servers::begin_epoch(&client, server, std::time::Duration::from_secs(60)).await.unwrap();
        let new = NewWorker { name: "w", public_key: "key", signing_key: "w-1:key", enrolled_by: "" };
        let workers::Enrolment::Done(worker) = workers::add(&client, new).await.unwrap() else {
            panic!("the worker is not enrolled")
        };
        drop(client);
        Self { test, server, epoch, worker, specification, evaluation }
    }

    /// Publishes another evaluation of packages 0, 1, 2 ..., of which some are jobs.
    pub(crate) async fn evaluate(&self, needs: &[&[usize]], jobs: &[usize]) -> EvaluationId {
        publish(&mut self.client().await, self.specification, needs, jobs).await
    }

    pub(crate) async fn client(&self) -> Client {
        self.test.client().await
    }

    pub(crate) async fn build(&self, number: usize) -> BuildId {
        let client = self.client().await;
        let row = client
            .query_one("select build_id from outputs where path = $1", &[&path(number).to_string()])
            .await
            .unwrap();
        row.get(0)
    }

    pub(crate) async fn states(&self) -> Vec<String> {
        let client = self.client().await;
        let rows = client
            .query("select b.state from builds b join outputs o on o.build_id = b.id order by o.path", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn ready(&self) -> Vec<BuildId> {
        let mut builds = dispatch::window(&self.client().await, 100, None, &[]).await.unwrap().builds;
        builds.sort_unstable_by_key(|build| (build.urgency, -build.path_step, build.id));
        builds.into_iter().map(|build| build.id).collect()
    }

    pub(crate) async fn claim_with(&self, builds: &[BuildId], epoch: Epoch, again: bool) -> Vec<Claimed> {
        let lane = LaneId::new(1);
        let claims: Vec<_> = builds
            .iter()
            .map(|build| Claim { build: *build, worker: self.worker, session: 7, lane })
            .collect();
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let granted = dispatch::claim(&transaction, &claims, epoch, self.server, again).await.unwrap();
        commit(transaction).await.unwrap();
        granted
    }

    pub(crate) async fn claim(&self, number: usize) -> Claimed {
        let build = self.build(number).await;
        let mut granted = self.claim_with(&[build], self.epoch, false).await;
        assert_eq!(granted.len(), 1, "package {number} cannot be claimed");
        granted.remove(0)
    }

    /// Builds a package to its end; gives what became ready.
    pub(crate) async fn succeed(&self, number: usize) -> Vec<BuildId> {
        let claimed = self.claim(number).await;
        self.built(&claimed, number).await;
        self.fetched(&claimed, number, self.epoch).await
    }

    pub(crate) async fn built(&self, claimed: &Claimed, number: usize) {
        let built = built(claimed, number);
        dispatch::built(&self.client().await, &[built], self.epoch).await.unwrap();
    }

    pub(crate) async fn fetched(&self, claimed: &Claimed, number: usize, epoch: Epoch) -> Vec<BuildId> {
        let fetched = fetched(claimed, number);
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let effects = dispatch::succeed(&transaction, &[fetched], epoch, self.server).await.unwrap();
        commit(transaction).await.unwrap();
        effects.ready.into_iter().map(|build| build.id).collect()
    }

    pub(crate) async fn end(
        &self,
        claimed: &Claimed,
        class: AttemptClass,
        consequence: Consequence,
    ) -> dispatch::Effects {
        let ended = Ended {
            attempt: claimed.attempt,
            build: claimed.build,
            class,
            message: "because".into(),
            measures: Measures::default(),
            consequence,
        };
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let effects = dispatch::end(&transaction, &[ended], self.epoch).await.unwrap();
        commit(transaction).await.unwrap();
        effects
    }

    /// What must hold at any time.
    pub(crate) async fn check(&self) {
        let client = self.client().await;
        let wrong = client
            .query(
                "select b.id from builds b where b.unmet <> (select count(*) from build_dependencies d \
                 join builds n on n.id = d.dependency_id where d.build_id = b.id and n.state <> 'succeeded')",
                &[],
            )
            .await
            .unwrap();
        assert!(wrong.is_empty(), "a counter of unmet dependencies is wrong");
        let wrong = client
            .query(
                "select b.id from builds b where (b.state in ('assigned', 'running', 'built', 'fetching')) \
                 <> exists (select from attempts a where a.build_id = b.id and a.ended_at is null)",
                &[],
            )
            .await
            .unwrap();
        assert!(wrong.is_empty(), "a build and its open attempts do not agree");
        let wrong = client
            .query(
                "select b.id from builds b where b.state = 'waiting' and b.unmet = 0 \
                 or b.state in ('waiting', 'ready', 'deferred') and exists (select from build_dependencies d \
                 join builds n on n.id = d.dependency_id where d.build_id = b.id and n.status > 0) \
                 or b.state = 'failed_dependency' and not exists (select from build_dependencies d \
                 join builds n on n.id = d.dependency_id where d.build_id = b.id and n.status > 0)",
                &[],
            )
            .await
            .unwrap();
        assert!(wrong.is_empty(), "a build waits for ever, or failed by nothing");
    }
}
