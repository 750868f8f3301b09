//! What is written is read again, and nothing that is read allocates before it is there.

use std::collections::BTreeSet;

use hauberk_store::{StoreDirectory, StorePath};
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Encoder, Incoming, Limit, WireError};
use crate::error::Violation;

/// Gives bytes in pieces of a fixed size, as sockets may.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    size: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let count = self.size.min(self.bytes.len() - self.at).min(buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        std::task::Poll::Ready(Ok(()))
    }
}

fn incoming(bytes: Vec<u8>, size: usize) -> Incoming<Pieces> {
    Incoming::new(Pieces { bytes, at: 0, size })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A value of the protocol.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Flag(bool),
    Bytes(Vec<u8>),
    Words(Vec<String>),
    Paths(BTreeSet<StorePath>),
}

fn path() -> impl Strategy<Value = StorePath> {
    ("[0-9a-df-np-sv-z]{32}", "[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]{0,30}").prop_map(|(hash, name)| {
        StorePath::from_base_name(&StoreDirectory::nix(), &format!("{hash}-{name}")).unwrap()
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Flag),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Bytes),
        prop::collection::vec(".{0,20}", 0..6).prop_map(Value::Words),
        prop::collection::btree_set(path(), 0..6).prop_map(Value::Paths),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(values in prop::collection::vec(value(), 0..12), size in 1_usize..100) {
        let mut encoder = Encoder::default();
        for value in &values {
            match value {
                Value::Number(number) => encoder.number(*number),
                Value::Flag(flag) => encoder.flag(*flag),
                Value::Bytes(bytes) => encoder.bytes(bytes),
                Value::Words(words) => encoder.texts(words.iter()),
                Value::Paths(paths) => encoder.paths(paths),
            };
        }
        let bytes = encoder.take();
        prop_assert_eq!(bytes.len() % 8, 0);
        let mut incoming = incoming(bytes, size);
        run(async {
            for value in &values {
                let read = match value {
                    Value::Number(_) => Value::Number(incoming.number().await.unwrap()),
                    Value::Flag(_) => Value::Flag(incoming.flag().await.unwrap()),
                    Value::Bytes(_) => Value::Bytes(incoming.bytes(Limit::LOG).await.unwrap()),
                    Value::Words(_) => Value::Words(incoming.words(Limit::ENTRIES).await.unwrap()),
                    Value::Paths(_) => Value::Paths(incoming.paths(&StoreDirectory::nix()).await.unwrap()),
                };
                prop_assert_eq!(&read, value);
            }
            prop_assert_eq!(incoming.buffered(), 0);
            prop_assert!(incoming.number().await.is_err());
            Ok(())
        })?;
    }

    #[test]
    fn junk_is_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..100), size in 1_usize..20) {
        run(async {
            let directory = StoreDirectory::nix();
            let _ = incoming(bytes.clone(), size).bytes(Limit::LOG).await;
            let _ = incoming(bytes.clone(), size).text(Limit::WORD).await;
            let _ = incoming(bytes.clone(), size).words(Limit::ENTRIES).await;
            let _ = incoming(bytes.clone(), size).paths(&directory).await;
            let _ = incoming(bytes, size).optional_path(&directory).await;
        });
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_allocated() {
    let announced = |length: u64| Encoder::default().number(length).take();
    let over = run(incoming(announced(Limit::LOG.most + 1), 8).bytes(Limit::LOG));
    assert!(matches!(over, Err(WireError::Violation(Violation::TooLong { .. }))));
    let absent = run(incoming(announced(Limit::LOG.most), 8).bytes(Limit::LOG));
    assert!(matches!(absent, Err(WireError::Io(_))));
    let many = run(incoming(announced(Limit::PATHS.most), 8).paths(&StoreDirectory::nix()));
    assert!(matches!(many, Err(WireError::Io(_))));
    let large = run(incoming(announced(1 << 32), 8).small::<u32>("count"));
    assert!(matches!(large, Err(WireError::Violation(Violation::Number { .. }))));
}

#[test]
fn padding_must_be_zero_and_paths_in_the_store() {
    let mut bytes = Encoder::default().text("abc").take();
    bytes[15] = 1;
    let padded = run(incoming(bytes, 100).bytes(Limit::WORD));
    assert!(matches!(padded, Err(WireError::Violation(Violation::Padding { .. }))));
    let foreign = Encoder::default().text("/gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple").take();
    let foreign = run(incoming(foreign, 100).path(&StoreDirectory::nix()));
    assert!(matches!(foreign, Err(WireError::Violation(Violation::Text { .. }))));
    let latin = Encoder::default().bytes(b"\xe9").take();
    assert!(matches!(run(incoming(latin.clone(), 100).text(Limit::WORD)), Err(WireError::Violation(_))));
    assert_eq!(run(incoming(latin, 100).message()).unwrap(), "\u{fffd}");
}
