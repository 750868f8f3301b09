//! Builds that print: all at once, as fast as they are taken or at a rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hauberk_loadgen::simulated::Chatter;
use hauberk_worker::AttemptLog;
use tokio::sync::Barrier;

use super::{Corpus, Sightings};

/// The mean pause between what a build prints at a rate.
const PAUSE: Duration = Duration::from_millis(50);
/// Builds that print at a rate begin within this time: even a fast server gives out no thousand of them at one moment.
const BEGIN: Duration = Duration::from_secs(1);
/// What a build prints before others have their turn, as fast as it can.
const BURST: usize = 64 << 10;

/// How fast a build prints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As fast as its worker takes it.
    Flood,
    /// So many bytes in a second, in bursts with irregular pauses.
    Rate(f64),
}

/// Lets builds print the texts of a [`Corpus`], line by line, all beginning together.
#[derive(Debug)]
pub(crate) struct Printer {
    /// What is printed.
    pub(crate) corpus: Arc<Corpus>,
    /// How much each build prints, to the end of a line.
    pub(crate) bytes: u64,
    /// How fast.
    pub(crate) pace: Pace,
    /// Held by all builds, and by whoever measures.
    pub(crate) begin: Barrier,
    /// Which lines are to be looked for.
    pub(crate) sightings: Arc<Sightings>,
}

#[async_trait]
impl Chatter for Printer {
    async fn write(&self, build: i64, log: &AttemptLog) {
        self.begin.wait().await;
        match self.pace {
            Pace::Flood => self.flood(build, log).await,
            Pace::Rate(rate) => self.trickle(build, log, rate).await,
        }
    }
}

impl Printer {
    async fn flood(&self, build: i64, log: &AttemptLog) {
        let mut burst = 0;
        for line in self.corpus.lines(build, self.bytes) {
            log.write(line);
            burst += line.len();
            if burst >= BURST {
                burst = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    async fn trickle(&self, build: i64, log: &AttemptLog, rate: f64) {
        // Nor do they print in step.
        tokio::time::sleep(BEGIN.mul_f64(fastrand::f64())).await;
        let began = Instant::now();
        let mut lines = self.corpus.lines(build, self.bytes).peekable();
        let mut printed = 0_u64;
        while lines.peek().is_some() {
            let due = began.elapsed().as_secs_f64() * rate;
            let mut is_first = true;
            while (printed as f64) < due {
                let Some(line) = lines.next() else { break };
                printed += line.len() as u64;
                if std::mem::take(&mut is_first) {
                    self.sightings.expect(build, printed);
                }
                log.write(line);
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}
