//! Leases between one replica and peers that a test plays.

mod chaos;

use super::*;
use crate::{
    message::StreamReport,
    node::NodeId,
    record::Record,
    replica::one::{EPOCH, One, peer, put, report, stamp, stream_of},
};

/// How long the leases of these tests are.
const HOLD_MS: u64 = 5_000;

fn ready() -> One {
    let mut one = One::new(true);
    one.configure(|config| config.alive_ms = 60_000);
    one
}

/// A peer that grants leases beats.
fn meet(one: &mut One, from: &NodeId) {
    meet_with(one, from, Vec::new());
}

fn meet_all(one: &mut One, peers: &[&NodeId]) {
    for peer in peers {
        meet(one, peer);
    }
}

fn meet_with(one: &mut One, from: &NodeId, streams: Vec<StreamReport>) {
    one.hear_able_beat(from, 20, streams, wire::GRANTS_LEASES);
}

fn own(one: &One) -> Origin {
    one.replica.stream().origin
}

/// A key whose lease the first of these nodes grants, the next of them where that is passed over, and so on.
fn key_of(order: &[Origin]) -> &'static str {
    let keys = (0..100_000).map(|n| format!("k{n}"));
    let mut found = keys.filter(|key| {
        let position = wire::KeyHasher::new("geocache").position(key.as_bytes());
        order.is_sorted_by_key(|node| std::cmp::Reverse(wire::lease_weight(position, *node)))
    });
    found.next().expect("one in a few").leak()
}

fn ask(one: &mut One, key: &str) -> u64 {
    one.replica.lease(one.now, key.as_bytes(), HOLD_MS, None)
}

fn news(one: &mut One) -> Vec<(u64, LeaseNews)> {
    one.replica.take_leased().map(|leased| (leased.id, leased.news)).collect()
}

fn calls(one: &mut One) -> Vec<(Destination, Vec<LeaseCall>)> {
    let sent = one.sent().into_iter();
    let calls = sent.filter_map(|(to, message)| match message {
        Message::Lease { calls } => Some((to, calls)),
        _ => None,
    });
    calls.collect()
}

/// What the replica answers peers, by name and number.
fn verdicts(one: &mut One) -> Vec<(Destination, u64, Verdict)> {
    let sent = one.sent().into_iter();
    let answers = sent.filter_map(|(to, message)| match message {
        Message::Granted { answers } => Some((to, answers)),
        _ => None,
    });
    let flat = answers.flat_map(|(to, answers)| {
        answers.into_iter().map(move |answer| (to.clone(), answer.id, answer.verdict))
    });
    flat.collect()
}

/// A peer calls for the lease of a key.
fn hear_call(one: &mut One, from: &NodeId, id: u64, key: &str, say: LeaseSay) {
    let position = one.position(key);
    one.hear(from, Message::Lease { calls: vec![LeaseCall { id, position, say }] });
}

fn hear_ask(one: &mut One, from: &NodeId, id: u64, key: &str) {
    hear_call(one, from, id, key, LeaseSay::Ask { hold_ms: HOLD_MS, seen: Hlc(0) });
}

fn hear_asks(one: &mut One, asks: &[(&NodeId, u64)], key: &str) {
    for (from, id) in asks {
        hear_ask(one, from, *id, key);
    }
}

fn hear_verdict(one: &mut One, from: &NodeId, id: u64, key: &str, verdict: Verdict) {
    let position = one.position(key);
    one.hear(from, Message::Granted { answers: vec![LeaseAnswer { id, position, verdict }] });
}

fn to(node: &NodeId) -> Destination {
    Destination::Node(node.clone())
}

fn granted() -> Verdict {
    Verdict::Granted { hold_ms: HOLD_MS }
}

fn write_of(node: &NodeId, ms: u64) -> Token {
    Token { stream: stream_of(node), hlc: stamp(node, ms).hlc }
}

/// Says which write brought a value; the reports of a peer that has it.
fn has(token: Token) -> Vec<StreamReport> {
    vec![report(token.stream, 1, token.hlc)]
}

#[test]
fn a_node_alone_is_granted_what_it_asks_for_at_once() {
    let mut one = ready();
    let id = ask(&mut one, "k");
    assert_eq!(news(&mut one), [(id, LeaseNews::Granted)]);
    assert!(calls(&mut one).is_empty());
    one.replica.release(one.now, id, None);
    let again = ask(&mut one, "k");
    assert_eq!(news(&mut one), [(again, LeaseNews::Granted)]);
    assert_eq!(one.replica.status(one.now).counters.leases_granted, 2);
}

