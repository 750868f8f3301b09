//! The spool after the death of its worker, at any moment.

use std::sync::Arc;

use super::*;
use crate::log::Piece;

fn id(number: i64) -> AttemptId {
    AttemptId::new(number).unwrap()
}

fn nobody() -> Wake {
    Arc::new(|_| {})
}

fn open(directory: &Path) -> (DiskSpool, Leftover) {
    DiskSpool::open(directory, "w", LogLimits::default(), &nobody()).unwrap()
}

fn result(number: i64) -> Finished {
    Finished { attempt: number, message: format!("result {number}"), ..Finished::default() }
}

fn begin_log(spool: &DiskSpool, number: i64, limit: u64) -> AttemptLog {
    let store = ChunkStore::Disk(spool.create_log(id(number)).unwrap());
    AttemptLog::new(id(number), store, limit, nobody())
}

/// The text of a log and its end, as the server would have them.
fn sent(log: &AttemptLog) -> (String, Option<(u64, u32, bool)>) {
    let (mut stream, mut end) = (Vec::new(), None);
    loop {
        match log.piece(stream.len() as u64).unwrap() {
            Piece::Chunk(chunk) => stream.extend_from_slice(&chunk),
            Piece::End(mark) => {
                end = Some((mark.text, mark.crc32, mark.truncated));
                break;
            }
            Piece::Later => break,
        }
    }
    let mut text = Vec::new();
    let mut inflate = flate2::Decompress::new(false);
    text.reserve(1 << 20);
    inflate.decompress_vec(&stream, &mut text, flate2::FlushDecompress::Sync).unwrap();
    (String::from_utf8(text).unwrap(), end)
}

#[test]
fn results_outlive_the_process_until_they_are_acknowledged_and_released() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, leftover) = open(directory.path());
    assert!(leftover.results.is_empty() && leftover.kept.is_empty() && leftover.logs.is_empty());
    for number in [1, 2, 3] {
        spool.record(id(number), &result(number)).unwrap();
    }
    spool.acknowledge(&[id(1), id(2)], &[id(2)]).unwrap();
    drop(spool);
    let (spool, leftover) = open(directory.path());
    assert_eq!(leftover.results, BTreeMap::from([(id(3), result(3))]));
    assert_eq!(leftover.kept, [id(2)]);
    spool.release(&[id(2), id(3), id(9)]).unwrap();
    drop(spool);
    let (_, leftover) = open(directory.path());
    assert!(leftover.results.is_empty() && leftover.kept.is_empty());
}

#[test]
fn a_second_worker_is_refused_and_told_who_has_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _) = open(directory.path());
    let error = DiskSpool::open(directory.path(), "other", LogLimits::default(), &nobody()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("worker w, process {}", std::process::id())), "{text}");
    assert!(text.contains("--spool"), "{text}");
}

#[test]
fn a_result_cut_at_any_byte_is_dropped_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.record(id(1), &result(1)).unwrap();
    spool.record(id(2), &result(2)).unwrap();
    drop(spool);
    let path = directory.path().join("results/2");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        fs::write(path.with_extension("draft"), &whole[..length]).unwrap();
        let (_, leftover) = open(directory.path());
        assert_eq!(leftover.results.keys().copied().collect::<Vec<_>>(), [id(1)], "{length}");
        assert_eq!(names(&directory.path().join("results")).unwrap(), ["1"]);
    }
}

#[test]
fn a_result_under_anothers_name_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.record(id(1), &result(1)).unwrap();
    drop(spool);
    fs::rename(directory.path().join("results/1"), directory.path().join("results/5")).unwrap();
    fs::write(directory.path().join("results/007"), "stray").unwrap();
    let (_, leftover) = open(directory.path());
    assert!(leftover.results.is_empty());
}

#[test]
fn an_ended_log_is_found_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let log = begin_log(&spool, 4, u64::MAX);
    log.write(b"first\n");
    log.flush();
    log.write(b"second\n");
    let totals = log.finish();
    let before = sent(&log);
    drop((spool, log));
    let (_, leftover) = open(directory.path());
    assert_eq!(leftover.logs.len(), 1);
    let after = sent(&leftover.logs[0]);
    assert_eq!(after, before);
    assert_eq!(after.0, "first\nsecond\n");
    assert_eq!(after.1, Some((totals.text_bytes, crc32fast::hash(b"first\nsecond\n"), false)));
    leftover.logs[0].remove().unwrap();
    assert!(names(&directory.path().join("logs")).unwrap().is_empty());
}

#[test]
fn a_log_cut_anywhere_keeps_its_whole_chunks_and_gets_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let log = begin_log(&spool, 4, u64::MAX);
    let mut ends = vec![0];
    for number in 0..5 {
        log.write(format!("line {number}\n").as_bytes());
        log.flush();
        ends.push(log.stream_bytes());
    }
    drop((spool, log));
    let [stream, index] = ["4.stream", "4.index"].map(|name| directory.path().join("logs").join(name));
    let (whole_stream, whole_index) = (fs::read(&stream).unwrap(), fs::read(&index).unwrap());
    let check = |stream_length: usize, index_length: usize, damage: Option<usize>| {
        let mut bytes = whole_stream[..stream_length].to_vec();
        if let Some(byte) = damage.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x5a;
        }
        fs::write(&stream, bytes).unwrap();
        fs::write(&index, &whole_index[..index_length]).unwrap();
        let (_, leftover) = open(directory.path());
        let (text, end) = sent(&leftover.logs[0]);
        let lines: Vec<_> = text.lines().collect();
        let (last, kept) = lines.split_last().unwrap();
        assert_eq!(*last, "hauberk: the worker was restarted, and the attempt ended with it");
        for (number, line) in kept.iter().enumerate() {
            assert_eq!(*line, format!("line {number}"));
        }
        assert_eq!(end, Some((text.len() as u64, crc32fast::hash(text.as_bytes()), false)));
        kept.len()
    };
    for length in 0..=whole_stream.len() {
        let whole = ends.iter().filter(|end| **end != 0 && **end <= length as u64).count();
        assert_eq!(check(length, whole_index.len(), None), whole, "stream of {length} bytes");
    }
    for length in 0..=whole_index.len() {
        assert_eq!(check(whole_stream.len(), length, None), length / 32, "index of {length} bytes");
    }
    for at in 0..whole_stream.len() {
        // A flipped bit in the empty block that ends a chunk may be harmless; what is read is right all the same.
        assert!(check(whole_stream.len(), whole_index.len(), Some(at)) <= 5);
    }
}

#[test]
fn a_log_without_its_other_half_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    begin_log(&spool, 4, u64::MAX).write(b"text");
    drop(spool);
    fs::remove_file(directory.path().join("logs/4.index")).unwrap();
    fs::write(directory.path().join("logs/junk"), "x").unwrap();
    let (_, leftover) = open(directory.path());
    assert!(leftover.logs.is_empty());
    assert!(names(&directory.path().join("logs")).unwrap().is_empty());
}

#[test]
fn a_log_beyond_its_limit_says_so_in_its_last_line() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let log = begin_log(&spool, 4, 100);
    let mut state = 1u32;
    for _ in 0..100 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        log.write(format!("{state:08x}\n").as_bytes());
        log.flush();
    }
    let totals = log.finish();
    assert!(totals.truncated && totals.stream_bytes < 300, "{totals:?}");
    let (text, end) = sent(&log);
    assert!(text.lines().last().unwrap().starts_with("hauberk: the log is cut here"), "{text}");
    assert_eq!(end, Some((totals.text_bytes, crc32fast::hash(text.as_bytes()), true)));
}
