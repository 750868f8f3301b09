//! Gates that builders wait at.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The gates that are open.
#[derive(Clone, Debug)]
pub(crate) struct OpenGates(watch::Receiver<HashSet<String>>);

impl OpenGates {
    /// Watches a directory for files `NAME.open`, as long as anybody waits for them.
    pub(crate) fn watch(directory: PathBuf) -> Self {
        let (sender, receiver) = watch::channel(HashSet::new());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            while !sender.is_closed() {
                ticks.tick().await;
                let Ok(entries) = std::fs::read_dir(&directory) else { continue };
                let open: HashSet<String> = entries
                    .flatten()
                    .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".open")?.to_owned()))
                    .collect();
                sender.send_if_modified(|known| {
                    let changed = *known != open;
                    *known = open;
                    changed
                });
            }
        });
        Self(receiver)
    }

    /// Waits until a gate is open.
    pub(crate) async fn wait(&self, gate: &str) {
        // Nobody closes the channel while somebody waits.
        let _ = self.0.clone().wait_for(|open| open.contains(gate)).await;
    }
}
