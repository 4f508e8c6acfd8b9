use super::*;
use crate::{
    message::{Message, StreamReport},
    node::NodeId,
    replica::one::{One, peer, put, report, stamp, stream_of},
};

/// A beat that the peer made after it had held ours, of `rtt_ms + held_ms` ago, for `held_ms`.
fn beat(one: &One, rtt_ms: u64, held_ms: u64, streams: Vec<StreamReport>) -> Beat {
    let me = one.replica.stream();
    let mono_ms = one.now.mono_ms - rtt_ms - held_ms;
    Beat {
        ready: true,
        all_numbered: true,
        hlc: Hlc::from_ms(one.now.wall_ms),
        wall_ms: one.now.wall_ms,
        mono_ms: one.now.mono_ms,
        streams,
        echoes: vec![Echo { peer: me.origin, epoch: me.epoch, mono_ms, held_ms }],
        ..Beat::default()
    }
}

fn ago_ms(one: &One) -> Option<u64> {
    one.replica.status(one.now).peers[0].fresh_ago_ms
}

fn hears(one: &mut One, from: &NodeId, first: u64, last: u64) {
    let records = (first..=last).map(|number| put("k", "v", stamp(from, number))).collect();
    one.hear(from, Message::Records { first, records, held_back: None, answers: None });
}

/// A node that has passed its first second, and a peer that it does not know.
fn one_and_peer() -> (One, NodeId) {
    let mut one = One::new(true);
    one.pass(5_000);
    (one, peer("ap-south"))
}

#[test]
fn a_beat_whose_stream_is_here_shows_the_moment_at_which_it_was_made_at_the_latest() {
    let (mut one, there) = one_and_peer();
    let beat = beat(&one, 40, 200, vec![report(stream_of(&there), 0, Hlc(0))]);
    one.hear(&there, Message::Beat(beat));
    assert_eq!(
        ago_ms(&one),
        Some(40 + 1 + 1),
        "there and back, a thousandth of the time held, and a millisecond"
    );
    one.pass(1_000);
    assert_eq!(ago_ms(&one), Some(1_042));
}

/// What the peer writes in the rest of the millisecond in which its beat answered ours is not in that beat.
#[test]
fn a_beat_that_answers_within_the_millisecond_shows_the_one_before() {
    let (mut one, there) = one_and_peer();
    let beat = beat(&one, 0, 0, vec![report(stream_of(&there), 0, Hlc(0))]);
    one.hear(&there, Message::Beat(beat));
    assert_eq!(ago_ms(&one), Some(1));
}

#[test]
fn while_a_record_is_missing_the_moment_before_counts() {
    let (mut one, there) = one_and_peer();
    let stream = stream_of(&there);
    let first = beat(&one, 40, 0, vec![report(stream, 0, Hlc(0))]);
    one.hear(&there, Message::Beat(first));
    one.pass(250);
    let second = beat(&one, 40, 0, vec![report(stream, 2, stamp(&there, 2).hlc)]);
    one.hear(&there, Message::Beat(second));
    assert_eq!(ago_ms(&one), Some(41 + 250), "two records are not here");
    hears(&mut one, &there, 1, 1);
    one.pass(25);
    assert_eq!(ago_ms(&one), Some(41 + 250 + 25), "one is not");
    hears(&mut one, &there, 2, 2);
    one.pass(25);
    assert_eq!(ago_ms(&one), Some(41 + 50), "it is as of the second beat");
}

#[test]
fn what_waits_for_its_number_at_the_peer_has_to_come_first() {
    let (mut one, there) = one_and_peer();
    hears(&mut one, &there, 1, 1);
    let waits = |one: &One| {
        let beat = beat(one, 40, 0, vec![report(stream_of(&there), 1, stamp(&there, 1).hlc)]);
        // It has stamped up to 2 by then, and numbered only 1.
        Beat { all_numbered: false, hlc: stamp(&there, 2).hlc, ..beat }
    };
    let first = waits(&one);
    one.hear(&there, Message::Beat(first));
    assert_eq!(ago_ms(&one), None);
    hears(&mut one, &there, 2, 2);
    one.pass(25);
    assert_eq!(ago_ms(&one), Some(41 + 25));
}

#[test]
fn what_the_peer_has_of_others_has_to_be_here_too() {
    let (mut one, there) = one_and_peer();
    let (own, third) = (stream_of(&there), stream_of(&peer("eu-central")));
    let reports = vec![report(own, 0, Hlc(0)), report(third, 1, stamp(&peer("eu-central"), 1).hlc)];
    let beat = beat(&one, 40, 0, reports);
    one.hear(&there, Message::Beat(beat));
    assert_eq!(ago_ms(&one), None, "a node that is not heard here wrote something that the peer has");
    hears(&mut one, &peer("eu-central"), 1, 1);
    one.pass(25);
    let status = one.replica.status(one.now);
    let of_peer = status.peers.iter().find(|known| known.node == there).unwrap();
    assert_eq!(of_peer.fresh_ago_ms, Some(41 + 25));
}

