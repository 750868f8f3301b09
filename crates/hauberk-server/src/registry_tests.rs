use std::net::IpAddr;

use hauberk_database::testing::TestDatabase;
use hauberk_database::workers::NewWorker;
use hauberk_protocol::PROTOCOL_VERSION;
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_protocol::proto::SigningKey;
use hauberk_store::signature::nix::SecretKey;

use super::*;

const EPOCH: Epoch = Epoch::new(7);

/// A registry with a database of its own.
struct Bench {
    test: TestDatabase,
    registry: Registry,
}

impl Bench {
    async fn new(secure: bool) -> Self {
        let test = TestDatabase::new().await;
        let database = test.database().clone();
        let key = SecretKey::generate("farm-1").unwrap().public_key().to_string();
        let directory: StoreDirectory = "/nix/store".parse().unwrap();
        let keys = vec![SigningKey { store_directory: directory.to_string(), key }];
        let welcome = Welcome { signing_keys: keys, ..Welcome::default() };
        let registry = Registry {
            desk: EnrolmentDesk::new(database.clone(), None),
            database,
            server: ServerId::new(1),
            epoch: EPOCH,
            welcomes: BTreeMap::from([(directory, welcome)]),
            secure,
            sources: Sources::default(),
            sessions: HashMap::new(),
        };
        Self { test, registry }
    }

    async fn execute(&self, statement: &str) {
        self.test.client().await.batch_execute(statement).await.unwrap();
    }

    async fn enrol(&self, name: &str, key: CurvePublicKey, signing_key: &str) {
        let public_key = key.to_string();
        let worker = NewWorker { name, public_key: &public_key, signing_key, enrolled_by: "test" };
        workers::add(&self.test.client().await, worker).await.unwrap();
    }

    /// Joins all of them in batches of this size, and tells what each was answered.
    async fn join(&mut self, joins: &[Join], size: usize) -> Vec<String> {
        let mut words = Vec::new();
        for batch in joins.chunks(size) {
            for answer in self.registry.join(batch.to_vec()).await {
                words.push(match answer {
                    Answer::Admitted(admitted, hello) => format!(
                        "{}: {} of {} joins, paused {}, from {:?}, to build for {:?}",
                        admitted.routing,
                        admitted.name,
                        hello.machine,
                        admitted.paused,
                        admitted.welcome.peer_address,
                        admitted.capabilities.systems
                    ),
                    Answer::Refused(routing, refused) => {
                        format!("{routing}: {:?}: {}", refused.reason(), refused.message)
                    }
                    Answer::Enrolled(routing, _) => format!("{routing}: enrolled"),
                });
            }
        }
        words
    }

    /// The rows, without moments.
    async fn rows(&self) -> Vec<String> {
        let mut rows = workers::list(&self.test.client().await).await.unwrap();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.iter()
            .map(|row| {
                format!(
                    "{} {:?} {:?} {:?} {} {:?}",
                    row.name,
                    row.public_key,
                    row.signing_key,
                    row.connected.as_ref().map(|connected| connected.epoch),
                    row.last_seen_at.is_some(),
                    row.description
                )
            })
            .collect()
    }
}

struct Crowd {
    signing_key: String,
    joins: Vec<Join>,
}

impl Crowd {
    fn new() -> Self {
        let signing_key = SecretKey::generate("w-1").unwrap().public_key().to_string();
        Self { signing_key, joins: Vec::new() }
    }

    fn add(&mut self, name: &str, user: Option<CurvePublicKey>, change: impl FnOnce(&mut Hello)) {
        let number = u32::try_from(self.joins.len()).unwrap();
        let mut hello = Box::new(Hello {
            protocol: PROTOCOL_VERSION,
            name: name.to_owned(),
            machine: format!("machine-{number}"),
            store_directory: "/nix/store".to_owned(),
            systems: vec!["x86_64-linux".to_owned(), "i686-linux".to_owned()],
            features: vec!["kvm".to_owned(), "a \"b\" \\ {c},d".to_owned()],
            slots: number + 1,
            signing_key: self.signing_key.clone(),
            ..Hello::default()
        });
        change(&mut hello);
        let peer_address = Some(IpAddr::from([10, 0, 0, 1]));
        self.joins.push(Join { routing: RoutingId::from_number(number), user, peer_address, hello });
    }
}

fn key() -> CurvePublicKey {
    *CurveKeyPair::generate().public()
}

