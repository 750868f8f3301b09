//! Whether the server's files hold what was printed, all of it and nothing else.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::Corpus;

/// The file of one build's log.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    /// The build.
    pub(crate) build: i64,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Checks that each file is whole by gzip's own check sum, and that its text is what its build has printed. Gives the bytes of
/// all texts and of all files. Blocks.
pub(crate) fn verify(corpus: &Corpus, files: &[LogFile], bytes: u64) -> Result<(u64, u64)> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(u64, u64)> {
        let (mut text, mut packed) = (0, 0);
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (text_here, packed_here) = verify_one(corpus, file, bytes)
                .with_context(|| format!("the log of build {}, {}", file.build, file.path.display()))?;
            text += text_here;
            packed += packed_here;
        }
        Ok((text, packed))
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sums = (0, 0);
        for worker in workers {
            let (text, packed) =
                worker.join().map_err(|_| anyhow::anyhow!("a thread that checks logs broke"))??;
            sums = (sums.0 + text, sums.1 + packed);
        }
        Ok(sums)
    })
}

fn verify_one(corpus: &Corpus, file: &LogFile, bytes: u64) -> Result<(u64, u64)> {
    let opened = File::open(&file.path).context("opening it")?;
    let packed = opened.metadata().context("asking for its size")?.len();
    let mut decoder = GzDecoder::new(std::io::BufReader::new(opened));
    let (mut text, mut here) = (0_u64, Vec::new());
    for line in corpus.lines(file.build, bytes) {
        here.resize(line.len(), 0);
        decoder.read_exact(&mut here).with_context(|| format!("reading behind {text} bytes"))?;
        ensure!(here == line, "it differs from what was printed behind {text} bytes");
        text += line.len() as u64;
    }
    // Reading the end compares the check sum and the length.
    let more = decoder.read(&mut [0]).context("reading its end")?;
    ensure!(more == 0, "it goes on behind {text} bytes");
    Ok((text, packed))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn what_is_missing_changed_or_added_is_noticed() {
        let corpus = Corpus::load().unwrap();
        let text: Vec<u8> = corpus.lines(3, 50_000).collect::<Vec<_>>().concat();
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &[u8], cut: usize| {
            let path = folder.path().join("log.gz");
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(text).unwrap();
            let mut packed = encoder.finish().unwrap();
            packed.truncate(packed.len() - cut);
            std::fs::write(&path, packed).unwrap();
            verify(&corpus, &[LogFile { build: 3, path }], 50_000)
        };
        assert_eq!(check(&text, 0).unwrap().0, text.len() as u64);
        check(&text, 1).unwrap_err();
        check(&text[..text.len() - 1], 0).unwrap_err();
        check(&[&text[..], b"\n"].concat(), 0).unwrap_err();
        let mut changed = text;
        changed[20_000] ^= 1;
        check(&changed, 0).unwrap_err();
    }
}
