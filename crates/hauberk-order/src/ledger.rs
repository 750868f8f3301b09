//! What each specification has used of the farm.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::{Id, Moment};

/// How the fair share remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LedgerPolicy {
    /// After this time, what was used counts half.
    pub half_life: Duration,
    /// How far one that had nothing to do is preferred afterwards: at most until it has caught up with this much of the
    /// time of all slots. Without a bound, whoever comes back after days would keep everybody else from the farm for hours.
    pub credit: Duration,
    /// What a build counts with at most from the moment it is given out, before it has run so long.
    pub grain: Duration,
}

impl Default for LedgerPolicy {
    /// Half counts after half a day; an hour's credit; a grain of a minute.
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(12 * 3600),
            credit: Duration::from_secs(3600),
            grain: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Default)]
struct Account {
    shares: f64,
    /// Slot-seconds of ended builds, as if each had been used at the origin: a later one weighs more, see [`Ledger::weight`].
    settled: f64,
    /// What it is held to have used, as it had nothing to do for long; likewise.
    forgiven: f64,
    /// What it has used elsewhere; likewise.
    elsewhere: f64,
    /// Expected seconds of the running builds that are within them.
    expected: f64,
    within: u64,
    /// Running builds that take longer than was expected, and the sum of when they began.
    overdue: u64,
    overdue_began: f64,
}

#[derive(Debug)]
struct Running<S> {
    specification: S,
    began: Moment,
    expected: Duration,
    overdue: bool,
}

/// What each specification has used of the farm, in slot-seconds.
///
/// A build that runs counts with what it is expected to take from the moment it is given out, up to the policy's grain, and with what it
/// has really taken as soon as that is more; when it ends, just what it took remains. So the slots of one moment are shared before
/// anything has run, and a wrong expectation costs nobody anything for long.
#[derive(Debug)]
pub struct Ledger<S: Id, B: Id> {
    policy: LedgerPolicy,
    accounts: HashMap<S, Account>,
    running: HashMap<B, Running<S>>,
    /// When running builds become overdue.
    due: BinaryHeap<Reverse<(Moment, B)>>,
    /// What `settled` refers to.
    origin: Moment,
}

/// A specification whose shares nobody told counts with so many.
const ORDINARY_SHARES: f64 = 100.0;
/// Half-lives after which amounts are brought to a new origin, long before they outgrow a float.
const REBASE: f64 = 256.0;

impl<S: Id, B: Id> Ledger<S, B> {
    /// Makes an empty one.
    pub fn new(policy: LedgerPolicy) -> Self {
        Self {
            policy,
            accounts: HashMap::new(),
            running: HashMap::new(),
            due: BinaryHeap::new(),
            origin: Moment::ZERO,
        }
    }

    /// Sets how many shares a specification has; it may use as much as its part of all shares.
    pub fn set_shares(&mut self, specification: S, shares: u32) {
        self.account(specification).shares = f64::from(shares.max(1));
    }

    /// Adds what a specification used before `now`, decayed to `now`.
    pub fn add_used(&mut self, specification: S, slot_seconds: f64, now: Moment) {
        let weight = self.weight(now);
        self.account(specification).settled += slot_seconds.max(0.0) * weight;
    }

    /// Sets what a specification has used of other slots than those of this ledger, decayed to `now`.
    pub fn set_elsewhere(&mut self, specification: S, slot_seconds: f64, now: Moment) {
        let weight = self.weight(now);
        self.account(specification).elsewhere = slot_seconds.max(0.0) * weight;
    }

    /// A build is given out on the turn of a specification.
    pub fn begin(&mut self, specification: S, build: B, expected: Duration, now: Moment) {
        self.cancel(build);
        let expected = expected.min(self.policy.grain);
        let account = self.account(specification);
        account.expected += expected.as_secs_f64();
        account.within += 1;
        self.running.insert(build, Running { specification, began: now, expected, overdue: false });
        self.due.push(Reverse((now + expected, build)));
    }

    /// Tells whether a build counts as running.
    pub fn is_running(&self, build: B) -> bool {
        self.running.contains_key(&build)
    }

    /// A build has ended, or its slot is free again for another reason.
    pub fn end(&mut self, build: B, now: Moment) {
        if let Some(running) = self.cancel(build) {
            let weight = self.weight(now);
            let used = now.saturating_sub(running.began).as_secs_f64();
            self.account(running.specification).settled += used * weight;
        }
    }

