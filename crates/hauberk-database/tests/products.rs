//! What specifications want of builds, what became of it, and what is kept.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use hauberk_database::listen::{Event, Listener, PRODUCTS};
use hauberk_database::pages::{self, LatestFilter};
use hauberk_database::products::{self, Decision, ProductRequest, TakenProduct};
use hauberk_database::registration::{self, NewBuild, NewJob, NewProduct, Registration};
use hauberk_database::retention::{self, AsOf, Keep};
use hauberk_database::specifications::{self, NewSpecification};
use hauberk_database::testing::TestDatabase;
use hauberk_database::{
    BuildId, Client, Level, ProductId, ServerId, SpecificationId, begin, commit, evaluations,
};
use hauberk_store::{OutputName, StorePath};
use serde_json::{Value, json};

const SERVER: ServerId = ServerId::new(1);

fn path(number: usize, name: &str) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-{name}")).unwrap()
}

fn build(number: usize) -> NewBuild {
    NewBuild {
        derivation: path(number, &format!("p{number}.drv")).try_into().unwrap(),
        name: format!("p{number}"),
        system: "x86_64-linux".into(),
        features: Vec::new(),
        timeout: 0,
        max_silent: 0,
        outputs: vec![(OutputName::OUT, path(number, &format!("p{number}")))],
        dependencies: Vec::new(),
    }
}

/// A server and specifications; builds succeed by themselves.
struct Farm {
    test: TestDatabase,
}

impl Farm {
    async fn new() -> Self {
        let test = TestDatabase::new().await;
        let servers = "insert into servers (name, host, backend_port, log_port, publish_url, version) values \
                       ('a', 'a', 1, 2, 'http://a', '1'), ('b', 'b', 1, 2, null, '1')";
        test.client().await.batch_execute(servers).await.unwrap();
        Self { test }
    }

    async fn specification(&self, name: &str, definition: Value) -> SpecificationId {
        let new = NewSpecification {
            name,
            definition: &definition,
            priority: Level::default(),
            shares: 100,
            enabled: true,
            public: true,
        };
        specifications::upsert(&self.test.client().await, new).await.unwrap()
    }

    /// Publishes an evaluation of these builds, each a job, that wants these paths of each.
    async fn publish(&self, specification: SpecificationId, numbers: &[usize], paths: &[&str]) {
        let mut client = self.test.client().await;
        let evaluation = evaluations::start(&client, specification, &[]).await.unwrap();
        let job = |(build, number): (usize, &usize)| NewJob {
            name: format!("job{number}"),
            build,
            priority: Level::default(),
        };
        let mut registration = Registration {
            builds: numbers.iter().map(|number| build(*number)).collect(),
            jobs: numbers.iter().enumerate().map(job).collect(),
            ..Registration::default()
        };
        for build in 0..numbers.len() {
            registration.products.extend(paths.iter().map(|path| NewProduct {
                build,
                output: "out".to_owned(),
                path: (*path).to_owned(),
                kind: "image".to_owned(),
            }));
        }
        registration::publish(&mut client, evaluation, &registration).await.unwrap();
    }

    async fn execute(&self, statements: &str) {
        self.test.client().await.batch_execute(statements).await.unwrap();
    }

    /// Lets all builds succeed, their outputs on the first server.
    async fn succeed(&self) {
        self.execute(
            "update builds set state = 'succeeded', finished_at = now() where status < 0;
             update outputs set server_id = 1, nar_hash = sha256('x'), nar_size = 1",
        )
        .await;
    }

    async fn due(&self, server: ServerId) -> Vec<ProductRequest> {
        products::due(&self.test.client().await, server, 100).await.unwrap()
    }

    async fn decide(&self, decisions: &[(&ProductRequest, Decision)]) {
        let mut client = self.test.client().await;
        let transaction = begin(&mut client).await.unwrap();
        products::decide(&transaction, SERVER, decisions).await.unwrap();
        commit(transaction).await.unwrap();
    }

