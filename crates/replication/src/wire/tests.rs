//! The wire format, held to its golden bytes, its round trip and its bounds.

mod compressed;
mod golden;
mod growth;
mod malformed;
mod property;

use std::hash::BuildHasher;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    header::{CHECKSUM_BYTES, Open},
    *,
};
use crate::{
    message::{
        Bar, Beat, Echo, Grave, LeaseAnswer, LeaseCall, LeaseSay, Message, StreamReport, SyncPage, SyncReq,
        Verdict,
    },
    node::{NodeId, Origin, Stream},
    record::{Op, Ttl, Value},
    replica::Token,
    stamp::{Hlc, Stamp},
};

const MS: u64 = 1_760_000_000_000;

fn node() -> NodeId {
    NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap()
}

fn frame(message: Message) -> Frame {
    Frame {
        from: node(),
        epoch: 0x0102_0304_0506_0708,
        cache: cache_id("geocache"),
        wants_receipt: false,
        message,
    }
}

fn stamp(ms: u64, origin: u64) -> Stamp {
    Stamp { hlc: Hlc(Hlc::from_ms(MS + ms).0 + 3), origin: Origin(origin) }
}

fn put(stamp: Stamp, key: &'static str, value: &'static str) -> Record {
    let value = Value { bytes: Bytes::from_static(value.as_bytes()), ..Value::default() };
    Record { stamp, key: Bytes::from_static(key.as_bytes()), op: Op::Put(value), previous: None }
}

/// A put with every optional field.
fn rich_put(stamp: Stamp) -> Record {
    let value = Value {
        bytes: Bytes::from_static(b"all fields"),
        flags: 0xdead_beef,
        codec: 2,
        cas: Some(77),
        ttl: Some(Ttl { left_ms: 60_000, born_ms: MS - 4 }),
    };
    let previous = Some(Stamp { hlc: Hlc::from_ms(MS - 9_000), origin: Origin(0xaa) });
    Record { stamp, key: Bytes::from_static(b"rich"), op: Op::Put(value), previous }
}

fn remove(stamp: Stamp, key: &'static str) -> Record {
    Record { stamp, key: Bytes::from_static(key.as_bytes()), op: Op::Remove, previous: None }
}

fn clear(stamp: Stamp) -> Record {
    Record { stamp, key: Bytes::new(), op: Op::Clear, previous: None }
}

/// A frame of each kind, with every field in use; the name is the golden file's.
fn samples() -> Vec<(&'static str, Frame)> {
    let own = node().origin().0;
    let stream = Stream { origin: Origin(0xaa), epoch: 5 };
    let report = StreamReport {
        stream,
        watermark: 300,
        watermark_hlc: Hlc::from_ms(MS),
        last_hlc: Hlc::from_ms(MS + 2),
        max: 301,
        generation: 12,
        age_ms: 750,
    };
    let graves = vec![
        Grave { position: 0xffff_0000_0000_0001, bar: Bar::above(stamp(7, 0xbb)) },
        Grave { position: 0xffff_0000_0000_0002, bar: Bar::at(stamp(8, 0xaa)) },
    ];
    let several =
        vec![put(stamp(5, 0xbb), "b", "two"), rich_put(stamp(2, 0xaa)), remove(stamp(9, 0xcc), "c")];
    let own_records = vec![
        put(stamp(0, own), "greeting", "hello"),
        rich_put(stamp(1, own)),
        remove(stamp(2, own), "gone"),
        clear(stamp(3, own)),
    ];
    let beat = Beat {
        ready: true,
        all_numbered: true,
        capabilities: 0b101,
        minor_min: 0,
        minor_max: 3,
        hlc: Hlc::from_ms(MS),
        wall_ms: MS,
        mono_ms: 123_456,
        streams: vec![report],
        echoes: vec![Echo { peer: Origin(0xbb), epoch: 6, mono_ms: 99, held_ms: 250 }],
    };
    let page = SyncPage {
        id: 9,
        lo: 1 << 60,
        hi: Some(1 << 61),
        full: true,
        more: true,
        streams: vec![report],
        records: several.clone(),
        graves: graves.clone(),
        keep: vec![(1 << 60) + 1, (1 << 60) + 2],
        floor: Bar::above(stamp(1, 0xdd)),
        cleared: vec![(Bytes::new(), stamp(0, 0xaa)), (Bytes::from_static(b"users"), stamp(4, 0xbb))],
    };
    let req = SyncReq {
        id: 9,
        position: 1 << 60,
        needed: vec![stream],
        since: vec![(stream, Hlc::from_ms(MS))],
        budget_bytes: 65_536,
        preview_bytes: 1 << 20,
        pages: 8,
    };
    let keys = vec![Bytes::from_static(b"greeting"), Bytes::from_static(b"gone")];
    let token = Token { stream, hlc: Hlc::from_ms(MS + 1) };
    let says =
        [LeaseSay::Ask { hold_ms: 5_000, seen: Hlc::from_ms(MS) }, LeaseSay::Loaded(token), LeaseSay::Failed];
    let calls = (21_u64..).zip(says).map(|(id, say)| LeaseCall { id, position: (1 << 60) + id, say });
    let verdicts = [
        Verdict::Granted { hold_ms: 5_000 },
        Verdict::Held { left_ms: 4_321 },
        Verdict::Loaded(token),
        Verdict::Refused,
    ];
    let answers =
        (31_u64..).zip(verdicts).map(|(id, verdict)| LeaseAnswer { id, position: (1 << 60) + id, verdict });
    [
        ("records", Message::Records { first: 41, records: own_records, held_back: None, answers: None }),
        ("beat", Message::Beat(beat)),
        ("pull", Message::Pull { stream, from: 17, to: 400 }),
        ("gone", Message::Gone { stream, oldest: 301 }),
        ("sync_req", Message::SyncReq(req)),
        ("sync_page", Message::SyncPage(page)),
        (
            "probe",
            Message::Probe {
                samples: vec![(11, stamp(5, 0xbb)), (12, Stamp::ZERO)],
                cleared: vec![(Bytes::from_static(b"users"), stamp(6, 0xcc))],
            },
        ),
        ("state", Message::State { answers: 77, records: several.clone(), graves }),
        ("fetch", Message::Fetch { id: 3, keys, at_least: Hlc::from_ms(MS) }),
        ("fetched", Message::Fetched { id: 3, ready: true, records: several }),
        ("lease", Message::Lease { calls: calls.collect() }),
        ("granted", Message::Granted { answers: answers.collect() }),
    ]
    .map(|(name, message)| (name, frame(message)))
    .into()
}

