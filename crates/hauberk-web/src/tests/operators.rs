//! Deeds: who may, what a request must bring, and that they are done.

use std::os::unix::fs::PermissionsExt;

use axum::http::Method;
use hauberk_protocol::EnrolmentToken;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::nix::SecretKey;

use super::*;
use crate::operators::{Peer, Tokens};

const TOKEN: &str = "anna0anna0anna0anna0";
const ORIGIN: (&str, &str) = ("origin", "http://farm.example.org");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Everything that a POST does, on the rows of the small farm.
const DEEDS: [&str; 19] = [
    "/logout",
    "/build/9/cancel",
    "/build/3/restart",
    "/build/9/priority",
    "/build/9/emergency",
    "/eval/2/cancel",
    "/eval/2/restart",
    "/eval/2/retry",
    "/eval/2/priority",
    "/eval/2/emergency",
    "/jobset/demo/evaluate",
    "/jobset/demo/cancel-superseded",
    "/workers/add",
    "/workers/token",
    "/token/1/revoke",
    "/worker/alder/pause",
    "/worker/alder/resume",
    "/worker/alder/drain",
    "/worker/alder/remove",
];

fn tokens() -> Tokens {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("anna {TOKEN}\n")).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    Tokens::read(file.path()).unwrap()
}

impl Farm {
    async fn with_operators() -> Self {
        let farm = Self::operated_by(Operators::default().with_tokens(tokens())).await;
        farm.execute(&ROWS.replace("BASE", BASE)).await;
        farm
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "farm.example.org");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(Method::POST, path, headers, body).await
    }

    /// Logs in: gives the cookie, and the secret that forms carry.
    async fn log_in(&self) -> (String, String) {
        let answer = self.post("/login", &[ORIGIN, FORM], &format!("token={TOKEN}")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains(TOKEN) && !cookie.contains("Secure"));
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let page = self.send(Method::GET, "/build/9/details", &[("cookie", &cookie)], "").await;
        let rest = page.text().split("name=\"csrf\" value=\"").nth(1).expect("the page has a form");
        (cookie, rest.split('"').next().unwrap().to_owned())
    }

    /// What operators' deeds change.
    async fn rows(&self) -> Vec<String> {
        let client = self.database.client().await;
        let rows = client
            .query(
                "select row(b.id, b.state, b.priority, b.generation, b.cancel_requested_at is null)::text from builds b
                 union all select row(w.name, w.paused, w.draining, w.revoked_at is null)::text from workers w
                 union all select row(e.id, e.canceled_at is null, e.retry_requested_at is null)::text from evaluations e
                 union all select row(who, action)::text from audit order by 1",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

#[tokio::test]
async fn nobody_operates_a_farm_unless_it_is_configured() {
    let farm = Farm::new().await;
    let before = farm.rows().await;
    for path in DEEDS {
        let answer = farm.post(path, &[ORIGIN, FORM], "csrf=x&sure=yes").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.text().contains("--operator-token-file"), "{path}");
    }
    assert_eq!(farm.post("/login", &[ORIGIN, FORM], "token=x").await.status, StatusCode::FORBIDDEN);
    for path in ["/build/9/details", "/eval/2", "/jobset/demo", "/workers", "/machine/m-one", "/queue"] {
        assert!(!farm.page(path).await.contains("method=\"post\""), "{path}");
    }
    assert_eq!(farm.rows().await, before);
}

#[tokio::test]
async fn requests_without_session_secret_or_origin_do_nothing() {
    let farm = Farm::with_operators().await;
    let (cookie, csrf) = farm.log_in().await;
    let cookie = ("cookie", cookie.as_str());
    let good = format!("csrf={csrf}&sure=yes&only=failed");
    let wrong = format!("csrf={}&sure=yes", csrf.replace(|character: char| character.is_ascii_digit(), "x"));
    let long = format!("csrf={csrf}&reason={}", "x".repeat(20_000));
    let before = farm.rows().await;
    for path in DEEDS {
        for (what, headers, body) in [
            ("a foreign page", vec![cookie, FORM, ("origin", "https://evil.example")], &good),
            ("a sandboxed page", vec![cookie, FORM, ("origin", "null")], &good),
            (
                "another site, by the browser",
                vec![cookie, FORM, ORIGIN, ("sec-fetch-site", "cross-site")],
                &good,
            ),
            ("a sister site", vec![cookie, FORM, ORIGIN, ("sec-fetch-site", "same-site")], &good),
            ("nowhere", vec![cookie, FORM], &good),
            ("a stranger", vec![FORM, ORIGIN], &good),
            (
                "a forged session",
                vec![("cookie", "hauberk_operator=anna:99999999999:0:00"), FORM, ORIGIN],
                &good,
            ),
            ("a page without the secret", vec![cookie, FORM, ORIGIN], &String::new()),
            ("a page with another secret", vec![cookie, FORM, ORIGIN], &wrong),
        ] {
            let answer = farm.post(path, &headers, body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} from {what}: {}", answer.text());
        }
        for headers in [vec![cookie, ORIGIN, ("content-type", "text/plain")], vec![cookie, ORIGIN]] {
            assert_eq!(farm.post(path, &headers, &good).await.status, StatusCode::BAD_REQUEST, "{path}");
        }
        assert_eq!(farm.post(path, &[cookie, FORM, ORIGIN], &long).await.status, StatusCode::BAD_REQUEST);
        // The secret in the address is worth nothing, and a GET does nothing.
        let address = format!("{path}?{good}");
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let answer = farm.send(method.clone(), &address, &[cookie, FORM, ORIGIN], &good).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        assert_eq!(farm.post(&address, &[cookie, FORM, ORIGIN], "").await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(farm.rows().await, before);
}

#[tokio::test]
async fn tokens_are_exchanged_for_sessions_and_nothing_else_is() {
    let farm = Farm::with_operators().await;
    for body in ["token=wrong", "token=", "", "token=anna"] {
        let answer = farm.post("/login", &[ORIGIN, FORM], body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{body}");
        assert!(!answer.headers.contains_key("set-cookie"));
        assert!(answer.text().contains("no token of an operator"), "{}", answer.text());
    }
    let body = format!("token={TOKEN}");
    let foreign = farm.post("/login", &[("origin", "https://evil.example"), FORM], &body).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let encrypted = [("origin", "https://farm.example.org"), FORM];
    let answer = farm.post("/login", &encrypted, &body).await;
    assert!(answer.headers["set-cookie"].to_str().unwrap().ends_with("; Secure"));
    let (cookie, csrf) = farm.log_in().await;
    let cookie = ("cookie", cookie.as_str());
    let page = farm.send(Method::GET, "/login", &[cookie], "").await;
    assert!(page.text().contains("anna (pages)"), "{}", page.text());
    assert_eq!(page.headers["cache-control"], "private, no-cache");
    let answer = farm.post("/logout", &[cookie, ORIGIN, FORM], &format!("csrf={csrf}")).await;
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn forms_do_what_they_say() {
    let farm = Farm::with_operators().await;
    let (cookie, csrf) = farm.log_in().await;
    let headers = [("cookie", cookie.as_str()), ORIGIN, FORM];
    let post = async |path: &str, rest: &str| farm.post(path, &headers, &format!("csrf={csrf}&{rest}")).await;
    let state = async |id: i64| -> String {
        let client = farm.database.client().await;
        client.query_one("select state from builds where id = $1", &[&id]).await.unwrap().get(0)
    };
    for (path, rest, place) in [
        ("/build/9/priority", "priority=7", "/build/9/details"),
        ("/build/9/emergency", "on=yes", "/build/9/details"),
        ("/build/9/cancel", "", "/build/9/details"),
        ("/build/12/restart", "", "/build/12/details"),
        ("/worker/birch/resume", "", "/machine/m-one"),
        ("/worker/alder/pause", "reason=%3Cb%3Ea+new+disk%3C%2Fb%3E", "/machine/m-one"),
        ("/worker/cedar/drain", "", "/machine/m-two"),
        ("/jobset/demo/evaluate", "", "/jobset/demo"),
        ("/eval/2/retry", "", "/jobset/demo"),
        ("/eval/2/restart", "only=failed", "/eval/2"),
        ("/eval/2/priority", "priority=11", "/eval/2"),
        ("/eval/2/emergency", "on=no", "/eval/2"),
    ] {
        let answer = post(path, rest).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}: {}", answer.text());
        assert_eq!(answer.headers["location"], place, "{path}");
    }
    assert_eq!(state(9).await, "canceled");
    assert_eq!(state(12).await, "ready");
    assert_eq!(state(3).await, "ready");
    assert_eq!(state(4).await, "waiting");
    let page = farm.page("/build/9/details").await;
    assert!(page.contains("canceled by <b>anna (pages)</b>"), "{page}");
    assert!(page.contains("given priority 7 by"), "{page}");
    assert!(farm.page("/build/3/details").await.contains("restarted, only what failed with evaluation 2 by"));
    let page = farm.page("/machine/m-one").await;
    assert!(page.contains("alder: paused (&#60;b&#62;a new disk&#60;/b&#62;) by"), "{page}");
    assert!(farm.page("/eval/2").await.contains("to be evaluated again, asked for by"));
    assert!(farm.page("/jobset/demo").await.contains("to be looked at, asked for by"));

    // What is heavy is asked back first.
    for (path, place) in
        [("/eval/2/cancel", "/eval/2"), ("/worker/new%20%3Ci%3Eworker%3C%2Fi%3E/remove", "/workers")]
    {
        let before = farm.rows().await;
        let answer = post(path, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let page = answer.text();
        assert!(page.contains("name=\"sure\" value=\"yes\"") && page.contains(&csrf), "{page}");
        assert!(page.contains(&format!("action=\"{path}\"")), "{page}");
        assert!(!page.contains("<i>worker"), "{page}");
        assert_eq!(farm.rows().await, before);
        let answer = post(path, "sure=yes").await;
        assert_eq!(
            (answer.status, &answer.headers["location"]),
            (StatusCode::SEE_OTHER, &place.parse().unwrap())
        );
    }
    assert_eq!(state(12).await, "canceled");
    assert!(farm.page("/build/12/details").await.contains("canceled with evaluation 2 by"));

    for (path, rest, status, words) in [
        ("/build/1/restart", "", 409, "Nothing was done"),
        ("/build/1/cancel", "", 409, "stays as it is"),
        ("/build/99/cancel", "", 404, "no such build"),
        ("/build/8/priority", "priority=100", 400, "0, the most urgent, to 99"),
        ("/build/8/priority", "priority=%3Cb%3E", 400, "&#60;b&#62;"),
        ("/build/x/cancel", "", 400, "not the number of a build"),
        ("/eval/99/cancel", "sure=yes", 404, "exist"),
        ("/eval/1/retry", "", 409, "not the newest of demo"),
        ("/eval/3/restart", "", 409, "gave no jobs"),
        ("/eval/2/restart", "only=other", 400, "neither"),
        ("/jobset/idle/evaluate", "", 409, "is disabled"),
        ("/jobset/none/evaluate", "", 404, "There is no specification"),
        ("/jobset/demo/cancel-superseded", "", 409, "No evaluation of demo is superseded"),
        ("/worker/none/pause", "", 404, "No worker named"),
    ] {
        let answer = post(path, rest).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {rest}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn new_machines_are_let_in_by_forms() {
    let farm = Farm::with_operators().await;
    let (cookie, csrf) = farm.log_in().await;
    let headers = [("cookie", cookie.as_str()), ORIGIN, FORM];
    let post = async |path: &str, fields: &[(&str, &str)]| {
        let mut body = form_urlencoded::Serializer::new(format!("csrf={csrf}"));
        body.extend_pairs(fields);
        farm.post(path, &headers, &body.finish()).await
    };
    let workers =
        async || farm.send(Method::GET, "/workers", &[("cookie", &cookie)], "").await.text().to_owned();

    // A token names the server's key.
    let refused = post("/workers/token", &[]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text());
    let key = CurveKeyPair::generate().public().to_string();
    let client = farm.database.client().await;
    client.execute("update servers set public_key = $1", &[&key]).await.unwrap();
    for (fields, words) in [
        ([("uses", "0"), ("hours", "1")], "not a number from 1"),
        ([("uses", "x"), ("hours", "1")], "not a number from 1"),
        ([("uses", "1"), ("hours", "99999")], "not a number from 1"),
        ([("uses", "2"), ("name", "anna")], "admits one machine"),
    ] {
        let refused = post("/workers/token", &fields).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{fields:?}");
        assert!(refused.text().contains(words), "{fields:?}: {}", refused.text());
    }
    let made = post("/workers/token", &[("name", "<b>linden</b>"), ("hours", "24"), ("uses", "")]).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
    let rest = made.text().split("<code>hauberk1-").nth(1).expect("the page shows the token");
    let token: EnrolmentToken = format!("hauberk1-{}", rest.split('<').next().unwrap()).parse().unwrap();
    assert_eq!(token.server().to_string(), key);
    let kept = "select digest, name, uses, round(extract(epoch from expires_at - created_at) / 3600)::int, created_by, id \
                from enrolment_tokens";
    let row = client.query_one(kept, &[]).await.unwrap();
    assert_eq!(row.get::<_, &[u8]>(0), token.digest());
    assert_eq!((row.get(1), row.get(2), row.get(3)), ("<b>linden</b>", 1, 24));
    assert_eq!(row.get::<_, &str>(4), "anna (pages)");
    let id: i64 = row.get(5);
    let page = workers().await;
    assert!(page.contains(&format!("action=\"/token/{id}/revoke\"")), "{page}");
    assert!(page.contains("&#60;b&#62;linden") && !page.contains("hauberk1-"), "{page}");
    assert!(!farm.page("/workers").await.contains("/revoke"), "visitors see no tokens");
    let path = format!("/token/{id}/revoke");
    assert_eq!(post(&path, &[]).await.status, StatusCode::SEE_OTHER);
    assert!(!workers().await.contains(&path));
    assert_eq!(post(&path, &[]).await.status, StatusCode::NOT_FOUND);

    // By keys.
    let curve = CurveKeyPair::generate().public().to_string();
    let signing = SecretKey::generate("rowan-1").unwrap().public_key().to_string();
    let add = async |name: &str, curve: &str, signing: &str| {
        post("/workers/add", &[("name", name), ("public_key", curve), ("signing_key", signing)]).await
    };
    assert_eq!(add("rowan", &curve, &signing).await.status, StatusCode::SEE_OTHER);
    assert!(workers().await.contains("rowan"));
    for (name, curve, signing, status) in [
        ("", curve.as_str(), signing.as_str(), StatusCode::BAD_REQUEST),
        ("elm", "junk", &signing, StatusCode::BAD_REQUEST),
        ("elm", &curve, "junk", StatusCode::BAD_REQUEST),
        ("elm", &curve, &signing, StatusCode::CONFLICT),
        ("rowan", &key, &signing, StatusCode::CONFLICT),
    ] {
        let answer = add(name, curve, signing).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    let audit = client.query("select action, subject from audit order by id", &[]).await.unwrap();
    let audit: Vec<(String, String)> = audit.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [
        ("token.make", id.to_string()),
        ("token.revoke", id.to_string()),
        ("worker.add", "rowan".to_owned()),
    ];
    assert_eq!(audit, expected.map(|(action, subject)| (action.to_owned(), subject)));
}

#[tokio::test]
async fn forms_are_on_the_pages_of_operators() {
    let farm = Farm::with_operators().await;
    let (cookie, csrf) = farm.log_in().await;
    for (path, actions) in [
        ("/build/9/details", vec!["/build/9/cancel", "/build/9/priority", "/build/9/emergency"]),
        ("/build/3/details", vec!["/build/3/restart"]),
        (
            "/eval/2",
            vec![
                "/eval/2/cancel",
                "/eval/2/restart",
                "/eval/2/priority",
                "/eval/2/emergency",
                "/eval/2/retry",
            ],
        ),
        ("/jobset/demo", vec!["/jobset/demo/evaluate", "/jobset/demo/cancel-superseded"]),
        (
            "/workers",
            vec![
                "/workers/token",
                "/workers/add",
                "/worker/alder/pause",
                "/worker/birch/resume",
                "/worker/new%20%3Ci%3Eworker%3C%2Fi%3E/remove",
            ],
        ),
        ("/machine/m-one", vec!["/worker/alder/drain"]),
        ("/queue", vec!["/build/9/cancel", "/build/9/emergency", "/build/5/cancel"]),
    ] {
        let page = farm.send(Method::GET, path, &[("cookie", &cookie)], "").await;
        let page = page.text();
        for action in actions {
            assert!(
                page.contains(&format!("method=\"post\" action=\"{action}\"")),
                "{path} has no {action}:\n{page}"
            );
        }
        assert_eq!(page.matches("method=\"post\"").count(), page.matches(&csrf).count(), "{path}");
        assert_eq!(page.matches("<script").count(), 1, "{path}");
    }
}

#[tokio::test]
async fn this_machine_is_known_by_its_connection_and_not_by_what_is_said() {
    let farm = Farm::operated_by(Operators::default().with_loopback().unwrap()).await;
    farm.execute(&ROWS.replace("BASE", BASE)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (served, remote) = listener.accept().unwrap();
    let peer = Peer { remote, local: served.local_addr().unwrap() };
    let elsewhere = Peer { remote: "192.0.2.7:4000".parse().unwrap(), ..peer };
    let page = async |peer: Option<Peer>, headers: &[(&str, &str)], version| {
        let mut request = Request::get("/build/9/details").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().extend(
            peer.map(|peer| {
                let mut extensions = axum::http::Extensions::new();
                extensions.insert(peer);
                extensions
            })
            .unwrap_or_default(),
        );
        let answer = farm.router.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap().contains("method=\"post\"")
    };
    use axum::http::Version;
    let host = ("host", "localhost:8080");
    assert!(page(Some(peer), &[host], Version::HTTP_11).await);
    assert!(!page(None, &[host], Version::HTTP_11).await);
    assert!(!page(Some(elsewhere), &[host], Version::HTTP_11).await);
    assert!(!page(Some(elsewhere), &[host, ("x-forwarded-for", "127.0.0.1")], Version::HTTP_11).await);
    assert!(!page(Some(peer), &[host], Version::HTTP_10).await);
    assert!(!page(Some(peer), &[("host", "rebound.evil.example:8080")], Version::HTTP_11).await);
    for name in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
        assert!(!page(Some(peer), &[host, (name, "127.0.0.1")], Version::HTTP_11).await, "{name}");
    }
}

#[tokio::test]
async fn only_so_many_pages_are_followed() {
    let farm = Farm::new().await;
    let mut streams = Vec::new();
    let refused = loop {
        let answer = farm.request("/events", &[]).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        streams.push(answer);
        assert!(streams.len() <= 256, "there is no bound");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "10");
    drop(streams.pop());
    assert_eq!(farm.request("/events", &[]).await.status(), StatusCode::OK);
}