    /// A build was not given out after all; nothing is charged.
    pub fn forget(&mut self, build: B) {
        self.cancel(build);
    }

    /// Lets time pass: running builds become overdue. To be called before [`Self::burden`] with the same `now`.
    pub fn advance(&mut self, now: Moment) {
        while let Some(Reverse((due, build))) = self.due.peek().copied() {
            if due > now {
                break;
            }
            self.due.pop();
            let Some(running) = self.running.get_mut(&build) else { continue };
            // A build that was given out again is due at another time.
            if running.overdue || running.began + running.expected != due {
                continue;
            }
            running.overdue = true;
            let Some(account) = self.accounts.get_mut(&running.specification) else { continue };
            account.within -= 1;
            account.expected =
                if account.within == 0 { 0.0 } else { account.expected - running.expected.as_secs_f64() };
            account.overdue += 1;
            account.overdue_began += running.began.as_secs_f64();
        }
        let half_lives = now.saturating_sub(self.origin).as_secs_f64() / self.half_life();
        if half_lives > REBASE {
            let weight = self.weight(now);
            for account in self.accounts.values_mut() {
                account.settled /= weight;
                account.forgiven /= weight;
                account.elsewhere /= weight;
            }
            self.origin = now;
        }
    }

    /// What a specification has used for each of its shares: who has the smallest has the next turn.
    pub fn burden(&self, specification: S, now: Moment) -> f64 {
        self.accounts.get(&specification).map_or(0.0, |account| {
            let besides = (account.forgiven + account.elsewhere) / self.weight(now);
            (self.used(account, now) + besides) / account.shares
        })
    }

    /// The specifications that have used anything, or that something was told of.
    pub fn specifications(&self) -> impl Iterator<Item = S> {
        self.accounts.keys().copied()
    }

    /// Slot-seconds that a specification has used of this ledger's slots, decayed.
    pub fn used_by(&self, specification: S, now: Moment) -> f64 {
        self.accounts.get(&specification).map_or(0.0, |account| self.used(account, now))
    }

    /// A specification that had nothing to do has something to do again: it takes its place among the `others` that have, with at
    /// most the policy's credit. `slots` is how many the farm has.
    pub fn join(&mut self, specification: S, others: impl Iterator<Item = S>, slots: u64, now: Moment) {
        self.account(specification);
        let mut least: Option<f64> = None;
        let mut shares = 0.0;
        for other in others.filter(|other| *other != specification) {
            let burden = self.burden(other, now);
            least = Some(least.map_or(burden, |least| least.min(burden)));
            shares += self.accounts.get(&other).map_or(ORDINARY_SHARES, |account| account.shares);
        }
        let Some(least) = least else { return };
        let weight = self.weight(now);
        let own = self.account(specification).shares;
        // Slots are far fewer than a float holds exactly.
        let credit = self.policy.credit.as_secs_f64() * slots as f64 / (shares + own);
        let missing = (least - credit) - self.burden(specification, now);
        if missing > 0.0 {
            self.account(specification).forgiven += missing * own * weight;
        }
    }

    /// How much a slot-second of `now` weighs against one of the origin.
    fn weight(&self, now: Moment) -> f64 {
        (now.saturating_sub(self.origin).as_secs_f64() / self.half_life()).exp2()
    }

    fn half_life(&self) -> f64 {
        self.policy.half_life.as_secs_f64().max(1.0)
    }

    fn used(&self, account: &Account, now: Moment) -> f64 {
        let overdue = account.overdue as f64 * now.as_secs_f64() - account.overdue_began;
        account.settled / self.weight(now) + account.expected + overdue.max(0.0)
    }

    fn account(&mut self, specification: S) -> &mut Account {
        self.accounts
            .entry(specification)
            .or_insert_with(|| Account { shares: ORDINARY_SHARES, ..Account::default() })
    }