#[test]
fn the_node_that_weighs_most_for_the_key_is_asked() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet(&mut one, &eu);
    meet(&mut one, &ap);
    for (first, second) in [(&eu, &ap), (&ap, &eu)] {
        let key = key_of(&[first.origin(), second.origin(), own(&one)]);
        let id = ask(&mut one, key);
        let position = one.position(key);
        let say = LeaseSay::Ask { hold_ms: HOLD_MS, seen: Hlc(0) };
        assert_eq!(calls(&mut one), [(to(first), vec![LeaseCall { id, position, say }])]);
        hear_verdict(&mut one, first, id, key, granted());
        assert_eq!(news(&mut one), [(id, LeaseNews::Granted)]);
    }
}

#[test]
fn a_node_from_before_leases_is_not_asked() {
    let mut one = ready();
    let older = peer("eu-central");
    one.hear_beat(&older, 20, Vec::new());
    let key = key_of(&[older.origin(), own(&one)]);
    let id = ask(&mut one, key);
    assert_eq!(news(&mut one), [(id, LeaseNews::Granted)]);
    assert!(calls(&mut one).is_empty());
}

#[test]
fn a_node_that_is_warming_asks_others_and_without_them_nobody() {
    let mut one = One::new(false);
    one.pass(2_000);
    let id = ask(&mut one, "k");
    assert_eq!(news(&mut one), [(id, LeaseNews::NoGrantor)]);
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    let key = key_of(&[own(&one), eu.origin()]);
    ask(&mut one, key);
    assert_eq!(calls(&mut one)[0].0, to(&eu));
}

#[test]
fn a_node_that_listens_before_its_first_word_does_not_ask() {
    let mut one = One::new(false);
    meet(&mut one, &peer("eu-central"));
    let id = ask(&mut one, "k");
    assert_eq!(news(&mut one), [(id, LeaseNews::NoGrantor)]);
}

#[test]
fn the_first_is_granted_the_lease_and_the_others_hear_what_it_loaded() {
    let mut one = ready();
    let (eu, ap, sa) = (peer("eu-central"), peer("ap-south"), peer("sa-east"));
    meet_all(&mut one, &[&eu, &ap, &sa]);
    hear_ask(&mut one, &eu, 7, "k");
    one.pass(1_000);
    hear_ask(&mut one, &ap, 8, "k");
    let held = Verdict::Held { left_ms: HOLD_MS - 1_000 };
    assert_eq!(verdicts(&mut one), [(to(&eu), 7, granted()), (to(&ap), 8, held)]);
    let token = write_of(&eu, 900);
    hear_call(&mut one, &eu, 7, "k", LeaseSay::Loaded(token));
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, Verdict::Loaded(token))]);
    // Late, since it had missed the key before the value came there.
    hear_ask(&mut one, &sa, 9, "k");
    assert_eq!(verdicts(&mut one), [(to(&sa), 9, Verdict::Loaded(token))]);
}

#[test]
fn whoever_has_seen_what_was_loaded_and_misses_it_again_may_load() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    let token = write_of(&eu, 900);
    let load = |one: &mut One| {
        hear_ask(one, &eu, 7, "k");
        hear_call(one, &eu, 7, "k", LeaseSay::Loaded(token));
        verdicts(one);
    };
    // It says so itself.
    meet_all(&mut one, &[&eu, &ap]);
    load(&mut one);
    hear_call(&mut one, &ap, 8, "k", LeaseSay::Ask { hold_ms: HOLD_MS, seen: token.hlc });
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
    // Its beats do.
    let mut one = ready();
    meet(&mut one, &eu);
    load(&mut one);
    meet_with(&mut one, &ap, has(token));
    hear_ask(&mut one, &ap, 8, "k");
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
    // It wrote it.
    let mut one = ready();
    meet(&mut one, &eu);
    load(&mut one);
    hear_ask(&mut one, &eu, 9, "k");
    assert_eq!(verdicts(&mut one), [(to(&eu), 9, granted())]);
}

#[test]
fn a_load_is_remembered_for_as_long_as_its_lease_was_for() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    hear_ask(&mut one, &eu, 7, "k");
    let token = write_of(&eu, 900);
    hear_call(&mut one, &eu, 7, "k", LeaseSay::Loaded(token));
    verdicts(&mut one);
    one.pass(HOLD_MS - 1);
    hear_ask(&mut one, &ap, 8, "k");
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, Verdict::Loaded(token))]);
    one.pass(1);
    hear_ask(&mut one, &ap, 9, "k");
    assert_eq!(verdicts(&mut one), [(to(&ap), 9, granted())]);
}