/// A whole frame around a body of the test's own.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut open = Open::new(kind, &node(), 1, 2, body.len());
    open.buf.put_slice(body);
    open.close()
}

/// The frame's bytes changed by `change`, with a checksum that fits again.
fn changed(frame: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = frame[..frame.len() - CHECKSUM_BYTES].to_vec();
    change(&mut bytes);
    let mut buf = BytesMut::from(&bytes[..]);
    buf.put_u32_le(crc32fast::hash(&bytes));
    buf.freeze()
}

/// The body of an encoded frame.
fn body_of(frame: &Bytes) -> &[u8] {
    &frame[usize::from(frame[5])..frame.len() - CHECKSUM_BYTES]
}

/// What the frame's lists hold in memory beside the buffer that they share.
fn held_bytes(frame: &Frame) -> usize {
    fn list<T>(items: &Vec<T>) -> usize {
        items.capacity() * size_of::<T>()
    }
    match &frame.message {
        Message::Records { records, .. } | Message::Fetched { records, .. } => list(records),
        Message::Beat(beat) => list(&beat.streams) + list(&beat.echoes),
        Message::Pull { .. } | Message::Gone { .. } => 0,
        Message::SyncReq(req) => list(&req.needed) + list(&req.since),
        Message::SyncPage(page) => {
            let lists = list(&page.streams) + list(&page.graves) + list(&page.keep);
            lists + list(&page.records) + list(&page.cleared)
        }
        Message::Probe { samples, cleared } => list(samples) + list(cleared),
        Message::State { records, graves, .. } => list(records) + list(graves),
        Message::Fetch { keys, .. } => list(keys),
        Message::Lease { calls } => list(calls),
        Message::Granted { answers } => list(answers),
    }
}

#[test]
fn keys_and_values_are_slices_of_the_frame() {
    let stamp = stamp(0, node().origin().0);
    let bytes = encode(&frame(Message::Records {
        first: 1,
        records: vec![put(stamp, "greeting", "hello")],
        held_back: None,
        answers: None,
    }));
    let Message::Records { records, .. } = decode(bytes.clone()).unwrap().message else { panic!("records") };
    let within = |part: &Bytes| bytes.as_ptr_range().contains(&part.as_ptr());
    let Op::Put(value) = &records[0].op else { panic!("a put") };
    assert!(within(&records[0].key) && within(&value.bytes));
}

