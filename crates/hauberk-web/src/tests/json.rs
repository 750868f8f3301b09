use serde_json::{Value, json};

use super::*;

const BASE: i64 = 1_577_836_800;

async fn check(farm: &Farm, path: &str, expected: Value) {
    let answer = farm.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    assert_eq!(answer.json(), expected, "{path}");
}

#[tokio::test]
async fn a_build_has_the_keys_of_cuirass() {
    let farm = Farm::new().await;
    let client = farm.database.client().await;
    let path = |build: i64| {
        let client = &client;
        async move {
            let statement = "select d.path, o.path from derivations d, outputs o
                              where d.build_id = $1 and o.build_id = $1 and o.name = 'out'";
            let row = client.query_one(statement, &[&build]).await.unwrap();
            (row.get::<_, String>(0), row.get::<_, String>(1))
        }
    };
    let (derivation, output) = path(2).await;
    let hello = json!({
        "id": 2, "evaluation": 1, "jobset": "demo", "job": "hello.x86_64-linux",
        "timestamp": BASE - 10483, "starttime": BASE - 175 * 60, "stoptime": BASE - 10483,
        "derivation": derivation, "buildoutputs": {"out": {"path": output}},
        "system": "x86_64-linux", "nixname": "hello-2.12.1", "buildstatus": 0, "weather": 0,
        "busy": 0, "priority": 20, "finished": 1, "buildproducts": [],
    });
    check(&farm, "/build/2", hello.clone()).await;
    let base = derivation.rsplit('/').next().unwrap();
    check(&farm, &format!("/build/{base}"), hello.clone()).await;
    let base = output.rsplit('/').next().unwrap();
    check(
        &farm,
        &format!("/output/{base}"),
        json!({"name": "out", "derivation": derivation, "build": hello}),
    )
    .await;

    let (derivation, output) = path(5).await;
    check(
        &farm,
        "/api/queue?nr=1",
        json!([{
            "id": 5, "evaluation": 2, "jobset": "demo", "job": "gcc.x86_64-linux",
            "timestamp": BASE - 38 * 60, "starttime": BASE - 12 * 60, "stoptime": 0,
            "derivation": derivation, "buildoutputs": {"out": {"path": output}},
            "system": "x86_64-linux", "nixname": "gcc-13.2.0", "buildstatus": -1, "weather": -1,
            "busy": 1, "priority": 20, "finished": 0, "buildproducts": [],
        }]),
    )
    .await;

    // Only a dependency: no evaluation, and its own name for a job.
    let dependency = farm.get("/build/11").await.json();
    assert_eq!(dependency["evaluation"], Value::Null);
    assert_eq!(dependency["job"], "vm-image-1");
    assert_eq!(dependency["jobset"], "broken <b>name</b>");
    assert_eq!(dependency["buildstatus"], -2);
}

