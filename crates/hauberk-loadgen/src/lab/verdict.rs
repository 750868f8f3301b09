//! The checker: reads the tables after a run and proves that every build ended exactly once.

use anyhow::{Context, Result, bail};
use hauberk_database::Database;
use serde_json::{Map, Value};

/// Counts what is, and what must not be.
const QUERY: &str = "
select (select count(*) from builds) as builds,
       (select count(*) from builds where state = 'succeeded') as succeeded,
       (select count(*) from jobs) as jobs,
       (select count(*) from attempts) as attempts,
       (select count(*) from attempt_outputs) as attempt_outputs,
       (select count(*) from attempts where ended_at is null) as open_attempts,
       (select count(*) from attempts where class is distinct from 'succeeded') as other_attempts,
       (select count(*) from (select from attempts where class = 'succeeded' group by build_id having count(*) > 1) twice)
           as doubled_builds,
       (select count(*) from builds b
        where not exists (select from attempts a where a.id = b.attempt_id and a.build_id = b.id and a.class = 'succeeded'
                          and a.started_at is not null and a.built_at is not null and a.ended_at is not null))
           as undecided_builds,
       (select count(*) from attempt_outputs o join attempts a on a.id = o.attempt_id join outputs p on p.path = o.path
        where a.class = 'succeeded' and p.nar_hash is distinct from o.nar_hash) as differing_outputs,
       (select count(*) from outputs where nar_hash is null) as unknown_outputs";

/// What the tables show after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Builds recorded.
    pub(crate) builds: i64,
    /// Those of them that succeeded.
    pub(crate) succeeded: i64,
    jobs: i64,
    attempts: i64,
    attempt_outputs: i64,
    open_attempts: i64,
    /// Attempts that ended otherwise than in success.
    pub(crate) other_attempts: i64,
    /// Builds with more than one successful attempt.
    pub(crate) doubled_builds: i64,
    undecided_builds: i64,
    differing_outputs: i64,
    unknown_outputs: i64,
}

impl Verdict {
    /// Reads the tables.
    pub(crate) async fn read(database: &Database) -> Result<Self> {
        let row = database.client().await?.query_one(QUERY, &[]).await.context("checking the tables")?;
        Ok(Self {
            builds: row.get("builds"),
            succeeded: row.get("succeeded"),
            jobs: row.get("jobs"),
            attempts: row.get("attempts"),
            attempt_outputs: row.get("attempt_outputs"),
            open_attempts: row.get("open_attempts"),
            other_attempts: row.get("other_attempts"),
            doubled_builds: row.get("doubled_builds"),
            undecided_builds: row.get("undecided_builds"),
            differing_outputs: row.get("differing_outputs"),
            unknown_outputs: row.get("unknown_outputs"),
        })
    }

    /// Tells whether each of `expected` builds succeeded once, with every step recorded, and nothing is left open.
    pub(crate) fn is_whole(&self, expected: usize) -> bool {
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        let whole = Self {
            builds: expected,
            succeeded: expected,
            attempts: expected + self.other_attempts,
            jobs: self.jobs,
            attempt_outputs: self.attempt_outputs,
            other_attempts: self.other_attempts,
            ..Self::default()
        };
        *self == whole && self.attempt_outputs >= expected
    }

    /// Checks that at least `expected` builds succeeded, none of them twice, while others still wait or run.
    pub(crate) fn require_at_least(&self, expected: usize) -> Result<()> {
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        if self.succeeded >= expected && self.doubled_builds == 0 && self.differing_outputs == 0 {
            return Ok(());
        }
        bail!("the tables do not show {expected} builds that ended once: {self:?}")
    }

    /// Checks that each of `expected` builds succeeded with its first and only attempt.
    pub(crate) fn require_exactly_once(&self, expected: usize) -> Result<()> {
        if self.is_whole(expected) && self.other_attempts == 0 {
            return Ok(());
        }
        bail!("the tables do not show {expected} builds that each ended once: {self:?}")
    }

    /// Notes the row counts.
    pub(crate) fn note(&self, parameters: &mut Map<String, Value>) {
        for (name, count) in [
            ("rows_builds", self.builds),
            ("rows_jobs", self.jobs),
            ("rows_attempts", self.attempts),
            ("rows_attempt_outputs", self.attempt_outputs),
        ] {
            parameters.insert(name.to_owned(), count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_left_open_or_twice_is_seen() {
        let whole = Verdict {
            builds: 2,
            succeeded: 2,
            jobs: 2,
            attempts: 2,
            attempt_outputs: 2,
            ..Default::default()
        };
        whole.require_exactly_once(2).unwrap();
        let retried = Verdict { attempts: 3, other_attempts: 1, ..whole };
        assert!(retried.is_whole(2));
        for wrong in [
            retried,
            Verdict { succeeded: 1, ..whole },
            Verdict { attempts: 3, ..whole },
            Verdict { open_attempts: 1, ..whole },
            Verdict { doubled_builds: 1, ..whole },
            Verdict { undecided_builds: 1, ..whole },
            Verdict { differing_outputs: 1, ..whole },
            Verdict { unknown_outputs: 1, ..whole },
        ] {
            wrong.require_exactly_once(2).unwrap_err();
        }
        whole.require_exactly_once(3).unwrap_err();
    }
}