#[test]
fn a_load_that_failed_lets_the_next_in_the_line_load() {
    let mut one = ready();
    let (eu, ap, sa) = (peer("eu-central"), peer("ap-south"), peer("sa-east"));
    meet_all(&mut one, &[&eu, &ap, &sa]);
    hear_ask(&mut one, &eu, 7, "k");
    hear_ask(&mut one, &ap, 8, "k");
    hear_ask(&mut one, &sa, 9, "k");
    verdicts(&mut one);
    hear_call(&mut one, &eu, 7, "k", LeaseSay::Failed);
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
    // Said twice, or by one whose lease it is no more, it changes nothing.
    hear_call(&mut one, &eu, 7, "k", LeaseSay::Failed);
    hear_call(&mut one, &eu, 7, "k", LeaseSay::Loaded(write_of(&eu, 1)));
    assert!(verdicts(&mut one).is_empty());
    hear_call(&mut one, &ap, 8, "k", LeaseSay::Failed);
    assert_eq!(verdicts(&mut one), [(to(&sa), 9, granted())]);
    hear_call(&mut one, &sa, 9, "k", LeaseSay::Failed);
    assert!(verdicts(&mut one).is_empty());
    let key = key_of(&[own(&one), eu.origin(), ap.origin(), sa.origin()]);
    let id = ask(&mut one, key);
    assert_eq!(news(&mut one), [(id, LeaseNews::Granted)], "nothing is left of it");
    assert_eq!(one.replica.status(one.now).counters.leases_passed_on, 2);
}

#[test]
fn the_lease_of_a_holder_that_takes_too_long_goes_to_the_next() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    hear_ask(&mut one, &eu, 7, "k");
    hear_ask(&mut one, &ap, 8, "k");
    verdicts(&mut one);
    one.pass(HOLD_MS - 1);
    assert!(verdicts(&mut one).is_empty());
    one.pass(1);
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
    one.pass(HOLD_MS);
    hear_ask(&mut one, &eu, 9, "k");
    assert_eq!(verdicts(&mut one), [(to(&eu), 9, granted())], "nobody was left in the line");
}

#[test]
fn the_lease_of_a_holder_that_died_goes_to_the_next_who_lives() {
    let mut one = One::new(true);
    let (eu, ap, sa) = (peer("eu-central"), peer("ap-south"), peer("sa-east"));
    one.configure(|config| config.alive_ms = 1_000);
    meet_all(&mut one, &[&eu, &ap, &sa]);
    hear_asks(&mut one, &[(&eu, 7), (&ap, 8), (&sa, 9)], "k");
    verdicts(&mut one);
    one.pass(600);
    meet(&mut one, &sa);
    one.pass(600);
    assert_eq!(verdicts(&mut one), [(to(&sa), 9, granted())]);
}

#[test]
fn a_holder_that_began_another_life_has_lost_its_lease() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    hear_ask(&mut one, &eu, 7, "k");
    hear_ask(&mut one, &ap, 8, "k");
    verdicts(&mut one);
    one.hear_in(&eu, EPOCH + (1 << 16), Message::Fetch { id: 1, keys: Vec::new(), at_least: Hlc(0) });
    one.pass(25);
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
}

#[test]
fn whoever_asks_again_hears_the_same_and_keeps_its_place() {
    let mut one = ready();
    let (eu, ap, sa) = (peer("eu-central"), peer("ap-south"), peer("sa-east"));
    meet_all(&mut one, &[&eu, &ap, &sa]);
    hear_asks(&mut one, &[(&eu, 7), (&ap, 8), (&sa, 9)], "k");
    verdicts(&mut one);
    one.pass(100);
    hear_ask(&mut one, &eu, 7, "k");
    hear_ask(&mut one, &ap, 8, "k");
    let left = HOLD_MS - 100;
    assert_eq!(
        verdicts(&mut one),
        [(to(&eu), 7, Verdict::Granted { hold_ms: left }), (to(&ap), 8, Verdict::Held { left_ms: left }),]
    );
    // The holder's next question: that its first load is over was not heard.
    hear_ask(&mut one, &eu, 10, "k");
    assert_eq!(verdicts(&mut one), [(to(&eu), 10, granted())]);
    hear_call(&mut one, &eu, 10, "k", LeaseSay::Failed);
    assert_eq!(verdicts(&mut one), [(to(&ap), 8, granted())]);
}

