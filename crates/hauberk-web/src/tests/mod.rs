//! The router against a real database with a small farm in it.

mod json;
mod logs;
mod operators;
mod pages;
mod products;

use std::io::Write;
use std::path::PathBuf;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use hauberk_database::testing::TestDatabase;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::changes::Changes;
use crate::log::LogDirectory;
use crate::operators::Operators;
use crate::product::ProductDirectory;
use crate::router;

const ROWS: &str = include_str!("farm.sql");
/// When everything happened: 1577836800.
const BASE: &str = "timestamptz '2020-01-01 00:00:00+00'";

/// A small farm: its database, its logs, and the router that shows them.
struct Farm {
    database: TestDatabase,
    cache: tempfile::TempDir,
    router: Router,
    stop: CancellationToken,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Farm {
    /// A farm with something of everything.
    async fn new() -> Self {
        let farm = Self::empty().await;
        farm.execute(&ROWS.replace("BASE", BASE)).await;
        farm
    }

    /// A farm without a row.
    async fn empty() -> Self {
        Self::operated_by(Operators::default()).await
    }

    /// A farm without a row, which these may operate.
    async fn operated_by(operators: Operators) -> Self {
        let database = TestDatabase::new().await;
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(cache.path().join("logs/00")).unwrap();
        let stop = CancellationToken::new();
        let changes = Changes::start(database.location(), stop.clone()).await.unwrap();
        let logs = LogDirectory::new(Some(cache.path()));
        let products = ProductDirectory::new(Some(cache.path()));
        let app = App::new(database.database().clone(), (logs, products), changes, stop.clone(), operators);
        Self { database, cache, router: router::router(app), stop }
    }

    async fn execute(&self, statements: &str) {
        self.database.client().await.batch_execute(statements).await.unwrap();
    }

    async fn request(&self, path: &str, headers: &[(&str, &str)]) -> axum::response::Response {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let (head, body) = self.request(path, headers).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// Gets a page that must be there.
    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8", "{path}");
        answer.text().to_owned()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.cache.path().join("logs/00").join(name)
    }

    /// Writes a log as a server does: one header, chunks that each end in a flush, and the end only if it is complete;
    /// dropping what it gives writes the end too.
    #[must_use]
    fn write_log(&self, name: &str, chunks: &[&[u8]], complete: bool) -> GzEncoder<std::fs::File> {
        let file = std::fs::File::create(self.log_path(name)).unwrap();
        let mut encoder = GzEncoder::new(file, Compression::fast());
        for chunk in chunks {
            encoder.write_all(chunk).unwrap();
            encoder.flush().unwrap();
        }
        if complete {
            encoder.try_finish().unwrap();
        }
        encoder
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