/// The peer has the second record of a dead node and not its first: its watermark alone told nothing of that.
#[test]
fn what_the_peer_has_behind_a_hole_of_a_dead_node_counts_until_it_was_synced() {
    let (mut one, there) = one_and_peer();
    let third = stream_of(&peer("eu-central"));
    let with_hole = |generation| {
        let behind = StreamReport { max: 2, generation, ..report(third, 0, Hlc(0)) };
        vec![report(stream_of(&there), 0, Hlc(0)), behind]
    };
    let first = beat(&one, 40, 0, with_hole(1));
    one.hear(&there, Message::Beat(first));
    assert_eq!(ago_ms(&one), None, "the second record may be there, and is not here");
    one.replica.streams.get_mut(&third).unwrap().covered.insert(there.origin(), 1);
    let second = beat(&one, 40, 0, with_hole(1));
    one.hear(&there, Message::Beat(second));
    assert_eq!(ago_ms(&one), Some(41), "all that it had was synced");
    one.pass(100);
    let third = beat(&one, 40, 0, with_hole(2));
    one.hear(&there, Message::Beat(third));
    assert_eq!(ago_ms(&one), Some(141), "it got more since");
}

#[test]
fn while_its_node_is_heard_what_a_peer_has_behind_a_hole_is_that_nodes_to_tell() {
    let (mut one, there) = one_and_peer();
    let third = peer("eu-central");
    one.hear_beat(&third, 20, vec![report(stream_of(&third), 0, Hlc(0))]);
    let behind = StreamReport { max: 2, generation: 1, ..report(stream_of(&third), 0, Hlc(0)) };
    let told = beat(&one, 40, 0, vec![report(stream_of(&there), 0, Hlc(0)), behind]);
    one.hear(&there, Message::Beat(told));
    let status = one.replica.status(one.now);
    let of_peer = status.peers.iter().find(|known| known.node == there).unwrap();
    assert_eq!(of_peer.fresh_ago_ms, Some(41));
}

#[test]
fn a_beat_that_answers_another_life_or_says_nothing_of_its_own_stream_shows_nothing() {
    let (mut one, there) = one_and_peer();
    let mut other_life = beat(&one, 40, 0, vec![report(stream_of(&there), 0, Hlc(0))]);
    other_life.echoes[0].epoch -= 1;
    one.hear(&there, Message::Beat(other_life));
    assert_eq!(ago_ms(&one), None);
    let silent = beat(&one, 40, 0, Vec::new());
    one.hear(&there, Message::Beat(silent));
    assert_eq!(ago_ms(&one), None);
}

#[test]
fn under_a_lasting_lag_moments_are_thinned_out_and_the_newest_that_is_here_counts() {
    let (mut one, there) = one_and_peer();
    let stream = stream_of(&there);
    let beats: u64 = 100;
    for number in 1..=beats {
        let beat = beat(&one, 40, 0, vec![report(stream, number, stamp(&there, number).hlc)]);
        one.hear(&there, Message::Beat(beat));
        one.pass(250);
    }
    let held = &one.replica.peers[&there.origin()].fresh.moments;
    assert!(held.len() <= MOMENTS_MAX && held.len() >= MOMENTS_MAX / 2, "{}", held.len());
    hears(&mut one, &there, 1, beats);
    one.pass(25);
    assert_eq!(ago_ms(&one), Some(41 + 250 + 25), "as of the last beat");
    assert!(one.replica.peers[&there.origin()].fresh.moments.is_empty());
}

#[test]
fn whoever_asks_for_beats_sends_one_that_asks_and_many_share_it() {
    let (mut one, there) = one_and_peer();
    let first = beat(&one, 40, 0, Vec::new());
    one.hear(&there, Message::Beat(first));
    let mut asked = |ms: u64| {
        let mut sent = 0;
        for _ in 0..ms {
            one.pass(1);
            one.replica.ask_beats(one.now);
            while let Some((_, frame)) = one.replica.poll(one.now) {
                let frame = crate::wire::decode(frame).unwrap();
                let asks = frame.wants_receipt && matches!(frame.message, Message::Beat(_));
                sent += u64::from(asks);
            }
        }
        sent
    };
    assert_eq!(asked(100), 10, "one each ten milliseconds");
}

#[test]
fn a_node_with_an_empty_outbox_says_so_and_one_whose_changes_wait_does_not() {
    let mut one = One::new(true);
    let beats = |one: &mut One| {
        one.pass(250);
        let frames = std::iter::from_fn(|| one.replica.poll(one.now));
        let beats = frames.filter_map(|(_, frame)| match crate::wire::decode(frame).unwrap().message {
            Message::Beat(beat) => Some(beat.all_numbered),
            _ => None,
        });
        beats.collect::<Vec<_>>()
    };
    assert_eq!(beats(&mut one), [true]);
    // The beat takes its turn before the records.
    one.replica.turn = crate::replica::Turn::Beat;
    one.write("k", "v");
    assert_eq!(beats(&mut one), [false]);
    assert_eq!(beats(&mut one), [true]);
}
