//! Long holes: what a node missed while it was away for long, and how soon it has it.

use super::*;
use crate::sim::{FrameKind, Link};

/// Milliseconds between two batches of writes.
const BATCH_MS: u64 = 10;
/// Writes in one: 2,000 a second.
const BATCH: u64 = 20;

/// A writer and a node that misses what it writes.
const WRITER: usize = 0;
const AWAY: usize = 1;

/// Node 0 writes for so long, as an application at work does: not in one go, so that its frames hold some records each.
fn write(world: &mut World, ms: u64) {
    for _ in 0..ms / BATCH_MS {
        let written = world.status(WRITER).unwrap().streams[0].max;
        for n in written..written + BATCH {
            world.put(WRITER, format!("key/{}", n % 5_000), format!("{n:<128}"));
        }
        world.run_ms(BATCH_MS);
    }
}

/// Two nodes on such links, of which one was stopped for so long while the other wrote; what was sent meanwhile is lost.
fn after_a_hole(seed: u64, link: Link, ms: u64) -> World {
    let mut world = bootstrapped(seed, 2);
    world.set_links(link);
    write(&mut world, 1_000);
    world.setup(AWAY).inbox_frames_max = 1;
    world.pause(AWAY);
    write(&mut world, ms);
    world.setup(AWAY).inbox_frames_max = 10_000;
    world.resume(AWAY);
    world
}

/// Whether node 1 has this many of the writer's records.
fn has(world: &World, records: u64) -> bool {
    let stream = world.status(WRITER).unwrap().streams[0].stream;
    let reports = world.status(AWAY).unwrap().streams;
    reports.iter().any(|report| report.stream == stream && report.watermark >= records)
}

/// Until a node that missed these records has them, at most so long, while the writer goes on.
fn closed_after_ms(world: &mut World, ms_max: u64) -> Option<u64> {
    let missed = world.status(WRITER).unwrap().streams[0].max;
    let start_ms = world.time_ms();
    while !has(world, missed) {
        if world.time_ms() - start_ms > ms_max {
            return None;
        }
        write(world, BATCH_MS);
    }
    Some(world.time_ms() - start_ms)
}

/// Each answer brings a mebibyte: 60,000 records of some 180 bytes take eleven of them. Frame by frame, with a grace
/// between one pull and the next, it was more than the ring is good for: 40 s, and then a sync.
#[test]
fn a_hole_of_sixty_thousand_records_closes_within_twenty_round_trips() {
    const RTT_MS: u64 = 100;
    let mut world = after_a_hole(101, Link::rtt(RTT_MS), 30_000);
    let frames = world.traffic(WRITER).frames(FrameKind::Records);
    let took_ms = closed_after_ms(&mut world, 20 * RTT_MS);
    let (asked, answered) = (counters(&world, AWAY), counters(&world, WRITER));
    assert!(took_ms.is_some(), "{asked:?}");
    assert!(asked.pulls_sent <= 15, "{asked:?}");
    assert_eq!((asked.syncs_started, answered.control_dropped), (0, 0), "it came by pulls alone");
    let writes = 2 * took_ms.unwrap() / BATCH_MS * BATCH;
    let answers = world.traffic(WRITER).frames(FrameKind::Records) - frames;
    assert!(answers <= 8 * asked.pulls_sent + writes, "{answers} frames");
}

/// Until a node that missed records has them, at most so long, while nobody writes.
fn closed_at_rest_after_ms(world: &mut World, ms_max: u64) -> Option<u64> {
    let missed = world.status(WRITER).unwrap().streams[0].max;
    (0..=ms_max / BATCH_MS).map(|turn| turn * BATCH_MS).find(|_| {
        world.run_ms(BATCH_MS);
        has(world, missed)
    })
}

/// What was lost while a broker's exchange was away for some seconds.
#[test]
fn a_hole_of_some_seconds_closes_within_a_second_when_the_writer_rests() {
    let mut world = after_a_hole(102, Link::rtt(20), 5_000);
    assert!(closed_at_rest_after_ms(&mut world, 1_000).is_some(), "{:?}", counters(&world, AWAY));
}

#[test]
fn a_link_that_loses_much_delays_a_long_hole_and_no_more() {
    let mut world = after_a_hole(103, Link::rtt(20), 10_000);
    world.set_links(Link { drop: 0.2, ..Link::rtt(20) });
    assert!(closed_at_rest_after_ms(&mut world, 8_000).is_some(), "{:?}", counters(&world, AWAY));
}

/// A frame of an answer takes longer than the first wait.
#[test]
fn a_narrow_link_is_not_asked_for_twice_what_it_carries() {
    let mut world = after_a_hole(104, Link::rtt(40), 10_000);
    world.set_links(Link { bytes_per_ms: Some(300), ..Link::rtt(40) });
    let sent = |world: &World| world.traffic(WRITER).bytes(FrameKind::Records);
    let before = sent(&world);
    assert!(closed_at_rest_after_ms(&mut world, 60_000).is_some(), "{:?}", counters(&world, AWAY));
    // Records in full frames take 146 bytes each.
    let hole = 20_000 * 146;
    let bytes = sent(&world) - before;
    assert!((hole * 9 / 10..2 * hole).contains(&bytes), "{bytes} bytes: {:?}", counters(&world, AWAY));
}
