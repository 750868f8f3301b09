//! Every message of the protocol survives the wire, and junk is survived.
//!
//! Messages are made at random from the protocol's descriptors by another protobuf implementation, so that a field added to
//! `hauberk.proto` is covered at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use bytes::Bytes;
use hauberk_protocol::{
    BACKEND_FRAME_LIMIT, DecodeError, EncodeError, GUEST_FRAME_LIMIT, LOG_FRAME_LIMIT, LogBody, LogMessage,
    LogReply, LogReplyBody, ServerBody, ServerMessage, WorkerBody, WorkerMessage, proto,
};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hauberk.v1.binpb"));

fn descriptor(name: &str) -> MessageDescriptor {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap());
    POOL.get_message_by_name(&format!("hauberk.v1.{name}")).unwrap()
}

/// A message of `kind` with random fields; of each `oneof`, one field is set.
fn random_message(kind: &MessageDescriptor, random: &mut TestRng, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    let lone =
        kind.fields().filter(|field| field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic()));
    let chosen = kind.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| {
        let fields: Vec<_> = oneof.fields().collect();
        fields[random.random_range(0..fields.len())].clone()
    });
    let chosen: Vec<_> = chosen.collect();
    for field in lone {
        if random.random_bool(0.7) {
            message.set_field(&field, random_value(&field, random, depth));
        }
    }
    for field in chosen {
        message.set_field(&field, random_value(&field, random, depth));
    }
    message
}

fn random_value(field: &FieldDescriptor, random: &mut TestRng, depth: u32) -> Value {
    if field.is_list() {
        let length = random.random_range(0..4);
        return Value::List((0..length).map(|_| random_scalar(&field.kind(), random, depth)).collect());
    }
    random_scalar(&field.kind(), random, depth)
}

fn random_scalar(kind: &Kind, random: &mut TestRng, depth: u32) -> Value {
    match kind {
        Kind::Bool => Value::Bool(random.random()),
        Kind::Int32 => Value::I32(random.random()),
        Kind::Int64 => Value::I64(random.random()),
        Kind::Uint32 => Value::U32(random.random()),
        Kind::Uint64 => Value::U64(random.random()),
        Kind::String => {
            let length = random.random_range(0..12);
            Value::String((0..length).map(|_| random.random::<char>()).collect())
        }
        Kind::Bytes => {
            let length = random.random_range(0..40);
            Value::Bytes((0..length).map(|_| random.random::<u8>()).collect())
        }
        // Numbers that no version knows are lawful too.
        Kind::Enum(_) => Value::EnumNumber(random.random_range(0..50)),
        Kind::Message(message) => {
            assert!(depth < 8, "the protocol's messages are not recursive");
            Value::Message(random_message(message, random, depth + 1))
        }
        other => panic!("the tests cannot make a value of {other:?}: add it here"),
    }
}

