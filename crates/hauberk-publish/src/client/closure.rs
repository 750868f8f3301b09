//! What has to be fetched before a set of paths is whole.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    error::Error,
};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hauberk_store::{NarInfo, StorePath};

use super::{base_url::BaseUrl, error::FetchError, substitutes::SubstituteClient};
use crate::signer::TrustedKeys;

/// What a store says when it cannot be asked.
pub type AskError = Box<dyn Error + Send + Sync>;

/// Knows which paths are there already and need no fetching.
#[async_trait]
pub trait ValidPaths: Send {
    /// Gives those of `paths` that are there.
    ///
    /// # Errors
    /// A store that does not answer.
    async fn valid(&mut self, paths: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError>;
}

/// A substitute server and whose word on it is taken.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub url: BaseUrl,
    /// Who must have signed its narinfos; nothing where whoever gets them judges.
    pub trusted: Option<TrustedKeys>,
}

/// Bounds on a walk.
#[derive(Debug, Clone, Copy)]
pub struct ClosureLimits {
    /// Most paths that are looked for.
    pub paths: usize,
    /// Requests under way at once; each has a connection of its own.
    pub parallel: usize,
}

impl Default for ClosureLimits {
    /// Gives 200,000 paths, more than any system's derivations, and 32 requests.
    fn default() -> Self {
        Self { paths: 200_000, parallel: 32 }
    }
}

/// A path to be fetched.
#[derive(Debug, Clone)]
pub struct MissingPath {
    /// What its server says of it.
    pub narinfo: NarInfo,
    /// Which of the sources has it, by index.
    pub source: usize,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Closure {
    /// What has to be fetched, each path after all it refers to.
    pub missing: Vec<MissingPath>,
    /// What no source has: each of them said so. What it refers to was not looked for.
    pub absent: Vec<StorePath>,
    /// What cannot be told, with what its last unwilling source gave; another source may have said it has none.
    pub failed: Vec<(StorePath, FetchError)>,
}

impl Closure {
    /// Tells whether all that is missing can be fetched.
    pub fn is_complete(&self) -> bool {
        self.absent.is_empty() && self.failed.is_empty()
    }
}

/// Why a walk was given up.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// The store could not tell what it has.
    #[error("cannot tell which paths are already valid")]
    Ask(#[source] AskError),
    /// The closure has more paths than allowed.
    #[error("more than {limit} paths are missing")]
    TooLarge {
        /// Paths allowed.
        limit: usize,
    },
    /// Paths that refer to each other, which no store has.
    #[error("{path} refers to itself through other paths")]
    Cycle {
        /// One of them.
        path: StorePath,
    },
}

/// What the sources gave for one path.
pub(crate) enum Answer {
    Found(MissingPath),
    Absent(StorePath),
    Failed(StorePath, FetchError),
}

impl SubstituteClient {
    /// Finds what is missing of the closure of `roots`: asks the store for each path, and for what it does not have the
    /// sources in their order, many requests at a time. References are followed as soon as a narinfo has come, so
    /// the time is that of the longest chain of references, or of all requests divided by those under way at once.
    ///
    /// # Errors
    /// A store that does not answer, a closure beyond the limits, narinfos that refer to each other. What a server
    /// gives or refuses is told for each path in the [`Closure`].
    pub async fn closure(
        &self,
        roots: impl IntoIterator<Item = StorePath>,
        sources: &[Source],
        store: &mut dyn ValidPaths,
        limits: ClosureLimits,
    ) -> Result<Closure, ClosureError> {
        walk(roots, |path| Box::pin(self.ask(path, sources)), store, limits).await
    }

