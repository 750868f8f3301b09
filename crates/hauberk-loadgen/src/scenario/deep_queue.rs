//! `deep-queue`: what the length of the queue costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use hauberk_database::{BuildId, Database, why};
use hauberk_loadgen::simulated::Work;
use hauberk_store::StorePath;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, quantile, rounded};
use crate::lab::{Lab, LabOptions, Memory, Ordering, Queue, WebProcess, Workers};

/// A very long queue against a short one: what its length costs
///
/// rate_ratio: builds taken through all their states in a second while a million wait, over those while ten thousand do.
///
/// rate_ratio_old_snapshot: the same, while another session keeps a snapshot from before the long queue's first build open.
///
/// server_bytes_per_queued_build: how much more memory the server took at most, over how many builds more there were.
///
/// why_ms_median, why_ms_p99: the reasons why one of a million builds is not running, asked for while the farm works.
///
/// forecast_ms_median: when it will begin and end.
///
/// idle_why_ms_median, idle_why_ms_p99: the reasons, asked for before there are workers.
///
/// idle_command_why_ms, idle_page_ms, idle_json_ms: reasons and forecast, as `hauberk build why`, the build's page and /api/build/ID/why
/// tell them, before there are workers; medians.
///
/// The queues are recorded once, and kept in --directory for later runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds in the long queue
    #[arg(long, default_value_t = 1_000_000)]
    queued: usize,

    /// Builds in the short queue
    #[arg(long, default_value_t = 10_000)]
    few: usize,

    /// Builds of each that are built; the rate is that of the middle eight tenths
    #[arg(long, default_value_t = 10_000)]
    builds: usize,

    /// Builds at once, on all workers together
    #[arg(long, default_value_t = 1000)]
    slots: usize,

    /// Workers
    #[arg(long, default_value_t = 100)]
    workers: usize,

    /// How often the queues take turns; each ratio is the median of the turns'
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
}

/// Builds that are asked about, evenly out of the whole queue.
const ASKED: usize = 200;
/// Those that are asked about by commands and pages.
const PEOPLE: usize = 20;
/// How often they look at what is not of a build.
const REPEATED: usize = 5;
/// How long builds take while people ask, and for how many of them in a row each slot has outputs then: what has none would be open for ever,
/// as something that is being fetched.
const PACE: Duration = Duration::from_secs(1);
const PACED: usize = 30;

impl Options {
    /// Such a measurement with a queue of this length.
    pub(super) fn of(queued: usize, slots: usize, workers: usize) -> Self {
        Self { queued, few: 0, builds: 10_000.min(queued / 2), slots, workers, turns: 1 }
    }
}

/// How a queue is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Circumstances {
    /// Another session keeps a snapshot open.
    pub(super) snapshot: bool,
    /// People ask why builds are not running, before there are workers and in the end.
    pub(super) asks: bool,
    /// The server's order; none for the whole, without ageing.
    pub(super) ordering: Option<Ordering>,
}

/// What was measured of a queue.
pub(super) struct Measured {
    /// Builds in a second.
    pub(super) rate: f64,
    /// The server's.
    pub(super) memory: Memory,
    /// The circumstances.
    pub(super) parameters: Map<String, Value>,
}

