//! What arrives: foreign, newer, compressed and absurd frames.

use super::*;
use crate::{
    message::{Frame, Message, SyncPage, SyncReq},
    node::{NodeId, Origin, Stream},
    record::{Op, Record, Ttl, Value},
    stamp::Stamp,
    wire::DecodeError,
};

#[test]
fn frames_that_are_not_ours_are_counted_and_change_nothing() {
    let mut world = bootstrapped(16, 2);
    world.run_ms(1_000);
    let foreign = Frame {
        from: NodeId::new("eu-central".parse().unwrap(), "other").unwrap(),
        epoch: 5,
        cache: wire::cache_id("another"),
        wants_receipt: false,
        message: Message::Beat(Beat::default()),
    };
    deliver(&mut world, 0, Bytes::from_static(b"not a frame at all"));
    deliver(&mut world, 0, wire::encode(&foreign));
    let counters = counters(&world, 0);
    assert_eq!((counters.frames_undecodable, counters.frames_foreign), (1, 1));
    assert_eq!(world.status(0).unwrap().peers.len(), 1);
}

#[test]
fn what_is_no_frame_of_the_cache_is_a_fault_and_what_a_later_version_or_a_wrong_clock_says_is_none() {
    let mut world = bootstrapped(16, 2);
    world.run_ms(1_000);
    let frame = |message| {
        let from = NodeId::new("eu-central".parse().unwrap(), "other").unwrap();
        Frame { from, epoch: 5, cache: wire::cache_id("geocache"), wants_receipt: false, message }
    };
    let beat = frame(Message::Beat(Beat::default()));
    let mut handle = |frame: Bytes| world.call(0, |replica, now| replica.handle(now, frame)).unwrap();
    let fault = handle(Bytes::from_static(b"not a frame at all"));
    assert!(matches!(fault, Some(FrameFault::Undecodable(DecodeError::Magic { .. }))), "{fault:?}");
    let mut version = wire::encode(&beat).to_vec();
    version[2] = 9;
    let fault = handle(version.into());
    assert_eq!(fault, Some(FrameFault::Undecodable(DecodeError::Version { major: 9 })));
    let fault = handle(wire::encode(&Frame { cache: 7, ..beat.clone() }));
    assert_eq!(fault, Some(FrameFault::OtherCache { from: beat.from.clone(), cache: 7 }));
    let stream = Stream { origin: Origin(1), epoch: 2 };
    let fault = handle(wire::encode(&frame(Message::Pull { stream, from: u64::MAX, to: 1 })));
    assert_eq!(fault, Some(FrameFault::Implausible { from: beat.from.clone() }));

    assert_eq!(handle(wire::encode(&beat)), None);
    let mut newer = wire::encode(&beat).to_vec();
    newer[3] = 200;
    let end = newer.len() - 4;
    let checksum = crc32fast::hash(&newer[..end]);
    newer[end..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(handle(newer.into()), None);
    let ahead = Beat { hlc: Hlc::from_ms(1 << 46), ..Beat::default() };
    assert_eq!(handle(wire::encode(&frame(Message::Beat(ahead)))), None);
    let counters = counters(&world, 0);
    assert_eq!((counters.frames_unknown, counters.frames_drifting), (1, 1));
    assert_eq!((counters.frames_undecodable, counters.frames_foreign), (3, 1));
}

/// Each node's frames of records and whether they were compressed, until all nodes hold what node 0 writes.
fn spread(world: &mut World) {
    let value = "text that repeats itself, ".repeat(8);
    for n in 0..300 {
        world.put(0, format!("key-{n}"), value.clone());
    }
    world.run_ms(5_000);
    for node in 0..world.len() {
        for n in 0..300 {
            assert_eq!(world.text(node, format!("key-{n}")).as_deref(), Some(value.as_str()), "{node}: {n}");
        }
    }
}

#[test]
fn frames_travel_compressed_where_that_is_wanted_and_come_to_the_same() {
    for (above, compresses) in [(None, false), (Some(512), true), (Some(1 << 20), false)] {
        let mut world = bootstrapped_as(18, 3, |setup| setup.config(|config| config.compress_above = above));
        world.run_ms(1_000);
        spread(&mut world);
        let counters = counters(&world, 0);
        assert_eq!(counters.frames_compressed > 0, compresses, "{above:?}");
        assert_eq!(counters.compressed_bytes_saved > 10_000, compresses, "{above:?}");
        assert_eq!((1..3).map(|node| self::counters(&world, node).frames_undecodable).sum::<u64>(), 0);
    }
}

/// In a rolling upgrade the older nodes refuse compressed frames.
#[test]
fn nothing_is_compressed_while_a_known_peer_does_not_read_it() {
    let mut world = bootstrapped_as(19, 2, |setup| setup.config(|config| config.compress_above = Some(512)));
    world.run_ms(1_000);
    let older = NodeId::new("eu-west".parse().unwrap(), "older").unwrap();
    let wall_ms = world.call(0, |_, now| now.wall_ms).unwrap();
    let beat = Beat { hlc: Hlc::from_ms(wall_ms), wall_ms, capabilities: 0, ..Beat::default() };
    let (epoch, cache) = (Hlc::from_ms(wall_ms).0, wire::cache_id("geocache"));
    let frame = Frame { from: older, epoch, cache, wants_receipt: false, message: Message::Beat(beat) };
    deliver(&mut world, 0, wire::encode(&frame));
    spread(&mut world);
    assert_eq!(counters(&world, 0).frames_compressed, 0);
}

#[test]
fn a_frame_with_the_last_possible_number_does_not_panic() {
    let mut world = bootstrapped(17, 2);
    world.run_ms(1_000);
    let peer = world.status(0).unwrap().peers[0].clone();
    for first in [0, u64::MAX, u64::MAX - 1, 1 << 62, (1 << 62) - 1, 5, 9] {
        let value = Value::default();
        let record = |hlc| Record {
            stamp: Stamp { hlc: Hlc(hlc), origin: peer.origin },
            key: Bytes::from_static(b"k"),
            op: Op::Put(value.clone()),
            previous: None,
        };
        let message =
            Message::Records { first, records: vec![record(1), record(2)], held_back: None, answers: None };
        let frame = Frame {
            from: peer.node.clone(),
            epoch: peer.epoch,
            cache: wire::cache_id("geocache"),
            wants_receipt: false,
            message,
        };
        deliver(&mut world, 0, wire::encode(&frame));
    }
    world.run_ms(1_000);
}

/// Frames that decode, with the numbers at which sums overflow.
#[test]
fn frames_with_absurd_numbers_are_refused_or_harmless() {
    let extremes = [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63, 1 << 62, 1 << 48, 1 << 47, (1 << 16) - 1];
    for seed in 0..300 {
        let mut world = bootstrapped(21, 2);
        let mut random = fastrand::Rng::with_seed(seed);
        let peer = world.status(0).unwrap().peers[0].clone();
        for _ in 0..20 {
            let kind = random.u8(..6);
            let mut number = || match random.u8(..4) {
                0 => 1_700_000_000_000,
                1 => random.u64(..),
                _ => extremes[random.usize(..extremes.len())],
            };
            let stream = Stream { origin: Origin(number()), epoch: number() };
            let own = Stream { origin: peer.origin, epoch: peer.epoch };
            let report = |stream, n: [u64; 5]| StreamReport {
                stream,
                watermark: n[0],
                watermark_hlc: Hlc(n[1]),
                last_hlc: Hlc(n[1]),
                max: n[2],
                generation: n[3],
                age_ms: n[4],
            };
            let reports = [stream, own]
                .map(|stream| report(stream, [number(), number(), number(), number(), number()]));
            let ttl = Some(Ttl { left_ms: number(), born_ms: number() });
            let op = Op::Put(Value { ttl, ..Value::default() });
            let stamp = Stamp { hlc: Hlc(number()), origin: peer.origin };
            let record = Record { stamp, key: Bytes::from_static(b"k"), op, previous: None };
            let message = match kind {
                0 => Message::Records {
                    first: number(),
                    records: vec![record.clone(), record],
                    held_back: Some(Hlc(number())),
                    answers: Some(number()),
                },
                1 => Message::Beat(Beat {
                    ready: true,
                    hlc: Hlc(number()),
                    wall_ms: number(),
                    mono_ms: number(),
                    streams: reports.to_vec(),
                    echoes: vec![Echo {
                        peer: world.status(0).unwrap().streams[0].stream.origin,
                        epoch: world.status(0).unwrap().streams[0].stream.epoch,
                        mono_ms: number(),
                        held_ms: number(),
                    }],
                    ..Beat::default()
                }),
                2 => Message::Pull {
                    stream: world.status(0).unwrap().streams[0].stream,
                    from: number(),
                    to: number(),
                },
                3 => Message::Gone { stream: own, oldest: number() },
                4 => Message::SyncReq(SyncReq {
                    position: number(),
                    since: vec![(own, Hlc(number()))],
                    ..Default::default()
                }),
                _ => Message::SyncPage(SyncPage {
                    id: 1,
                    lo: number(),
                    hi: Some(number()),
                    streams: reports.to_vec(),
                    records: vec![record],
                    ..Default::default()
                }),
            };
            let cache = wire::cache_id("geocache");
            deliver(
                &mut world,
                0,
                wire::encode(&Frame {
                    from: peer.node.clone(),
                    epoch: peer.epoch,
                    cache,
                    wants_receipt: false,
                    message,
                }),
            );
            world.run_ms(30);
        }
    }
}
