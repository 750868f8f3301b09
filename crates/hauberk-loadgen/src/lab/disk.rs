//! How fast the disk of a laboratory is at this moment.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long it is measured.
const SPAN: Duration = Duration::from_millis(500);
/// What is written each time: a page of PostgreSQL's write-ahead log.
const PAGE: [u8; 8192] = [7; 8192];

/// Counts how often in a second a page can be written and made durable, one after the other, in `directory`.
pub(crate) fn fsyncs_per_second(directory: &Path) -> Result<f64> {
    let measure = || {
        let mut file = tempfile::tempfile_in(directory)?;
        file.write_all(&PAGE)?;
        file.sync_all()?;
        let began = Instant::now();
        let mut count = 0_u32;
        while began.elapsed() < SPAN {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&PAGE)?;
            file.sync_data()?;
            count += 1;
        }
        std::io::Result::Ok(f64::from(count) / began.elapsed().as_secs_f64())
    };
    measure().with_context(|| format!("measuring the disk of {}", directory.display()))
}
