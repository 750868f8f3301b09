//! Waiting for conditions.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The end of somebody's patience.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    patience: Duration,
}

impl Deadline {
    /// Ends `patience` from now.
    pub fn after(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, patience }
    }

    /// Ends so many seconds from now.
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// Tells whether it is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Gives the whole time there was.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}

/// Looks again and again until `condition` gives a value, and gives it.
///
/// # Errors
/// What the condition itself failed with, or that `what` did not come to pass in time.
pub fn wait_for<T>(
    what: &str,
    deadline: Deadline,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if deadline.is_over() {
            bail!("{what}: not within {:?}", deadline.patience());
        }
        sleep(LOOK);
    }
}