#[test]
fn where_the_grantor_gives_no_answer_the_next_is_asked_and_then_nobody() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    let key = key_of(&[eu.origin(), ap.origin(), own(&one)]);
    let id = ask(&mut one, key);
    assert_eq!(calls(&mut one)[0].0, to(&eu));
    one.pass(*ANSWER_MS.start() - 1);
    assert!(calls(&mut one).is_empty());
    one.pass(1);
    assert_eq!(calls(&mut one)[0].0, to(&ap));
    // The first one's answer comes late: it is told to let the next one load.
    hear_verdict(&mut one, &eu, id, key, granted());
    assert!(news(&mut one).is_empty());
    let position = one.position(key);
    assert_eq!(calls(&mut one), [(to(&eu), vec![LeaseCall { id, position, say: LeaseSay::Failed }])]);
    one.pass(*ANSWER_MS.start());
    assert_eq!(news(&mut one), [(id, LeaseNews::NoGrantor)]);
    hear_verdict(&mut one, &ap, id, key, granted());
    assert_eq!(calls(&mut one), [(to(&ap), vec![LeaseCall { id, position, say: LeaseSay::Failed }])]);
}

#[test]
fn whoever_waits_asks_another_once_its_grantor_is_dead() {
    let mut one = One::new(true);
    let eu = peer("eu-central");
    one.configure(|config| config.alive_ms = 1_000);
    meet(&mut one, &eu);
    let key = key_of(&[eu.origin(), own(&one)]);
    let id = ask(&mut one, key);
    hear_verdict(&mut one, &eu, id, key, Verdict::Held { left_ms: HOLD_MS });
    one.pass(1_000);
    assert!(news(&mut one).is_empty());
    one.pass(1);
    assert_eq!(news(&mut one), [(id, LeaseNews::Granted)], "by itself: no other is left");
}

#[test]
fn whoever_waits_asks_again_when_the_lease_should_have_ended() {
    let mut one = ready();
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    let key = key_of(&[eu.origin(), own(&one)]);
    let id = ask(&mut one, key);
    calls(&mut one);
    hear_verdict(&mut one, &eu, id, key, Verdict::Held { left_ms: 1_000 });
    one.pass(1_000 + ASK_AGAIN_MS - 1);
    assert!(calls(&mut one).is_empty());
    one.pass(1);
    assert_eq!(calls(&mut one)[0].0, to(&eu));
}

#[test]
fn a_value_that_comes_ends_the_wait_whatever_the_grantor_says() {
    let mut one = ready();
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    let key = key_of(&[eu.origin(), own(&one)]);
    let (waits, asks) = (ask(&mut one, key), ask(&mut one, key));
    hear_verdict(&mut one, &eu, waits, key, Verdict::Held { left_ms: HOLD_MS });
    let records = |record: Record, first| Message::Records {
        first,
        records: vec![record],
        held_back: None,
        answers: None,
    };
    one.hear(&eu, records(put("other", "v", stamp(&eu, 1)), 1));
    assert!(news(&mut one).is_empty());
    one.hear(&eu, records(put(key, "v", stamp(&eu, 2)), 2));
    assert_eq!(news(&mut one), [(waits, LeaseNews::Arrived), (asks, LeaseNews::Arrived)]);
    hear_verdict(&mut one, &eu, waits, key, granted());
    assert!(news(&mut one).is_empty(), "it was answered");
}

#[test]
fn a_grant_that_comes_twice_is_one_and_its_holder_says_what_came_of_it_once() {
    let mut one = ready();
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    let key = key_of(&[eu.origin(), own(&one)]);
    let id = ask(&mut one, key);
    calls(&mut one);
    for _ in 0..2 {
        hear_verdict(&mut one, &eu, id, key, granted());
        hear_verdict(&mut one, &eu, id, key, Verdict::Held { left_ms: 7 });
    }
    assert_eq!(news(&mut one), [(id, LeaseNews::Granted)]);
    let stamp = one.write(key, "v");
    one.replica.release(one.now, id, Some(stamp));
    one.replica.release(one.now, id, None);
    let (position, token) = (one.position(key), one.replica.token(stamp.hlc));
    assert_eq!(calls(&mut one), [(to(&eu), vec![LeaseCall { id, position, say: LeaseSay::Loaded(token) }])]);
}

