//! Evaluations are published whole, and no build is left waiting for something that is over.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::time::{Duration, Instant};

use hauberk_database::evaluations::{self, JobError};
use hauberk_database::listen::{CHANGED, Event, Listener, READY};
use hauberk_database::registration::{self, NewBuild, NewJob, Published, Registration, RegistrationError};
use hauberk_database::specifications::{self, NewSpecification};
use hauberk_database::testing::TestDatabase;
use hauberk_database::{BuildState, Client, EvaluationId, Level, SpecificationId, control};
use hauberk_store::{OutputName, StorePath};
use serde_json::json;

const RELEASE_DEPENDENTS: &str = include_str!("../../../sql/dispatch/release_dependents.sql");
const WEATHER: &str = include_str!("../../../sql/dispatch/weather.sql");
const FAIL_DEPENDENTS: &str = include_str!("../../../sql/dispatch/fail_dependents.sql");
const PATIENCE: Duration = Duration::from_secs(60);

/// Derivation number `derivation`, which gives what package number `number` gives.
fn mended(derivation: usize, number: usize, needs: &[usize]) -> NewBuild {
    NewBuild {
        derivation: path(derivation, &format!("p{number}.drv")).try_into().unwrap(),
        ..package(number, needs)
    }
}

/// A path whose hash part is the number, which stands for the content.
fn path(number: usize, name: &str) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-{name}")).unwrap()
}

/// Package number `number`, which needs those of the other numbers.
fn package(number: usize, needs: &[usize]) -> NewBuild {
    NewBuild {
        derivation: path(number, &format!("p{number}.drv")).try_into().unwrap(),
        name: format!("p{number}"),
        system: "x86_64-linux".into(),
        features: Vec::new(),
        timeout: 3600,
        max_silent: 600,
        outputs: vec![(OutputName::OUT, path(number, &format!("p{number}")))],
        dependencies: needs.iter().map(|need| path(*need, &format!("p{need}"))).collect(),
    }
}

fn level(number: i64) -> Level {
    Level::try_from(number).unwrap()
}

fn job(build: usize, priority: i64) -> NewJob {
    NewJob { name: format!("job{build}"), build, priority: level(priority) }
}

async fn specification(client: &Client, name: &str, priority: i64) -> SpecificationId {
    specifications::upsert(
        client,
        NewSpecification {
            name,
            definition: &json!({}),
            priority: level(priority),
            shares: 100,
            enabled: true,
            public: true,
        },
    )
    .await
    .unwrap()
}

/// A farm with one specification, of priority 5.
struct Farm {
    test: TestDatabase,
    specification: SpecificationId,
}

impl Farm {
    async fn new() -> Self {
        let test = TestDatabase::new().await;
        let specification = specification(&test.client().await, "s", 5).await;
        Self { test, specification }
    }

    async fn start(&self) -> EvaluationId {
        evaluations::start(&self.test.client().await, self.specification, &[]).await.unwrap()
    }

    async fn publish(&self, builds: Vec<NewBuild>, jobs: Vec<NewJob>) -> Published {
        let evaluation = self.start().await;
        let registration = Registration { builds, jobs, ..Registration::default() };
        registration::publish(&mut self.test.client().await, evaluation, &registration).await.unwrap()
    }