#[test]
fn a_small_record_costs_seven_bytes_beside_key_and_value() {
    let own = node().origin().0;
    let value = "v".repeat(32);
    let records: Vec<_> = (0..64)
        .map(|i| {
            let mut record = put(stamp(i, own), "0123456789abcdef", "");
            record.op = Op::Put(Value { bytes: Bytes::from(value.clone()), ..Value::default() });
            record
        })
        .collect();
    let bytes = encode(&frame(Message::Records { first: 1, records, held_back: None, answers: None }));
    let overhead = (bytes.len() - 64 * (16 + 32)) as f64 / 64.0;
    assert!(overhead <= 7.0, "{overhead} bytes a record, the header's share included");
}

#[test]
fn an_encoder_makes_the_bytes_of_encode_and_knows_its_length() {
    for (_, sample) in samples() {
        let Message::Records { first, records, .. } = &sample.message else { continue };
        let mut encoder = RecordsEncoder::new(&sample.from, sample.epoch, sample.cache);
        assert!(encoder.is_empty());
        for record in records {
            let before = encoder.len();
            encoder.push(record);
            assert!(encoder.len() - before <= record_bytes_max(record));
        }
        assert_eq!(encoder.count(), records.len());
        let len = encoder.len();
        let bytes = encoder.finish(*first);
        assert_eq!(bytes.len(), len);
        assert_eq!(bytes, encode(&sample));
    }
}

#[test]
fn what_is_held_back_or_answered_and_a_wish_for_receipts_travel_with_the_records() {
    let records = vec![remove(stamp(0, node().origin().0), "gone")];
    let plain =
        frame(Message::Records { first: 1, records: records.clone(), held_back: None, answers: None });
    let held_back = Some(Hlc::from_ms(MS));
    let told = Frame {
        wants_receipt: true,
        ..frame(Message::Records { first: 1, records: records.clone(), held_back, answers: Some(7) })
    };
    assert_eq!(decode(encode(&told)).unwrap(), told);
    assert_eq!(
        encode(&told).len(),
        encode(&plain).len() + 16,
        "eight bytes each, and only where there is one"
    );
    let mut encoder = RecordsEncoder::new(&node(), told.epoch, told.cache);
    records.iter().for_each(|record| encoder.push(record));
    encoder.ask_receipt();
    encoder.hold_back(Hlc::from_ms(MS));
    encoder.answer(7);
    assert_eq!(encoder.finish(1), encode(&told));
    records.iter().for_each(|record| encoder.push(record));
    assert_eq!(encoder.finish(1), encode(&plain), "the next frame says none of it");
}

#[test]
fn an_encoder_closes_at_the_count_or_the_bytes_but_takes_one_record_always() {
    let own = node().origin().0;
    let fill = |record: &Record| {
        let mut encoder = RecordsEncoder::new(&node(), 1, 2);
        while encoder.takes(record) {
            encoder.push(record);
        }
        (encoder.count(), encoder.finish(1))
    };
    let sized = |bytes: usize| {
        let mut record = put(stamp(0, own), "key", "");
        record.op = Op::Put(Value { bytes: Bytes::from(vec![7; bytes]), ..Value::default() });
        record
    };
    assert_eq!(fill(&sized(8)).0, FRAME_RECORDS);
    let (count, bytes) = fill(&sized(1_000));
    assert!(
        (120..FRAME_RECORDS).contains(&count) && bytes.len() <= FRAME_BYTES,
        "{count} in {}",
        bytes.len()
    );
    let (count, bytes) = fill(&sized(VALUE_BYTES_MAX));
    assert_eq!(count, 1);
    assert!(bytes.len() <= FRAME_BYTES_MAX && decode(bytes).is_ok());
}

#[test]
fn every_byte_string_type_has_the_key_s_position() {
    for cache in ["geocache", "other"] {
        let hasher = KeyHasher::new(cache);
        for key in [&b""[..], b"k", b"greeting", &[0xff; 300]] {
            let position = hasher.position(key);
            assert_eq!(hasher.hash_one(key), position);
            assert_eq!(hasher.hash_one(key.to_vec()), position);
            assert_eq!(hasher.hash_one(Bytes::copy_from_slice(key)), position);
        }
    }
}

#[test]
fn positions_and_cache_ids_never_change() {
    // They are on the wire: nodes that differ here would repair nothing.
    assert_eq!(cache_id("geocache"), 0xad5c_536d);
    assert_eq!(KeyHasher::new("geocache").position(b"greeting"), 0x2945_3c65_a778_cb24);
    assert_ne!(
        KeyHasher::new("other").position(b"greeting"),
        KeyHasher::new("geocache").position(b"greeting")
    );
}
