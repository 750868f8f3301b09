//! `hauberk gc`: removes outputs that nobody wants any more from a server's cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Args;
use hauberk_database::retention::{self, AsOf, Removal};
use hauberk_database::{Client, Database, ServerId, audit};
use hauberk_publish::Cache;
use hauberk_publish::cache::{CacheReader, Collection, Hold, StoredItem};
use hauberk_store::{StorePath, StorePathHash};
use serde_json::json;

use crate::command::expiry::{Expiry, parse_expiry};
use crate::command::{DatabaseLocation, print, user};
use crate::exit::{Exit, Failure};

/// Items removed at a time: so long, nobody who wants one of them back has to wait.
const BATCH: usize = 256;

/// How often it begins anew when evaluations are published meanwhile.
const TRIES: u32 = 5;

/// Remove outputs that nobody wants any more from a server's cache
///
/// Kept is what the evaluations need that their specifications keep (`keep-evaluations`, `keep-days`; all, if they say nothing), what builds need
/// that are not finished, and whatever those refer to. Everything else that the farm has built goes, unless it was downloaded lately. What
/// goes is built again when an evaluation wants it again. Run it as the server's user; the server may run meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    location: DatabaseLocation,

    /// The server's cache directory; that of a second store is `gnu-store` or `nix-store` below it, and wants a call of its own
    #[arg(short, long, value_name = "DIRECTORY", default_value = "/var/cache/hauberk")]
    cache: PathBuf,

    /// The server whose cache it is, where the farm has several
    #[arg(long, value_name = "NAME")]
    server: Option<String>,

    /// Only print what would go
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Keep no more than so much, a number of bytes or one with `K`, `M`, `G` or `T`: what was not downloaded for longest goes first. What
    /// unfinished builds need and what `keep-evaluations` keeps, the last evaluation at least, stays all the same
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,

    /// Keep what came or was downloaded so lately: a number with `h`, `d`, `w` or `m`
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = parse_expiry)]
    grace: Expiry,

    /// Remove what no build of the farm gave, as imports and packed items of the store, when nobody has downloaded it for so long
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = parse_expiry)]
    others: Expiry,
}

/// Reads a number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "give a number of bytes, or one with `K`, `M`, `G` or `T`, such as `500G`".to_owned();
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Looks, and removes unless it is only to look.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let cache = open(&options.cache)?;
    let database = Database::connect(&options.location.parse()?, 1).await?;
    let mut client = database.client().await?;
    let server = server(&client, options.server.as_deref()).await?;
    for _ in 0..TRIES {
        let (as_of, items, plan, known) = look(&client, cache.reader(), &options).await?;
        if options.dry_run {
            for &place in &plan.remove {
                print(format_args!("{} {}", items[place].path, items[place].bytes))?;
            }
            return print(format_args!(
                "{} of {} items would go, {} bytes; {} bytes would stay",
                plan.remove.len(),
                items.len(),
                plan.removed_bytes,
                plan.left_bytes
            ));
        }
        let going: Vec<&StorePath> = plan.remove.iter().map(|&place| &items[place].path).collect();
        let built: Vec<&StorePath> = going.iter().copied().filter(|path| known.contains(*path)).collect();
        if !retention::collect(&mut client, server, as_of, &built).await? {
            tracing::info!("an evaluation was published meanwhile: looking again at what is wanted");
            continue;
        }
        let (mut removed, mut bytes) = (0, 0);
        for batch in going.chunks(BATCH) {
            let (count, freed) = remove(&mut client, server, &cache, batch, &known).await?;
            removed += count;
            bytes += freed;
        }
        let detail = json!({ "items": removed, "bytes": bytes });
        audit::record(&client, &user(), "collect", &options.cache.display().to_string(), Some(&detail))
            .await?;
        print(format_args!(
            "{removed} items removed, {bytes} bytes of nars; {} items stay",
            items.len() - removed
        ))?;
        return match options.max_size {
            Some(limit) if plan.left_bytes > limit => Err(Failure::new(
                Exit::Other,
                anyhow!("{} bytes are needed, more than the {limit} allowed", plan.left_bytes),
            )),
            _ => Ok(()),
        };
    }
    Err(Failure::other(anyhow!("evaluations are published too fast: try again when the register is quieter")))
}

fn open(directory: &Path) -> Result<Cache, Failure> {
    Cache::open_existing(directory).map_err(Failure::configuration)
}

async fn server(client: &Client, name: Option<&str>) -> Result<ServerId, Failure> {
    let servers = retention::servers(client, name).await?;
    match (servers.as_slice(), name) {
        ([(id, _)], _) => Ok(*id),
        ([], Some(name)) => Err(Failure::configuration(anyhow!("there is no server {name}"))),
        ([], None) => Err(Failure::configuration(anyhow!("no server has run with this database yet"))),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|(_, name)| name.as_str()).collect();
            Err(Failure::configuration(anyhow!(
                "the farm has several servers: give the one whose cache it is by --server ({})",
                names.join(", ")
            )))
        }
    }
}

/// What there is, what of it goes, and what of that builds of the farm gave.
async fn look(
    client: &Client,
    cache: &CacheReader,
    options: &Options,
) -> Result<(AsOf, Vec<StoredItem>, Collection, HashSet<StorePath>), Failure> {
    let as_of = AsOf::now(client).await?;
    // The cache first: what comes in meanwhile is not thought to be unwanted.
    let reader = cache.clone();
    let listed = tokio::task::spawn_blocking(move || reader.inventory()).await.map_err(Failure::other)?;
    let items = listed.map_err(Failure::other)?;
    let mut firm = retention::wanted_first(client).await?;
    firm.extend(retention::needed(client).await?);
    let weak = retention::wanted(client).await?;
    let paths: Vec<&StorePath> = items.iter().map(|item| &item.path).collect();
    let known = retention::known(client, &paths).await?;
    let now = SystemTime::now();
    let unused = |item: &StoredItem, time: Expiry| {
        time.is_some_and(|time| now.duration_since(item.used_at).is_ok_and(|age| age > time))
    };
    let hold = |item: &StoredItem| {
        if firm.contains(&item.path) {
            return Hold::Firm;
        }
        let time = if known.contains(&item.path) { options.grace } else { options.others };
        if weak.contains(&item.path) || !unused(item, time) { Hold::Weak } else { Hold::None }
    };
    let plan = Collection::plan(&items, hold, options.max_size);
    Ok((as_of, items, plan, known))
}

/// Removes those of a batch that nobody wants back.
async fn remove(
    client: &mut Client,
    server: ServerId,
    cache: &Cache,
    batch: &[&StorePath],
    known: &HashSet<StorePath>,
) -> Result<(usize, u64), Failure> {
    let removal = Removal::begin(client, server, batch).await?;
    let goes = |path: &&&StorePath| removal.paths.contains(**path) || !known.contains(**path);
    let hashes: Vec<StorePathHash> = batch.iter().filter(goes).map(|path| path.hash()).collect();
    let (count, cache) = (hashes.len(), cache.clone());
    let removed = tokio::task::spawn_blocking(move || cache.remove(&hashes)).await.map_err(Failure::other)?;
    let bytes = removed.map_err(Failure::other)?;
    removal.done().await?;
    Ok((count, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("0", 0), ("1500", 1500), ("2K", 2048), ("500G", 500 << 30), ("1T", 1 << 40)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "G", "1.5G", "-1", "1g", "99999999999T", "1\u{e9}"] {
            parse_size(text).unwrap_err();
        }
    }
}
