//! Every statement under `sql/` can be prepared against the newest schema, and is used.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::path::{Path, PathBuf};

use hauberk_database::testing::TestDatabase;

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

#[tokio::test]
async fn every_statement_is_sound_and_used() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql");
    let mut statements = Vec::new();
    files(&sql, "sql", &mut statements);
    statements.retain(|path| !path.starts_with(sql.join("migrations")));
    statements.sort();
    assert!(!statements.is_empty());

    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "rs", &mut sources);
    let sources: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();

    let test = TestDatabase::new().await;
    let client = test.client().await;
    let mut faults = Vec::new();
    for path in statements {
        let name = path.strip_prefix(&sql).unwrap().with_extension("").display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Err(error) = client.prepare(&text).await {
            faults.push(format!("sql/{name}.sql: {}", error.as_db_error().expect("PostgreSQL says why")));
        }
        if !sources.contains(&format!("\"{name}\"")) {
            faults.push(format!("sql/{name}.sql: nothing uses it"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