    async fn states(&self) -> Vec<String> {
        let rows = self
            .test
            .client()
            .await
            .query("select state from product_requests order by specification_id, build_id, path", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn taken(name: &str, content: u8) -> Decision {
    let product = TakenProduct {
        path: format!("/nix/store/x/{name}"),
        name: name.to_owned(),
        directory: false,
        file_size: 7,
        sha256: [content; 32],
    };
    Decision::Taken { products: vec![product], message: None }
}

/// Tells whether it was notified that products are wanted, since it was asked last.
async fn heard(listener: &mut Listener, client: &Client) -> bool {
    client.batch_execute("notify the_end").await.unwrap();
    let mut heard = false;
    loop {
        match listener.next().await {
            Event::Notification { channel, .. } if channel == PRODUCTS => heard = true,
            Event::Notification { .. } => return heard,
            Event::Reconnected => {}
        }
    }
}

#[tokio::test]
async fn what_is_wanted_is_due_when_the_build_has_succeeded() {
    let farm = Farm::new().await;
    let mut listener = Listener::connect(farm.test.location(), &[PRODUCTS, "the_end"]).await.unwrap();
    let client = farm.test.client().await;
    let one = farm.specification("one", json!({})).await;
    farm.publish(one, &[1, 2], &["a", "b"]).await;
    assert!(heard(&mut listener, &client).await);
    assert!(products::any_wanted(&farm.test.client().await).await.unwrap());
    assert!(farm.due(SERVER).await.is_empty());
    farm.succeed().await;
    assert!(farm.due(ServerId::new(2)).await.is_empty(), "another server has the outputs");
    let due = farm.due(SERVER).await;
    assert_eq!(due.len(), 4);
    assert_eq!(due[0].output_path, Some(path(1, "p1")));

    farm.decide(&[
        (&due[0], taken("a", 1)),
        (&due[1], Decision::Missing("there is none".to_owned())),
        (&due[2], Decision::Refused("too large".to_owned())),
    ])
    .await;
    products::postpone(&client, &[due[3].id], 3600.0, "the disk is full").await.unwrap();
    assert!(farm.due(SERVER).await.is_empty(), "the last waits");
    assert_eq!(farm.states().await, ["taken", "missing", "refused", "wanted"]);
    let missing = pages::missing_products(&client, due[2].build, 10).await.unwrap();
    let told: Vec<_> = missing.iter().map(|one| (one.awaited, one.message.as_deref().unwrap())).collect();
    assert_eq!(told, [(false, "too large"), (true, "the disk is full")]);

    // Another evaluation looks again for what may be found now, and takes nothing twice.
    farm.publish(one, &[1], &["a", "b"]).await;
    assert!(!heard(&mut listener, &client).await);
    assert_eq!(farm.states().await, ["taken", "missing", "refused", "wanted"]);
    farm.execute("update builds set generation = 2 where name = 'p1'").await;
    farm.publish(one, &[1, 2], &["a", "b"]).await;
    assert_eq!(farm.states().await, ["taken", "wanted", "wanted", "wanted"]);
    // Whoever was slow to look changes nothing that was decided meanwhile.
    farm.decide(&[(&due[0], Decision::Missing("it is not".to_owned()))]).await;
    assert_eq!(farm.states().await[0], "taken");
    assert_eq!(pages::products(&client, &[due[0].build]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn specifications_want_the_same_file_each_for_itself() {
    let farm = Farm::new().await;
    let kept = json!({ "keep-evaluations": 1 });
    let (one, two) =
        (farm.specification("one", kept.clone()).await, farm.specification("two", kept.clone()).await);
    farm.publish(one, &[1], &["a"]).await;
    farm.publish(two, &[1], &["a", "c"]).await;
    farm.succeed().await;
    let due = farm.due(SERVER).await;
    let decisions: Vec<_> = due.iter().map(|request| (request, taken(&request.path, 1))).collect();
    farm.decide(&decisions).await;
    let client = farm.test.client().await;
    let build = due[0].build;
    let shown = pages::products(&client, &[build]).await.unwrap();
    assert_eq!(shown.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let placed = pages::product(&client, shown[0].id).await.unwrap().unwrap();
    assert_eq!((placed.server.as_str(), placed.publish_url.as_deref()), ("a", Some("http://a")));

    // The second goes on to something else: what it alone wanted goes, what the first wants stays.
    farm.publish(two, &[2], &["a"]).await;
    let all = retention::products(&client, &[SERVER]).await.unwrap();
    let mut keeps: Vec<_> = all.iter().map(|product| (product.name.as_str(), product.keep)).collect();
    keeps.sort_unstable();
    assert_eq!(keeps, [("a", Keep::No), ("a", Keep::Firmly), ("c", Keep::No)]);
    assert!(all.iter().all(|product| product.output == Some(path(1, "p1"))));
    let going: Vec<ProductId> =
        all.iter().filter(|product| product.keep == Keep::No).map(|product| product.id).collect();
    let as_of = AsOf::now(&client).await.unwrap();
    farm.publish(one, &[1], &["a"]).await;
    let mut client = farm.test.client().await;
    assert!(!retention::collect_products(&mut client, &[SERVER], as_of, &going).await.unwrap());
    let as_of = AsOf::now(&client).await.unwrap();
    assert!(retention::collect_products(&mut client, &[SERVER], as_of, &going).await.unwrap());
    // Of the first; of the second: both of the build it left, and one that is still to come.
    assert_eq!(farm.states().await, ["taken", "removed", "removed", "wanted"]);
    let named = retention::named_products(&client, &[SERVER], &[[1; 32], [2; 32]]).await.unwrap();
    assert_eq!(named.into_iter().collect::<Vec<_>>(), [[1; 32]]);
    // Wanted again, it is taken again.
    farm.publish(two, &[1], &["a"]).await;
    assert_eq!(farm.states().await, ["taken", "wanted", "removed", "wanted"]);
}

#[tokio::test]
async fn what_a_server_has_lost_is_wanted_again() {
    let farm = Farm::new().await;
    let one = farm.specification("one", json!({})).await;
    farm.publish(one, &[1, 2], &["a"]).await;
    farm.succeed().await;
    let due = farm.due(SERVER).await;
    farm.decide(&[(&due[0], taken("a", 1)), (&due[1], taken("b", 2))]).await;
    let client = farm.test.client().await;
    let mut held = products::held(&client, SERVER).await.unwrap();
    held.sort_unstable();
    assert_eq!(held, [[1; 32], [2; 32]]);
    assert_eq!(products::lost(&client, ServerId::new(2), &[[1; 32]]).await.unwrap(), 0);
    assert_eq!(products::lost(&client, SERVER, &[[1; 32], [9; 32]]).await.unwrap(), 1);
    assert_eq!(farm.states().await, ["wanted", "taken"]);
    assert_eq!(products::held(&client, SERVER).await.unwrap(), [[2; 32]]);
}

#[tokio::test]
async fn the_latest_is_that_of_the_newest_evaluation() {
    let farm = Farm::new().await;
    let (one, two) = (farm.specification("one", json!({})).await, farm.specification("two", json!({})).await);
    farm.publish(one, &[1], &["a"]).await;
    farm.publish(one, &[2], &["a"]).await;
    farm.publish(two, &[3], &["a"]).await;
    farm.succeed().await;
    let due = farm.due(SERVER).await;
    // The older build's product comes last.
    for request in due.iter().rev() {
        farm.decide(&[(request, taken("a", 1))]).await;
    }
    let client = farm.test.client().await;
    let latest = async |filter: LatestFilter| -> Option<BuildId> {
        let id = pages::latest_product(&client, "image", &filter).await.unwrap()?;
        Some(pages::product(&client, id).await.unwrap().unwrap().product.build)
    };
    let of = |name: &str| Some(name.to_owned());
    let none = LatestFilter::default;
    assert_eq!(latest(none()).await, Some(due[2].build));
    assert_eq!(latest(LatestFilter { specification: of("one"), ..none() }).await, Some(due[1].build));
    assert_eq!(latest(LatestFilter { name: of("p1"), ..none() }).await, Some(due[0].build));
    assert_eq!(latest(LatestFilter { name: of("job"), ..none() }).await, Some(due[2].build));
    assert_eq!(latest(LatestFilter { job: of("job1"), ..none() }).await, Some(due[0].build));
    assert_eq!(latest(LatestFilter { job: of("job"), ..none() }).await, None);
    assert_eq!(latest(LatestFilter { system: of("armv7l-linux"), ..none() }).await, None);
    assert_eq!(pages::latest_product(&client, "other", &none()).await.unwrap(), None);
}
