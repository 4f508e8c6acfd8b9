//! The table of reads under way, without a transport.

use std::time::Duration;

use super::*;
use crate::{
    node::Origin,
    record::{Op, Value},
    stamp::Stamp,
};

const MS: Duration = Duration::from_millis(1);
type Answer = oneshot::Receiver<Result<Vec<Record>, FetchError>>;

/// A table, and what it asked.
struct Table {
    fetches: Fetches,
    start: Instant,
    asked: Vec<Vec<String>>,
}

fn record(key: &str) -> Record {
    let stamp = Stamp { hlc: Hlc(7), origin: Origin(1) };
    Record { stamp, key: key.to_owned().into(), op: Op::Put(Value::default()), previous: None }
}

fn keys(answer: &mut Answer) -> Vec<String> {
    let records = answer.try_recv().expect("answered").expect("found");
    records.iter().map(|record| String::from_utf8_lossy(&record.key).into_owned()).collect()
}

impl Table {
    fn new() -> Self {
        Self { fetches: Fetches::default(), start: Instant::now(), asked: Vec::new() }
    }

    /// Wants keys, at a moment, for some milliseconds.
    fn want(&mut self, keys: &[&str], at_ms: u32, for_ms: u32) -> Answer {
        let (reply, answer) = oneshot::channel();
        let keys = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let now = self.start + at_ms * MS;
        self.fetches.add(keys, Hlc(0), (now, now + for_ms * MS), reply);
        self.ask(at_ms);
        answer
    }

    fn ask(&mut self, at_ms: u32) {
        let asked = &mut self.asked;
        self.fetches.ask(self.start + at_ms * MS, |keys, _| {
            asked.push(keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect());
            Some(asked.len() as u64)
        });
    }

    fn answer(&mut self, id: u64, found: &[&str], at_ms: u32) {
        let records = found.iter().map(|key| record(key)).collect();
        self.fetches.answered(&Fetched { id, ready: true, records });
        self.ask(at_ms);
    }

    fn pass(&mut self, at_ms: u32) {
        self.fetches.expire(self.start + at_ms * MS);
        self.ask(at_ms);
    }

    fn is_empty(&self) -> bool {
        let Fetches { callers, deadlines, wanted, line, questions, keys, numbers: _ } = &self.fetches;
        let is_idle = callers.is_empty() && deadlines.is_empty() && questions.is_empty();
        is_idle && wanted.is_empty() && line.is_empty() && *keys == 0
    }
}

#[test]
fn a_key_that_many_want_is_asked_for_once_and_others_go_together() {
    let mut table = Table::new();
    let mut hot: Vec<Answer> = (0..100).map(|_| table.want(&["hot"], 0, 100)).collect();
    let mut others: Vec<Answer> = (0..100).map(|n| table.want(&[&n.to_string()], 0, 100)).collect();
    assert_eq!(table.asked.len(), QUESTIONS_MAX);
    table.answer(1, &["hot"], 10);
    assert!(hot.iter_mut().all(|answer| keys(answer) == ["hot"]));
    assert_eq!(table.asked.len(), QUESTIONS_MAX + 1);
    assert_eq!(table.asked[QUESTIONS_MAX].len(), 100 - (QUESTIONS_MAX - 1));
    for id in 2..=5 {
        table.answer(id, &["99"], 10);
    }
    let found: usize = others.iter_mut().map(|answer| keys(answer).len()).sum();
    assert_eq!(found, 1);
    assert!(table.is_empty());
}

#[test]
fn a_key_before_the_last_one_found_is_missing_and_one_after_it_is_asked_for_again() {
    let mut table = Table::new();
    let mut answer = table.want(&["a", "b", "c", "d", "e"], 0, 100);
    table.answer(1, &["a", "c"], 10);
    assert!(answer.try_recv().is_err());
    assert_eq!(table.asked[1], ["d", "e"]);
    table.answer(2, &["d"], 20);
    assert_eq!(table.asked[2], ["e"]);
    table.answer(3, &[], 30);
    assert_eq!(keys(&mut answer), ["a", "c", "d"]);
    assert!(table.is_empty());
}

#[test]
fn a_lost_question_is_asked_again_once_and_then_its_callers_are_told() {
    let mut table = Table::new();
    let mut answer = table.want(&["k"], 0, 100);
    for at_ms in 0..100 {
        table.pass(at_ms);
    }
    assert_eq!(table.asked, [["k"], ["k"]]);
    assert!(answer.try_recv().is_err());
    table.pass(100);
    assert_eq!(answer.try_recv().unwrap(), Err(FetchError::NoAnswer { waited: 100 * MS }));
    assert!(table.is_empty());
}

/// Four lost frames kept everyone else waiting for half of the time of whoever was most patient.
#[test]
fn lost_questions_of_patient_callers_hold_up_others_for_a_second_at_most() {
    const HOUR_MS: u32 = 3_600_000;
    let mut table = Table::new();
    let _patient: Vec<Answer> =
        (0..QUESTIONS_MAX).map(|n| table.want(&[&n.to_string()], 0, HOUR_MS)).collect();
    let mut answer = table.want(&["k"], 0, 2_000);
    table.pass(999);
    assert_eq!(table.asked.len(), QUESTIONS_MAX, "all places are taken");
    assert_eq!(table.fetches.deadline(), Some(table.start + LATE_AFTER));
    table.pass(1_000);
    assert_eq!(table.asked[QUESTIONS_MAX], ["k", "0", "1", "2", "3"]);
    table.answer(QUESTIONS_MAX as u64 + 1, &["k"], 1_100);
    assert_eq!(keys(&mut answer), ["k"]);
}