#[tokio::test]
async fn many_joins_at_once_are_recorded_as_one_by_one() {
    let (mut together, mut alone) = (Bench::new(true).await, Bench::new(true).await);
    let mut crowd = Crowd::new();
    let keys: Vec<_> = (0..12).map(|_| key()).collect();
    for bench in [&together, &alone] {
        for (number, key) in keys.iter().enumerate() {
            bench.enrol(&format!("w-{number}"), *key, &crowd.signing_key).await;
        }
        bench.execute("update workers set revoked_at = now() where name = 'w-4'").await;
        bench.execute("update workers set allowed_systems = '{i686-linux}' where name = 'w-5'").await;
        bench.execute("update workers set allowed_systems = '{riscv64-linux}' where name = 'w-6'").await;
        bench.execute("update workers set paused = true where name = 'w-7'").await;
    }
    for (number, key) in keys.iter().take(9).enumerate() {
        crowd.add(&format!("w-{number}"), Some(*key), |_| {});
    }
    // The worker has connected anew; it says something else of itself by now.
    crowd.add("w-1", Some(keys[1]), |hello| hello.systems = vec!["aarch64-linux".to_owned()]);
    // A key that nobody knows, and one that is somebody else's.
    crowd.add("w-2", Some(key()), |_| {});
    crowd.add("w-3", Some(keys[9]), |_| {});
    crowd.add("w-10", Some(keys[10]), |hello| {
        hello.signing_key = SecretKey::generate("w-1").unwrap().public_key().to_string();
    });
    crowd.add("w-11", Some(keys[11]), |hello| hello.protocol = 0);
    crowd.add("w-11", Some(keys[11]), |hello| hello.machine = "m\0".to_owned());
    crowd.add("w-11", None, |_| {});

    let size = crowd.joins.len();
    let answers = together.join(&crowd.joins, size).await;
    assert_eq!(answers, alone.join(&crowd.joins, 1).await);
    assert_eq!(together.rows().await, alone.rows().await);
    let reasons: Vec<_> = answers.iter().filter(|answer| !answer.contains("joins")).collect();
    assert_eq!(answers.len() - reasons.len(), 8, "{answers:#?}");
    for (answer, expected) in reasons.iter().zip([
        "Revoked",
        "BadHello",
        "NotEnrolled",
        "NameTaken",
        "SigningKey",
        "Protocol",
        "BadHello",
        "NotEnrolled",
    ]) {
        assert!(answer.contains(expected), "{answer}: not {expected}");
    }
    let rows = workers::list(&together.test.client().await).await.unwrap();
    let twice = rows.iter().find(|row| row.name == "w-1").unwrap();
    assert_eq!(twice.description.systems, ["aarch64-linux"]);
    assert_eq!(twice.description.features, ["kvm", "a \"b\" \\ {c},d"]);
}

#[tokio::test]
async fn names_at_once_are_entered_as_one_by_one() {
    let (mut together, mut alone) = (Bench::new(false).await, Bench::new(false).await);
    let mut crowd = Crowd::new();
    let enrolled = key();
    for bench in [&together, &alone] {
        bench.enrol("enrolled", enrolled, &crowd.signing_key).await;
        bench.execute("insert into workers (name, revoked_at) values ('removed', now())").await;
        bench.execute("insert into workers (name) values ('known')").await;
    }
    for name in ["b", "a", "enrolled", "removed", "known", "a"] {
        crowd.add(name, None, |_| {});
    }
    // Another machine of the same name, which signs with another key.
    crowd.add("b", None, |hello| {
        hello.signing_key = SecretKey::generate("w-1").unwrap().public_key().to_string();
    });
    let size = crowd.joins.len();
    let answers = together.join(&crowd.joins, size).await;
    assert_eq!(answers, alone.join(&crowd.joins, 1).await);
    assert_eq!(together.rows().await, alone.rows().await);
    let joined: Vec<_> = answers.iter().map(|answer| answer.contains("joins")).collect();
    assert_eq!(joined, [true, true, false, false, true, true, false], "{answers:#?}");
}

#[tokio::test]
async fn one_that_the_database_refuses_does_not_hold_up_the_others() {
    let mut bench = Bench::new(false).await;
    bench
        .execute(
            "create function refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'not this one'; end $$; \
             create trigger refuse before update on workers for each row \
             when (new.name = 'bad') execute function refuse()",
        )
        .await;
    let mut crowd = Crowd::new();
    for name in ["good", "bad", "better"] {
        crowd.add(name, None, |_| {});
    }
    let answers = bench.join(&crowd.joins, 3).await;
    let joined: Vec<_> = answers.iter().map(|answer| answer.contains("joins")).collect();
    assert_eq!(joined, [true, false, true], "{answers:#?}");
}

#[tokio::test]
async fn the_end_of_an_older_session_changes_nothing() {
    let mut bench = Bench::new(false).await;
    let mut crowd = Crowd::new();
    crowd.add("w", None, |_| {});
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let answers = bench.registry.join(crowd.joins.clone()).await;
        let [Answer::Admitted(admitted, _)] = &answers[..] else { panic!("{answers:?}") };
        sessions.push((admitted.worker, admitted.session));
    }
    let mut loads = HashMap::new();
    for ((worker, session), connected) in sessions.into_iter().zip([true, false]) {
        bench.registry.take([Request::Left(worker, session)].into_iter(), &mut loads).await;
        let row = workers::list(&bench.test.client().await).await.unwrap().remove(0);
        assert_eq!(row.connected.is_some(), connected);
    }
}

#[tokio::test]
async fn a_thousand_join_in_one_transaction() {
    let mut bench = Bench::new(false).await;
    let mut crowd = Crowd::new();
    for number in 0..1000 {
        crowd.add(&format!("w-{number}"), None, |_| {});
    }
    let answers = bench.join(&crowd.joins, 1000).await;
    assert!(answers.iter().all(|answer| answer.contains("joins")));
    let client = bench.test.client().await;
    // The moment of a transaction is that of its beginning.
    let moments = "select count(distinct connected_at), count(*) from workers";
    let row = client.query_one(moments, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1000));
}