/// Decodes and encodes with our types, and compares with what the other implementation wrote.
fn check(name: &str, random: &mut TestRng, through: impl Fn(&Bytes) -> Bytes) {
    let kind = descriptor(name);
    let theirs = Bytes::from(random_message(&kind, random, 0).encode_to_vec());
    let ours = through(&theirs);
    let read = |frame: Bytes| DynamicMessage::decode(kind.clone(), frame).unwrap();
    assert_eq!(read(ours), read(theirs), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_message_survives_the_wire(mut random in any::<u64>().prop_perturb(|_, random| random)) {
        check("WorkerMessage", &mut random, |frame| {
            let message = WorkerMessage::decode(frame).unwrap();
            assert_eq!(WorkerMessage::decode_from_guest(frame).unwrap(), message);
            assert!(!matches!(message.body, WorkerBody::Unknown { .. }));
            message.encode().unwrap()
        });
        check("ServerMessage", &mut random, |frame| ServerMessage::decode(frame).unwrap().encode().unwrap());
        check("LogMessage", &mut random, |frame| LogMessage::decode(frame).unwrap().encode().unwrap());
        check("LogReply", &mut random, |frame| LogReply::decode(frame).unwrap().encode().unwrap());
    }

    #[test]
    fn junk_is_an_error_or_a_message(junk: Vec<u8>) {
        let frame = Bytes::from(junk);
        let _ = WorkerMessage::decode(&frame);
        let _ = ServerMessage::decode(&frame);
        let _ = LogMessage::decode(&frame);
        let _ = LogReply::decode(&frame);
    }

    #[test]
    fn damaged_messages_are_survived(
        mut random in any::<u64>().prop_perturb(|_, random| random),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        for name in ["WorkerMessage", "ServerMessage", "LogMessage", "LogReply"] {
            let mut frame = random_message(&descriptor(name), &mut random, 0).encode_to_vec();
            frame.truncate(cut.index(frame.len() + 1));
            for (place, value) in &flips {
                if !frame.is_empty() {
                    let place = place.index(frame.len());
                    frame[place] = *value;
                }
            }
            let frame = Bytes::from(frame);
            let _ = WorkerMessage::decode(&frame);
            let _ = ServerMessage::decode(&frame);
            let _ = LogMessage::decode(&frame);
            let _ = LogReply::decode(&frame);
        }
    }
}

#[test]
fn the_enums_know_every_body_of_the_protocol() {
    // A body added to hauberk.proto fails here until the enum of its direction has it.
    let bodies = |name: &str| -> Vec<String> {
        let kind = descriptor(name);
        let body = kind.oneofs().find(|oneof| oneof.name() == "body").unwrap();
        body.fields().map(|field| field.name().to_owned()).collect()
    };
    for (name, expected) in [("WorkerMessage", 8), ("ServerMessage", 11), ("LogMessage", 3), ("LogReply", 2)]
    {
        assert_eq!(bodies(name).len(), expected, "{name}");
    }
}

#[test]
fn the_bytes_on_the_wire_stay_as_they_are() {
    let check = |frame: Bytes, expected: &[u8]| assert_eq!(&frame[..], expected);
    let hello = proto::Hello {
        protocol: 1,
        name: "w1".into(),
        machine: "m".into(),
        version: "0.1".into(),
        store_directory: "/nix/store".into(),
        systems: vec!["x86_64-linux".into()],
        features: vec!["kvm".into()],
        mandatory_features: vec![],
        slots: 4,
        publish: Some(proto::hello::Publish::PublishPort(5558)),
        signing_key: "k".into(),
        running: vec![proto::RunningAttempt { attempt: 9, phase: 3, elapsed_ms: 500 }],
        unacknowledged: vec![7],
        unreleased: vec![],
        resources: Some(proto::Machine { cores: 8, memory_bytes: 1 << 30, daemon: "nix".into() }),
    };
    let mut expected = b"\x10\x01\x1a\x51\x08\x01\x12\x02w1\x1a\x01m\x22\x030.1\x2a\x0a/nix/store".to_vec();
    expected.extend(b"\x32\x0cx86_64-linux\x3a\x03kvm\x48\x04\x58\xb6\x2b\x62\x01k");
    expected.extend(b"\x6a\x07\x08\x09\x10\x03\x18\xf4\x03\x72\x01\x07\x82\x01\x0d\x08\x08\x10\x80\x80\x80\x80\x04\x1a\x03nix");
    check(WorkerMessage::new(0, 1, hello).encode().unwrap(), &expected);
    check(
        WorkerMessage::new(5, 2, proto::Credit { granted: 3 }).encode().unwrap(),
        b"\x08\x05\x10\x02\x2a\x02\x08\x03",
    );
    check(
        ServerMessage::new(5, 300, proto::Ack { attempts: vec![1, 2] }).encode().unwrap(),
        b"\x08\x05\x10\xac\x02\x3a\x04\x0a\x02\x01\x02",
    );
    check(
        LogMessage::new(1, proto::LogChunk { offset: 16, data: Bytes::from_static(b"xyz") })
            .encode()
            .unwrap(),
        b"\x08\x01\x1a\x07\x08\x10\x12\x03xyz",
    );
    check(
        LogReply::new(1, proto::LogAck { offset: 19, window: 64, complete: true }).encode().unwrap(),
        b"\x08\x01\x12\x06\x08\x13\x10\x40\x18\x01",
    );
}

#[test]
fn a_body_of_a_later_version_is_a_value() {
    // Session 5, sequence 2, and field 99 with three bytes.
    let frame = Bytes::from_static(b"\x08\x05\x10\x02\x9a\x06\x03abc");
    let message = WorkerMessage::decode(&frame).unwrap();
    assert_eq!((message.session, message.sequence), (5, 2));
    assert_eq!(message.body, WorkerBody::Unknown { tag: 99 });
    assert_eq!(message.body.kind(), "Unknown");
    assert!(matches!(message.encode(), Err(EncodeError::Unknown)));
    assert_eq!(ServerMessage::decode(&frame).unwrap().body, ServerBody::Unknown { tag: 99 });
    // Attempt 5, and the same field.
    let frame = Bytes::from_static(b"\x08\x05\x9a\x06\x03abc");
    assert_eq!(LogMessage::decode(&frame).unwrap().body, LogBody::Unknown { tag: 99 });
    let empty = Bytes::new();
    assert_eq!(WorkerMessage::decode(&empty).unwrap().body, WorkerBody::Unknown { tag: 0 });
    assert_eq!(LogReply::decode(&empty).unwrap().body, LogReplyBody::Unknown { tag: 0 });
}

#[test]
fn a_frame_that_is_too_large_is_neither_read_nor_written() {
    let large = |size: usize| Bytes::from(vec![0_u8; size]);
    let too_large = |error: DecodeError, expected: usize| match error {
        DecodeError::TooLarge { limit, .. } => assert_eq!(limit, expected),
        DecodeError::Malformed { .. } => panic!("{error}"),
    };
    too_large(WorkerMessage::decode(&large(BACKEND_FRAME_LIMIT + 1)).unwrap_err(), BACKEND_FRAME_LIMIT);
    too_large(
        WorkerMessage::decode_from_guest(&large(GUEST_FRAME_LIMIT + 1)).unwrap_err(),
        GUEST_FRAME_LIMIT,
    );
    too_large(ServerMessage::decode(&large(BACKEND_FRAME_LIMIT + 1)).unwrap_err(), BACKEND_FRAME_LIMIT);
    too_large(LogMessage::decode(&large(LOG_FRAME_LIMIT + 1)).unwrap_err(), LOG_FRAME_LIMIT);
    too_large(LogReply::decode(&large(LOG_FRAME_LIMIT + 1)).unwrap_err(), LOG_FRAME_LIMIT);
    let chunk = proto::LogChunk { offset: 0, data: large(LOG_FRAME_LIMIT) };
    assert!(matches!(LogMessage::new(1, chunk).encode(), Err(EncodeError::TooLarge { kind: "Chunk", .. })));
    let declined = proto::Declined { message: "x".repeat(BACKEND_FRAME_LIMIT), ..Default::default() };
    assert!(matches!(WorkerMessage::new(1, 1, declined).encode(), Err(EncodeError::TooLarge { .. })));
}

#[test]
fn the_data_of_a_log_chunk_is_not_copied() {
    let chunk = proto::LogChunk { offset: 0, data: Bytes::from(vec![7; 1000]) };
    let frame = LogMessage::new(1, chunk).encode().unwrap();
    let LogBody::Chunk(chunk) = LogMessage::decode(&frame).unwrap().body else {
        panic!("a chunk was encoded")
    };
    assert!(frame.as_ptr_range().contains(&chunk.data.as_ptr()));
}