    /// State, unmet dependencies, priority and generation of a package.
    async fn build(&self, number: usize) -> (BuildState, i32, i16, i32) {
        let row = self
            .test
            .client()
            .await
            .query_one(
                "select state, unmet, priority, generation from builds where name = $1",
                &[&format!("p{number}")],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3))
    }

    async fn state(&self, number: usize) -> BuildState {
        self.build(number).await.0
    }

    async fn set(&self, number: usize, assignments: &str) {
        let statement = format!("update builds set {assignments} where name = 'p{number}'");
        assert_eq!(self.test.client().await.execute(&statement, &[]).await.unwrap(), 1);
    }

    /// Lets a package fail by an attempt with its derivation, and these by the package.
    async fn fail(&self, number: usize, dependents: &[usize]) {
        let client = self.test.client().await;
        let statement = "with worker as (
                 insert into workers (name) values ('w') on conflict (name) do update set name = 'w' returning id
             ), attempt as (
                 insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch,
                                       class, ended_at)
                 select b.id, b.derivation_id, b.generation, b.generation, 'first', w.id, 1, 1, 'build_failed', now()
                 from builds b, worker w where b.name = $1
                 returning id, build_id
             )
             update builds b set state = 'failed', attempt_id = a.id, finished_at = now()
             from attempt a where b.id = a.build_id";
        assert_eq!(client.execute(statement, &[&format!("p{number}")]).await.unwrap(), 1);
        for dependent in dependents {
            let blame = format!(
                "state = 'failed_dependency', finished_at = now(),
                 failed_build_id = (select id from builds where name = 'p{number}')"
            );
            self.set(*dependent, &blame).await;
        }
    }

    /// The hash part of the derivation that a package is built from, as a number, and the packages it needs.
    async fn recipe(&self, number: usize) -> (usize, Vec<String>) {
        let row = self
            .test
            .client()
            .await
            .query_one(
                "select d.path, array(select n.name from build_dependencies e join builds n on n.id = e.dependency_id
                                      where e.build_id = b.id order by n.name)
                 from builds b join derivations d on d.id = b.derivation_id where b.name = $1",
                &[&format!("p{number}")],
            )
            .await
            .unwrap();
        let derivation = StorePath::parse(row.get(0)).unwrap();
        (derivation.hash_part().parse().unwrap(), row.get(1))
    }

    async fn number(&self, query: &str) -> i64 {
        self.test.client().await.query_one(query, &[]).await.unwrap().get(0)
    }
}

async fn next(listener: &mut Listener) -> Event {
    tokio::time::timeout(PATIENCE, listener.next()).await.expect("an event comes")
}

#[tokio::test]
async fn an_evaluation_is_published_whole_and_told_once() {
    let farm = Farm::new().await;
    let evaluation = farm.start().await;
    let mut ready = Listener::connect(farm.test.location(), &[READY]).await.unwrap();
    let mut changed = Listener::connect(farm.test.location(), &[CHANGED]).await.unwrap();
    // 1 needs 2 and 3, which need 4; 9 is built by nobody.
    let builds =
        vec![package(1, &[2, 3, 9]), package(2, &[4]), package(3, &[4, 4]), package(4, &[]), package(5, &[])];
    let errors = vec![JobError { name: "broken".into(), message: "no such attribute".into() }];
    let registration = Registration {
        builds,
        jobs: vec![job(0, 2), job(4, 9)],
        errors: errors.clone(),
        ..Registration::default()
    };
    let client = &mut farm.test.client().await;
    let published = registration::publish(client, evaluation, &registration).await.unwrap();
    assert_eq!(published, Published { jobs: 2, new: 5, ready: 2, ..Published::default() });

    assert_eq!(farm.build(1).await, (BuildState::Waiting, 2, 52, 1));
    assert_eq!(farm.build(2).await, (BuildState::Waiting, 1, 52, 1));
    assert_eq!(farm.build(4).await, (BuildState::Ready, 0, 52, 1));
    assert_eq!(farm.build(5).await, (BuildState::Ready, 0, 59, 1));
    assert_eq!(farm.number("select count(*) from build_dependencies").await, 4);
    assert_eq!(farm.number("select count(*) from lanes").await, 1);
    assert_eq!(
        farm.number(
            "select count(*) from builds b join derivations d on d.id = b.derivation_id and d.build_id = b.id
             join outputs o on o.build_id = b.id where b.timeout = 3600 and b.max_silent = 600"
        )
        .await,
        5
    );
    let latest = evaluations::latest(client, farm.specification).await.unwrap().unwrap();
    assert_eq!((latest.status, latest.outdated), (evaluations::EvaluationStatus::Succeeded, false));
    assert_eq!(evaluations::errors(client, evaluation).await.unwrap(), errors);

    assert_eq!(next(&mut ready).await, Event::Notification { channel: READY.into(), payload: String::new() });
    next(&mut changed).await;
    client.batch_execute("notify hauberk_ready, 'end'; notify hauberk_changed, 'end'").await.unwrap();
    for listener in [&mut ready, &mut changed] {
        let Event::Notification { payload, .. } = next(listener).await else { panic!("lost") };
        assert_eq!(payload, "end", "one notification a publication");
    }

    let again = registration::publish(client, evaluation, &registration).await.unwrap_err();
    assert!(matches!(again, RegistrationError::NotStarted { .. }), "{again:?}");
}

