//! The committers: make the dispatcher's steps durable, as many at a time as have come together.
//!
//! One records claims and one what workers say, so that a free slot does not wait for results that nobody waits for, and one works while
//! the other waits for the disk. A claim is made when the steps before it are recorded, and those after it when it is granted, so the
//! steps of a build keep their order.
//! While one transaction is on its way to the disk, the next batch gathers. One of successes alone that make builds ready is committed
//! before it is on the disk: what became ready is claimed at once, and both get there together. A batch that failed because the database is away is
//! tried again until it is there; every step is guarded by attempt and epoch, so that a transaction whose end was not learned can be
//! repeated. A batch that the database refuses is taken apart, so that one bad step does not hold up the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::try_join;
use hauberk_database::dispatch::{self, AttemptClass, Claim, Effects};
use hauberk_database::{
    AttemptId, BatchTransaction, BuildId, Client, Database, DatabaseError, Epoch, GenericClient, ServerId,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{error, warn};

use crate::aftermath::Aftermath;
use crate::disk::Disk;
use crate::heart::Company;
use crate::metrics::Metrics;
use crate::step::{Committed, Op};

/// Steps in one transaction at most.
const BATCH: usize = 2000;
/// How long a result waits for its outputs, so that both are recorded together.
const LINGER: Duration = Duration::from_millis(2);
/// How long the word that builders have begun waits for anything else. Nothing follows on it, and a result that comes in the meantime
/// does not wait for the disk twice.
const BEGUN_LINGER: Duration = Duration::from_millis(10);
/// Pages are told that something changed at most so often.
const CHANGED_INTERVAL: Duration = Duration::from_millis(250);
/// How long what is committed may wait for a later transaction to take it to the disk.
const COMPANY: Duration = Duration::from_millis(10);
/// Pause before a transaction is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The ways to the committers.
pub(crate) struct Committers {
    claims: UnboundedSender<Op>,
    results: UnboundedSender<Op>,
}

impl Committers {
    /// Starts them. They end when this is dropped, and then the other thing completes.
    pub(crate) fn start(
        database: &Database,
        epoch: Epoch,
        server: ServerId,
        company: &Company,
        aftermath: &Aftermath,
        done: &UnboundedSender<Vec<Committed>>,
        metrics: &Metrics,
    ) -> (Self, JoinSet<()>) {
        let mut running = JoinSet::new();
        let disk = Disk::default();
        let mut way = || {
            let (way, ops) = unbounded_channel();
            let committer = Committer {
                database: database.clone(),
                epoch,
                server,
                metrics: metrics.clone(),
                disk: disk.clone(),
                company: company.clone(),
                aftermath: aftermath.clone(),
            };
            running.spawn(Arc::new(committer).run(ops, done.clone()));
            way
        };
        let ways = Self { claims: way(), results: way() };
        (ways, running)
    }

    /// Hands a step to its committer. False when that is gone.
    pub(crate) fn send(&self, op: Op) -> bool {
        match op {
            Op::Claim(_) => self.claims.send(op).is_ok(),
            Op::Start { .. } | Op::Built(_) | Op::Succeed(_) | Op::End(_) => self.results.send(op).is_ok(),
        }
    }
}

/// See the module's description.
struct Committer {
    /// Where the steps go.
    database: Database,
    /// The start of the server that makes them.
    epoch: Epoch,
    /// The server.
    server: ServerId,
    /// Counts what is recorded.
    metrics: Metrics,
    /// What all committers know to be on the disk.
    disk: Disk,
    /// Others may have taken attempts over.
    company: Company,
    /// Is told when failures have taken others along.
    aftermath: Aftermath,
}

/// A batch that is committed.
struct Recorded {
    done: Vec<Committed>,
    /// If it is not on the disk yet.
    soon: Option<Soon>,
}

/// What is not on the disk yet.
struct Soon {
    /// Its number.
    number: u64,
    /// The connection it was committed by. As long as that stands, PostgreSQL has not been started anew, and has lost nothing.
    client: Client,
}

impl Committer {
    /// Works until nobody sends steps any more.
    async fn run(self: Arc<Self>, mut ops: UnboundedReceiver<Op>, results: UnboundedSender<Vec<Committed>>) {
        let mut batch = Vec::new();
        let mut settling = JoinSet::new();
        let mut changed_at: Option<Instant> = None;
        loop {
            let due = async {
                match changed_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = ops.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    linger(&mut ops, &mut batch).await;
                    for batch in Batch::new(std::mem::take(&mut batch)).split_ends() {
                        let recorded = self.record(&batch, false).await;
                        if !self.tell(batch, recorded, &results, &mut settling) {
                            return;
                        }
                    }
                    changed_at.get_or_insert_with(|| Instant::now() + CHANGED_INTERVAL);
                }
                Some(_) = settling.join_next() => {}
                () = due => {
                    changed_at = None;
                    if let Err(error) = self.notify_changed().await {
                        warn!(error = &error as &dyn std::error::Error, "cannot tell the pages of a change");
                    }
                }
            }
        }
        while settling.join_next().await.is_some() {}
    }

    /// Tells what is recorded. Of a batch that is not on the disk yet, only what has become ready: whatever comes of that is not
    /// recorded sooner than the batch, and the rest follows once it is there. False when nobody listens any more.
    fn tell(
        self: &Arc<Self>,
        batch: Batch,
        recorded: Recorded,
        results: &UnboundedSender<Vec<Committed>>,
        settling: &mut JoinSet<()>,
    ) -> bool {
        let Recorded { done, soon } = recorded;
        let Some(soon) = soon else { return results.send(done).is_ok() };
        let (effects, rest) = done.into_iter().partition(|done| matches!(done, Committed::Effects(_)));
        let (committer, results) = (Arc::clone(self), results.clone());
        let told = results.send(effects).is_ok();
        settling.spawn(async move {
            // Nobody listens any more when the server is ending.
            let _ = results.send(committer.settle(&batch, rest, soon).await);
        });
        told
    }

    /// Waits until a batch is on the disk.
    async fn settle(&self, batch: &Batch, done: Vec<Committed>, soon: Soon) -> Vec<Committed> {
        let Soon { number, client } = soon;
        let there = if self.disk.wait(number, COMPANY).await {
            dispatch::stands(&client).await
        } else {
            let before = self.disk.committed();
            dispatch::flush(&client).await.inspect(|()| self.disk.reached(before))
        };
        drop(client);
        match there {
            Ok(()) => done,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    batch.size = batch.len(),
                    "cannot tell whether {} steps are on the disk, recording them again",
                    batch.len()
                );
                self.record(batch, true).await.done
            }
        }
    }

    async fn notify_changed(&self) -> Result<(), DatabaseError> {
        dispatch::notify_changed(&self.database.client().await?).await
    }

    /// Commits a batch. With `again`, it may have been committed before, and is on the disk when this returns.
    async fn record(&self, batch: &Batch, mut again: bool) -> Recorded {
        let counted = again;
        loop {
            let began = Instant::now();
            match self.attempt(batch, again).await {
                Ok(recorded) => {
                    if !counted {
                        self.count(batch, began);
                    }
                    return recorded;
                }
                Err(error) if error.is_transient() => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        batch.size = batch.len(),
                        "cannot record {} steps now, trying again",
                        batch.len()
                    );
                    again = true;
                    self.metrics.records.again();
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) if batch.len() == 1 => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "the database refuses a step for build {}; it is left out",
                        batch.builds.first().map_or(0, |build| build.get())
                    );
                    let done = batch.ops().filter_map(|op| refused(&op)).collect();
                    return Recorded { done, soon: None };
                }
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        batch.size = batch.len(),
                        "the database refuses a batch; its steps are tried one by one"
                    );
                    let mut done = Vec::new();
                    for op in batch.ops() {
                        if matches!(&op, Op::Succeed(fetched) if is_refused(&done, fetched.attempt)) {
                            continue;
                        }
                        let one = Batch::new(vec![op]);
                        let recorded = Box::pin(self.record(&one, false)).await;
                        done.extend(match recorded.soon {
                            Some(soon) => Box::pin(self.settle(&one, recorded.done, soon)).await,
                            None => recorded.done,
                        });
                    }
                    return Recorded { done, soon: None };
                }
            }
        }
    }

    fn count(&self, batch: &Batch, began: Instant) {
        self.metrics.records.recorded(batch.len(), began.elapsed());
        let succeeded = batch.finished.len() + batch.succeeded.len();
        self.metrics.dispatch.ended(AttemptClass::Succeeded, succeeded);
        for ended in &batch.ended {
            self.metrics.dispatch.ended(ended.class, 1);
        }
    }

    async fn attempt(&self, batch: &Batch, again: bool) -> Result<Recorded, DatabaseError> {
        let transaction = dispatch::batch(&self.database).await?;
        // The first statement of what is done travels with the begin.
        let begun = dispatch::begin_batch(&transaction, &batch.builds);
        let ((), done) = try_join!(begun, self.steps(&transaction, batch, again))?;
        // Something can begin that waited for this, and no message of it leaves before a later transaction is on the disk.
        let is_awaited = done.iter().any(|done| matches!(done, Committed::Effects(e) if !e.ready.is_empty()));
        if is_awaited && batch.is_final() && !again {
            let client = transaction.commit_soon().await?;
            return Ok(Recorded { done, soon: Some(Soon { number: self.disk.commit(), client }) });
        }
        let before = self.disk.committed();
        drop(transaction.commit().await?);
        self.disk.reached(before);
        if done.iter().any(|done| matches!(done, Committed::Effects(e) if e.noted)) {
            self.aftermath.tell();
        }
        Ok(Recorded { done, soon: None })
    }

    /// Does what is to be recorded, in a transaction; gives what is done when that is committed.
    async fn steps(
        &self,
        transaction: &BatchTransaction,
        batch: &Batch,
        again: bool,
    ) -> Result<Vec<Committed>, DatabaseError> {
        let transaction: &Client = transaction;
        let mut done = Vec::with_capacity(batch.len());
        if !batch.claims.is_empty() {
            let granted = dispatch::claim(transaction, &batch.claims, self.epoch, self.server, again).await?;
            let taken: HashSet<BuildId> = granted.iter().map(|claimed| claimed.build).collect();
            done.extend(granted.into_iter().map(|claimed| Committed::Granted(Box::new(claimed))));
            let refused = batch.claims.iter().filter(|claim| !taken.contains(&claim.build));
            done.extend(refused.map(|claim| Committed::NotGranted(*claim)));
            self.metrics.dispatch.claimed(taken.len(), batch.claims.len().saturating_sub(taken.len()));
        }
        if !batch.started.is_empty() {
            dispatch::start(transaction, &batch.started, self.epoch).await?;
        }
        if !batch.built.is_empty() {
            dispatch::built(transaction, &batch.built, self.epoch).await?;
            done.extend(batch.built.iter().map(|built| Committed::Built(built.attempt)));
        }
        if !batch.ended.is_empty() {
            let effects = dispatch::end(transaction, &batch.ended, self.epoch).await?;
            done.extend(batch.ended.iter().map(|ended| Committed::Ended(ended.attempt)));
            push_effects(&mut done, effects);
        }
        if !batch.finished.is_empty() || !batch.succeeded.is_empty() {
            let (finished, succeeded) = (&batch.finished, &batch.succeeded);
            let effects = dispatch::finish(transaction, finished, succeeded, self.epoch, self.server).await?;
            for (built, fetched) in finished {
                done.push(Committed::Built(built.attempt));
                done.push(Committed::Succeeded(fetched.attempt));
            }
            done.extend(succeeded.iter().map(|fetched| Committed::Succeeded(fetched.attempt)));
            push_effects(&mut done, effects);
        }
        if self.company.is_there() {
            self.mark_moved(transaction, &mut done).await?;
        }
        Ok(done)
    }

    /// Corrects what was said of attempts that another server has taken over: no statement has touched them.
    async fn mark_moved(
        &self,
        client: &impl GenericClient,
        done: &mut [Committed],
    ) -> Result<(), DatabaseError> {
        let about = |committed: &Committed| match committed {
            Committed::Built(id) | Committed::Succeeded(id) | Committed::Ended(id) => Some(*id),
            _ => None,
        };
        let ids: Vec<_> = done.iter().filter_map(about).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let moved = dispatch::moved(client, &ids, self.epoch).await?;
        for committed in done {
            if let Some(id) = about(committed).filter(|id| moved.contains(id)) {
                *committed = Committed::Moved(id);
            }
        }
        Ok(())
    }
}

