use bytes::Bytes;

use super::{log::CHUNK_BYTES, *};
use crate::{
    message::Message,
    node::NodeId,
    record::{Op, Record, Ttl, Value},
    wire,
};

fn node() -> NodeId {
    NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap()
}

fn outbox(bytes_max: usize) -> Outbox {
    Outbox::new(node().origin(), bytes_max)
}

fn put(outbox: &Outbox, key: &str, value: &str) -> Stamp {
    let value = Value { bytes: Bytes::copy_from_slice(value.as_bytes()), ..Value::default() };
    outbox.issue(1_000, key.as_bytes(), Change::Put(&value), None)
}

/// What leaves as one frame, read back from its bytes.
fn take(outbox: &Outbox, records_max: usize) -> (Left, Vec<Record>) {
    let mut frame = RecordsEncoder::new(&node(), 1, 2);
    let left = outbox.fill(&mut frame, records_max);
    let Message::Records { records, .. } = wire::decode(frame.finish(1)).unwrap().message else {
        panic!("a frame of records")
    };
    assert_eq!(left.records, records.len() as u64);
    assert_eq!(left.newest, records.last().map(|record| record.stamp.hlc));
    (left, records)
}

fn keys(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.key).into_owned()).collect()
}

fn sizes(outbox: &Outbox) -> (usize, usize, usize) {
    outbox.queue.as_ref().unwrap().lock().sizes()
}

#[test]
fn a_key_written_again_moves_to_the_tail_with_its_newest_stamp() {
    let outbox = outbox(1 << 20);
    for key in ["a", "b", "a"] {
        put(&outbox, key, key);
    }
    let (_, records) = take(&outbox, 10);
    assert_eq!(keys(&records), ["b", "a"]);
    assert!(records.is_sorted_by(|x, y| x.stamp < y.stamp));
    assert_eq!(outbox.stats().coalesced, 1);
    assert!(outbox.is_empty());
}

/// A receipt for the first write of a key was given when only what lay between its two writes had left.
#[test]
fn a_superseded_change_is_held_back_until_its_successor_left() {
    let outbox = outbox(1 << 20);
    let first = put(&outbox, "a", "1");
    put(&outbox, "b", "1");
    put(&outbox, "a", "2");
    put(&outbox, "c", "1");
    put(&outbox, "a", "3");
    let held_back = || take(&outbox, 1).0.held_back;
    assert_eq!(held_back(), Some(first.hlc));
    assert_eq!(held_back(), Some(first.hlc));
    assert_eq!(held_back(), None);
    let cleared = put(&outbox, "a", "4");
    outbox.issue(1_000, b"a", Change::Clear, None);
    put(&outbox, "d", "1");
    assert_eq!(held_back(), None, "the clear left: {cleared}");
}

/// A write made just before its life was overtaken was named as one of the next life, whose watermarks say nothing of it.
#[test]
fn a_token_names_the_life_in_which_its_write_was_made() {
    let outbox = outbox(1 << 20);
    let before = put(&outbox, "a", "1");
    let epochs = [Hlc(before.hlc.0 + 1), Hlc(before.hlc.0 + 100)];
    outbox.begin_life(|_| epochs[0].0);
    let first = Stamp { hlc: Hlc(epochs[0].0 + 1), origin: node().origin() };
    outbox.begin_life(|_| epochs[1].0);
    let second = Stamp { hlc: Hlc(epochs[1].0 + 1), origin: node().origin() };
    let lives = [before, first, second].map(|stamp| outbox.token(stamp).stream.epoch);
    assert_eq!(lives, [0, epochs[0].0, epochs[1].0]);
}

#[test]
fn past_the_bound_the_oldest_is_skipped_and_counted() {
    let one = {
        let outbox = outbox(1 << 20);
        put(&outbox, "a", "v");
        outbox.stats().bytes
    };
    let outbox = outbox(3 * one);
    let stamps = ["a", "b", "c", "d", "e"].map(|key| put(&outbox, key, "v"));
    let (left, records) = take(&outbox, 10);
    assert_eq!((left.skipped, left.skipped_through), (2, stamps[1].hlc));
    assert_eq!(keys(&records), ["c", "d", "e"]);
    assert_eq!(outbox.stats().skipped, 2);
    assert_eq!(take(&outbox, 10).0.skipped, 0, "a number is passed over once");
}

#[test]
fn a_frame_closes_at_its_records_or_bytes_but_takes_at_least_one() {
    let outbox = outbox(1 << 20);
    for key in ["a", "b", "c"] {
        put(&outbox, key, &"v".repeat(100_000));
    }
    assert_eq!(keys(&take(&outbox, 10).1), ["a"]);
    put(&outbox, "d", "v");
    assert_eq!(keys(&take(&outbox, 1).1), ["b"]);
    assert_eq!(keys(&take(&outbox, 10).1), ["c", "d"]);
}