    fn cancel(&mut self, build: B) -> Option<Running<S>> {
        let running = self.running.remove(&build)?;
        if let Some(account) = self.accounts.get_mut(&running.specification) {
            if running.overdue {
                account.overdue -= 1;
                account.overdue_began -= running.began.as_secs_f64();
            } else {
                account.within -= 1;
                account.expected -= running.expected.as_secs_f64();
            }
            // Sums of floats do not come back to nothing by themselves.
            if account.within == 0 {
                account.expected = 0.0;
            }
            if account.overdue == 0 {
                account.overdue_began = 0.0;
            }
        }
        Some(running)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ledger() -> Ledger<char, u32> {
        Ledger::new(LedgerPolicy {
            half_life: seconds(1_000_000_000_000_000),
            credit: seconds(60),
            grain: seconds(1000),
        })
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() <= 1e-6 * (1.0 + left.abs().max(right.abs()))
    }

    #[test]
    fn a_running_build_counts_as_expected_then_as_it_runs_then_as_it_was() {
        let mut ledger = ledger();
        ledger.begin('a', 1, seconds(100), seconds(10));
        for (now, used) in [(10, 100.0), (50, 100.0), (110, 100.0), (200, 190.0)] {
            ledger.advance(seconds(now));
            assert!(close(ledger.used_by('a', seconds(now)), used), "at {now}");
        }
        ledger.end(1, seconds(210));
        assert!(close(ledger.used_by('a', seconds(210)), 200.0));
        ledger.begin('a', 2, seconds(100), seconds(210));
        ledger.end(2, seconds(220));
        assert!(close(ledger.used_by('a', seconds(220)), 210.0));
        ledger.begin('a', 3, seconds(100), seconds(220));
        ledger.forget(3);
        assert!(close(ledger.used_by('a', seconds(230)), 210.0));
        assert!(close(ledger.burden('a', seconds(230)), 2.1));
        ledger.set_shares('a', 300);
        assert!(close(ledger.burden('a', seconds(230)), 0.7));
    }

    #[test]
    fn what_was_used_long_ago_fades() {
        let mut ledger: Ledger<char, u32> =
            Ledger::new(LedgerPolicy { half_life: seconds(100), credit: seconds(60), grain: seconds(1000) });
        ledger.add_used('a', 800.0, seconds(0));
        assert!(close(ledger.used_by('a', seconds(300)), 100.0));
        // Far beyond what a power of two in a float can hold, step by step.
        for step in 1..2000 {
            ledger.advance(seconds(100 * step));
            ledger.add_used('b', 1.0, seconds(100 * step));
        }
        assert!(close(ledger.used_by('b', seconds(199_900)), 2.0));
        assert!(ledger.used_by('a', seconds(199_900)) < 1e-9);
    }

    #[test]
    fn who_comes_back_is_preferred_for_a_bounded_time() {
        let mut ledger = ledger();
        ledger.set_shares('a', 100);
        ledger.set_shares('b', 300);
        ledger.add_used('a', 1_000_000.0, seconds(0));
        ledger.join('b', ['a', 'b'].into_iter(), 8, seconds(0));
        // The credit is a minute of all eight slots, for each of 400 shares.
        let lead = ledger.burden('a', seconds(0)) - ledger.burden('b', seconds(0));
        assert!(close(lead, 60.0 * 8.0 / 400.0), "{lead}");
        // A second time changes nothing, and the one with more to its account gives nothing away.
        let burden = ledger.burden('a', seconds(0));
        ledger.join('b', ['a'].into_iter(), 8, seconds(0));
        ledger.join('a', ['b'].into_iter(), 8, seconds(0));
        assert!(close(ledger.burden('a', seconds(0)), burden));
        assert!(close(ledger.burden('a', seconds(0)) - ledger.burden('b', seconds(0)), lead));
    }

    proptest! {
        /// Whatever happens in whatever order, the sums stay those of the single builds.
        #[test]
        fn sums_agree_with_the_builds(
            events in prop::collection::vec((0u8..4, 0u32..6, 0u64..50, 0u64..20), 1..200)
        ) {
            let mut ledger = ledger();
            let mut settled = 0.0;
            let mut running: HashMap<u32, (u64, u64)> = HashMap::new();
            let mut now = 0;
            for (kind, build, expected, step) in events {
                now += step;
                ledger.advance(seconds(now));
                match kind {
                    0 | 1 => {
                        ledger.begin('a', build, seconds(expected), seconds(now));
                        running.insert(build, (now, expected));
                    }
                    2 => {
                        ledger.end(build, seconds(now));
                        if let Some((began, _)) = running.remove(&build) {
                            settled += (now - began) as f64;
                        }
                    }
                    _ => {
                        ledger.forget(build);
                        running.remove(&build);
                    }
                }
                ledger.advance(seconds(now));
                let charged: u64 =
                    running.values().map(|(began, expected)| (now - began).max(*expected)).sum();
                let used = ledger.used_by('a', seconds(now));
                prop_assert!((used - settled - charged as f64).abs() < 1e-3, "{used} {settled} {charged}");
            }
        }
    }
}
