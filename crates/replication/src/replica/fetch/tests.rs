use super::*;
use crate::{
    message::Beat,
    replica::one::{One, living, peer, put, stamp},
    transport::Destination,
};

fn keys(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

#[test]
fn a_node_that_is_warming_asks_the_nearest_ready_peer() {
    let mut one = One::new(false);
    assert_eq!(one.replica.fetch(one.now, keys(&["k"]), Hlc(0)), None, "nobody is there");
    let (near, far, unready) = (peer("eu-central"), peer("ap-south"), peer("eu-west"));
    one.hear_beat(&far, 90, Vec::new());
    one.hear_beat(&near, 20, Vec::new());
    one.hear(&unready, crate::message::Message::Beat(Beat::default()));
    let id = one.replica.fetch(one.now, keys(&["k"]), Hlc(7)).unwrap();
    one.pass(2_000);
    let asked = one.sent().into_iter().find(|(_, message)| matches!(message, Message::Fetch { .. }));
    let question = Message::Fetch { id, keys: keys(&["k"]), at_least: Hlc(7) };
    assert_eq!(asked, Some((Destination::Node(near), question)));
}

#[test]
fn an_answer_is_kept_here_with_what_is_left_of_its_life() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    let id = one.replica.fetch(one.now, keys(&["k", "never-held"]), Hlc(0)).unwrap();
    let found = living(put("k", "v", stamp(&there, 1)), 1_000, one.now.mono_ms);
    one.pass(300);
    one.hear(&there, Message::Fetched { id, ready: true, records: vec![found] });
    let answers: Vec<Fetched> = one.replica.take_fetched().collect();
    let [Fetched { records, ready: true, .. }] = &answers[..] else { panic!("{answers:?}") };
    let Op::Put(value) = &records[0].op else { panic!("a put") };
    let left_ms = value.ttl.unwrap().left_ms;
    assert!(
        (679..=700).contains(&left_ms),
        "{left_ms}: 300 ms passed, and at most a round trip and a thousandth of that is taken off"
    );
    assert_eq!(one.value("k").as_deref(), Some("v"));
    one.pass(left_ms);
    assert_eq!(one.value("k"), None);
}

#[test]
fn a_question_is_answered_with_what_is_here_and_new_enough() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    let old = one.write("old", "v");
    one.pass(10);
    let new = one.write("new", "v");
    one.sent();
    let asked = |at_least| Message::Fetch { id: 9, keys: keys(&["old", "new", "absent"]), at_least };
    for (at_least, expected) in [(Hlc(0), vec![old, new]), (new.hlc, vec![new])] {
        one.hear(&there, asked(at_least));
        let answers = one.sent();
        let [(to, Message::Fetched { id: 9, ready: true, records })] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(*to, Destination::Node(there.clone()));
        assert_eq!(records.iter().map(|record| record.stamp).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn answers_to_nobody_are_ignored_and_those_unread_are_bounded() {
    let mut one = One::new(true);
    let there = peer("ap-south");
    one.hear_beat(&there, 20, Vec::new());
    let answer = |id| Message::Fetched { id, ready: true, records: Vec::new() };
    one.hear(&there, answer(1));
    assert_eq!(one.replica.take_fetched().count(), 0);
    let id = one.replica.fetch(one.now, keys(&["k"]), Hlc(0)).unwrap();
    for _ in 0..500 {
        one.hear(&there, answer(id));
    }
    assert_eq!(one.replica.take_fetched().count(), 128);
}
