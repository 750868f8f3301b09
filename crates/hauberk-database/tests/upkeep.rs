//! The rules between rows: checked, mended, and swept in slices.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::Farm;
use hauberk_database::dispatch::{AttemptClass, Consequence};
use hauberk_database::upkeep::{self, Finding, Rule, Swept};

/// What is spoilt, the rules that it breaks, and how the builds stand when it is mended.
type Case = (&'static str, &'static [(Rule, usize)], [&'static str; 4]);

impl Farm {
    async fn spoil(&self, statement: &str) {
        self.client().await.batch_execute(statement).await.unwrap();
    }

    async fn broken(&self) -> Vec<(Rule, usize)> {
        let findings = upkeep::verify(&self.client().await).await.unwrap();
        findings.into_iter().map(|finding| (finding.rule, finding.rows.len())).collect()
    }

    /// Mends everything, rule by rule.
    async fn mend(&self) {
        for rule in Rule::ALL {
            let findings = upkeep::verify(&self.client().await).await.unwrap();
            if let Some(finding) = findings.iter().find(|finding| finding.rule == *rule) {
                upkeep::repair(&mut self.client().await, finding).await.unwrap();
            }
        }
    }

    async fn sweep(&self, after: i64, limit: i64) -> Swept {
        upkeep::sweep(&mut self.client().await, after, limit).await.unwrap()
    }
}

#[tokio::test]
async fn a_farm_at_work_breaks_no_rule() {
    let farm = Farm::with(&[&[], &[0], &[1], &[], &[3], &[]]).await;
    assert!(farm.broken().await.is_empty());
    farm.succeed(0).await;
    let claimed = farm.claim(3).await;
    farm.claim(5).await;
    assert!(farm.broken().await.is_empty());
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert!(farm.broken().await.is_empty());
    assert_eq!(farm.sweep(0, 100).await.mended, 0);
}

#[tokio::test]
async fn what_does_not_agree_is_found_and_mended() {
    const WAITING: [&str; 4] = ["ready", "waiting", "waiting", "ready"];
    const FAILED: [&str; 4] = ["failed", "failed_dependency", "failed_dependency", "ready"];
    let cases: &[Case] = &[
        ("update builds set unmet = 7 where state = 'waiting'", &[(Rule::Counts, 2)], WAITING),
        ("update builds set unmet = 0 where state = 'waiting'", &[(Rule::Counts, 2)], WAITING),
        ("update builds set state = 'ready' where state = 'waiting'", &[(Rule::Counts, 2)], WAITING),
        (
            "update builds set state = 'failed' where id = (select min(id) from builds)",
            &[(Rule::Counts, 1)],
            FAILED,
        ),
        (
            "update builds set state = 'canceled' where id = (select min(id) from builds)",
            &[(Rule::Counts, 1)],
            ["canceled", "canceled", "canceled", "ready"],
        ),
        (
            "update builds set state = 'failed_dependency', finished_at = now() where state = 'waiting'",
            &[(Rule::Reasons, 1)],
            WAITING,
        ),
        (
            "update builds set state = 'running', attempt_id = 99 where state = 'ready'",
            &[(Rule::Tried, 2)],
            WAITING,
        ),
        (
            "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch) \
             select b.id, b.derivation_id, 1, 1, 'first', (select max(id) from workers), 1, 1 \
             from builds b where state = 'ready'",
            &[(Rule::Attempts, 2)],
            WAITING,
        ),
    ];
    for (spoil, expected, states) in cases {
        let farm = Farm::with(&[&[], &[0], &[1], &[]]).await;
        farm.spoil(spoil).await;
        assert_eq!(farm.broken().await, *expected, "{spoil}");
        farm.mend().await;
        assert!(farm.broken().await.is_empty(), "{spoil}");
        assert_eq!(farm.states().await, *states, "{spoil}");
        farm.check().await;
    }
}

#[tokio::test]
async fn two_results_that_counted_are_told_and_left() {
    let farm = Farm::with(&[&[]]).await;
    farm.succeed(0).await;
    farm.spoil(
        "insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch, class, ended_at) \
         select build_id, derivation_id, generation, 2, 'retry', worker_id, session, epoch, class, ended_at from attempts",
    )
    .await;
    let found = upkeep::verify(&farm.client().await).await.unwrap();
    assert_eq!(found, [Finding { rule: Rule::Once, rows: vec![farm.build(0).await.get()] }]);
    farm.mend().await;
    assert_eq!(farm.broken().await, [(Rule::Once, 1)]);
}

#[tokio::test]
async fn the_sweep_goes_round_in_slices_and_wakes_what_waits_in_vain() {
    let farm = Farm::with(&[&[], &[0], &[0], &[0], &[0]]).await;
    farm.succeed(0).await;
    // As if four results had missed their dependents.
    farm.spoil("update builds set state = 'waiting', unmet = 1 where state = 'ready'").await;
    let first = farm.sweep(0, 3).await;
    assert_eq!((first.mended, first.ready.len(), first.last), (3, 3, farm.build(3).await.get()));
    let second = farm.sweep(first.last, 3).await;
    assert_eq!((second.mended, second.ready.len()), (1, 1));
    let third = farm.sweep(second.last, 3).await;
    assert_eq!((third.mended, third.last), (0, 0), "it begins again");
    assert_eq!(farm.states().await, ["succeeded", "ready", "ready", "ready", "ready"]);
    farm.check().await;
}
