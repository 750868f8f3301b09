//! Other workers that did not answer, and are not asked for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hauberk_publish::client::{BaseUrl, FetchError};

/// How long a worker that did not answer is not asked.
const SILENCE: Duration = Duration::from_secs(300);

/// Remembers who did not answer, or gave what was not asked for. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silence(Arc<Mutex<HashMap<BaseUrl, Instant>>>);

impl Silence {
    /// Takes note of a worker that does not answer, or gives up in the middle, so that the next inputs need not wait for it.
    pub(crate) fn note(&self, base: &BaseUrl, error: &FetchError) {
        let silent = matches!(
            error,
            FetchError::Unreachable { .. }
                | FetchError::Late { .. }
                | FetchError::Stalled { .. }
                | FetchError::Truncated { .. }
        );
        if silent {
            self.avoid(base);
        }
    }

    /// Has a worker not be asked for a while.
    pub(crate) fn avoid(&self, base: &BaseUrl) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(base.clone(), Instant::now());
    }

    /// Tells whether a worker is not to be asked now.
    pub(crate) fn holds(&self, base: &BaseUrl) -> bool {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, since| since.elapsed() < SILENCE);
        silent.contains_key(base)
    }
}
