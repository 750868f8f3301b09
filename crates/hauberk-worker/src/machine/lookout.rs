//! Looks at the machine again and again, and tells when it begins or ceases to lack something.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::collector::Collector;
use super::reserve::{Lack, Places, Reserve, Shortage, in_words};

/// The machine is looked at so often.
const EVERY: Duration = Duration::from_secs(1);

/// See the module's description.
pub(crate) struct Lookout {
    reserve: Reserve,
    places: Places,
    collector: Option<Arc<Collector>>,
    told: watch::Sender<Shortage>,
}

impl Lookout {
    /// Looks for the first time.
    pub(super) fn new(reserve: Reserve, places: Places, collector: Option<Collector>) -> Self {
        let first = reserve.judge(&reserve.look(&places), &Shortage::new());
        if !first.is_empty() {
            warn!("no work is asked for: {}", in_words(&first));
        }
        Self { reserve, places, collector: collector.map(Arc::new), told: watch::Sender::new(first) }
    }

    /// Tells what is lacking now, and when that changes in kind.
    pub(super) fn told(&self) -> watch::Receiver<Shortage> {
        self.told.subscribe()
    }

    /// Looks for ever.
    pub(crate) async fn run(self) {
        if self.reserve.is_nothing() {
            return;
        }
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut collecting: Option<Pin<Box<dyn Future<Output = Instant> + Send>>> = None;
        let mut collect_from = Instant::now();
        loop {
            let collected = async {
                match &mut collecting {
                    Some(collecting) => collecting.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                at = collected => {
                    collecting = None;
                    collect_from = at;
                }
                _ = ticks.tick() => {}
            }
            self.look().await;
            if let Some(collector) = &self.collector
                && collecting.is_none()
                && collect_from <= Instant::now()
                && self.told.borrow().contains_key(&Lack::StoreDisk)
            {
                collecting = Some(Box::pin(Arc::clone(collector).collect()));
            }
        }
    }

    async fn look(&self) {
        let (reserve, places) = (self.reserve, self.places.clone());
        // A disk that does not answer keeps this waiting, and nothing else.
        let Ok(seen) = tokio::task::spawn_blocking(move || reserve.look(&places)).await else { return };
        self.told.send_if_modified(|shortage| {
            let now = reserve.judge(&seen, shortage);
            let changed = !now.keys().eq(shortage.keys());
            match (changed, now.is_empty()) {
                (false, _) => {}
                (true, true) => info!("work is asked for again"),
                (true, false) => warn!("no work is asked for: {}", in_words(&now)),
            }
            *shortage = now;
            changed
        });
    }
}
