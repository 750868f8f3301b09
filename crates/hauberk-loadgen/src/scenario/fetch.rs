//! `fetch`: results on their way from a worker into the server's cache.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hauberk_store::Sha256;
use hauberk_store::hash::Sha256Hasher;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, quantile, rounded};
use crate::http::{BlockingClient, Download};
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::{Contents, Work};

/// Plain downloads of each kind.
const COPIES: usize = 3;

/// Bytes handled at a time by them.
const PIECE: usize = 256 << 10;

/// Builds that come one after the other, whose outputs the server fetches: how fast they are there
///
/// throughput_over_copy: a large output, from the worker's Finished to its Release, against a plain download of the same bytes from the
/// same worker, which are unpacked, hashed both packed and unpacked, written into a file and brought to the disk.
///
/// throughput_over_discarded: the same against such a download that is thrown away, and waits for no disk.
///
/// small_output_ms: from Finished to Release with an output of 1 KiB, which is fetched, verified, made durable, signed and recorded.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Large outputs; 0 leaves that figure out
    #[arg(long, default_value_t = 3)]
    large: usize,

    /// Size of each large output, in MB
    #[arg(long, value_name = "MB", default_value_t = 300)]
    large_mb: usize,

    /// What large outputs have in them
    #[arg(long, value_enum, default_value_t = Filling::Program)]
    contents: Filling,

    /// Small outputs; 0 leaves that figure out
    #[arg(long, default_value_t = 200)]
    small: usize,
}

/// What large outputs have in them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Filling {
    /// What compresses as programs do
    Program,
    /// What cannot be compressed
    Noise,
}

/// Measures both, each on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if options.large > 0 {
        figures.extend(large(options, lab).await?);
    }
    if options.small > 0 {
        let Fetched { mut seconds, parameters, .. } = fetch(Work::chain(options.small)?, lab, 0).await?;
        let median = quantile(&mut seconds, 0.5).context("nothing was fetched")? * 1e3;
        figures.push(Figure {
            scenario: "fetch",
            figure: "small_output_ms",
            value: rounded(median, 2),
            unit: "ms",
            parameters,
        });
    }
    Ok(figures)
}

async fn large(options: &Options, lab: &LabOptions) -> Result<[Figure; 2]> {
    let mut work = Work::chain(options.large)?;
    let size = options.large_mb * 1_000_000;
    work.contents = match options.contents {
        Filling::Program => Contents::program(size)?,
        Filling::Noise => Contents::noise(size),
    };
    let Fetched { mut seconds, mut parameters, mut copies, mut discarded, packed } =
        fetch(work, lab, COPIES).await?;
    let rate = |seconds: &mut [f64]| {
        quantile(seconds, 0.5).map(|median| size as f64 / median).context("nothing was fetched")
    };
    let (fetched, copied, discarded) = (rate(&mut seconds)?, rate(&mut copies)?, rate(&mut discarded)?);
    let mut note = |name: &str, value: f64| parameters.insert(name.to_owned(), value.into());
    note("fetched_mb_per_second", rounded(fetched / 1e6, 1));
    note("copied_mb_per_second", rounded(copied / 1e6, 1));
    note("discarded_mb_per_second", rounded(discarded / 1e6, 1));
    note("packed_to", rounded(packed as f64 / size as f64, 3));
    let figure = |figure, value: f64, parameters| Figure {
        scenario: "fetch",
        figure,
        value: rounded(value, 3),
        unit: "",
        parameters,
    };
    Ok([
        figure("throughput_over_copy", fetched / copied, parameters.clone()),
        figure("throughput_over_discarded", fetched / discarded, parameters),
    ])
}

/// What came of builds one after the other.
struct Fetched {
    /// From the end of each to its release.
    seconds: Vec<f64>,
    parameters: Map<String, Value>,
    /// What plain downloads of the outputs took that were kept.
    copies: Vec<f64>,
    /// What those took that were thrown away.
    discarded: Vec<f64>,
    /// Bytes of one of them as they came.
    packed: u64,
}

/// Lets one worker do the builds one after the other, and then downloads as many outputs as are wanted in a plain way.
async fn fetch(work: Work, lab: &LabOptions, downloads: usize) -> Result<Fetched> {
    let (count, outputs) = (work.outputs.len(), work.outputs.clone());
    let workers = Workers { count: 1, slots: 1, ahead: 0 };
    let mut farm = Farm::start(lab, workers, work, OutputKind::Fetched, Duration::ZERO).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    farm.publish().await?;
    farm.wait_done().await?;
    let (ended, released) = (farm.gauge.ended(), farm.gauge.releases());
    let seconds = ended.iter().zip(&released).map(|(ended, at)| (*at - *ended).as_secs_f64()).collect();
    let port = farm.publication_port().context("nothing is published")?;
    let file = farm.lab.directory().join("download");
    let download = move || -> Result<(Vec<f64>, Vec<f64>, u64)> {
        let mut client = BlockingClient::connect(port)?;
        let (mut copies, mut discarded, mut packed) = (Vec::new(), Vec::new(), 0);
        for output in outputs.iter().cycle().take(downloads) {
            let url = format!("/nar/zstd/{}", output.base_name());
            let began = Instant::now();
            let first = unpack(client.download(&url)?, io::sink())?;
            discarded.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            let kept = File::create(&file).context("making a file")?;
            let second = unpack(client.download(&url)?, &kept)?;
            kept.sync_all().context("waiting for the disk")?;
            copies.push(began.elapsed().as_secs_f64());
            ensure!(first == second, "two downloads of the same output differ");
            packed = first.1;
        }
        Ok((copies, discarded, packed))
    };
    let (copies, discarded, packed) = tokio::task::spawn_blocking(download).await??;
    let mut parameters = Map::new();
    farm.finish(&mut parameters).await?.require_exactly_once(count)?;
    Ok(Fetched { seconds, parameters, copies, discarded, packed })
}

/// Unpacks what is downloaded, hashes it packed and unpacked, and writes it as it came. Gives the hash of the nar, and the bytes that came.
fn unpack(download: Download<'_>, keep: impl Write) -> Result<(Sha256, u64)> {
    let packed = Kept { download, keep, hasher: Sha256Hasher::new() };
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(PIECE, packed))?;
    let (mut hasher, mut piece) = (Sha256Hasher::new(), vec![0; PIECE]);
    loop {
        match decoder.read(&mut piece).context("unpacking")? {
            0 => break,
            count => hasher.update(&piece[..count]),
        }
    }
    let (_, size) = decoder.finish().into_inner().hasher.finish();
    Ok((hasher.finish().0, size))
}

/// Hashes and writes what is read through it.
struct Kept<'a, W> {
    download: Download<'a>,
    keep: W,
    hasher: Sha256Hasher,
}

impl<W: Write> Read for Kept<'_, W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.download.read(into)?;
        self.hasher.update(&into[..count]);
        self.keep.write_all(&into[..count])?;
        Ok(count)
    }
}
