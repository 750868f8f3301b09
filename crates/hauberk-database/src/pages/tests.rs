use serde_json::Value;

use super::*;
use crate::testing::TestDatabase;
use crate::{BuildId, BuildState, BuildStatus, Client, EvaluationId};

/// Fills the tables as a farm does in years, in small: `evaluations` evaluations of three specifications, every job of which is a
/// build of its own, a long queue, and a build that everything needs.
const FILL: &str = include_str!("fill.sql");

async fn filled() -> (TestDatabase, Client) {
    let farm = TestDatabase::new().await;
    let client = farm.client().await;
    client.batch_execute(FILL).await.unwrap();
    (farm, client)
}

/// Gives the plan of a statement as it is used again and again, with its parameters unknown.
async fn plan(client: &Client, text: &str) -> Value {
    // Cheap random reads stand for tables a hundred times larger, where a read from end to end costs that much more.
    let settings = "deallocate all; set plan_cache_mode = force_generic_plan; set random_page_cost = 1";
    client.batch_execute(settings).await.unwrap();
    let parameters = (1..).take_while(|number| text.contains(&format!("${number}"))).count();
    let text = text.trim_end().trim_end_matches(';');
    client.batch_execute(&format!("prepare it as {text}")).await.unwrap();
    let nulls = vec!["null"; parameters].join(", ");
    let call = if parameters == 0 { "it".to_owned() } else { format!("it({nulls})") };
    client.query_one(&format!("explain (format json) execute {call}"), &[]).await.unwrap().get(0)
}

