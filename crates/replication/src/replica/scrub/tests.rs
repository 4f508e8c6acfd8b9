use super::*;
use crate::{
    replica::one::{One, living, peer, put, stamp},
    sim::SimStore,
};

/// A node that has heard a ready peer and sent what it sends for that.
fn met() -> (One, crate::NodeId) {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    one.sent();
    (one, there)
}

fn probed(one: &mut One, there: &crate::NodeId, samples: Vec<(u64, Stamp)>) -> Vec<Message> {
    one.hear(there, Message::Probe { samples, cleared: Vec::new() });
    one.sent().into_iter().map(|(_, message)| message).collect()
}

#[test]
fn what_is_newer_here_is_sent_and_what_is_newer_there_is_asked_for() {
    let (mut one, there) = met();
    let newer = one.write("newer-here", "v");
    let older = one.write("older-here", "v");
    let same = one.write("same", "v");
    one.sent();
    let late = stamp(&there, 60_000);
    let at = |key| one.position(key);
    let [a, b, c, d] = ["newer-here", "older-here", "same", "absent-here"].map(at);
    let answers =
        probed(&mut one, &there, vec![(a, stamp(&there, 0)), (b, late), (c, same), (d, stamp(&there, 1))]);
    let [Message::State { records, graves, .. }, Message::Probe { samples, .. }] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(records.iter().map(|record| record.stamp).collect::<Vec<_>>(), [newer]);
    assert!(graves.is_empty());
    assert_eq!(samples, &[(b, older), (d, Stamp::ZERO)]);
}