/// Waits a moment if nothing is to be recorded but the word of workers: where their outputs are there soon, both are one record, and
/// nobody waits for the first alone.
async fn linger(ops: &mut UnboundedReceiver<Op>, batch: &mut Vec<Op>) {
    let mut deadline = Instant::now() + BEGUN_LINGER;
    let mut looked = 0;
    loop {
        for op in &batch[looked..] {
            match op {
                Op::Start { .. } => {}
                Op::Built(_) => deadline = deadline.min(Instant::now() + LINGER),
                Op::Claim(_) | Op::Succeed(_) | Op::End(_) => return,
            }
        }
        looked = batch.len();
        match timeout_at(deadline, ops.recv_many(batch, BATCH)).await {
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// What the dispatcher is told of a step that the database refuses for good. Nothing waits for a start, and an end holds nothing that a
/// worker has worded.
fn refused(op: &Op) -> Option<Committed> {
    match op {
        Op::Claim(claim) => Some(Committed::NotGranted(*claim)),
        Op::Built(built) => Some(Committed::Refused(built.attempt)),
        Op::Succeed(fetched) => Some(Committed::Refused(fetched.attempt)),
        Op::Start { .. } | Op::End(_) => None,
    }
}

/// Whether the word that an attempt succeeded was refused: then its success is not recorded either.
fn is_refused(done: &[Committed], attempt: AttemptId) -> bool {
    done.iter().any(|done| matches!(done, Committed::Refused(refused) if *refused == attempt))
}

fn push_effects(done: &mut Vec<Committed>, effects: Effects) {
    if !effects.ready.is_empty() || effects.deferred || effects.noted {
        done.push(Committed::Effects(effects));
    }
}

/// Steps sorted by what they do, in the order in which a transaction does it: an attempt that starts and ends in the
/// same batch starts before it ends. One that starts and succeeds in it needs no start of its own: the record of the success
/// gives it the same times. Neither does one that is built and succeeds in it need two records.
#[derive(Default)]
struct Batch {
    /// All builds that are touched directly.
    builds: Vec<BuildId>,
    claims: Vec<Claim>,
    started: Vec<(AttemptId, i64)>,
    built: Vec<dispatch::Built>,
    finished: Vec<(dispatch::Built, dispatch::Fetched)>,
    ended: Vec<dispatch::Ended>,
    succeeded: Vec<dispatch::Fetched>,
    /// The builds of `started`, in its order.
    started_builds: Vec<BuildId>,
}

impl Batch {
    fn new(mut ops: Vec<Op>) -> Self {
        // Neighbours share pages of tables and indexes. What is of the same build stays in its order.
        ops.sort_by_key(Op::build);
        let mut batch = Self { builds: ops.iter().map(Op::build).collect(), ..Self::default() };
        batch.builds.dedup();
        for op in ops {
            match op {
                Op::Claim(claim) => batch.claims.push(claim),
                Op::Start { attempt, build, inputs_ms } => {
                    batch.started.push((attempt, inputs_ms));
                    batch.started_builds.push(build);
                }
                Op::Built(built) => batch.built.push(built),
                Op::End(ended) => batch.ended.push(ended),
                Op::Succeed(fetched) => batch.succeeded.push(fetched),
            }
        }
        batch.leave_out_starts();
        batch.join_successes();
        batch
    }

    /// Takes the ends without success out, if there are successes too: both go on to builds that depend on theirs, and two
    /// transactions that do so twice each could wait for each other in a circle.
    fn split_ends(mut self) -> Vec<Self> {
        if self.ended.is_empty() || (self.finished.is_empty() && self.succeeded.is_empty()) {
            return vec![self];
        }
        let ended = std::mem::take(&mut self.ended);
        let mut builds: Vec<_> = ended.iter().map(|ended| ended.build).collect();
        builds.sort_unstable();
        builds.dedup();
        vec![self, Self { builds, ended, ..Self::default() }]
    }

    fn join_successes(&mut self) {
        if self.built.is_empty() || self.succeeded.is_empty() {
            return;
        }
        let mut built: HashMap<_, _> = self.built.drain(..).map(|built| (built.attempt, built)).collect();
        for fetched in std::mem::take(&mut self.succeeded) {
            match built.remove(&fetched.attempt) {
                Some(built) => self.finished.push((built, fetched)),
                None => self.succeeded.push(fetched),
            }
        }
        self.built.extend(built.into_values());
    }

    fn leave_out_starts(&mut self) {
        let built: HashSet<AttemptId> = self.built.iter().map(|built| built.attempt).collect();
        if built.is_empty() {
            return;
        }
        let starts = std::mem::take(&mut self.started).into_iter();
        let starts = starts.zip(std::mem::take(&mut self.started_builds));
        (self.started, self.started_builds) = starts.filter(|((id, _), _)| !built.contains(id)).unzip();
    }

    /// Whether no later step follows on any of these before they are told to be done. What follows on others (a success on the worker's word,
    /// for one) is sent before those are, and would overtake them where PostgreSQL has lost them and they are recorded again.
    fn is_final(&self) -> bool {
        self.claims.is_empty() && self.started.is_empty() && self.built.is_empty() && self.ended.is_empty()
    }

    fn len(&self) -> usize {
        self.claims.len()
            + self.started.len()
            + self.built.len()
            + 2 * self.finished.len()
            + self.ended.len()
            + self.succeeded.len()
    }

    fn ops(&self) -> impl Iterator<Item = Op> {
        let claims = self.claims.iter().copied().map(Op::Claim);
        let started = self
            .started
            .iter()
            .zip(&self.started_builds)
            .map(|(&(attempt, inputs_ms), &build)| Op::Start { attempt, build, inputs_ms });
        let built = self.built.iter().cloned().map(Op::Built);
        let ended = self.ended.iter().cloned().map(Op::End);
        let succeeded = self.succeeded.iter().cloned().map(Op::Succeed);
        let finished = self
            .finished
            .iter()
            .cloned()
            .flat_map(|(built, fetched)| [Op::Built(built), Op::Succeed(fetched)]);
        claims.chain(started).chain(built).chain(finished).chain(ended).chain(succeeded)
    }
}

#[cfg(test)]
mod tests {
    use hauberk_database::dispatch::{AttemptOrigin, Measures};

    use super::*;

    fn built(number: i64) -> Op {
        Op::Built(dispatch::Built {
            attempt: AttemptId::new(number),
            build: BuildId::new(number),
            origin: AttemptOrigin::Built,
            outputs: Vec::new(),
            measures: Measures::default(),
        })
    }

    fn succeed(number: i64) -> Op {
        let (attempt, build) = (AttemptId::new(number), BuildId::new(number));
        Op::Succeed(dispatch::Fetched { attempt, build, outputs: Vec::new() })
    }

    fn start(number: i64) -> Op {
        Op::Start { attempt: AttemptId::new(number), build: BuildId::new(number), inputs_ms: 1 }
    }

    /// A worker's word with an output that PostgreSQL has no text for.
    fn unheard_of(number: i64) -> Op {
        let Op::Built(mut built) = built(number) else { unreachable!() };
        built.outputs.push(dispatch::BuiltOutput {
            name: "out\0".to_owned(),
            path: "/nix/store/00000000000000000000000000000000-hello".parse().unwrap(),
            nar_hash: vec![7; 32],
            nar_size: 120,
            references: Vec::new(),
        });
        Op::Built(built)
    }

    #[tokio::test]
    async fn a_step_that_the_database_refuses_is_told_and_holds_up_no_other() {
        let test = hauberk_database::testing::TestDatabase::new().await;
        let attempts = "insert into attempts (id, build_id, derivation_id, generation, number, kind, worker_id, session, epoch)
                        overriding system value
                        select n, n, n, 1, 1, 'first', 1, 1, 1 from generate_series(1, 4) n";
        test.client().await.batch_execute(attempts).await.unwrap();
        let committer = Committer {
            database: test.database().clone(),
            epoch: Epoch::new(1),
            server: ServerId::new(1),
            metrics: Metrics::default(),
            disk: Disk::default(),
            company: Company::new(Duration::from_secs(3600)),
            aftermath: Aftermath::default(),
        };
        let told = |recorded: Recorded| -> Vec<String> {
            let said = recorded.done.iter().map(|done| match done {
                Committed::Built(id) => format!("{id} built"),
                Committed::Succeeded(id) => format!("{id} succeeded"),
                Committed::Refused(id) => format!("{id} refused"),
                other => panic!("{other:?}"),
            });
            said.collect()
        };
        let alone = Batch::new(vec![start(1), unheard_of(1)]);
        assert_eq!(told(committer.record(&alone, false).await), ["1 refused"]);
        let batch = Batch::new(vec![built(3), unheard_of(2), succeed(2), unheard_of(4)]);
        let mut told = told(committer.record(&batch, false).await);
        told.sort_unstable();
        assert_eq!(told, ["2 refused", "3 built", "4 refused"]);
    }

    #[test]
    fn nothing_that_later_steps_follow_on_is_committed_before_it_is_on_the_disk() {
        let is_final = |ops: Vec<Op>| Batch::new(ops).is_final();
        assert!(is_final(vec![succeed(1)]));
        assert!(is_final(vec![start(1), built(1), succeed(1), succeed(2)]));
        assert!(!is_final(vec![built(1)]));
        assert!(!is_final(vec![succeed(1), built(2)]));
        assert!(!is_final(vec![succeed(1), start(2)]));
    }
}
