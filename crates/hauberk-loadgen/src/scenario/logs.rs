//! `logs`: what many builds print at once, on its way into the server's files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use hauberk_loadgen::simulated::Work;
use serde_json::{Map, Value};
use tokio::sync::Barrier;

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, quantile, rounded};
use crate::lab::{LabOptions, Workers};
use crate::logs::{Corpus, LogFile, Pace, Printer, Sightings, Watch, verify};

/// How often the tables are asked whether all logs are complete.
const LOOK: Duration = Duration::from_millis(50);
/// A line that takes longer is slow.
const GOAL: Duration = Duration::from_millis(100);
/// Builds whose lines are looked for in the server's files.
const WATCHED: usize = 40;

/// Logs of real builds, many at once: compressed by the workers' code, sent encrypted, written to gzip files by the server
///
/// mb_per_second: text, from the first line until all logs are durable in the server's files and recorded as complete; builds print
/// as fast as they can.
///
/// compression_ratio: bytes of text over bytes of files.
///
/// line_latency_ms_p99: from a line's being printed until it can be read in the server's file, at a moderate rate.
///
/// line_latency_ms_p99_loaded: the same at the rate that is the goal for mb_per_second.
///
/// Each file is compared with what was printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds that print at once
    #[arg(long, default_value_t = 1000)]
    streams: usize,

    /// Workers, each with a connection of its own
    #[arg(long, default_value_t = 100)]
    workers: usize,

    /// Text of all builds that print as fast as they can, in MB; 0 leaves their figures out
    #[arg(long, value_name = "MB", default_value_t = 3000)]
    megabytes: u64,

    /// The moderate rate of all builds together, in MB per second; 0 leaves its figure out
    #[arg(long, value_name = "MB", default_value_t = 20)]
    moderate: u64,

    /// The high rate of all builds together, in MB per second; 0 leaves its figure out
    #[arg(long, value_name = "MB", default_value_t = 200)]
    loaded: u64,

    /// How long builds print at a rate, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    span: u64,

    /// Where workers keep logs until the server has them
    #[arg(long, value_enum, default_value_t = Spool::Memory)]
    spool: Spool,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Spool {
    /// In memory
    Memory,
    /// In files, as real workers do; here all of them are on the server's disk
    Disk,
}

struct Measured {
    /// From the first line until all logs are complete.
    seconds: f64,
    /// When lines were printed, in seconds from the beginning, and how long until they could be read.
    latencies: Vec<(f64, f64)>,
    text_bytes: u64,
    file_bytes: u64,
    parameters: Map<String, Value>,
}

/// Measures all figures, each pace on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let corpus = Arc::new(Corpus::load()?);
    let streams = options.streams.max(1) as u64;
    let figure = |figure, value, unit, measured: &Measured| {
        let parameters = measured.parameters.clone();
        Figure { scenario: "logs", figure, value, unit, parameters }
    };
    let mut figures = Vec::new();
    if options.megabytes > 0 {
        let each = options.megabytes * 1_000_000 / streams;
        let flood = measure(options, lab, &corpus, each, Pace::Flood).await?;
        let rate = flood.text_bytes as f64 / 1e6 / flood.seconds;
        figures.push(figure("mb_per_second", rounded(rate, 1), "MB/s", &flood));
        let ratio = flood.text_bytes as f64 / flood.file_bytes as f64;
        figures.push(figure("compression_ratio", rounded(ratio, 2), "", &flood));
    }
    for (name, rate) in
        [("line_latency_ms_p99", options.moderate), ("line_latency_ms_p99_loaded", options.loaded)]
    {
        if rate == 0 {
            continue;
        }
        let bytes_per_second = rate as f64 * 1e6 / streams as f64;
        let each = rate * 1_000_000 * options.span / streams;
        let mut paced = measure(options, lab, &corpus, each, Pace::Rate(bytes_per_second)).await?;
        let mut latencies: Vec<f64> = paced.latencies.iter().map(|(_, seconds)| *seconds).collect();
        let mut milliseconds = |share| -> Result<f64> {
            Ok(rounded(quantile(&mut latencies, share).context("no line was looked for")? * 1e3, 1))
        };
        let (median, p99, most) = (milliseconds(0.5)?, milliseconds(0.99)?, milliseconds(1.0)?);
        let mut note = |name: &str, value: Value| paced.parameters.insert(name.to_owned(), value);
        note("rate_mb_per_second", rate.into());
        note("line_latency_ms_median", median.into());
        note("line_latency_ms_most", most.into());
        // When the last slow one was printed: the beginning is hardest, as all logs are opened at once.
        let slow = paced.latencies.iter().filter(|(_, seconds)| *seconds > GOAL.as_secs_f64());
        let slow: Vec<f64> = slow.map(|(at, _)| *at).collect();
        note("slow_lines", slow.len().into());
        note("slow_until_seconds", rounded(slow.iter().copied().fold(0.0, f64::max), 2).into());
        note("lines_looked_for", paced.latencies.len().into());
        figures.push(figure(name, p99, "ms", &paced));
    }
    Ok(figures)
}

