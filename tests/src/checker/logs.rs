//! Every log must be whole.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Result;
use flate2::read::GzDecoder;

use super::{Checker, Findings};
use crate::tables::Tables;

/// Attempts with what is known of their logs. Those that ended by their worker's word have all of it.
const LOGS: &str = "
select id, log_path, log_complete, coalesce(log_bytes, 0), class,
       built_at is not null or class in ('build_failed', 'timed_out', 'silent', 'log_limit', 'output_limit') as whole,
       (select name from servers v where v.id = log_server_id) as server
from attempts where ended_at is not null and log_path is not null";

impl Checker {
    pub(super) async fn check_logs(&mut self, tables: &Tables, findings: &mut Findings) -> Result<()> {
        for row in tables.query(LOGS, &[]).await? {
            let id: i64 = row.get(0);
            let path: String = row.get(1);
            let (complete, bytes): (bool, i64) = (row.get(2), row.get(3));
            let class: &str = row.get(4);
            let whole: bool = row.get(5);
            // A worker that was lost may still send what it had.
            if self.read_logs.contains(&id) {
                continue;
            }
            let what = |problem: &str| format!("attempt {id} ({class}): {problem}");
            let (cache, _) = self.place(row.get(6));
            let text = match read(&cache.join("logs").join(&path), complete) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound && bytes == 0 => continue,
                Err(error) => {
                    findings.push("a log cannot be read", what(&error.to_string()));
                    continue;
                }
            };
            if complete && bytes != i64::try_from(text.len()).unwrap_or(i64::MAX) {
                findings.push("a log is not as long as was recorded", what(&format!("{bytes} bytes")));
            }
            let Some(log_text) = self.log_text else { continue };
            let (expected, found) = (log_text(id), String::from_utf8_lossy(&text));
            let is_right =
                if whole && complete { found == expected.whole() } else { expected.begins_as(&found) };
            if is_right {
                if complete {
                    self.read_logs.insert(id);
                }
            } else {
                let tail: String =
                    found.chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
                findings.push("a log is not what the builder wrote", what(&format!("ends {tail:?}")));
            }
        }
        Ok(())
    }
}

/// Reads a log; one that is not complete gives what is there.
fn read(path: &Path, complete: bool) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut text = Vec::new();
    match GzDecoder::new(file).read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if !complete && error.kind() == io::ErrorKind::UnexpectedEof => Ok(text),
        Err(error) => Err(error),
    }
}
