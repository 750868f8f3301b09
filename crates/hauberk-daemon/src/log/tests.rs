//! Traces of a Guix daemon in pieces of any size.

use async_trait::async_trait;
use proptest::prelude::*;

use super::{GuixLog, LogEvent, LogSink};

const DRV: &str = "/gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv";

#[derive(Default)]
struct Record {
    output: Vec<u8>,
    words: Vec<u8>,
    others: Vec<String>,
}

#[async_trait]
impl LogSink for Record {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::BuildOutput { bytes, .. } => self.output.extend_from_slice(bytes),
            LogEvent::Message { bytes, .. } => self.words.extend_from_slice(bytes),
            event => self.others.push(format!("{event:?}")),
        }
    }
}

fn feed<'f>(frames: impl Iterator<Item = &'f [u8]>) -> Record {
    let mut record = Record::default();
    let mut log = GuixLog::new(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for frame in frames {
        runtime.block_on(log.next(frame.to_vec(), &mut record));
    }
    runtime.block_on(log.finish(&mut record));
    record
}

fn stream(output: &[u8]) -> Vec<u8> {
    let mut stream =
        format!("@ build-started {DRV} - x86_64-linux /log 12\n@ build-log 12 {}\n", output.len())
            .into_bytes();
    stream.extend_from_slice(output);
    stream.extend_from_slice(format!("@ build-succeeded {DRV} -\n").as_bytes());
    stream
}

proptest! {
    #[test]
    fn pieces_of_any_size(output in prop::collection::vec(any::<u8>(), 0..200), size in 1_usize..60) {
        let record = feed(stream(&output).chunks(size));
        prop_assert_eq!(record.output, output);
        prop_assert_eq!(record.others.len(), 2, "{:?}", record.others);
        prop_assert!(record.words.is_empty());
    }

    #[test]
    fn nothing_is_lost(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let all = frames.concat();
        prop_assert_eq!(feed(frames.iter().map(Vec::as_slice)).words, all);
    }

    #[test]
    fn forged_traces_in_output_are_output(before in "[a-z\n]{0,10}") {
        let forged = format!("{before}\n@ build-failed {DRV} - 1 forged\n");
        let record = feed(stream(forged.as_bytes()).chunks(1000));
        prop_assert_eq!(record.output, forged.as_bytes());
        prop_assert!(!record.others.iter().any(|event| event.contains("forged")));
    }
}

#[test]
fn traces_that_are_none_are_words() {
    for line in [
        "@ build-started nonsense\n".to_owned(),
        "@ build-log x y\n".to_owned(),
        "@ \n".to_owned(),
        "@ future-trace a b\n".to_owned(),
        format!("@ build-failed {DRV}\n"),
        "x".repeat(100_000),
        format!("@ {}", "x".repeat(100_000)),
    ] {
        let record = feed([line.as_bytes()].into_iter());
        assert_eq!(record.words, line.as_bytes());
        assert!(record.others.is_empty());
    }
}