#[tokio::test]
async fn what_belongs_to_builds_lies_in_their_order() {
    let farm = Farm::new().await;
    // Neither derivations nor outputs have their paths in the order of the builds.
    let builds: Vec<_> = (0..40).map(|at| package(at * 17 % 40 + 1, &[])).collect();
    farm.publish(builds, vec![job(0, 5)]).await;
    let client = farm.test.client().await;
    for (table, order) in [("derivations", "id"), ("derivations", "ctid"), ("outputs", "ctid")] {
        let of = format!(
            "select array_agg(build_id order by {order}) = array_agg(build_id order by build_id) from {table}"
        );
        let row = client.query_one(&of, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{table} by {order}");
    }
}

#[tokio::test]
async fn derivations_with_the_same_outputs_are_one_build() {
    let farm = Farm::new().await;
    let mut twin = package(1, &[]);
    twin.derivation = path(1001, "p1.drv").try_into().unwrap();
    let published =
        farm.publish(vec![package(1, &[]), twin.clone(), package(2, &[1])], vec![job(2, 0)]).await;
    assert_eq!((published.new, published.ready), (2, 1));
    assert_eq!(farm.number("select count(*) from derivations").await, 3);

    let mut third = twin;
    third.derivation = path(1002, "p1.drv").try_into().unwrap();
    let published = farm.publish(vec![third, package(3, &[1])], vec![job(0, 9), job(1, 9)]).await;
    assert_eq!((published.new, published.known), (1, 1));
    assert_eq!(farm.number("select count(*) from derivations").await, 5);
    assert_eq!(farm.build(3).await.1, 1);
}

#[tokio::test]
async fn known_unfinished_builds_are_raised_all_the_way_down() {
    let farm = Farm::new().await;
    let chain = || vec![package(1, &[2]), package(2, &[3]), package(3, &[]), package(4, &[])];
    farm.publish(chain(), vec![job(0, 9), job(3, 9)]).await;
    farm.set(2, "state = 'held'").await;
    assert_eq!(farm.build(3).await.2, 59);
    // The evaluation names only the top; the rest is known of old.
    farm.publish(vec![package(9, &[1])], vec![job(0, 1)]).await;
    for (number, priority) in [(9, 51), (1, 51), (2, 51), (3, 51), (4, 59)] {
        assert_eq!(farm.build(number).await.2, priority, "p{number}");
    }
    assert_eq!(farm.state(2).await, BuildState::Held);
    farm.publish(vec![package(10, &[1])], vec![job(0, 8)]).await;
    assert_eq!(farm.build(3).await.2, 51, "it is never lowered");
}

#[tokio::test]
async fn canceled_builds_are_revived_with_what_failed_for_their_sake() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[2]), package(2, &[3]), package(3, &[])], vec![job(0, 9)]).await;
    farm.set(3, "state = 'canceled', farm_faults = 2, finished_at = now()").await;
    farm.set(
        1,
        "state = 'failed_dependency', failed_build_id = (select id from builds where name = 'p3'),
         finished_at = now()",
    )
    .await;
    farm.set(2, "state = 'canceled', finished_at = now()").await;
    let published = farm.publish(vec![package(1, &[2])], vec![job(0, 9)]).await;
    assert_eq!((published.revived, published.ready), (3, 1));
    assert_eq!(farm.build(1).await, (BuildState::Waiting, 1, 59, 2));
    assert_eq!(farm.build(2).await, (BuildState::Waiting, 1, 59, 2));
    assert_eq!(farm.build(3).await, (BuildState::Ready, 0, 59, 2));
    assert_eq!(
        farm.number(
            "select count(*) from builds
             where farm_faults = 0 and finished_at is null and failed_build_id is null"
        )
        .await,
        3
    );
}

