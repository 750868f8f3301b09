use super::*;

/// Takes out what differs from run to run: addresses of assets, times that go on.
fn settled(page: &str) -> String {
    let main = &page[page.find("<main").unwrap()..page.find("</main>").unwrap()];
    let mut text = String::new();
    let mut rest = main;
    while let Some(at) = rest.find("<span class=\"since\"") {
        text.push_str(&rest[..at]);
        text.push_str("<span class=\"since\">…</span>");
        rest = &rest[at..][rest[at..].find("</span>").unwrap() + "</span>".len()..];
    }
    text.push_str(rest);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

const PAGES: [&str; 25] = [
    "/",
    "/jobset/demo",
    "/jobset/demo?before=2",
    "/jobset/broken%20%3Cb%3Ename%3C%2Fb%3E",
    "/jobset/idle",
    "/eval/2",
    "/eval/2?status=failed",
    "/eval/2?status=nonsense&query=hello",
    "/eval/3",
    "/build/1/details",
    "/build/2/details",
    "/build/3/details",
    "/build/4/details",
    "/build/5/details?all=dependents",
    "/build/9/details",
    "/build/11/details",
    "/build/2/log",
    "/build/9/log",
    "/attempt/3/log",
    "/queue",
    "/queue?state=ready",
    "/queue?after=25.1577800000000000.1",
    "/workers",
    "/machine/m-one",
    "/machine/m-two",
];

#[tokio::test]
async fn every_page_is_shown_and_nothing_of_it_is_script() {
    let farm = Farm::new().await;
    for path in PAGES {
        let page = farm.page(path).await;
        for bad in ["<script>alert", "<img src=x", "<b>name", "<i>worker", "style=", "onerror=alert(1)>\""] {
            assert!(!page.contains(bad), "{path} has {bad}:\n{page}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{path}");
    }
}

#[tokio::test]
async fn pages_look_as_they_did() {
    let farm = Farm::new().await;
    for (name, path) in [
        ("specifications", "/"),
        ("jobset", "/jobset/demo"),
        ("evaluation", "/eval/2"),
        ("failed_build", "/build/3/details"),
        ("succeeded_build", "/build/2/details"),
        ("failed_dependency", "/build/4/details"),
        ("running_build", "/build/5/details"),
        ("queue", "/queue"),
    ] {
        insta::assert_snapshot!(name, settled(&farm.page(path).await));
    }
}

#[tokio::test]
async fn an_empty_farm_says_what_to_do() {
    let farm = Farm::empty().await;
    assert!(farm.page("/").await.contains("hauberk register"));
    assert!(farm.page("/workers").await.contains("hauberk worker token"));
    assert!(farm.page("/queue").await.contains("Nothing is queued"));
}

#[tokio::test]
async fn what_is_not_there_is_said_in_words() {
    let farm = Farm::new().await;
    for (path, status, words) in [
        ("/build/99/details", 404, "Build with ID 99 doesn&#39;t exist."),
        ("/eval/99", 404, "Evaluation with ID 99 doesn&#39;t exist."),
        ("/jobset/none", 404, "There is no specification `none`."),
        ("/machine/none", 404, "No worker runs on a machine `none`."),
        ("/attempt/99/log", 404, "Attempt with ID 99"),
        ("/eval/latest?spec=idle", 404, "has succeeded yet"),
        ("/nothing/here", 404, "There is nothing at /nothing/here."),
        ("/build/x/details", 400, "is not the number of a build"),
        ("/build/99999999999999999999/details", 400, "is not the number of a build"),
        ("/eval/<script>", 400, "&#60;script&#62;"),
        ("/queue?after=1.2", 400, "is not a place in the queue"),
        ("/jobset/demo?before=x", 400, "is not the number of an evaluation"),
    ] {
        let answer = farm.get(&path.replace('<', "%3C").replace('>', "%3E")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let latest = farm.get("/eval/latest?spec=demo").await;
    assert_eq!((latest.status.as_u16(), &latest.headers["location"]), (303, &"/eval/2".parse().unwrap()));
}

#[tokio::test]
async fn a_build_says_why_it_is_not_running() {
    let farm = Farm::new().await;
    for (build, words) in [
        (4, "because <a href=\"/build/3/details\">xss-&#60;script&#62;"),
        (6, "the last time: publish server http://10.0.0.1:5558 answered 503"),
        (8, "It waits for 1 build that has not succeeded yet: gcc-13.2.0 (build 5, running)."),
        (9, "Nothing stands before it"),
        (
            10,
            "No connected worker builds for aarch64-linux in /nix/store, since 2019-12-31T00:00:00Z; not connected: cedar.",
        ),
        (
            11,
            "It will be tried again after 2020-01-01T00:10:00Z: 2 of its tries failed by the farm&#39;s fault",
        ),
        (13, "no space left on the build directory"),
    ] {
        let page = farm.page(&format!("/build/{build}/details")).await;
        assert!(page.contains(words), "{build}:\n{}", settled(&page));
    }
}

#[tokio::test]
async fn workers_show_a_row_for_each_slot() {
    let farm = Farm::new().await;
    let page = farm.page("/workers").await;
    assert_eq!(page.matches(">idle</td>").count(), 2, "{}", settled(&page));
    assert_eq!(page.matches(">paused</td>").count(), 2);
    assert_eq!(page.matches(">away</td>").count(), 2);
    assert!(page.contains("slots busy <b>2</b> of <b>6</b>"), "{}", settled(&page));
    assert!(page.contains("gcc-13.2.0") && page.contains("store free <b>200 GiB</b>"));
    farm.execute("update server_epochs set beat_at = now() - interval '1 hour'").await;
    assert!(farm.page("/workers").await.contains("its server is silent"));
    farm.execute("update server_epochs set ended_at = now()").await;
    assert!(farm.page("/workers").await.contains("workers connected <b>0</b> of <b>4</b>"));
}

#[tokio::test]
async fn lists_are_paged() {
    let farm = Farm::new().await;
    farm.execute(
        "insert into evaluations (specification_id, status) select 3, 0 from generate_series(1, 45);
         insert into builds (lane_id, derivation_id, name, system, state, priority)
         select 1, 1, 'many-' || n, 'x86_64-linux', 'ready', 50 from generate_series(1, 250) n;
         insert into jobs (evaluation_id, name, build_id, derivation_id)
         select 3, 'job-' || lpad(id::text, 5, '0'), id, 1 from builds where name like 'many-%'",
    )
    .await;
    for (start, rows, marker) in [
        ("/jobset/idle", 45, "<a href=\"/eval/"),
        ("/queue", 254, "<th scope=\"row\""),
        ("/queue?state=ready", 252, "<th scope=\"row\""),
        ("/eval/3", 250, "<th scope=\"row\" class=\"path\">"),
    ] {
        let (mut path, mut seen, mut pages) = (start.to_owned(), 0, 0);
        loop {
            let page = farm.page(&path).await;
            let table = &page[page.rfind("<tbody>").unwrap()..];
            seen += table.matches(marker).count();
            pages += 1;
            let Some(at) = page.find("\" rel=\"next\">") else { break };
            let before = &page[..at];
            let next = &before[before.rfind("href=\"").unwrap() + "href=\"".len()..];
            path = next.replace("&amp;", "&").replace("&#38;", "&");
            assert!(pages < 10, "{start} has no end: {path}");
        }
        assert_eq!((seen, pages > 1), (rows, true), "{start}");
    }
}

#[tokio::test]
async fn answers_are_protected() {
    let farm = Farm::new().await;
    let answer = farm.get("/").await;
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(farm.get("/health").await.text(), "ok\n");
    for name in [crate::assets::style(), crate::assets::script(), crate::assets::icon()] {
        assert!(answer.text().contains(name), "{name}");
        let asset = farm.get(&format!("/static/{name}")).await;
        assert_eq!(asset.status, StatusCode::OK);
        assert!(asset.headers["cache-control"].to_str().unwrap().contains("immutable"));
    }
    assert_eq!(farm.get("/static/style.css").await.status, StatusCode::NOT_FOUND);
    let packed = farm.get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn pages_come_back_when_the_database_does() {
    let farm = Farm::new().await;
    let name = farm.database.client().await.query_one("select current_database()", &[]).await.unwrap();
    let name: String = name.get(0);
    // Another database of the same cluster stands by to let connections in again.
    let other = TestDatabase::new().await;
    let operator = other.client().await;
    operator
        .batch_execute(&format!(
            "alter database {name} allow_connections false;
             select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{name}'"
        ))
        .await
        .unwrap();
    let away = farm.get("/queue").await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.text().contains("The database does not answer"), "{}", away.text());
    assert_eq!(farm.get("/api/queue?nr=1").await.json()["error"], "The database does not answer.");
    assert_eq!(farm.get("/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    operator.batch_execute(&format!("alter database {name} allow_connections true")).await.unwrap();
    farm.page("/queue").await;
}

#[tokio::test]
async fn a_page_that_is_looked_at_hears_of_changes() {
    let farm = Farm::new().await;
    let mut body = farm.request("/events", &[]).await.into_body();
    farm.execute("notify hauberk_changed, 'build:1'").await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, "event: changed\ndata: read again\n\n");
    farm.stop.cancel();
    assert!(body.frame().await.is_none());
}