/// Measures all figures, each queue on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    if options.builds > options.few || options.few >= options.queued || options.builds < 10 {
        bail!("it must be: 10 <= --builds <= --few < --queued");
    }
    let (short, long) = (Queue::of(options.few, lab).await?, Queue::of(options.queued, lab).await?);
    let (mut ratios, mut old_ratios, mut first) = (Vec::new(), Vec::new(), None);
    for turn in 0..options.turns {
        let circumstances = Circumstances { asks: turn == 0, ..Circumstances::default() };
        crate::progress(format_args!("{} builds wait", options.few));
        let few = measure(options, lab, &short, circumstances).await?;
        crate::progress(format_args!("{} builds wait", options.queued));
        let many = measure(options, lab, &long, circumstances).await?;
        crate::progress(format_args!("{} builds wait, and a snapshot is open", options.queued));
        let circumstances = Circumstances { snapshot: true, ..Circumstances::default() };
        let old = measure(options, lab, &long, circumstances).await?;
        let turn = [few.rate, many.rate, old.rate].map(|rate| rate.round());
        crate::progress(format_args!("builds in a second: {turn:?}"));
        ratios.push(many.rate / few.rate);
        old_ratios.push(old.rate / few.rate);
        first.get_or_insert((few, many, old));
    }
    let (few, many, old) = first.context("there is a turn at least")?;

    // Rates and circumstances are those of the first turn.
    let figure = |figure, value, unit, measured: &Measured| {
        let mut parameters = measured.parameters.clone();
        let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
        note("queued", options.queued.into());
        note("queued_few", options.few.into());
        note("builds_per_second", rounded(measured.rate, 1).into());
        note("builds_per_second_few", rounded(few.rate, 1).into());
        note("server_peak_bytes", measured.memory.peak.into());
        note("server_peak_bytes_few", few.memory.peak.into());
        Figure { scenario: "deep-queue", figure, value, unit, parameters }
    };
    let ratio = |name, mut turns: Vec<f64>, measured: &Measured| -> Result<Figure> {
        let rounds: Vec<Value> = turns.iter().map(|turn| rounded(*turn, 3).into()).collect();
        let median = quantile(&mut turns, 0.5).context("there is a turn at least")?;
        let mut figure = figure(name, median, "", measured);
        figure.parameters.insert("turns".to_owned(), rounds.into());
        Ok(figure)
    };
    let more = many.memory.peak.saturating_sub(few.memory.peak) as f64;
    let bytes = more / (options.queued - options.few) as f64;
    let answers = [
        "why_ms_median",
        "why_ms_p99",
        "forecast_ms_median",
        "idle_why_ms_median",
        "idle_why_ms_p99",
        "idle_command_why_ms",
        "idle_page_ms",
        "idle_json_ms",
    ];
    let answers = answers.into_iter();
    let answers: Vec<_> = answers
        .filter_map(|name| Some(figure(name, many.parameters.get(name)?.as_f64()?, "ms", &many)))
        .collect();
    let mut figures = vec![
        ratio("rate_ratio", ratios, &many)?,
        ratio("rate_ratio_old_snapshot", old_ratios, &old)?,
        figure("server_bytes_per_queued_build", bytes, "bytes", &many),
    ];
    figures.extend(answers);
    Ok(figures)
}

/// Measures one queue.
pub(super) async fn measure(
    options: &Options,
    lab_options: &LabOptions,
    queue: &Queue,
    circumstances: Circumstances,
) -> Result<Measured> {
    let Circumstances { snapshot, asks, ordering } = circumstances;
    let ordered = ordering.map(|ordering| lab_options.ordered(ordering));
    let lab_options = ordered.as_ref().unwrap_or(lab_options);
    let lab = Lab::start_with(lab_options, Some(queue)).await?;
    if let Some(ordering) = ordering {
        lab.set_ordering(ordering).await?;
    }
    // More than are waited for are begun before it is noticed that these have ended.
    let paced = if asks { PACED } else { 0 };
    let outputs = first_outputs(&lab, options.builds + (4 + paced) * options.slots).await?;
    let session = lab.database().client().await?;
    if snapshot {
        session
            .batch_execute("begin isolation level repeatable read; select 1 from builds limit 1")
            .await
            .context("keeping a snapshot")?;
    }
    let work = Work { outputs, ..Work::flat(0)? };
    let workers = Workers { count: options.workers, slots: options.slots, ahead: 0 };
    let mut farm = Farm::on(lab, lab_options, workers, work, OutputKind::Cached, Duration::ZERO).await?;
    let mut parameters = Map::new();
    if asks {
        ask_why(farm.lab.database(), "idle_", &mut parameters).await?;
        ask_as_people_do(&farm.lab, "idle_", &mut parameters).await?;
    }
    farm.count_anew().await?;
    farm.start_workers().await?;
    let gauge = std::sync::Arc::clone(&farm.gauge);
    farm.until("builds end", gauge.wait_released(options.builds)).await?;
    let memory = Memory::read(farm.server.process())?;
    if snapshot {
        session.batch_execute("rollback").await.context("giving the snapshot up")?;
    }
    drop(session);
    let rate = rate(&gauge.releases(), options.builds)?;
    if asks {
        gauge.slow_down(PACE);
        ask_why(farm.lab.database(), "", &mut parameters).await?;
        ask_as_people_do(&farm.lab, "", &mut parameters).await?;
    }
    farm.finish(&mut parameters).await?.require_at_least(options.builds)?;
    Ok(Measured { rate, memory, parameters })
}