/// With sixteen late questions of patient callers, nothing was asked any more.
#[test]
fn of_many_late_questions_the_oldest_are_forgotten_and_new_ones_asked() {
    let mut table = Table::new();
    let mut waiting = Vec::new();
    for second in 0..20 {
        for n in 0..QUESTIONS_MAX {
            waiting.push(table.want(&[&format!("{second}/{n}")], 1_000 * second, 3_600_000));
        }
        table.pass(1_000 * (second + 1));
        assert!(table.fetches.questions.len() <= LATE_MAX + QUESTIONS_MAX);
    }
    let asked: BTreeSet<&String> = table.asked.iter().flatten().collect();
    assert_eq!(asked.len(), waiting.len(), "each key was asked for");
    let late = *table.fetches.questions.iter().find(|(_, question)| question.is_late).unwrap().0;
    let key = table.asked[late as usize - 1][0].clone();
    table.answer(late, &[&key], 21_000);
    assert_eq!(table.fetches.callers.len(), waiting.len() - 1, "the answer to a late one counts");
}

/// An answer that took longer than half of the time was thrown away, and so was the next one.
#[test]
fn an_answer_that_is_late_but_in_time_counts() {
    let mut table = Table::new();
    let mut answer = table.want(&["k"], 0, 100);
    table.pass(50);
    assert_eq!(table.asked.len(), 2);
    table.answer(1, &["k"], 75);
    assert_eq!(keys(&mut answer), ["k"]);
    table.answer(2, &["k"], 99);
    assert!(table.is_empty());
}

#[test]
fn whoever_comes_after_the_tries_were_spent_has_it_asked_for_again() {
    let mut table = Table::new();
    let _first = table.want(&["k"], 0, 1_000);
    table.pass(500);
    table.pass(750);
    assert_eq!(table.asked.len(), 2);
    table.pass(900);
    let mut late = table.want(&["k"], 900, 1_000);
    assert_eq!(table.asked.len(), 3);
    table.answer(3, &[], 950);
    assert!(keys(&mut late).is_empty());
    assert!(table.is_empty(), "an answer is for all who want the key");
}

#[test]
fn whoever_goes_leaves_nothing_to_be_asked_for() {
    let mut table = Table::new();
    let asked: Vec<Answer> = (0..QUESTIONS_MAX).map(|n| table.want(&[&n.to_string()], 0, 100)).collect();
    drop(table.want(&["gone"], 0, 100));
    table.fetches.forget_abandoned();
    assert_eq!(table.fetches.line.len(), 0);
    drop(asked);
    table.fetches.forget_abandoned();
    assert!(table.is_empty());
}

/// Questions of callers who had gone kept their places until they were late.
#[test]
fn a_question_that_nobody_wants_any_more_leaves_its_place() {
    let mut table = Table::new();
    let mut shared = table.want(&["0"], 0, 2_000);
    let gone: Vec<Answer> = (0..QUESTIONS_MAX).map(|n| table.want(&[&n.to_string()], 0, 2_000)).collect();
    let mut next = table.want(&["k"], 0, 2_000);
    assert_eq!(table.asked.len(), QUESTIONS_MAX);
    drop(gone);
    table.fetches.forget_abandoned();
    assert_eq!(table.fetches.questions.len(), 1, "the first key is still wanted");
    table.ask(1);
    assert_eq!(table.asked[QUESTIONS_MAX], ["k"]);
    table.answer(1, &["0"], 2);
    table.answer(QUESTIONS_MAX as u64 + 1, &["k"], 2);
    assert_eq!((keys(&mut shared), keys(&mut next)), (vec!["0".to_owned()], vec!["k".to_owned()]));
    assert!(table.is_empty());
}

#[test]
fn where_nobody_is_ready_the_caller_is_told_at_once() {
    let mut table = Table::new();
    let (reply, mut answer) = oneshot::channel();
    let now = table.start;
    table.fetches.add(vec!["k".into(), "l".into()], Hlc(0), (now, now + 100 * MS), reply);
    table.fetches.ask(now, |_, _| None);
    assert_eq!(answer.try_recv().unwrap(), Err(FetchError::NobodyReady));
    assert!(table.is_empty());
}

#[test]
fn an_answer_of_a_node_that_is_not_ready_says_nothing_of_what_is_missing() {
    let mut table = Table::new();
    let mut answer = table.want(&["a", "b"], 0, 100);
    table.fetches.answered(&Fetched { id: 1, ready: false, records: vec![record("b")] });
    table.ask(10);
    assert_eq!(table.asked[1], ["a"]);
    table.answer(2, &["a"], 20);
    assert_eq!(keys(&mut answer), ["b", "a"]);
}
