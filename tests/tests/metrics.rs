//! What servers and workers tell Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig};

const GRAPH: &str = r#"
  first = job "first-1" ''
    ${gate "first"}
    echo hello
    echo made > $out
  '';
  second = job "second-1" ''
    cat ${first} > $out
  '';
"#;

/// An answer of `/metrics`, read by the rules of OpenMetrics.
struct Answer {
    samples: BTreeMap<String, f64>,
}

impl Answer {
    fn read(text: &str) -> Result<Self> {
        let body = text.strip_suffix("# EOF\n").context("the end is missing")?;
        let (mut types, mut helped, mut samples) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (family, words) = help.split_once(' ').context("a HELP without words")?;
                ensure!(!words.is_empty() && helped.insert(family.to_owned()), "HELP of {family}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (family, kind) = kind.split_once(' ').context("a TYPE without type")?;
                ensure!(types.insert(family.to_owned(), kind.to_owned()).is_none(), "{family} comes twice");
                let is_time = ["latency", "duration"].iter().any(|word| family.contains(word));
                ensure!(!is_time || family.ends_with("_seconds"), "{family} does not name its unit");
            } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                let (family, unit) = unit.split_once(' ').context("a UNIT without unit")?;
                ensure!(family.ends_with(&format!("_{unit}")), "{family} is not in {unit}");
            } else {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
                let family = name.split_once('{').map_or(name, |(family, _)| family);
                let endings = ["_total", "_bucket", "_sum", "_count", "_info"];
                let bare = endings.iter().find_map(|ending| family.strip_suffix(ending)).unwrap_or(family);
                let kind = types.get(bare).or_else(|| types.get(family));
                let kind = kind.with_context(|| format!("{family} has no type"))?;
                ensure!(helped.contains(bare) || helped.contains(family), "{family} has no help");
                ensure!((kind == "counter") == family.ends_with("_total"), "{family} is a {kind}");
                let value = value.parse().with_context(|| format!("no number: {line}"))?;
                ensure!(samples.insert(name.to_owned(), value).is_none(), "{name} comes twice");
            }
        }
        Ok(Self { samples })
    }

    fn get(&self, name: &str) -> f64 {
        self.samples.get(name).copied().unwrap_or(f64::NAN)
    }
}

fn ask(farm: &Farm, url: &str) -> Result<Answer> {
    let url = format!("{url}/metrics");
    let text = farm.server_machine.command("curl").args(["--silent", "--fail", &url]).run()?;
    Answer::read(&text).with_context(|| format!("{url} answers\n{text}"))
}

/// Asks until `samples` are there.
async fn expect(farm: &Farm, url: &str, samples: &[(&str, f64)]) -> Result<Answer> {
    let deadline = Deadline::seconds(60);
    loop {
        let answer = ask(farm, url)?;
        let missing: Vec<_> = samples.iter().filter(|(name, value)| answer.get(name) != *value).collect();
        if missing.is_empty() {
            return Ok(answer);
        }
        ensure!(!deadline.is_over(), "{missing:?} are not among {:#?}", answer.samples);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_farm_at_work_can_be_watched() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (server, worker) = (farm.publish_url(), format!("http://{}:5558", farm.workers[0].address));
    let (_, specification) = farm.repository("two", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;

    let system = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let of_system = |name: &str| format!("hauberk_{name}{{system=\"{system}\"}}");
    let waiting = format!("hauberk_queue_builds{{system=\"{system}\",reason=\"inputs\"}}");
    let busy = expect(
        &farm,
        &server,
        &[
            (&of_system("slots"), 1.0),
            (&of_system("slots_busy"), 1.0),
            (&waiting, 1.0),
            ("hauberk_sessions{state=\"working\"}", 1.0),
            ("hauberk_attempts_open", 1.0),
            ("hauberk_dispatch_latency_seconds_count", 1.0),
            ("hauberk_messages_sent_total{port=\"backend\",kind=\"Assign\"}", 1.0),
        ],
    )
    .await?;
    assert!(busy.get("hauberk_dispatch_latency_seconds_sum") < 30.0);
    assert!(busy.get("hauberk_database_connections{state=\"idle\"}") >= 0.0);
    assert!(busy.get("hauberk_commit_steps_count") >= 1.0);
    expect(&farm, &worker, &[("hauberk_worker_slots_busy", 1.0), ("hauberk_worker_connected", 1.0)]).await?;

    farm.gates.open("first")?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let done = expect(
        &farm,
        &server,
        &[
            (&of_system("slots_busy"), 0.0),
            ("hauberk_attempts_ended_total{class=\"succeeded\"}", 2.0),
            ("hauberk_fetches_total{result=\"done\"}", 2.0),
            ("hauberk_fetches_open", 0.0),
            ("hauberk_logs_complete_total", 2.0),
            ("hauberk_leases_lapsed_total", 0.0),
        ],
    )
    .await?;
    assert!(done.get("hauberk_fetched_bytes_total") > 0.0);
    assert!(done.get("hauberk_log_received_bytes_total") > 0.0);
    assert!(done.get("hauberk_log_text_bytes_total") >= 6.0);
    let ended = ("hauberk_worker_attempts_ended_total{outcome=\"succeeded\"}", 2.0);
    let worker = expect(&farm, &worker, &[ended, ("hauberk_worker_slots_busy", 0.0)]).await?;
    assert!(worker.get("hauberk_worker_disk_free_bytes{disk=\"store\"}") > 0.0);
    farm.stop_all()
}
