//! How long lines take from the worker to the server's file.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use flate2::{Decompress, FlushDecompress};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes of the header of a gzip file that names nothing.
const HEADER: u64 = 10;
/// What is read of a file at a time.
const PIECE: usize = 64 << 10;

/// The lines that are looked for, of some builds, and how long those took that were seen.
#[derive(Debug)]
pub(crate) struct Sightings {
    /// One build in so many is looked at; none with 0.
    every: i64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Where in the text lines end, and when they were printed, by build.
    expected: HashMap<i64, VecDeque<(u64, Instant)>>,
    /// When lines were printed, and how long they took, in seconds.
    seen: Vec<(Instant, f64)>,
}

impl Sightings {
    /// Looks at one build in `every`; at none with 0.
    pub(crate) fn new(every: i64) -> Arc<Self> {
        Arc::new(Self { every, seen: Mutex::default() })
    }

    /// Tells whether this build is looked at.
    pub(crate) fn includes(&self, build: i64) -> bool {
        self.every > 0 && build % self.every == 0
    }

    /// A line is about to be printed that ends at `end` of the build's text.
    pub(crate) fn expect(&self, build: i64, end: u64) {
        if self.includes(build) {
            self.lock().expected.entry(build).or_default().push_back((end, Instant::now()));
        }
    }

    /// The first `text` bytes of the build's text can be read.
    fn found(&self, build: i64, text: u64) {
        let now = Instant::now();
        let mut seen = self.lock();
        let Seen { expected, seen } = &mut *seen;
        let Some(lines) = expected.get_mut(&build) else { return };
        while let Some((_, printed)) = lines.pop_front_if(|(end, _)| *end <= text) {
            seen.push((printed, (now - printed).as_secs_f64()));
        }
    }

    /// Gives when lines were printed, and how many seconds they took. All must have been found.
    pub(crate) fn seen(&self) -> Result<Vec<(Instant, f64)>> {
        let seen = self.lock();
        match seen.expected.iter().find(|(_, lines)| !lines.is_empty()) {
            Some((build, lines)) => Err(anyhow!("{} lines of build {build} were never seen", lines.len())),
            None => Ok(seen.seen.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that reads log files while they grow.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Watch {
    /// Reads the files of these builds, which may not be there yet.
    pub(crate) fn start(files: Vec<(i64, PathBuf)>, sightings: Arc<Sightings>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut files: Vec<Growing> =
            files.into_iter().map(|(build, path)| Growing::new(build, path)).collect();
        let watch = move || loop {
            // What was there before the end was asked for is still read.
            let is_last = stopped.load(Ordering::Acquire);
            for file in &mut files {
                if file.read().with_context(|| format!("reading {}", file.path.display()))? {
                    sightings.found(file.build, file.inflate.total_out());
                }
            }
            if is_last {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(watch);
        Ok(Self { stop, thread: thread.context("starting a thread")? })
    }

    /// Reads the files to their ends, and no more.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the thread that reads log files broke"))?
    }
}

/// A log file that grows.
struct Growing {
    build: i64,
    path: PathBuf,
    file: Option<File>,
    inflate: Decompress,
    piece: Vec<u8>,
    text: Vec<u8>,
}

impl Growing {
    fn new(build: i64, path: PathBuf) -> Self {
        let (piece, text) = (vec![0; PIECE], Vec::with_capacity(PIECE));
        Self { build, path, file: None, inflate: Decompress::new(false), piece, text }
    }

    /// Reads what is new. Tells whether there was more text.
    fn read(&mut self) -> Result<bool> {
        let file = match &self.file {
            Some(file) => file,
            none => match File::open(&self.path) {
                Ok(file) => {
                    self.file = Some(file);
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && none.is_none() => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        let before = self.inflate.total_out();
        loop {
            let length = file.read_at(&mut self.piece, HEADER + self.inflate.total_in())?;
            let mut rest = self.piece.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                self.text.clear();
                let taken = self.inflate.total_in();
                let status = self.inflate.decompress_vec(rest, &mut self.text, FlushDecompress::Sync)?;
                let step = usize::try_from(self.inflate.total_in() - taken)?;
                rest = rest.get(step..).unwrap_or_default();
                // Behind the end of the stream comes the trailer.
                if status == flate2::Status::StreamEnd || (step == 0 && self.text.is_empty()) {
                    return Ok(self.inflate.total_out() > before);
                }
            }
            if length < self.piece.len() {
                return Ok(self.inflate.total_out() > before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    #[test]
    fn lines_are_seen_as_soon_as_they_can_be_read() {
        let sightings = Sightings::new(2);
        assert!(sightings.includes(4) && !sightings.includes(5) && !Sightings::new(0).includes(4));
        sightings.expect(4, 6);
        sightings.expect(4, 12);
        sightings.expect(5, 1);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut growing = Growing::new(4, file.path().to_owned());
        let mut compress = Compress::new(Compression::fast(), false);
        let mut chunk = |text: &[u8]| {
            let mut chunk = Vec::with_capacity(1000);
            compress.compress_vec(text, &mut chunk, FlushCompress::Full).unwrap();
            chunk
        };
        file.write_all(&[0; HEADER as usize]).unwrap();
        while !growing.read().unwrap() {
            file.write_all(&chunk(b"first\n")).unwrap();
        }
        sightings.found(4, growing.inflate.total_out());
        assert_eq!(sightings.lock().seen.len(), 1);
        sightings.seen().unwrap_err();
        file.write_all(&chunk(b"second\n")).unwrap();
        file.write_all(&[3, 0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert!(growing.read().unwrap());
        sightings.found(4, growing.inflate.total_out());
        assert_eq!(sightings.seen().unwrap().len(), 2);
        assert!(!growing.read().unwrap());
    }
}