#[test]
fn a_frame_is_filled_with_records_of_a_usual_size() {
    let outbox = outbox(1 << 20);
    for key in 0..2_000 {
        put(&outbox, &format!("bench:{key:010}"), &"v".repeat(112));
    }
    let mut frame = RecordsEncoder::new(&node(), 1, 2);
    outbox.fill(&mut frame, wire::FRAME_RECORDS);
    let unused = wire::FRAME_BYTES - frame.len();
    assert!(unused < 150, "{unused} bytes of a frame are not used");
}

#[test]
fn a_record_leaves_as_it_was_written() {
    let outbox = outbox(1 << 20);
    let previous = Some(Stamp { hlc: Hlc(7), origin: node().origin() });
    let ttl = Some(Ttl { left_ms: 500, born_ms: 900 });
    let short = Value { bytes: Bytes::from_static(b"v"), flags: 300, codec: 2, cas: Some(9), ttl };
    let long = Value { bytes: Bytes::from(vec![7; 50_000]), ..short.clone() };
    let changes = [
        ("short", Op::Put(short)),
        ("long", Op::Put(long)),
        ("removed", Op::Remove),
        ("cleared:", Op::Clear),
    ];
    let written = changes.map(|(key, op)| {
        let key = Bytes::from(key);
        let stamp = outbox.issue(1_000, &key, op.change(), previous);
        Record { stamp, key, op, previous }
    });
    assert_eq!(take(&outbox, 10).1, written);
}

#[test]
fn a_clear_supersedes_what_is_queued_of_its_namespace() {
    let outbox = outbox(1 << 20);
    put(&outbox, "user:1", "v");
    put(&outbox, "order:1", "v");
    outbox.issue(1_000, b"user:", Change::Clear, None);
    put(&outbox, "user:1", "w");
    assert_eq!(keys(&take(&outbox, 10).1), ["order:1", "user:", "user:1"]);
}

#[test]
fn slots_and_log_stay_bounded_while_one_key_is_rewritten() {
    for value in ["v", &"v".repeat(3_000)] {
        let outbox = outbox(1 << 20);
        put(&outbox, "first", "stays at the head");
        for _ in 0..10_000 {
            put(&outbox, "hot", value);
            let (slots, indexed, log_bytes) = sizes(&outbox);
            assert!(slots <= 2 * 2 + 64 + 1, "{slots}");
            assert!(log_bytes <= 3 * CHUNK_BYTES, "{log_bytes}");
            assert_eq!((outbox.stats().records, indexed), (2, 2));
        }
        assert_eq!(keys(&take(&outbox, 10).1), ["first", "hot"]);
    }
}

#[test]
fn the_log_is_given_back_as_records_leave() {
    let outbox = outbox(usize::MAX);
    for round in 0..3 {
        for key in 0..10_000 {
            put(&outbox, &format!("{round}:{key}"), &"v".repeat(100));
        }
        assert!(sizes(&outbox).2 > 1_000_000);
        while !outbox.is_empty() {
            take(&outbox, 1_000);
        }
        assert_eq!(sizes(&outbox), (0, 0, 0));
        assert_eq!(outbox.stats().bytes, 0);
    }
}

#[test]
fn what_leaves_is_the_newest_change_of_each_key_in_the_order_of_stamps() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let outbox = outbox(1 << 20);
        let mut wanted: Vec<(String, Stamp)> = Vec::new();
        for _ in 0..random.usize(..600) {
            let key = format!("{}:{}", random.u8(..3), random.u8(..40));
            match random.u8(..40) {
                0 => {
                    let namespace = key[..2].to_owned();
                    wanted.retain(|(key, _)| !key.starts_with(&namespace));
                    let stamp = outbox.issue(1_000, namespace.as_bytes(), Change::Clear, None);
                    wanted.push((namespace, stamp));
                }
                1..4 => {
                    let (_, left) = take(&outbox, random.usize(1..20));
                    for (record, (key, stamp)) in left.iter().zip(wanted.drain(..left.len())) {
                        assert_eq!((&record.key[..], record.stamp), (key.as_bytes(), stamp), "seed {seed}");
                    }
                }
                _ => {
                    let stamp = put(&outbox, &key, &"v".repeat(random.usize(..6_000)));
                    wanted.retain(|(held, _)| *held != key);
                    wanted.push((key, stamp));
                }
            }
        }
        let mut left = Vec::new();
        while !outbox.is_empty() {
            left.extend(take(&outbox, usize::MAX).1);
        }
        let left: Vec<_> = left.iter().map(|record| (record.key.clone(), record.stamp)).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|(key, stamp)| (Bytes::from(key), stamp)).collect();
        assert_eq!(left, wanted, "seed {seed}");
        assert_eq!((sizes(&outbox), outbox.stats().bytes), ((0, 0, 0), 0), "seed {seed}");
    }
}
