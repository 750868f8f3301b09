//! `restart`: the server is killed under load and started again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, rounded};
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// The part of the rate before that counts as the full one.
const FULL: f64 = 0.9;
/// The rate is looked at over spans of this length.
const SPAN: Duration = Duration::from_millis(500);

/// The server is killed (SIGKILL) under load and started again at once: how soon the full rate is back, and what is lost
///
/// recovery_seconds: from the kill to the end of the first half second with nine tenths of the rate there was before.
///
/// lost: builds that did not succeed. doubled: builds that succeeded more than once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds
    #[arg(long, default_value_t = 20_000)]
    builds: usize,

    /// Builds at once, on all workers together
    #[arg(long, default_value_t = 1000)]
    slots: usize,

    /// Workers
    #[arg(long, default_value_t = 100)]
    workers: usize,

    /// How long each build takes, in milliseconds
    #[arg(long, default_value_t = 500)]
    build_ms: u64,
}

/// Measures all three figures in one run.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let workers = Workers { count: options.workers, slots: options.slots, ahead: 0 };
    let cost = Duration::from_millis(options.build_ms);
    let work = Work::flat(options.builds)?;
    let mut farm = Farm::start(lab, workers, work, OutputKind::Cached, cost).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    let began = farm.publish().await?;
    let gauge = std::sync::Arc::clone(&farm.gauge);
    farm.until("a third of the builds end", gauge.wait_released(options.builds / 3)).await?;
    let (killed, before) = (Instant::now(), gauge.released());
    crate::progress(format_args!("killing the server after {before} builds"));
    farm.server.kill()?;
    farm.server.restart().await?;
    let serving = Instant::now();
    farm.wait_done().await?;

    let releases = farm.gauge.releases();
    let rate =
        rate_before(&releases, began, killed).context("nothing was built before the server was killed")?;
    let recovered = recovery(&releases, killed, rate * FULL);
    let mut parameters = Map::new();
    let verdict = farm.finish(&mut parameters).await?;
    let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
    note("rate_before", rounded(rate, 1).into());
    note("restart_seconds", rounded((serving - killed).as_secs_f64(), 3).into());
    note("attempts_repeated", verdict.other_attempts.into());
    let first = releases.iter().find(|at| **at > killed).map(|at| (*at - killed).as_secs_f64());
    note("first_release_seconds", first.map_or(Value::Null, |seconds| rounded(seconds, 3).into()));
    if !verdict.is_whole(options.builds) {
        crate::progress(format_args!("the tables are not as they must be: {verdict:?}"));
    }
    let figure = |figure, value, unit| Figure {
        scenario: "restart",
        figure,
        value,
        unit,
        parameters: parameters.clone(),
    };
    let mut figures = Vec::new();
    match recovered {
        Some(seconds) => figures.push(figure("recovery_seconds", seconds.as_secs_f64(), "s")),
        None => crate::progress(format_args!("the full rate did not come back before the work ended")),
    }
    figures.push(figure("lost", (verdict.builds - verdict.succeeded) as f64, "builds"));
    figures.push(figure("doubled", verdict.doubled_builds as f64, "builds"));
    Ok(figures)
}

/// Releases in a second over the second half of the time before the kill.
fn rate_before(releases: &[Instant], began: Instant, killed: Instant) -> Option<f64> {
    let half = (killed - began) / 2;
    let count = releases.iter().filter(|at| **at > began + half && **at <= killed).count();
    (count > 0).then(|| count as f64 / half.as_secs_f64())
}

/// Time from the kill to the end of the first span in which releases came at `rate` again.
fn recovery(releases: &[Instant], killed: Instant, rate: f64) -> Option<Duration> {
    let after: Vec<Instant> = releases.iter().copied().filter(|at| *at > killed).collect();
    let wanted = (rate * SPAN.as_secs_f64()).ceil().max(1.0) as usize;
    after
        .windows(wanted)
        .find(|span| span[wanted - 1] - span[0] <= SPAN)
        .map(|span| span[wanted - 1] - killed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_when_the_old_rate_was_held_for_a_span() {
        let began = Instant::now();
        let killed = began + Duration::from_secs(10);
        // 100 a second for ten seconds, nothing for two, one in 100 ms for a second, then 100 a second.
        let mut releases: Vec<Instant> = (1..=1000).map(|i| began + Duration::from_millis(10) * i).collect();
        releases.extend((1..=10).map(|i| killed + Duration::from_secs(2) + Duration::from_millis(100) * i));
        releases.extend((1..=500).map(|i| killed + Duration::from_secs(3) + Duration::from_millis(10) * i));
        let rate = rate_before(&releases, began, killed).unwrap();
        assert!((rate - 100.0).abs() < 1.0, "{rate}");
        let recovered = recovery(&releases, killed, rate * FULL).unwrap();
        assert!(
            recovered > Duration::from_millis(3300) && recovered < Duration::from_millis(3600),
            "{recovered:?}"
        );
        assert_eq!(recovery(&releases, killed, 1000.0), None);
    }
}