    async fn ask(&self, path: StorePath, sources: &[Source]) -> Answer {
        let mut failure = None;
        for (index, source) in sources.iter().enumerate() {
            let answer = match &source.trusted {
                Some(trusted) => self.trusted_narinfo(&source.url, &path, trusted).await,
                None => self.narinfo(&source.url, &path.hash()).await,
            };
            match answer {
                Ok(Some(narinfo)) if narinfo.store_path == path => {
                    return Answer::Found(MissingPath { narinfo, source: index });
                }
                Ok(Some(other)) => {
                    let (base, hash) = (source.url.to_string(), path.hash());
                    failure = Some(FetchError::OtherPath { base, hash, path: other.store_path });
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Answer::Failed(path, error),
            None => Answer::Absent(path),
        }
    }
}

/// Finds what is missing of the closure of `roots` by what `ask` says of each path.
pub(crate) async fn walk<'a>(
    roots: impl IntoIterator<Item = StorePath>,
    ask: impl Fn(StorePath) -> BoxFuture<'a, Answer>,
    store: &mut dyn ValidPaths,
    limits: ClosureLimits,
) -> Result<Closure, ClosureError> {
    let mut seen = HashSet::new();
    let mut new: BTreeSet<StorePath> = roots.into_iter().collect();
    seen.extend(new.iter().cloned());
    let mut waiting: Vec<StorePath> = Vec::new();
    let mut asked = FuturesUnordered::new();
    let mut closure = Closure::default();
    loop {
        if !new.is_empty() {
            let asked_for = std::mem::take(&mut new);
            let valid = store.valid(asked_for.clone()).await.map_err(ClosureError::Ask)?;
            waiting.extend(asked_for.into_iter().filter(|path| !valid.contains(path)));
        }
        if waiting.len() + asked.len() + closure.missing.len() > limits.paths {
            return Err(ClosureError::TooLarge { limit: limits.paths });
        }
        while asked.len() < limits.parallel.max(1)
            && let Some(path) = waiting.pop()
        {
            asked.push(ask(path));
        }
        let Some(mut answer) = asked.next().await else { break };
        // All answers that are here already are taken, so that the store is asked once for what they refer to.
        loop {
            match answer {
                Answer::Found(found) => {
                    let references = found.narinfo.references.iter();
                    new.extend(references.filter(|path| seen.insert((*path).clone())).cloned());
                    closure.missing.push(found);
                }
                Answer::Absent(path) => closure.absent.push(path),
                Answer::Failed(path, error) => closure.failed.push((path, error)),
            }
            match futures::FutureExt::now_or_never(asked.next()) {
                Some(Some(next)) => answer = next,
                Some(None) | None => break,
            }
        }
    }
    closure.missing = in_reference_order(closure.missing)?;
    closure.absent.sort();
    closure.failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(closure)
}

/// Sorts paths so that each comes after those it refers to; without recursion, for chains may be long.
fn in_reference_order(missing: Vec<MissingPath>) -> Result<Vec<MissingPath>, ClosureError> {
    let mut index = HashMap::with_capacity(missing.len());
    for (position, item) in missing.iter().enumerate() {
        index.insert(item.narinfo.store_path.clone(), position);
    }
    let mut unmet = vec![0_usize; missing.len()];
    let mut referrers: Vec<Vec<usize>> = vec![Vec::new(); missing.len()];
    for (position, item) in missing.iter().enumerate() {
        for reference in &item.narinfo.references {
            if let Some(&referred) = index.get(reference).filter(|&&referred| referred != position) {
                unmet[position] += 1;
                referrers[referred].push(position);
            }
        }
    }
    let mut ready: Vec<usize> = (0..missing.len()).filter(|&position| unmet[position] == 0).collect();
    let mut items: Vec<Option<MissingPath>> = missing.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(items.len());
    while let Some(position) = ready.pop() {
        sorted.extend(items[position].take());
        for &referrer in &referrers[position] {
            unmet[referrer] -= 1;
            if unmet[referrer] == 0 {
                ready.push(referrer);
            }
        }
    }
    match items.into_iter().flatten().next() {
        Some(item) => Err(ClosureError::Cycle { path: item.narinfo.store_path }),
        None => Ok(sorted),
    }
}
