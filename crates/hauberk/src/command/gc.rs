//! `hauberk gc`: removes outputs that nobody wants any more from a server's cache.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Args;
use hauberk_database::retention::{self, AsOf, Keep, Removal};
use hauberk_database::{Client, Database, ProductId, ServerId, audit, pushes};
use hauberk_publish::cache::{CacheReader, Collection, Hold, StoredItem};
use hauberk_publish::{Cache, Products};
use hauberk_store::{Sha256, StorePath, StorePathHash};
use serde_json::json;

use crate::command::expiry::{Expiry, parse_expiry};
use crate::command::{DatabaseLocation, print, user};
use crate::exit::{Exit, Failure};

/// Items removed at a time: so long, nobody who wants one of them back has to wait.
const BATCH: usize = 256;

/// How often it begins anew when evaluations are published meanwhile.
const TRIES: u32 = 5;

/// Remove outputs and build products that nobody wants any more from a server's cache
///
/// Kept is what the evaluations need that their specifications keep (`keep-evaluations`, `keep-days`; all, if they say nothing), what builds need
/// that are not finished, and whatever those refer to. Everything else that the farm has built goes, unless it was downloaded lately. What
/// goes is built again when an evaluation wants it again. Build products are kept like the outputs they were taken out of, which stay as long as
/// they do. Derivations and sources that registers have pushed go when no unfinished build and no last evaluation needs them. Run it as the server's
/// user; the server may run meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    location: DatabaseLocation,

    /// The server's cache directory; that of a second store is `gnu-store` or `nix-store` below it, and wants a call of its own
    #[arg(short, long, value_name = "DIRECTORY", default_value = "/var/cache/hauberk")]
    cache: PathBuf,

    /// The server whose cache it is, where the farm has several; repeat it for all that share the cache
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,

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
    let products = open_products(&options.cache)?;
    let database = Database::connect(&options.location.parse()?, 1).await?;
    let mut client = database.client().await?;
    let servers = servers(&client, &options.server).await?;
    for _ in 0..TRIES {
        let Seen { as_of, items, files, plan, known } =
            look(&client, (&servers, cache.reader(), products.as_ref()), &options).await?;
        let cached = items.len() - files.len();
        if options.dry_run {
            for &place in &plan.remove {
                match place.checked_sub(cached).and_then(|place| files.get(place)) {
                    Some(file) => print(format_args!(
                        "products/{} {} {}",
                        file.sha256.to_base32(),
                        items[place].bytes,
                        file.name
                    ))?,
                    None => print(format_args!("{} {}", items[place].path, items[place].bytes))?,
                }
            }
            return print(format_args!(
                "{} of {} items would go, {} bytes; {} bytes would stay",
                plan.remove.len(),
                items.len(),
                plan.removed_bytes,
                plan.left_bytes
            ));
        }
        let (outputs, going_files): (Vec<usize>, Vec<usize>) =
            plan.remove.iter().partition(|&&place| place < cached);
        let going_files: Vec<&ProductFile> = going_files.iter().map(|place| &files[place - cached]).collect();
        let ids: Vec<ProductId> = going_files.iter().flat_map(|file| file.ids.iter().copied()).collect();
        if !retention::collect_products(&mut client, &servers, as_of, &ids).await? {
            tracing::info!("an evaluation was published meanwhile: looking again at what is wanted");
            continue;
        }
        let (pushed, going): (Vec<&StoredItem>, Vec<&StoredItem>) =
            outputs.iter().map(|&place| &items[place]).partition(|item| is_pushed(item, &known));
        let going: Vec<&StorePath> = going.into_iter().map(|item| &item.path).collect();
        let built: Vec<&StorePath> = going.iter().copied().filter(|path| known.contains(*path)).collect();
        if !retention::collect(&mut client, &servers, as_of, &built).await? {
            tracing::info!("an evaluation was published meanwhile: looking again at what is wanted");
            continue;
        }
        let (mut removed, mut bytes) = (0, 0);
        if let Some(products) = &products {
            (removed, bytes) = remove_products(&client, &servers, products, &going_files).await?;
        }
        let mut gone = 0;
        for batch in going.chunks(BATCH) {
            let (count, freed) = remove(&mut client, &servers, &cache, batch, &known).await?;
            gone += count;
            bytes += freed;
        }
        removed += gone;
        // What stays after all may refer to some of them.
        if gone == going.len() {
            let (count, freed) = remove_pushed(&cache, pushed).await?;
            removed += count;
            bytes += freed;
        }
        let detail = json!({ "items": removed, "bytes": bytes });
        audit::record(&client, &user(), "collect", &options.cache.display().to_string(), Some(&detail))
            .await?;
        print(format_args!("{removed} items removed, {bytes} bytes; {} items stay", items.len() - removed))?;
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

/// The servers whose cache it is: those of these names, or the farm's only one.
async fn servers(client: &Client, names: &[String]) -> Result<Vec<ServerId>, Failure> {
    let servers = retention::servers(client, names).await?;
    if let Some(absent) = names.iter().find(|name| servers.iter().all(|(_, known)| known != *name)) {
        return Err(Failure::configuration(anyhow!("there is no server {absent}")));
    }
    match servers.as_slice() {
        [] => Err(Failure::configuration(anyhow!("no server has run with this database yet"))),
        [_, _, ..] if names.is_empty() => {
            let known: Vec<&str> = servers.iter().map(|(_, name)| name.as_str()).collect();
            Err(Failure::configuration(anyhow!(
                "the farm has several servers: give the one whose cache it is by --server ({}), or all that share it",
                known.join(", ")
            )))
        }
        found => Ok(found.iter().map(|(id, _)| *id).collect()),
    }
}

/// Opens the directory of products, if the server has made one.
fn open_products(cache: &Path) -> Result<Option<Products>, Failure> {
    let directory = Products::beside(cache);
    if !directory.is_dir() {
        return Ok(None);
    }
    Products::open(&directory).map(Some).map_err(Failure::configuration)
}

/// What there is, what of it goes, and what of that builds of the farm gave.
struct Seen {
    as_of: AsOf,
    /// Items of the cache, and after them the products.
    items: Vec<StoredItem>,
    files: Vec<ProductFile>,
    plan: Collection,
    known: HashSet<StorePath>,
}

/// A file of the directory of products.
struct ProductFile {
    sha256: Sha256,
    /// A name it is downloaded under.
    name: String,
    bytes: u64,
    /// The products that it is.
    ids: Vec<ProductId>,
    keep: Keep,
    outputs: Vec<StorePathHash>,
    used_at: SystemTime,
}

/// Looks at the files of products, and at what is recorded of them.
async fn product_files(
    client: &Client,
    servers: &[ServerId],
    products: Option<&Products>,
) -> Result<Vec<ProductFile>, Failure> {
    let Some(products) = products else { return Ok(Vec::new()) };
    // The files first, as with the cache.
    let directory = products.clone();
    let listed = tokio::task::spawn_blocking(move || directory.inventory()).await.map_err(Failure::other)?;
    let mut files: BTreeMap<Sha256, ProductFile> = listed
        .map_err(Failure::other)?
        .into_iter()
        .map(|stored| {
            let file = ProductFile {
                sha256: stored.sha256,
                name: "(of no build)".to_owned(),
                bytes: stored.bytes,
                ids: Vec::new(),
                keep: Keep::No,
                outputs: Vec::new(),
                used_at: stored.used_at,
            };
            (stored.sha256, file)
        })
        .collect();
    for product in retention::products(client, servers).await? {
        if let Some(file) = files.get_mut(&Sha256::from_bytes(product.sha256)) {
            file.ids.push(product.id);
            file.name = product.name;
            file.keep = file.keep.max(product.keep);
            // What nobody wants any more keeps no output.
            if product.keep > Keep::No {
                file.outputs.extend(product.output.as_ref().map(StorePath::hash));
            }
        }
    }
    Ok(files.into_values().collect())
}

/// Removes files of products that nothing is recorded of any more.
async fn remove_products(
    client: &Client,
    servers: &[ServerId],
    products: &Products,
    going: &[&ProductFile],
) -> Result<(usize, u64), Failure> {
    let directory = products.clone();
    let locked = tokio::task::spawn_blocking(move || directory.alone()).await.map_err(Failure::other)?;
    let lock = locked.map_err(Failure::other)?;
    let hashes: Vec<[u8; 32]> = going.iter().map(|file| *file.sha256.as_bytes()).collect();
    let named = retention::named_products(client, servers, &hashes).await?;
    let (mut removed, mut bytes) = (0, 0);
    for file in going.iter().filter(|file| !named.contains(file.sha256.as_bytes())) {
        products.remove(&file.sha256).map_err(Failure::other)?;
        removed += 1;
        bytes += file.bytes;
    }
    drop(lock);
    Ok((removed, bytes))
}

async fn look(
    client: &Client,
    (servers, cache, products): (&[ServerId], &CacheReader, Option<&Products>),
    options: &Options,
) -> Result<Seen, Failure> {
    let as_of = AsOf::now(client).await?;
    // The cache first: what comes in meanwhile is not thought to be unwanted.
    let reader = cache.clone();
    let listed = tokio::task::spawn_blocking(move || reader.inventory()).await.map_err(Failure::other)?;
    let mut items = listed.map_err(Failure::other)?;
    // Whoever pushes now has looked at what there is, or will, and then it is spared; then come those who have published.
    let pushing = pushes::under_way(client, servers).await?;
    let files = product_files(client, servers, products).await?;
    let mut firm = retention::wanted_first(client).await?;
    firm.extend(retention::needed_derivations(client).await?);
    firm.extend(retention::needed(client).await?);
    let mut weak = retention::wanted(client).await?;
    weak.extend(retention::wanted_derivations(client).await?);
    let paths: Vec<&StorePath> = items.iter().map(|item| &item.path).collect();
    let known = retention::known(client, &paths).await?;
    // A product stands among the items as one that refers to the outputs it was taken out of, so that it goes before them and they stay as
    // long as it does.
    let mut keeps = HashMap::new();
    for file in &files {
        let digest = file.sha256.as_bytes().first_chunk().copied().unwrap_or_default();
        let path =
            StorePath::from_digest(cache.store_directory(), &digest, "product").map_err(Failure::other)?;
        keeps.insert(path.clone(), file.keep);
        items.push(StoredItem {
            path,
            references: file.outputs.clone(),
            bytes: file.bytes,
            used_at: file.used_at,
            pushed: false,
            noted_at: file.used_at,
        });
    }
    let now = SystemTime::now();
    let unused = |item: &StoredItem, time: Expiry| {
        time.is_some_and(|time| now.duration_since(item.used_at).is_ok_and(|age| age > time))
    };
    let hold = |item: &StoredItem| {
        match keeps.get(&item.path) {
            Some(Keep::Firmly) => return Hold::Firm,
            Some(Keep::No) if unused(item, options.grace) => return Hold::None,
            Some(Keep::Weakly | Keep::No) => return Hold::Weak,
            None => {}
        }
        if firm.contains(&item.path) || pushing && is_pushed(item, &known) {
            return Hold::Firm;
        }
        let ours = item.pushed || known.contains(&item.path);
        let time = if ours { options.grace } else { options.others };
        if weak.contains(&item.path) || !unused(item, time) { Hold::Weak } else { Hold::None }
    };
    let plan = Collection::plan(&items, hold, options.max_size);
    Ok(Seen { as_of, items, files, plan, known })
}

/// Removes those of a batch that nobody wants back.
async fn remove(
    client: &mut Client,
    servers: &[ServerId],
    cache: &Cache,
    batch: &[&StorePath],
    known: &HashSet<StorePath>,
) -> Result<(usize, u64), Failure> {
    let removal = Removal::begin(client, servers, batch).await?;
    let goes = |path: &&&StorePath| removal.paths.contains(**path) || !known.contains(**path);
    let hashes: Vec<StorePathHash> = batch.iter().filter(goes).map(|path| path.hash()).collect();
    let (count, cache) = (hashes.len(), cache.clone());
    let removed = tokio::task::spawn_blocking(move || cache.remove(&hashes)).await.map_err(Failure::other)?;
    let bytes = removed.map_err(Failure::other)?;
    removal.done().await?;
    Ok((count, bytes))
}

/// Whether an item came by a push, and not from a worker, which could say so, too.
fn is_pushed(item: &StoredItem, known: &HashSet<StorePath>) -> bool {
    item.pushed && !known.contains(&item.path)
}

/// Removes derivations and sources that registers have pushed, until one of them is looked for. Gives the number of those that went, and their
/// bytes.
async fn remove_pushed(cache: &Cache, items: Vec<&StoredItem>) -> Result<(usize, u64), Failure> {
    let (mut removed, mut bytes) = (0, 0);
    for batch in items.chunks(BATCH) {
        let (batch, cache): (Vec<StoredItem>, Cache) =
            (batch.iter().copied().cloned().collect(), cache.clone());
        let all = batch.len();
        let remove = move || cache.remove_unused(&batch.iter().collect::<Vec<_>>());
        let gone = tokio::task::spawn_blocking(remove).await.map_err(Failure::other)?;
        let (count, freed) = gone.map_err(Failure::other)?;
        removed += count;
        bytes += freed;
        if count < all {
            tracing::info!("a register has just looked for what was to go: the rest stays for now");
            break;
        }
    }
    Ok((removed, bytes))
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