#[test]
fn a_missed_remove_is_told_and_an_eviction_is_no_difference() {
    let (mut one, there) = met();
    for key in ["removed", "evicted", "evicted-newer"] {
        one.hear_state(&there, vec![put(key, "v", stamp(&there, 5))], Vec::new());
    }
    let removed = one.store_remove("removed");
    for key in ["evicted", "evicted-newer"] {
        one.evict(key);
    }
    one.sent();
    let [a, b, c] = ["removed", "evicted", "evicted-newer"].map(|key| one.position(key));
    let theirs = stamp(&there, 5);
    let answers = probed(&mut one, &there, vec![(a, theirs), (b, theirs), (c, stamp(&there, 4))]);
    let [Message::State { records, graves, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert!(records.is_empty());
    assert_eq!(
        graves,
        &[Grave { position: a, bar: Bar::above(removed) }, Grave { position: c, bar: Bar::at(theirs) }]
    );
}

#[test]
fn an_answer_repairs_and_what_the_watermark_claimed_counts_as_divergence() {
    let (mut one, there) = met();
    let stream = crate::replica::one::stream_of(&there);
    // The watermark claims everything up to 10 s, whatever the store holds.
    one.hear_beat(&there, 20, vec![crate::replica::one::report(stream, 0, stamp(&there, 10_000).hlc)]);
    one.pass(25);
    let claimed = put("claimed", "v", stamp(&there, 9_000));
    let unclaimed = put("unclaimed", "v", stamp(&there, 11_000));
    one.hear_state(&there, vec![claimed, unclaimed], Vec::new());
    assert!(one.value("claimed").is_some() && one.value("unclaimed").is_some());
    let counters = one.replica.status(one.now).counters;
    assert_eq!((counters.scrub_repaired, counters.divergence), (2, 1));
    let bar = Bar::above(stamp(&there, 9_500));
    let position = one.position("claimed");
    one.hear_state(&there, Vec::new(), vec![Grave { position, bar }]);
    assert_eq!(one.value("claimed"), None);
    assert_eq!(one.replica.status(one.now).counters.divergence, 2);
}

/// Symptom: under faults, values that live for seconds let the divergence meter of a healthy cluster rise.
#[test]
fn a_write_whose_life_ended_there_first_is_no_divergence() {
    let (mut one, there) = met();
    let stream = crate::replica::one::stream_of(&there);
    one.hear_beat(&there, 20, vec![crate::replica::one::report(stream, 0, stamp(&there, 10_000).hlc)]);
    one.pass(25);
    let brief = living(put("brief", "v", stamp(&there, 11_000)), 5_000, one.now.mono_ms);
    one.hear_state(&there, vec![brief], Vec::new());
    one.hear_beat(&there, 20, vec![crate::replica::one::report(stream, 0, stamp(&there, 12_000).hlc)]);
    one.pass(25);
    assert_eq!(one.value("brief").as_deref(), Some("v"));
    let (position, bar) = (one.position("brief"), Bar::above(stamp(&there, 11_000)));
    one.hear_state(&there, Vec::new(), vec![Grave { position, bar }]);
    assert_eq!(one.value("brief"), None, "it is gone here too");
    let counters = one.replica.status(one.now).counters;
    assert_eq!((counters.scrub_repaired, counters.divergence), (2, 0));
    // A remove of it that never came would be one: the watermark claims it.
    let again = living(put("removed", "v", stamp(&there, 11_500)), 5_000, one.now.mono_ms);
    one.hear_state(&there, vec![again], Vec::new());
    let before = one.replica.status(one.now).counters.divergence;
    let (position, bar) = (one.position("removed"), Bar::above(stamp(&there, 11_600)));
    one.hear_state(&there, Vec::new(), vec![Grave { position, bar }]);
    assert_eq!(one.replica.status(one.now).counters.divergence, before + 1);
}

#[test]
fn a_pass_goes_over_everything_with_one_peer_before_it_turns_to_the_next() {
    let mut one = One::new(true);
    one.configure(|config| (config.scrub_samples, config.alive_ms) = (4, 600_000));
    let peers = [peer("ap-south"), peer("eu-central")];
    for there in &peers {
        one.hear_beat(there, 20, Vec::new());
    }
    for n in 0..10 {
        one.write(&format!("k{n}"), "v");
    }
    let mut probes = Vec::new();
    for _ in 0..200 {
        one.pass(25);
        probes.extend(one.sent().into_iter().filter_map(|(to, message)| match message {
            Message::Probe { samples, .. } => Some((to, samples)),
            _ => None,
        }));
    }
    let (first, second) = (&probes[..3], &probes[3..6]);
    for pass in [first, second] {
        assert!(pass.iter().all(|(to, _)| *to == pass[0].0), "one peer a pass");
        let positions: Vec<u64> = pass.iter().flat_map(|(_, samples)| samples).map(|(at, _)| *at).collect();
        assert_eq!(positions.len(), 10);
        assert!(positions.is_sorted());
    }
    assert_ne!(first[0].0, second[0].0);
}

#[test]
fn an_answer_fits_a_frame_and_what_does_not_is_counted() {
    let (mut one, there) = met();
    let value: &'static str = Box::leak("x".repeat(40_000).into_boxed_str());
    let samples: Vec<_> = (0..10)
        .map(|n| {
            let key = format!("k{n}");
            one.write(&key, value);
            (one.position(&key), Stamp::ZERO)
        })
        .collect();
    one.sent();
    let answers = probed(&mut one, &there, samples);
    let [Message::State { records, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(records.len(), 3);
    assert_eq!(one.replica.status(one.now).counters.scrub_cut, 7);
}

#[test]
fn an_expiring_record_of_a_peer_whose_clock_is_unknown_is_left_alone() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    let record = living(put("k", "v", stamp(&there, 1)), 5_000, one.now.mono_ms);
    one.hear_state(&there, vec![record.clone()], Vec::new());
    assert_eq!(one.value("k"), None);
    one.hear_beat(&there, 20, Vec::new());
    one.hear_state(&there, vec![record], Vec::new());
    assert_eq!(one.value("k").as_deref(), Some("v"), "nor was it taken for dead");
}

#[test]
fn a_full_sync_is_preceded_by_the_hottest_records() {
    let (mut one, there) = met();
    for n in 0..100 {
        one.write(&format!("k{n}"), "v");
    }
    for key in ["k7", "k42"] {
        one.value(key);
    }
    one.sent();
    let request = crate::message::SyncReq {
        id: 1,
        budget_bytes: 1_000,
        preview_bytes: 200,
        ..crate::message::SyncReq::default()
    };
    one.hear(&there, Message::SyncReq(request.clone()));
    let answers = one.sent();
    let [(_, Message::State { records, .. }), (_, Message::SyncPage(page))] = &answers[..] else {
        panic!("{answers:?}")
    };
    let keys: Vec<&[u8]> = records.iter().map(|record| &record.key[..]).collect();
    assert_eq!(keys, [b"k42", &b"k7"[..]]);
    assert!(page.full);
    let partial = crate::message::SyncReq { position: 1, ..request };
    one.hear(&there, Message::SyncReq(partial));
    assert!(matches!(&one.sent()[..], [(_, Message::SyncPage(_))]), "once, ahead of the first page");
}

#[test]
fn an_answer_to_an_earlier_life_is_ignored() {
    let (mut one, there) = met();
    let answers = one.replica.stream().epoch - 1;
    let records = vec![put("k", "v", stamp(&there, 5))];
    one.hear(&there, Message::State { answers, records, graves: Vec::new() });
    assert_eq!(one.value("k"), None);
}

/// A record that was evicted and whose grave had set the floor was asked for, and evicted, again and again.
#[test]
fn a_record_that_set_the_floor_when_it_went_is_not_asked_for() {
    let (mut one, there) = met();
    let theirs = stamp(&there, 5);
    one.store.raise_floor(Bar::at(theirs));
    let [at, above] = ["at-the-floor", "above-it"].map(|key| one.position(key));
    let answers = probed(&mut one, &there, vec![(at, theirs), (above, stamp(&there, 6))]);
    assert_eq!(answers, [Message::Probe { samples: vec![(above, Stamp::ZERO)], cleared: Vec::new() }]);
}

/// A node that had missed a clear kept what it cleared for ever, and the others refused it for ever.
#[test]
fn a_pass_begins_with_the_clears_and_repairs_a_missed_one() {
    let (mut one, there) = met();
    one.write("a/1", "v");
    one.store.clear_local(b"b/").unwrap();
    one.sent();
    one.pass(250);
    let sent = one.sent();
    let [(_, Message::Probe { cleared, .. })] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(cleared.len(), 1);
    let cleared = vec![(Bytes::from_static(b"a/"), stamp(&there, 60_000))];
    one.hear(&there, Message::Probe { samples: Vec::new(), cleared });
    assert_eq!(one.value("a/1"), None);
    assert_eq!(one.replica.status(one.now).counters.scrub_repaired, 1);
}