/// Finds tables that grow with the farm's history and are read from end to end.
fn whole_reads(plan: &Value, found: &mut Vec<String>) {
    const GROWING: [&str; 7] =
        ["builds", "jobs", "outputs", "derivations", "build_dependencies", "attempts", "checkouts"];
    match plan {
        Value::Array(items) => items.iter().for_each(|item| whole_reads(item, found)),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            let unconditional = text("Node Type").is_some_and(|node| node == "Seq Scan")
                || (text("Node Type").is_some_and(|node| node.contains("Index"))
                    && text("Index Name").is_some_and(|index| index.ends_with("_pkey"))
                    && text("Index Cond").is_none());
            if unconditional && text("Relation Name").is_some_and(|name| GROWING.contains(&name)) {
                found.push(format!("{} on {}", text("Node Type").unwrap(), text("Relation Name").unwrap()));
            }
            fields.values().for_each(|value| whole_reads(value, found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn no_statement_reads_a_growing_table_from_end_to_end() {
    let (_farm, client) = filled().await;
    let mut checked = 0;
    let mut bad = String::new();
    let folders = ["pages", "listing", "operators"]
        .map(|folder| format!("{}/../../sql/{folder}", env!("CARGO_MANIFEST_DIR")));
    for file in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = file.unwrap().path();
        let plan = plan(&client, &std::fs::read_to_string(&path).unwrap()).await;
        let mut found = Vec::new();
        whole_reads(&plan, &mut found);
        if !found.is_empty() {
            bad.push_str(&format!("{}: {found:?}\n", path.display()));
        }
        checked += 1;
    }
    assert!(bad.is_empty(), "{bad}");
    assert!(checked > 25, "only {checked} statements found");
}

#[tokio::test]
async fn every_statement_reads_a_filled_farm() {
    let (_farm, client) = filled().await;

    let specifications = specifications(&client).await.unwrap();
    assert_eq!(specifications.len(), 3);
    let first = specification(&client, "spec1").await.unwrap().unwrap();
    let latest = first.latest.clone().unwrap();
    assert_eq!(latest.status, EvaluationStatus::Succeeded);
    assert_eq!(first.latest_succeeded, Some(latest.id));
    assert!(specification(&client, "absent").await.unwrap().is_none());

    let page = evaluations(&client, first.id, None, 5).await.unwrap();
    assert_eq!(page.len(), 5);
    assert_eq!(page[0].id, latest.id);
    let next = evaluations(&client, first.id, Some(page[4].id), 5).await.unwrap();
    assert!(next.iter().all(|evaluation| evaluation.id < page[4].id));
    assert_eq!(evaluations_of_all(&client, 7).await.unwrap().len(), 7);
    let (read, neighbours) = evaluation(&client, latest.id).await.unwrap().unwrap();
    assert_eq!((read.specification.as_str(), neighbours.next), ("spec1", None));
    assert_eq!(neighbours.previous, Some(page[1].id));
    let ids: Vec<EvaluationId> = page.iter().map(|evaluation| evaluation.id).collect();
    assert_eq!(checkouts(&client, &ids).await.unwrap().len(), 5);

    let counts = evaluation_counts(&client, &ids).await.unwrap();
    let jobs = evaluation_jobs(&client, latest.id, &JobFilter::default(), 1000).await.unwrap();
    assert_eq!(counts[&latest.id].total(), jobs.len() as u64);
    let failed = JobFilter { statuses: vec![BuildStatus::Failed], ..JobFilter::default() };
    let failed = evaluation_jobs(&client, latest.id, &failed, 1000).await.unwrap();
    assert_eq!(counts[&latest.id].failed, failed.len() as u64);
    let after = JobFilter { after: jobs[9].name.clone(), ..JobFilter::default() };
    assert_eq!(evaluation_jobs(&client, latest.id, &after, 1).await.unwrap()[0].name, jobs[10].name);
    let named = JobFilter { contains: Some(jobs[3].name.clone()), ..JobFilter::default() };
    assert_eq!(evaluation_jobs(&client, latest.id, &named, 10).await.unwrap()[0].name, jobs[3].name);
    let names = [jobs[0].name.clone(), jobs[1].name.clone()];
    let statuses = job_statuses(&client, latest.id, Some("x86_64-linux"), Some(&names)).await.unwrap();
    assert_eq!(statuses.len(), 2);

    let (errors, total) = job_errors(&client, latest.id, 2).await.unwrap();
    assert_eq!((errors.len(), total), (2, 3));

    let everyone_needs = BuildId::new(1);
    let counted = edge_counts(&client, everyone_needs).await.unwrap();
    assert_eq!(counted, EdgeCounts { dependencies: 0, dependents: 10_000 });
    assert_eq!(dependents(&client, everyone_needs, 20).await.unwrap().len(), 20);
    let needs = dependencies(&client, BuildId::new(2), 20).await.unwrap();
    assert_eq!(needs[0].id, everyone_needs);
    let one = build(&client, BuildId::new(2)).await.unwrap().unwrap();
    let base = one.derivation.clone().unwrap();
    let base = base.rsplit('/').next().unwrap();
    assert_eq!(build_of_derivation(&client, base).await.unwrap(), Some(one.line.id));
    assert!(build(&client, BuildId::new(i64::MAX)).await.unwrap().is_none());
    let path = outputs(&client, &[one.line.id]).await.unwrap().remove(0).path;
    let found = output(&client, path.rsplit('/').next().unwrap()).await.unwrap().unwrap();
    assert_eq!(found.build, one.line.id);
    assert!(!wanted_by(&client, one.line.id, 10).await.unwrap().is_empty());

    let tries = attempts(&client, one.line.id, 10).await.unwrap();
    let owner = attempt(&client, tries[0].id).await.unwrap().unwrap();
    assert_eq!(owner.attempt.build, one.line.id);
    let (_, of_log) = log_attempt(&client, one.line.id).await.unwrap().unwrap();
    assert_eq!(of_log, Some(tries[0].id));

    let counted = queue_counts(&client).await.unwrap();
    let active = queue_active(&client, 100).await.unwrap();
    assert_eq!(active.len() as i64, counted[&BuildState::Running]);
    let waiting = queue_waiting(&client, None, 50).await.unwrap();
    assert!(waiting.is_sorted_by_key(|build| (build.line.priority, build.line.created_at, build.line.id)));
    let last = &waiting[49].line;
    let after = WaitingPosition { urgency: last.urgency, created_at: last.created_at, id: last.id };
    let more = queue_waiting(&client, Some(after), 50).await.unwrap();
    assert!(more[0].line.priority >= last.priority && more[0].line.id != last.id);
    let mut ready = Vec::new();
    let mut position = None;
    loop {
        let page = queue_ready(&client, position, 400).await.unwrap();
        let Some((_, end)) = page.last() else { break };
        position = Some(*end);
        ready.extend(page.iter().map(|(build, _)| build.line.id));
    }
    assert_eq!(ready.len() as i64, counted[&BuildState::Ready]);
    let distinct: std::collections::HashSet<_> = ready.iter().collect();
    assert_eq!(distinct.len(), ready.len(), "a build is on two pages");
    assert!(crate::why::why(&client, ready[0]).await.unwrap().is_some());

    let queue = queued_builds(&client, 30).await.unwrap();
    let summaries = build_summaries(&client, &queue, None).await.unwrap();
    assert_eq!(summaries.iter().map(|build| build.id).collect::<Vec<_>>(), queue);
    assert_eq!(summaries[0].status, BuildStatus::Started);
    for filter in [
        FinishedFilter::default(),
        FinishedFilter { system: Some("x86_64-linux".to_owned()), ..FinishedFilter::default() },
        FinishedFilter { evaluation: Some(latest.id), ..FinishedFilter::default() },
        FinishedFilter { specification: Some("spec1".to_owned()), ..FinishedFilter::default() },
        FinishedFilter { job: Some(jobs[0].name.clone()), ..FinishedFilter::default() },
    ] {
        let finished = finished_builds(&client, &filter, 10).await.unwrap();
        assert!(!finished.is_empty(), "{filter:?}");
        let summaries = build_summaries(&client, &finished, filter.evaluation).await.unwrap();
        assert!(summaries.iter().all(|build| build.status >= BuildStatus::Succeeded));
        if filter.evaluation.is_some() {
            assert!(summaries.iter().all(|build| build.job.as_ref().unwrap().0 == latest.id));
        }
    }

    let farm = workers(&client, None).await.unwrap();
    assert_eq!(farm.len(), 8);
    assert!(farm.iter().any(|worker| worker.connected));
    assert_eq!(workers(&client, Some("m1")).await.unwrap().len(), 2);
    assert_eq!(open_attempts(&client, 1000).await.unwrap().len(), active.len());
    assert_eq!(worker_attempts(&client, &[farm[0].id], 25).await.unwrap().len(), 25);
}

#[tokio::test]
async fn every_statement_reads_an_empty_farm() {
    let farm = TestDatabase::new().await;
    let client = farm.client().await;
    assert!(specifications(&client).await.unwrap().is_empty());
    assert!(evaluations_of_all(&client, 10).await.unwrap().is_empty());
    assert!(evaluation(&client, EvaluationId::new(1)).await.unwrap().is_none());
    assert!(evaluation_counts(&client, &[EvaluationId::new(1)]).await.unwrap().is_empty());
    assert_eq!(job_errors(&client, EvaluationId::new(1), 10).await.unwrap().1, 0);
    assert!(queue_active(&client, 10).await.unwrap().is_empty());
    assert!(queue_waiting(&client, None, 10).await.unwrap().is_empty());
    assert!(queue_ready(&client, None, 10).await.unwrap().is_empty());
    assert!(queue_counts(&client).await.unwrap().is_empty());
    assert!(workers(&client, None).await.unwrap().is_empty());
    assert!(open_attempts(&client, 10).await.unwrap().is_empty());
    assert!(queued_builds(&client, 10).await.unwrap().is_empty());
    assert!(finished_builds(&client, &FinishedFilter::default(), 10).await.unwrap().is_empty());
    assert!(output(&client, "absent").await.unwrap().is_none());
    assert!(log_attempt(&client, BuildId::new(1)).await.unwrap().is_none());
}