async fn measure(
    options: &Options,
    lab: &LabOptions,
    corpus: &Arc<Corpus>,
    bytes: u64,
    pace: Pace,
) -> Result<Measured> {
    let count = options.streams;
    let watched = match pace {
        Pace::Flood => 0,
        Pace::Rate(_) => i64::try_from((count / WATCHED).max(1)).context("so many streams")?,
    };
    let sightings = Sightings::new(watched);
    let printer = Arc::new(Printer {
        corpus: Arc::clone(corpus),
        bytes,
        pace,
        begin: Barrier::new(count + 1),
        sightings: Arc::clone(&sightings),
    });
    let workers = Workers { count: options.workers, slots: count, ahead: 0 };
    let mut farm = Farm::start(lab, workers, Work::flat(count)?, OutputKind::Cached, Duration::ZERO).await?;
    let spools = (options.spool == Spool::Disk).then(|| farm.lab.directory().join("spools"));
    farm.set_chatter(Arc::clone(&printer) as _, spools);
    farm.start_workers().await?;
    farm.wait_joined().await?;
    farm.publish().await?;

    let gauge = Arc::clone(&farm.gauge);
    let all_run = async {
        while gauge.begun().len() < count {
            tokio::time::sleep(LOOK).await;
        }
    };
    farm.until("all builds run", all_run).await?;
    let files = log_files(&farm).await?;
    ensure!(files.len() == count, "of {count} builds, {} have a log", files.len());
    let looked_at = files
        .iter()
        .filter(|file| sightings.includes(file.build))
        .map(|file| (file.build, file.path.clone()));
    let watch = Watch::start(looked_at.collect(), Arc::clone(&sightings))?;
    crate::progress(format_args!("{count} builds print"));
    let used = farm.lab.usage(&farm.server).await?;
    printer.begin.wait().await;
    let began = Instant::now();
    let (database, mut failure) = (farm.lab.database().clone(), None);
    let complete = async {
        loop {
            match complete_logs(&database).await {
                Ok(complete) if complete >= count => return,
                Ok(_) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    failure = Some(error);
                    return;
                }
            }
        }
    };
    farm.until("all logs are complete", complete).await?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(error) = failure {
        return Err(error);
    }
    let mut parameters = Map::new();
    let used_now = farm.lab.usage(&farm.server).await?;
    tokio::task::spawn_blocking(move || watch.stop()).await??;
    farm.wait_done().await?;
    let to_check = (Arc::clone(corpus), files);
    let checked = tokio::task::spawn_blocking(move || verify(&to_check.0, &to_check.1, bytes));
    let (text_bytes, file_bytes) = checked.await??;
    farm.finish(&mut parameters).await?.require_exactly_once(count)?;
    // What the printing took, in place of the whole run.
    used_now.since(&used, &mut parameters);
    let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
    note("streams", count.into());
    note("text_bytes", text_bytes.into());
    note("file_bytes", file_bytes.into());
    note("spool", format!("{:?}", options.spool).to_lowercase().into());
    note("seconds", rounded(seconds, 3).into());
    let seen = sightings.seen()?;
    let latencies = seen.into_iter().map(|(at, seconds)| ((at - began).as_secs_f64(), seconds)).collect();
    Ok(Measured { seconds, latencies, text_bytes, file_bytes, parameters })
}

/// Finds the log file of each build.
async fn log_files(farm: &Farm) -> Result<Vec<LogFile>> {
    let client = farm.lab.database().client().await?;
    let rows = client.query("select build_id, log_path from attempts", &[]).await;
    let directory: PathBuf = farm.lab.cache().join("logs");
    let file = |row: &tokio_postgres::Row| LogFile {
        build: row.get(0),
        path: directory.join(row.get::<_, String>(1)),
    };
    Ok(rows.context("asking where the logs are")?.iter().map(file).collect())
}

/// Counts the logs that are durable and recorded.
async fn complete_logs(database: &hauberk_database::Database) -> Result<usize> {
    let client = database.client().await?;
    let row = client.query_one("select count(*) from attempts where log_complete", &[]).await;
    usize::try_from(row.context("counting complete logs")?.get::<_, i64>(0)).context("counting complete logs")
}
