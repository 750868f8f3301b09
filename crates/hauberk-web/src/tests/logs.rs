use std::time::Duration;

use super::*;

/// Reads events until one has `word` in it, and gives all of them.
async fn events_until(body: &mut Body, word: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(word) {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("the event comes");
    text
}

#[tokio::test]
async fn a_complete_log_is_shown_and_served_as_it_is() {
    let farm = Farm::new().await;
    drop(farm.write_log("2.gz", &[b"one <two>\n", b"\x1b[31mred\x1b[0m \xff\n"], true));
    for path in ["/build/2/log", "/attempt/2/log"] {
        let page = farm.page(path).await;
        assert!(
            page.contains(
                ">one &lt;two&gt;\n<span class=\"f1\">red</span> <span class=\"raw\">\\xff</span>\n</pre>"
            ),
            "{page}"
        );
        assert!(!page.contains("data-follow"));
    }
    let packed = farm.get_with("/build/2/log/raw", &[("accept-encoding", "br, gzip;q=0.5")]).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert_eq!(packed.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(packed.headers["content-security-policy"], "default-src 'none'; sandbox");
    assert_eq!(packed.body, std::fs::read(farm.log_path("2.gz")).unwrap());
    for headers in [&[][..], &[("accept-encoding", "gzip;q=0, br")]] {
        let plain = farm.get_with("/attempt/2/log/raw", headers).await;
        assert!(!plain.headers.contains_key("content-encoding"));
        assert_eq!(plain.body, &b"one <two>\n\x1b[31mred\x1b[0m \xff\n"[..]);
    }
}

#[tokio::test]
async fn each_attempt_has_its_log() {
    let farm = Farm::new().await;
    let _cut = farm.write_log("3.gz", &[b"first try\n"], false);
    drop(farm.write_log("4.gz", &[b"second try <script>alert(3)</script>\n"], true));
    let deciding = farm.page("/build/3/log").await;
    assert!(deciding.contains("second try &lt;script&gt;"));
    assert!(deciding.contains("<a href=\"/attempt/3/log\">1</a>"), "{deciding}");
    assert!(farm.page("/attempt/3/log").await.contains("first try\n"));
}

#[tokio::test]
async fn a_growing_log_is_followed_to_its_end() {
    let farm = Farm::new().await;
    let mut encoder = farm.write_log("5.gz", &[b"line 1\n"], false);
    let page = farm.page("/build/5/log").await;
    assert!(page.contains("data-follow=\"/attempt/5/log/events?offset=7\">line 1\n</pre>"), "{page}");
    assert_eq!(farm.get_with("/build/5/log/raw", &[("accept-encoding", "gzip")]).await.body, "line 1\n");

    let mut body = farm.request("/attempt/5/log/events?offset=7", &[]).await.into_body();
    encoder.write_all(b"line 2 <a>\n").unwrap();
    encoder.flush().unwrap();
    let text = events_until(&mut body, "line 2").await;
    assert_eq!(text, "id: 18\ndata: {\"html\":\"line 2 &lt;a&gt;\\n\"}\n\n");

    // A browser that comes back tells the last event it saw, and gets the rest only.
    drop(body);
    let headers = [("last-event-id", "18")];
    let mut body = farm.request("/attempt/5/log/events?offset=7", &headers).await.into_body();
    encoder.write_all(b"line 3\n").unwrap();
    encoder.try_finish().unwrap();
    let text = events_until(&mut body, "event: end").await;
    assert!(text.starts_with("id: 25\ndata: {\"html\":\"line 3\\n\"}\n\n"), "{text}");
    assert!(text.ends_with("event: end\ndata: {\"message\":\"end of the log\"}\n\n"), "{text}");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_log_that_is_not_there_yet_is_waited_for() {
    let farm = Farm::new().await;
    assert!(farm.page("/build/7/log").await.contains("/attempt/7/log/events?offset=0"));
    let mut body = farm.request("/attempt/7/log/events", &[]).await.into_body();
    let _growing = farm.write_log("7.gz", &[b"it began\n"], false);
    farm.execute("update attempts set log_path = '00/7.gz' where id = 7; notify hauberk_changed").await;
    events_until(&mut body, "it began").await;
    // Complete in the database, though the file has no end: what is there is all.
    farm.execute("update attempts set log_complete = true where id = 7; notify hauberk_changed").await;
    events_until(&mut body, "end of the log").await;
}

#[tokio::test]
async fn streams_end_when_the_process_does() {
    let farm = Farm::new().await;
    let _growing = farm.write_log("5.gz", &[b"line 1\n"], false);
    let mut body = farm.request("/attempt/5/log/events", &[]).await.into_body();
    events_until(&mut body, "line 1").await;
    farm.stop.cancel();
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_huge_log_does_not_become_a_huge_page() {
    let farm = Farm::new().await;
    let piece: Vec<u8> = (0..20_000).flat_map(|n| format!("this is line {n}\n").into_bytes()).collect();
    let chunks = vec![piece.as_slice(); 60];
    drop(farm.write_log("8.gz", &chunks, true));
    let page = farm.page("/build/12/log").await;
    assert!(page.len() < 700_000, "{}", page.len());
    assert!(page.contains("This is the end of a long log: 20."), "{}", &page[..2000]);
    assert!(page.contains("this is line 19999\n</pre>"));
    let raw = farm.get("/build/12/log/raw").await;
    assert_eq!(raw.body.len(), piece.len() * chunks.len());
}

#[tokio::test]
async fn a_log_that_cannot_be_shown_says_so() {
    let farm = Farm::new().await;
    std::fs::write(farm.log_path("2.gz"), b"<html>not gzip").unwrap();
    assert!(farm.page("/build/2/log").await.contains("Cannot show the log: the log file is damaged."));
    assert!(farm.page("/build/9/log").await.contains("No worker has tried this build yet"));
    assert!(farm.page("/build/12/log").await.contains("This attempt left no log."));
    assert_eq!(farm.get("/build/12/log/raw").await.status, StatusCode::NOT_FOUND);
    assert_eq!(farm.get("/build/99/log/raw").await.status, StatusCode::NOT_FOUND);
    assert_eq!(farm.get("/attempt/99/log/events").await.status, StatusCode::NOT_FOUND);
    farm.execute("update attempts set log_path = '../../../../etc/passwd' where id = 2").await;
    let outside = farm.get("/attempt/2/log/raw").await;
    assert_eq!(outside.status, StatusCode::NOT_FOUND);
    assert!(outside.text().contains("not inside the folder of logs"));
}

#[tokio::test]
async fn without_a_folder_the_page_says_where_the_log_is() {
    let farm = Farm::new().await;
    let changes = Changes::start(farm.database.location(), farm.stop.clone()).await.unwrap();
    let app = App::new(
        farm.database.database().clone(),
        (LogDirectory::new(None), ProductDirectory::new(None)),
        changes,
        farm.stop.clone(),
        Operators::default(),
    );
    let request = Request::get("/build/2/log").body(Body::empty()).unwrap();
    let body = router::router(app).oneshot(request).await.unwrap().into_body();
    let page = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(page.contains("started without `--cache`"), "{page}");
    assert!(page.contains("href=\"http://head.example.org:5557/log/"), "{page}");
}

#[tokio::test]
async fn a_log_that_was_removed_says_so() {
    let farm = Farm::new().await;
    farm.execute("update attempts set log_expired_at = '2024-02-03 12:00:00+00' where id = 2").await;
    let notice = "The log was removed on 2024-02-03: logs are kept for a limited time.";
    for path in ["/build/2/log", "/attempt/2/log"] {
        let page = farm.page(path).await;
        assert!(page.contains(notice) && !page.contains("data-follow"), "{page}");
    }
    let raw = farm.get("/attempt/2/log/raw").await;
    assert_eq!((raw.status, raw.text()), (StatusCode::GONE, format!("{notice}\n").as_str()));
}