/// Builds in a second, without the first tenth and the last.
pub(super) fn rate(releases: &[Instant], builds: usize) -> Result<f64> {
    let tenth = builds / 10;
    let (from, to) =
        releases.get(tenth).zip(releases.get(builds - 1 - tenth)).context("too few builds ended")?;
    Ok((builds - 1 - 2 * tenth) as f64 / (*to - *from).as_secs_f64())
}

/// Asks why builds are not running, and when they will.
async fn ask_why(database: &Database, when: &str, parameters: &mut Map<String, Value>) -> Result<()> {
    let client = database.client().await?;
    let rows = client
        .query(
            "select id from builds where id % greatest(1, (select max(id) from builds) / $1) = 0",
            &[&i64::try_from(ASKED)?],
        )
        .await
        .context("choosing builds to ask about")?;
    let (mut reasons, mut forecasts) = (Vec::new(), Vec::new());
    let mut words = String::new();
    for row in rows {
        let build = BuildId::new(row.get(0));
        let began = Instant::now();
        let why = why::why(&client, build).await?.context("a build is gone")?;
        reasons.push(began.elapsed().as_secs_f64() * 1e3);
        words = why.to_string();
        let began = Instant::now();
        why::forecast(&client, build).await?;
        forecasts.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let at = |values: &mut [f64], share| quantile(values, share).context("nobody was asked");
    for (name, value) in [
        ("why_ms_median", at(&mut reasons, 0.5)?),
        ("why_ms_p99", at(&mut reasons, 0.99)?),
        ("forecast_ms_median", at(&mut forecasts, 0.5)?),
    ] {
        parameters.insert(format!("{when}{name}"), rounded(value, 2).into());
    }
    parameters.insert(format!("{when}why_of_the_last"), words.into());
    Ok(())
}

/// Asks as people do: by commands, and by pages and JSON of a web process. Notes medians in milliseconds.
async fn ask_as_people_do(lab: &Lab, when: &str, parameters: &mut Map<String, Value>) -> Result<()> {
    let client = lab.database().client().await?;
    let rows = client
        .query(
            "select id::text from builds where id % greatest(1, (select max(id) from builds) / $1) = 0",
            &[&i64::try_from(PEOPLE)?],
        )
        .await
        .context("choosing builds to ask about")?;
    drop(client);
    let builds: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut note = |name: &str, mut times: Vec<f64>| -> Result<()> {
        let median = quantile(&mut times, 0.5).context("nobody was asked")?;
        parameters.insert(format!("{when}{name}"), rounded(median, 2).into());
        Ok(())
    };
    let run = |arguments: &[&str]| -> Result<f64> {
        let began = Instant::now();
        let output = lab.command(arguments)?.output().context("running hauberk")?;
        if !output.status.success() {
            bail!("hauberk {} fails: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    let times: Result<_> = builds.iter().map(|build| run(&["build", "why", build])).collect();
    note("command_why_ms", times?)?;
    for (name, arguments) in
        [("command_status_ms", &["status"][..]), ("command_list_ms", &["build", "list"][..])]
    {
        let times: Result<_> = (0..REPEATED).map(|_| run(arguments)).collect();
        note(name, times?)?;
    }
    let web = WebProcess::start(lab).await?;
    let mut client = web.client()?;
    let mut get = |path: &str| -> Result<f64> {
        let began = Instant::now();
        std::io::copy(&mut client.download(path)?, &mut std::io::sink()).context("reading a page")?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    let times: Result<_> = builds.iter().map(|build| get(&format!("/build/{build}"))).collect();
    note("page_ms", times?)?;
    let times: Result<_> = builds.iter().map(|build| get(&format!("/api/build/{build}/why"))).collect();
    note("json_ms", times?)?;
    for (name, path) in [("queue_page_ms", "/queue"), ("workers_page_ms", "/workers")] {
        let times: Result<_> = (0..REPEATED).map(|_| get(path)).collect();
        note(name, times?)?;
    }
    Ok(())
}

/// The outputs of the builds that are dispatched first: the server's cache is to have them.
async fn first_outputs(lab: &Lab, count: usize) -> Result<Vec<StorePath>> {
    let rows = lab
        .database()
        .client()
        .await?
        .query(
            "select o.path from (select id from builds order by id limit $1) b join outputs o on o.build_id = b.id
             order by b.id",
            &[&i64::try_from(count).context("so many builds")?],
        )
        .await
        .context("asking for the first builds")?;
    rows.iter().map(|row| Ok(StorePath::parse(row.get(0))?)).collect()
}
