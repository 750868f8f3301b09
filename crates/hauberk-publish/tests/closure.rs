//! Finding what a closure lacks.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use hauberk_publish::{
    BaseUrl, PublishConfig, Signer, SubstituteClient,
    client::{AskError, ClientConfig, Closure, ClosureError, ClosureLimits, FetchError, Source, ValidPaths},
};
use hauberk_store::{Sha256, StoreDirectory, StorePath};
use support::{NothingValid, PlainStore, Server, key, path_in, raw_server, respond, respond_not_found};

fn path(name: &str) -> StorePath {
    path_in(&StoreDirectory::nix(), name)
}

/// Serves narinfos of paths that refer to each other as said.
fn server(graph: &[(&str, &[&str])], requests: &Arc<AtomicUsize>) -> Source {
    let mut narinfos = HashMap::new();
    for (name, references) in graph {
        let item = path(name);
        let references: Vec<String> =
            references.iter().map(|name| path(name).base_name().to_owned()).collect();
        let text = format!(
            "StorePath: {item}\nURL: nar/x\nCompression: none\nNarHash: {}\nNarSize: 1\nReferences: {}\n",
            Sha256::digest(b""),
            references.join(" ")
        );
        narinfos.insert(format!("/{}.narinfo", item.hash_part()), text);
    }
    let requests = Arc::clone(requests);
    let url = raw_server(move |path, stream| {
        requests.fetch_add(1, Ordering::Relaxed);
        match narinfos.get(path) {
            Some(text) => respond(stream, text.as_bytes()),
            None => respond_not_found(stream),
        }
    });
    Source { url, trusted: None }
}

struct Valid(Vec<StorePath>);

#[async_trait]
impl ValidPaths for Valid {
    async fn valid(&mut self, paths: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError> {
        Ok(paths.into_iter().filter(|path| self.0.contains(path)).collect())
    }
}

struct Broken;

#[async_trait]
impl ValidPaths for Broken {
    async fn valid(&mut self, _: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError> {
        Err("no daemon".into())
    }
}

async fn walk(
    roots: &[&str],
    sources: &[Source],
    valid: &mut dyn ValidPaths,
    limits: ClosureLimits,
) -> Result<Closure, ClosureError> {
    let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
    client.closure(roots.iter().map(|name| path(name)), sources, valid, limits).await
}

fn assert_ordered(closure: &Closure) {
    let missing: HashSet<&StorePath> = closure.missing.iter().map(|item| &item.narinfo.store_path).collect();
    assert_eq!(missing.len(), closure.missing.len());
    let mut seen = HashSet::new();
    for item in &closure.missing {
        for reference in &item.narinfo.references {
            let own = *reference == item.narinfo.store_path;
            assert!(
                own || !missing.contains(reference) || seen.contains(reference),
                "{reference} comes too late"
            );
        }
        seen.insert(&item.narinfo.store_path);
    }
}

fn names(closure: &Closure) -> Vec<&str> {
    closure.missing.iter().map(|item| item.narinfo.store_path.name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_come_first_and_valid_paths_not_at_all() {
    let requests = Arc::default();
    let graph: &[(&str, &[&str])] = &[
        ("top", &["top", "left", "right", "there"]),
        ("left", &["bottom"]),
        ("right", &["left", "bottom"]),
        ("bottom", &[]),
    ];
    let source = server(graph, &requests);
    let mut valid = Valid(vec![path("there")]);
    let closure = walk(&["top"], &[source], &mut valid, ClosureLimits::default()).await.unwrap();
    assert_ordered(&closure);
    assert!(closure.is_complete());
    assert_eq!(names(&closure), ["bottom", "left", "right", "top"]);
    assert_eq!(requests.load(Ordering::Relaxed), 4, "each missing path is asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_asked_in_order() {
    let requests = Arc::default();
    let first = server(&[("a", &["b", "c", "nowhere"])], &requests);
    let second = server(&[("a", &[]), ("b", &[])], &requests);
    let nobody = Source { url: BaseUrl::parse("http://127.0.0.1:1").unwrap(), trusted: None };
    let closure = walk(&["a"], &[first.clone(), second.clone()], &mut NothingValid, ClosureLimits::default())
        .await
        .unwrap();
    assert_eq!(names(&closure), ["b", "a"]);
    assert_eq!(closure.missing.iter().map(|item| item.source).collect::<Vec<_>>(), [1, 0]);
    let mut absent = [path("c"), path("nowhere")];
    absent.sort();
    assert_eq!(closure.absent, absent);
    assert!(!closure.is_complete());

    // A source that does not answer hides nothing that another one has, and makes nothing absent.
    let closure =
        walk(&["b", "c"], &[nobody, second], &mut NothingValid, ClosureLimits::default()).await.unwrap();
    assert_eq!(names(&closure), ["b"]);
    assert!(closure.absent.is_empty());
    let [(failed, error)] = &closure.failed[..] else { panic!("{closure:?}") };
    assert_eq!(*failed, path("c"));
    assert!(matches!(error, FetchError::Unreachable { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_is_not_believed() {
    let requests = Arc::default();
    let mut unsigned = server(&[("a", &[])], &requests);
    unsigned.trusted = Some(key("k-1").1);
    let closure = walk(&["a"], &[unsigned], &mut NothingValid, ClosureLimits::default()).await.unwrap();
    assert!(matches!(closure.failed[..], [(_, FetchError::BadSignature { .. })]));
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_that_cannot_be() {
    let requests = Arc::default();
    let cycle = server(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])], &requests);
    let outcome = walk(&["a"], &[cycle], &mut NothingValid, ClosureLimits::default()).await;
    assert!(matches!(outcome, Err(ClosureError::Cycle { .. })));
    let chain = server(&[("a", &["b"]), ("b", &["c"]), ("c", &[])], &requests);
    let limits = ClosureLimits { paths: 2, ..ClosureLimits::default() };
    let outcome = walk(&["a"], std::slice::from_ref(&chain), &mut NothingValid, limits).await;
    assert!(matches!(outcome, Err(ClosureError::TooLarge { limit: 2 })));
    let outcome = walk(&["a"], &[chain], &mut Broken, ClosureLimits::default()).await;
    assert!(matches!(outcome, Err(ClosureError::Ask(_))));
}

/// Three thousand small files in layers, as derivations are.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_items() {
    let store = PlainStore::new();
    let (signer, trusted) = key("k-1");
    let mut layers: Vec<Vec<StorePath>> = Vec::new();
    for layer in 0..30 {
        let below = layers.last().cloned().unwrap_or_default();
        let items = (0..100).map(|number| {
            let references: Vec<&StorePath> = below.iter().skip(number % 50).take(10).collect();
            store
                .add(&format!("{layer}-{number}.drv"), &references, |file| fs::write(file, "Derive").unwrap())
        });
        layers.push(items.collect());
    }
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.signer = Signer::clone(&signer);
    config.store = Some(store.source());
    let server = Server::start(config);
    let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
    let source = Source { url: server.url(), trusted: Some(trusted) };
    let roots: Vec<StorePath> = layers.last().unwrap().clone();
    let started = Instant::now();
    let closure =
        client.closure(roots, &[source], &mut NothingValid, ClosureLimits::default()).await.unwrap();
    println!("{} narinfos in {:?}", closure.missing.len(), started.elapsed());
    assert!(closure.is_complete());
    assert_ordered(&closure);
    assert!(closure.missing.len() > 1500);
}