#[tokio::test]
async fn what_succeeded_is_met_and_what_failed_fails_all_above() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[]), package(2, &[])], vec![job(0, 9), job(1, 9)]).await;
    farm.set(1, "state = 'succeeded', finished_at = now()").await;
    farm.set(2, "state = 'failed', finished_at = now()").await;
    let published = farm
        .publish(
            vec![
                package(3, &[1]),
                package(4, &[1, 2]),
                package(5, &[4]),
                package(1, &[]),
                package(2, &[]),
                package(6, &[5, 3]),
            ],
            vec![job(0, 9), job(3, 9), job(4, 9), job(5, 9)],
        )
        .await;
    assert_eq!((published.ready, published.failed_dependency, published.revived), (1, 3, 0));
    assert_eq!(farm.state(3).await, BuildState::Ready);
    for number in [4, 5, 6] {
        assert_eq!(farm.state(number).await, BuildState::FailedDependency, "p{number}");
    }
    let root: i64 = farm.number("select id from builds where name = 'p2'").await;
    let named = format!(
        "select count(*) from builds where failed_build_id = {root} and finished_at is not null and status = 2"
    );
    assert_eq!(farm.number(&named).await, 3);
    let edges = "select count(*) from build_dependencies e join builds b on b.id = e.dependency_id
                 where b.name = 'p1'";
    assert_eq!(farm.number(edges).await, 2, "edges to what is built are kept: they tell a worker its inputs");
    // A later evaluation sees the same.
    let published = farm.publish(vec![package(6, &[5, 3])], vec![job(0, 9)]).await;
    assert_eq!((published.revived, published.failed_dependency), (0, 3));
}

#[tokio::test]
async fn a_mended_build_begins_anew_with_all_that_failed_by_it() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[2]), package(2, &[5]), package(5, &[])], vec![job(0, 9)]).await;
    farm.publish(vec![package(3, &[1])], vec![job(0, 9)]).await;
    farm.set(5, "state = 'succeeded', finished_at = now()").await;
    farm.fail(2, &[1, 3]).await;
    let published = farm.publish(vec![package(1, &[2]), package(2, &[5])], vec![job(0, 9)]).await;
    assert_eq!((published.revived, published.failed_dependency), (0, 1), "a known failure");

    // The same path by another derivation, in an evaluation that knows nothing of package 3.
    let mut build = mended(1002, 2, &[4]);
    build.timeout = 7200;
    let published = farm.publish(vec![package(1, &[2]), build, package(4, &[])], vec![job(0, 9)]).await;
    assert_eq!((published.revived, published.ready, published.failed_dependency), (3, 1, 0));
    assert_eq!(farm.build(2).await, (BuildState::Waiting, 1, 59, 2));
    assert_eq!(farm.recipe(2).await, (1002, vec!["p4".to_owned()]));
    assert_eq!(farm.number("select timeout::bigint from builds where name = 'p2'").await, 7200);
    for number in [1, 3] {
        assert_eq!(farm.build(number).await, (BuildState::Waiting, 1, 59, 2), "p{number}");
    }

    // That fails as well: neither of the two is tried again by an evaluation.
    farm.set(4, "state = 'succeeded', finished_at = now()").await;
    farm.fail(2, &[1, 3]).await;
    for derivation in [1002, 2, 1002, 2] {
        let published =
            farm.publish(vec![package(1, &[2]), mended(derivation, 2, &[])], vec![job(0, 9)]).await;
        assert_eq!((published.revived, published.failed_dependency), (0, 1), "{derivation}");
    }
    // Whoever begins it anew builds what the newest evaluation has.
    assert_eq!(farm.recipe(2).await, (2, Vec::new()));
    let client = &mut farm.test.client().await;
    let id = client.query_one("select id from builds where name = 'p2'", &[]).await.unwrap().get(0);
    let transaction = client.transaction().await.unwrap();
    control::restart_builds(&transaction, &[id]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(farm.build(2).await, (BuildState::Ready, 0, 59, 3));
    assert_eq!(farm.build(3).await, (BuildState::Waiting, 1, 59, 3));
}