#[test]
fn a_value_that_another_node_wrote_is_named_by_that_node_s_life() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet(&mut one, &eu);
    let known = has(write_of(&ap, 5));
    meet_with(&mut one, &ap, known);
    let key = key_of(&[eu.origin(), ap.origin(), own(&one)]);
    let unknown = peer("sa-east");
    for (stamp, say) in
        [(stamp(&ap, 5), LeaseSay::Loaded(write_of(&ap, 5))), (stamp(&unknown, 5), LeaseSay::Failed)]
    {
        let id = ask(&mut one, key);
        hear_verdict(&mut one, &eu, id, key, granted());
        calls(&mut one);
        one.replica.release(one.now, id, Some(stamp));
        assert_eq!(calls(&mut one)[0].1[0].say, say);
    }
}

#[test]
fn at_the_bound_a_lease_is_refused_and_the_oldest_load_forgotten() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    one.configure(|config| config.leases_max = 2);
    let keys = ["a", "b", "c"];
    for (id, key) in (0..).zip(keys) {
        hear_ask(&mut one, &eu, id, key);
    }
    let told = verdicts(&mut one);
    assert_eq!(told, [(to(&eu), 0, granted()), (to(&eu), 1, granted()), (to(&eu), 2, Verdict::Refused)]);
    assert_eq!(one.replica.status(one.now).counters.leases_refused, 1);
    let token = write_of(&eu, 1);
    for (id, key) in (10..).zip(keys) {
        hear_call(&mut one, &eu, id - 10, key, LeaseSay::Loaded(token));
        hear_ask(&mut one, &eu, id, key);
        hear_call(&mut one, &eu, id, key, LeaseSay::Loaded(token));
    }
    verdicts(&mut one);
    for (id, key) in (20..).zip(keys) {
        hear_ask(&mut one, &ap, id, key);
    }
    let told: Vec<Verdict> = verdicts(&mut one).into_iter().map(|(_, _, verdict)| verdict).collect();
    assert_eq!(told, [granted(), Verdict::Loaded(token), Verdict::Loaded(token)]);
}

#[test]
fn a_refusal_ends_the_question() {
    let mut one = ready();
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    let key = key_of(&[eu.origin(), own(&one)]);
    let id = ask(&mut one, key);
    hear_verdict(&mut one, &eu, id, key, Verdict::Refused);
    assert_eq!(news(&mut one), [(id, LeaseNews::Refused)]);
}

/// Messages to single nodes are few and the oldest goes: a thousand keys that end at once would have pushed out each other.
#[test]
fn many_questions_leave_together_and_what_waits_is_bounded() {
    let mut one = ready();
    let eu = peer("eu-central");
    meet(&mut one, &eu);
    one.configure(|config| config.leases_max = 1_000);
    let ours = own(&one);
    let position = wire::KeyHasher::new("geocache");
    let keys = (0..).map(|n| format!("k{n}")).filter(|key| {
        let position = position.position(key.as_bytes());
        wire::lease_weight(position, eu.origin()) > wire::lease_weight(position, ours)
    });
    let keys: Vec<String> = keys.take(2_100).collect();
    for key in &keys {
        ask(&mut one, key);
    }
    let lens: Vec<usize> = calls(&mut one).iter().map(|(_, calls)| calls.len()).collect();
    assert_eq!(lens, [1_024, 976]);
    assert!(!one.replica.has_unsent());
    assert_eq!(one.replica.status(one.now).counters.control_dropped, 100);
}

#[test]
fn what_a_stranger_says_of_times_is_cut() {
    let mut one = ready();
    let (eu, ap) = (peer("eu-central"), peer("ap-south"));
    meet_all(&mut one, &[&eu, &ap]);
    hear_call(&mut one, &eu, 1, "k", LeaseSay::Ask { hold_ms: u64::MAX, seen: Hlc(u64::MAX) });
    hear_call(&mut one, &eu, 2, "l", LeaseSay::Ask { hold_ms: 0, seen: Hlc(0) });
    let told: Vec<Verdict> = verdicts(&mut one).into_iter().map(|(_, _, verdict)| verdict).collect();
    assert_eq!(told, [Verdict::Granted { hold_ms: HOLD_MS_MAX }, Verdict::Granted { hold_ms: 1 }]);
    let key = key_of(&[eu.origin(), ap.origin(), own(&one)]);
    let id = ask(&mut one, key);
    hear_verdict(&mut one, &eu, id, key, Verdict::Held { left_ms: u64::MAX });
    one.pass(25);
    assert!(news(&mut one).is_empty());
}
