//! What the demonstration shows of a build.

use anyhow::Result;
use hauberk_tests::Farm;

/// A build as the database has it at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) status: i16,
    pub(crate) priority: i16,
    /// The worker of its last attempt.
    pub(crate) worker: Option<String>,
    /// How its last attempt ended.
    pub(crate) class: Option<String>,
    /// Seconds from the attempt's start to the build's end, or to now.
    pub(crate) seconds: Option<f64>,
    pub(crate) attempts: i64,
    /// The build that failed in the first place.
    pub(crate) culprit: Option<String>,
}

impl Build {
    /// Reads all of them: the finished ones in that order, then the others.
    pub(crate) async fn all(farm: &Farm) -> Result<Vec<Self>> {
        let statement = "select b.id, b.name, b.state, b.status, b.priority, w.name, a.class, \
             extract(epoch from coalesce(a.built_at, a.ended_at, now()) - a.started_at)::float8, \
             (select count(*) from attempts where build_id = b.id), f.name \
             from builds b left join attempts a on a.id = b.attempt_id left join workers w on w.id = a.worker_id \
             left join builds f on f.id = b.failed_build_id where b.state <> 'staged' \
             order by b.finished_at nulls last, b.id";
        let rows = farm.query(statement, &[]).await?;
        Ok(rows
            .iter()
            .map(|row| Self {
                id: row.get(0),
                name: row.get(1),
                state: row.get(2),
                status: row.get(3),
                priority: row.get(4),
                worker: row.get(5),
                class: row.get(6),
                seconds: row.get(7),
                attempts: row.get(8),
                culprit: row.get(9),
            })
            .collect())
    }

    /// Says in words how it stands.
    pub(crate) fn result(&self) -> String {
        match (self.state.as_str(), self.class.as_deref(), &self.culprit) {
            ("failed_dependency", _, Some(culprit)) => format!("failed dependency ({culprit})"),
            ("failed" | "failed_other", Some("timed_out"), _) => "timed out".to_owned(),
            ("failed" | "failed_other", Some("silent"), _) => "silent too long".to_owned(),
            (state, _, _) => state.replace('_', " "),
        }
    }

    /// Gives who has or had it, or nothing.
    pub(crate) fn place(&self) -> &str {
        self.worker.as_deref().unwrap_or("")
    }
}