#[tokio::test]
async fn a_build_that_nobody_works_at_takes_the_newer_derivation() {
    let farm = Farm::new().await;
    let first = |derivation, needs| vec![mended(derivation, 1, needs), package(2, &[]), package(3, &[])];
    farm.publish(first(1, &[2]), vec![job(0, 9)]).await;
    farm.fail(2, &[1]).await;
    // It does not need what has failed any more.
    let published = farm.publish(first(1001, &[3]), vec![job(0, 9)]).await;
    assert_eq!((published.revived, published.ready), (1, 0));
    assert_eq!((farm.state(1).await, farm.state(2).await), (BuildState::Waiting, BuildState::Failed));
    assert_eq!(farm.recipe(1).await, (1001, vec!["p3".to_owned()]));
    farm.publish(first(1002, &[]), vec![job(0, 9)]).await;
    assert_eq!(farm.build(1).await, (BuildState::Ready, 0, 59, 2));

    // Whoever works at it goes on; if that fails, the next evaluation has it tried.
    farm.set(1, "state = 'running'").await;
    farm.publish(first(1003, &[2]), vec![job(0, 9)]).await;
    assert_eq!(farm.build(1).await, (BuildState::Running, 0, 59, 2));
    assert_eq!(farm.recipe(1).await, (1002, Vec::new()));
    farm.fail(1, &[]).await;
    let published = farm.publish(first(1003, &[3]), vec![job(0, 9)]).await;
    assert_eq!(published.revived, 1);
    assert_eq!(farm.build(1).await, (BuildState::Waiting, 1, 59, 3));
    // A derivation that is known to fail does not take the place of one that waits.
    farm.publish(first(1002, &[]), vec![job(0, 9)]).await;
    assert_eq!(farm.recipe(1).await, (1003, vec!["p3".to_owned()]));
}

#[tokio::test]
async fn a_derivation_of_another_system_does_not_take_the_place() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[])], vec![job(0, 9)]).await;
    farm.fail(1, &[]).await;
    let mut other = mended(1001, 1, &[]);
    other.system = "aarch64-linux".into();
    let published = farm.publish(vec![other.clone(), package(1, &[])], vec![job(0, 9)]).await;
    assert_eq!(published.revived, 0);
    farm.set(1, "state = 'canceled'").await;
    let published = farm.publish(vec![other], vec![job(0, 9)]).await;
    assert_eq!((published.revived, farm.recipe(1).await.0), (1, 1));
}

#[tokio::test]
async fn a_known_build_learns_of_new_dependencies_while_it_can() {
    let farm = Farm::new().await;
    // Their input was in the store, and has been collected since.
    farm.publish(vec![package(1, &[9]), package(2, &[9])], vec![job(0, 9), job(1, 9)]).await;
    farm.set(2, "state = 'running'").await;
    farm.publish(vec![package(1, &[9]), package(2, &[9]), package(9, &[])], vec![job(0, 9), job(1, 9)]).await;
    assert_eq!(farm.build(1).await, (BuildState::Waiting, 1, 59, 1));
    assert_eq!(farm.build(2).await, (BuildState::Running, 0, 59, 1));
    assert_eq!(farm.state(9).await, BuildState::Ready);
}

#[tokio::test]
async fn jobs_of_settled_builds_get_their_weather_at_once() {
    let farm = Farm::new().await;
    for _ in 0..2 {
        farm.publish(vec![package(1, &[]), package(2, &[])], vec![job(0, 9), job(1, 9)]).await;
        farm.set(1, "state = 'succeeded', finished_at = now()").await;
    }
    farm.publish(vec![package(1, &[])], vec![job(0, 9)]).await;
    assert_eq!(farm.number("select weather::bigint from jobs order by evaluation_id desc limit 1").await, 2);
}