#[tokio::test]
async fn lists_have_the_order_and_the_filters_of_cuirass() {
    let farm = Farm::new().await;
    let ids = |path: &'static str| {
        let farm = &farm;
        async move {
            let answer = farm.get(path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            let list = answer.json();
            list.as_array().unwrap().iter().map(|build| build["id"].as_i64().unwrap()).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids("/api/queue?nr=100").await, [5, 6, 7, 10, 9, 8, 11]);
    assert_eq!(ids("/api/queue?nr=3").await, [5, 6, 7]);
    assert_eq!(ids("/api/queue?nr=0").await, [0_i64; 0]);
    assert_eq!(ids("/api/latestbuilds?nr=3").await, [4, 3, 13]);
    assert_eq!(ids("/api/latestbuilds?nr=100&evaluation=1&status=0").await, [14, 2, 1]);
    assert_eq!(ids("/api/latestbuilds?nr=2&jobset=demo&system=x86_64-linux").await, [4, 3]);
    assert_eq!(ids("/api/latestbuilds?nr=10&jobset=demo&job=hello.x86_64-linux").await, [2]);
    assert_eq!(ids("/api/latestbuilds?nr=10&evaluation=2&job=timeout").await, [12]);
    assert_eq!(ids("/api/latestbuilds?nr=10&system=riscv64-linux").await, [0_i64; 0]);
    let of_two = farm.get("/api/latestbuilds?nr=100&evaluation=2").await.json();
    assert!(of_two.as_array().unwrap().iter().all(|build| build["evaluation"] == 2));
}

#[tokio::test]
async fn evaluations_jobs_and_jobsets_have_the_keys_of_cuirass() {
    let farm = Farm::new().await;
    let second = json!({
        "id": 2, "specification": "demo", "status": 0, "timestamp": BASE - 40 * 60,
        "checkouttime": BASE - 39 * 60, "evaltime": BASE - 38 * 60,
        "checkouts": [
            {"commit": "fedcba9876543210fedcba9876543210fedcba98", "channel": "main", "directory": "/checkouts/3"},
            {"commit": "89abcdef0123456789abcdef0123456789abcdef", "channel": "packages", "directory": "/checkouts/2"},
        ],
    });
    check(&farm, "/api/evaluation?id=2", second.clone()).await;
    check(&farm, "/api/evaluations?nr=1&spec=demo", json!([second])).await;
    check(&farm, "/api/evaluations?nr=10&spec=none", json!([])).await;
    assert_eq!(farm.get("/api/evaluations?nr=10").await.json()[0]["id"], 3);
    check(
        &farm,
        "/api/jobs?evaluation=2&names=timeout,zlib.x86_64-linux&system=x86_64-linux",
        json!([
            {"build": 12, "status": 1, "name": "timeout"},
            {"build": 1, "status": 0, "name": "zlib.x86_64-linux"},
        ]),
    )
    .await;
    let demo = json!({
        "name": "demo", "build": "custom",
        "channels": [
            {"name": "main", "url": "https://git.example.org/demo.git", "branch": "main",
             "commit": "fedcba9876543210fedcba9876543210fedcba98"},
            {"name": "packages", "url": "https://git.example.org/packages.git", "branch": "stable",
             "commit": "89abcdef0123456789abcdef0123456789abcdef"},
        ],
        "build-outputs": [], "notifications": [], "period": 300, "priority": 2,
        "systems": ["x86_64-linux", "aarch64-linux"],
    });
    let jobsets = farm.get("/jobsets").await.json();
    assert_eq!(jobsets.as_array().unwrap().len(), 2, "one is disabled");
    assert_eq!(jobsets[1], demo);
    assert_eq!(farm.get("/specifications").await.json(), jobsets);
}

#[tokio::test]
async fn errors_are_objects_with_the_codes_of_cuirass() {
    let farm = Farm::new().await;
    for (path, status, error) in [
        ("/build/99", 404, "Build with ID 99 doesn't exist."),
        ("/build/abc-none.drv", 404, "Build with ID abc-none.drv doesn't exist."),
        ("/output/abc-none", 404, "Output with ID abc-none doesn't exist."),
        ("/api/evaluation?id=99", 404, "Evaluation with ID 99 doesn't exist."),
        ("/api/evaluation", 500, "Parameter not defined"),
        ("/api/jobs?evaluation=x", 500, "Parameter not defined"),
        ("/api/queue", 500, "Parameter not defined!"),
        ("/api/queue?nr=-1", 500, "Parameter not defined!"),
        ("/api/queue?nr=1001", 500, "Maximum limit exceeded"),
        ("/api/latestbuilds?nr=99999999999999999999", 500, "Parameter not defined!"),
        ("/api/evaluations?nr=18446744073709551615", 500, "Maximum limit exceeded"),
        ("/api/nothing", 404, "Resource not found: /api/nothing"),
    ] {
        let answer = farm.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.json(), json!({"error": error}), "{path}");
    }
}
