//! The tables at the end.

use std::{collections::BTreeMap, fmt::Write};

use crate::build::Build;

/// Gives every build, then the sums by result and by worker.
pub(crate) fn render(builds: &[Build]) -> String {
    let mut text = String::new();
    let width = builds.iter().map(|build| build.name.len()).max().unwrap_or(0).max("build".len());
    let result_width = builds.iter().map(|build| build.result().len()).max().unwrap_or(0).max("result".len());
    let _ =
        writeln!(text, "{:width$}  priority  {:result_width$}  {:12} seconds", "build", "result", "worker");
    for build in builds {
        let seconds = build.seconds.map_or_else(String::new, |seconds| format!("{seconds:7.1}"));
        let line = format!(
            "{:width$}  {:8}  {:result_width$}  {:12} {seconds}",
            build.name,
            build.priority,
            build.result(),
            build.place()
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let mut by_result: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_worker: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for build in builds {
        let result = build.result();
        let kind = result.split(" (").next().unwrap_or_default().to_owned();
        *by_result.entry(kind).or_default() += 1;
        if let Some(worker) = &build.worker {
            let sum = by_worker.entry(worker).or_default();
            sum.0 += 1;
            sum.1 += build.seconds.unwrap_or_default();
        }
    }
    let _ = writeln!(text, "\n{:24} builds", "result");
    for (result, count) in by_result {
        let _ = writeln!(text, "{result:24} {count:6}");
    }
    let _ = writeln!(text, "\n{:24} builds  seconds", "worker");
    for (worker, (count, seconds)) in by_worker {
        let _ = writeln!(text, "{worker:24} {count:6} {seconds:8.1}");
    }
    text
}