#[tokio::test]
async fn a_job_is_compared_with_the_earlier_evaluation_even_if_that_is_published_later() {
    let farm = Farm::new().await;
    let (earlier, later) = (farm.start().await, farm.start().await);
    for (evaluation, number) in [(later, 2), (earlier, 1)] {
        let registration = Registration {
            builds: vec![package(number, &[])],
            jobs: vec![job(0, 9)],
            ..Registration::default()
        };
        registration::publish(&mut farm.test.client().await, evaluation, &registration).await.unwrap();
    }
    farm.set(1, "state = 'succeeded', finished_at = now()").await;
    farm.set(2, "state = 'failed', finished_at = now()").await;
    let client = farm.test.client().await;
    client
        .execute(WEATHER, &[&vec![farm.number("select id from builds where name = 'p2'").await]])
        .await
        .unwrap();
    let of = async |evaluation: EvaluationId| {
        farm.number(&format!("select weather::bigint from jobs where evaluation_id = {evaluation}")).await
    };
    assert_eq!((of(earlier).await, of(later).await), (-1, 1));
    let looked_for = "select array_agg(repeats order by evaluation_id) = '{f,t}' from jobs";
    assert!(client.query_one(looked_for, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn nothing_of_a_refused_evaluation_is_visible() {
    let farm = Farm::new().await;
    let evaluation = farm.start().await;
    let mut builds = vec![package(1, &[]), package(2, &[])];
    builds[1].outputs.clear();
    let client = &mut farm.test.client().await;
    for registration in [
        Registration { builds, jobs: vec![job(0, 9)], ..Registration::default() },
        Registration { builds: vec![package(1, &[])], jobs: vec![job(1, 9)], ..Registration::default() },
        Registration {
            builds: vec![package(1, &[2]), package(2, &[1])],
            jobs: vec![job(0, 9)],
            ..Registration::default()
        },
        Registration {
            builds: vec![package(1, &[])],
            jobs: vec![job(0, 9), job(0, 8)],
            ..Registration::default()
        },
    ] {
        registration::publish(client, evaluation, &registration).await.unwrap_err();
        assert_eq!(farm.number("select count(*) from builds").await, 0);
        assert_eq!(farm.number("select count(*) from evaluations where status = -1").await, 1);
    }
}

/// Waits until some statement waits for a row that another transaction has.
async fn wait_for_blocked(client: &Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let blocked: i64 = client
            .query_one(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        if blocked > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "nothing waits for a lock");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_result_that_is_being_recorded_is_waited_for_before_counting() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[])], vec![job(0, 9)]).await;
    let evaluation = farm.start().await;
    let mut result = farm.test.client().await;
    let transaction = result.transaction().await.unwrap();
    let id: i64 = transaction
        .query_one("update builds set state = 'succeeded', finished_at = now() returning id", &[])
        .await
        .unwrap()
        .get(0);

    let mut client = farm.test.client().await;
    let publication = tokio::spawn(async move {
        let registration =
            Registration { builds: vec![package(2, &[1])], jobs: vec![job(0, 9)], ..Registration::default() };
        registration::publish(&mut client, evaluation, &registration).await.unwrap()
    });
    wait_for_blocked(&farm.test.client().await).await;
    transaction.execute(RELEASE_DEPENDENTS, &[&vec![id]]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(publication.await.unwrap().ready, 1);
    assert_eq!(farm.build(2).await, (BuildState::Ready, 0, 59, 1));
}

#[tokio::test]
async fn a_result_of_what_is_not_needed_any_more_is_waited_for() {
    let farm = Farm::new().await;
    farm.publish(vec![package(1, &[2]), package(2, &[])], vec![job(0, 9)]).await;
    let evaluation = farm.start().await;
    let mut result = farm.test.client().await;
    let transaction = result.transaction().await.unwrap();
    let statement =
        "update builds set state = 'succeeded', finished_at = now() where name = 'p2' returning id";
    let id: i64 = transaction.query_one(statement, &[]).await.unwrap().get(0);

    let mut client = farm.test.client().await;
    let publication = tokio::spawn(async move {
        let builds = vec![mended(1001, 1, &[3]), package(3, &[])];
        let registration = Registration { builds, jobs: vec![job(0, 9)], ..Registration::default() };
        registration::publish(&mut client, evaluation, &registration).await.unwrap()
    });
    wait_for_blocked(&farm.test.client().await).await;
    transaction.execute(RELEASE_DEPENDENTS, &[&vec![id]]).await.unwrap();
    transaction.commit().await.unwrap();
    publication.await.unwrap();
    // Else the success would count for package 3, which is not built yet.
    assert_eq!(farm.build(1).await, (BuildState::Waiting, 1, 59, 1));
    assert_eq!(farm.recipe(1).await, (1001, vec!["p3".to_owned()]));
}

/// Records a result as the dispatcher does: the build first, then, in other statements, what depends on it.
async fn record(client: &mut Client, name: &str, succeeded: bool) {
    let transaction = client.transaction().await.unwrap();
    let state = if succeeded { BuildState::Succeeded } else { BuildState::Failed };
    let id: i64 = transaction
        .query_one(
            "update builds set state = $2, finished_at = now() where name = $1 returning id",
            &[&name, &state],
        )
        .await
        .unwrap()
        .get(0);
    if succeeded {
        transaction.execute(RELEASE_DEPENDENTS, &[&vec![id]]).await.unwrap();
    } else {
        while !transaction.query(FAIL_DEPENDENTS, &[&vec![id]]).await.unwrap().is_empty() {}
    }
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_and_results_at_the_same_time_leave_nothing_waiting() {
    let farm = Farm::new().await;
    let (mut publisher, mut recorder) = (farm.test.client().await, farm.test.client().await);
    for round in 0..60 {
        let (base, middle, top, succeeded) = (10_000 + round, 20_000 + round, 30_000 + round, round % 2 == 0);
        farm.publish(vec![package(middle, &[base]), package(base, &[])], vec![job(0, 9)]).await;
        let evaluation = farm.start().await;
        let registration = Registration {
            builds: vec![package(top, &[middle, base])],
            jobs: vec![job(0, 9)],
            ..Registration::default()
        };
        let name = format!("p{base}");
        let publication = registration::publish(&mut publisher, evaluation, &registration);
        let result = async {
            // The two meet at another moment in each round.
            tokio::time::sleep(Duration::from_micros(u64::try_from(round).unwrap() * 150)).await;
            record(&mut recorder, &name, succeeded).await;
        };
        let (published, ()) = tokio::join!(publication, result);
        published.unwrap();
        if succeeded {
            assert_eq!(farm.state(middle).await, BuildState::Ready, "round {round}");
            assert_eq!(farm.build(top).await.1, 1, "round {round}");
            record(&mut recorder, &format!("p{middle}"), true).await;
            assert_eq!(farm.state(top).await, BuildState::Ready, "round {round}");
        } else {
            assert_eq!(farm.state(middle).await, BuildState::FailedDependency, "round {round}");
            assert_eq!(farm.state(top).await, BuildState::FailedDependency, "round {round}");
        }
    }
}

#[tokio::test]
async fn time_is_linear_in_the_evaluation() {
    let farm = Farm::new().await;
    // Layers of a hundred; each build needs three of the layer below.
    let graph = |first: usize, count: usize| -> Vec<NewBuild> {
        (0..count)
            .map(|index| {
                let below = |step: usize| first + index - 100 - (index * step) % 100 % (index % 100 + 1);
                let needs: Vec<usize> =
                    if index < 100 { Vec::new() } else { vec![below(0), below(7), below(31)] };
                package(first + index, &needs)
            })
            .collect()
    };
    let mut seconds = Vec::new();
    for (first, count) in [(100_000, 5_000), (200_000, 20_000)] {
        let builds = graph(first, count);
        let jobs = (0..count).map(|build| job(build, 9)).collect();
        let begun = Instant::now();
        let published = farm.publish(builds, jobs).await;
        assert_eq!((published.new, published.ready), (count, 100));
        seconds.push(begun.elapsed().as_secs_f64());
    }
    assert!(seconds[1] < 12.0 * seconds[0], "four times the builds took {seconds:?} seconds");
    // Again, with everything known and nothing to do.
    let jobs = (0..20_000).map(|build| job(build, 9)).collect();
    let published = farm.publish(graph(200_000, 20_000), jobs).await;
    assert_eq!((published.new, published.known, published.ready), (0, 20_000, 0));
}
