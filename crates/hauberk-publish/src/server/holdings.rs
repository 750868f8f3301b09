//! What the cache directory holds, for those who watch.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::gauge::Gauge,
    registry::{Registry, Unit},
};
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::cache::Cache;

/// How long what was counted is told: a large directory takes seconds.
const GOOD_FOR: Duration = Duration::from_secs(300);

/// Counts what a cache directory holds, when somebody wants to know, and remembers it for a while. Clones share what is known.
#[derive(Clone)]
pub(super) struct Holdings(Arc<Inner>);

struct Inner {
    cache: Cache,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it was last begun to count.
    asked: Option<Instant>,
    counted: Option<Counted>,
}

/// What a cache directory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    items: i64,
    bytes: i64,
}

impl Holdings {
    /// Counts in this cache.
    pub(super) fn new(cache: Cache) -> Self {
        Self(Arc::new(Inner { cache, state: Mutex::default() }))
    }

    /// Adds what was counted last to `registry`, nothing before that; has it counted anew where that is long ago.
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.asked.is_none_or(|asked| asked.elapsed() > GOOD_FOR) {
            state.asked = Some(Instant::now());
            let holdings = self.clone();
            spawn_blocking(move || holdings.count());
        }
        let Some(counted) = state.counted else { return };
        let gauge = |value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        registry.register("cache_items", "Items in the cache directory", gauge(counted.items));
        let bytes = gauge(counted.bytes);
        let help = "Size of the nar files in the cache directory";
        registry.register_with_unit("cache_nars", help, Unit::Bytes, bytes);
    }

    fn count(&self) {
        match count(self.0.cache.directory()) {
            Ok(counted) => {
                self.0.state.lock().unwrap_or_else(PoisonError::into_inner).counted = Some(counted);
            }
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "cannot count what the cache holds");
            }
        }
    }
}

fn count(directory: &Path) -> io::Result<Counted> {
    let mut counted = Counted::default();
    for entry in fs::read_dir(directory)? {
        if entry?.file_name().as_encoded_bytes().ends_with(b".narinfo") {
            counted.items += 1;
        }
    }
    for entry in fs::read_dir(directory.join("nar"))? {
        // What goes meanwhile is not there.
        let Ok(metadata) = entry?.metadata() else { continue };
        if metadata.is_file() {
            counted.bytes = counted.bytes.saturating_add(i64::try_from(metadata.len()).unwrap_or(i64::MAX));
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_their_bytes_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let nars = directory.path().join("nar");
        fs::create_dir(&nars).unwrap();
        assert_eq!(count(directory.path()).unwrap(), Counted::default());
        for name in ["a.narinfo", "b.narinfo", "nix-cache-info"] {
            fs::write(directory.path().join(name), "text").unwrap();
        }
        fs::write(nars.join("a.nar"), [0; 1000]).unwrap();
        fs::write(nars.join("b.nar.zst"), [0; 234]).unwrap();
        assert_eq!(count(directory.path()).unwrap(), Counted { items: 2, bytes: 1234 });
        count(&nars.join("c")).unwrap_err();
    }
}
