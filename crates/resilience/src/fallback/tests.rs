//! Chains by the paused clock.

use std::{
    future::pending,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;
use crate::{CircuitBreaker, State};

const MS: Duration = Duration::from_millis(1);

/// What a link of these tests does when asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Answer,
    Fail,
    Miss,
    Refuse,
    Hang,
}

impl std::fmt::Display for Does {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

async fn act(turn: Turn<Does>) -> Result<Reply<usize>, Does> {
    match turn.link {
        Does::Answer => Ok(Reply::fresh(turn.rank)),
        Does::Hang => pending().await,
        other => Err(other),
    }
}

fn blame(error: &Does) -> Blame {
    match error {
        Does::Miss => Blame::Nobody,
        Does::Refuse => Blame::Caller,
        _ => Blame::Link,
    }
}

fn chain(links: &[Does]) -> Fallback<Does> {
    let mut builder = Fallback::builder();
    for (rank, does) in links.iter().enumerate() {
        builder = builder.link(Link::new(format!("link {rank}"), *does));
    }
    builder.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_that_answers_is_the_last_that_is_asked() {
    let chain = chain(&[Does::Fail, Does::Answer, Does::Answer]);
    let asked = Mutex::new(Vec::new());
    let answer = chain
        .ask_with(Deadline::never(), blame, |turn| {
            asked.lock().unwrap().push(turn.rank);
            act(turn)
        })
        .await
        .unwrap();
    assert_eq!((answer.value, &*answer.served_by, answer.rank, answer.stale), (1, "link 1", 1, false));
    assert_eq!(*asked.lock().unwrap(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_open_link_is_skipped_and_asked_again_when_its_wait_is_over() {
    let chain = chain(&[Does::Fail, Does::Answer]);
    let asked = AtomicU32::new(0);
    let ask = || async {
        let operation = |turn: Turn<Does>| {
            asked.fetch_add(u32::from(turn.rank == 0), Ordering::Relaxed);
            act(turn)
        };
        chain.ask_with(Deadline::never(), blame, operation).await.unwrap().rank
    };
    for _ in 0..10 {
        assert_eq!(ask().await, 1);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "the breaker of link 0 opens after 3 failures");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(ask().await, 1);
    assert_eq!(asked.load(Ordering::Relaxed), 4, "one probe");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_hangs_leaves_the_others_their_share_of_the_time() {
    let (chain, begun) = (chain(&[Does::Hang, Does::Hang, Does::Answer]), clock::now());
    let answer = chain.ask_with(Deadline::after(300 * MS), blame, act).await.unwrap();
    assert_eq!(answer.rank, 2);
    assert_eq!(clock::now() - begun, 200 * MS, "a third each");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_the_patience_bounds_the_wait() {
    let (chain, begun) = (chain(&[Does::Hang, Does::Answer]), clock::now());
    assert_eq!(chain.ask_with(Deadline::never(), blame, act).await.unwrap().rank, 1);
    assert_eq!(clock::now() - begun, 1000 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_hangs_opens_its_breaker_even_for_callers_in_a_hurry() {
    let chain = chain(&[Does::Hang, Does::Answer]);
    for _ in 0..3 {
        chain.ask_with(Deadline::after(10 * MS), blame, act).await.unwrap();
    }
    assert_eq!(chain.breaker("link 0").unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_time_blames_nobody() {
    let chain = chain(&[Does::Answer, Does::Answer]);
    let error = chain.ask_with(Deadline::after(Duration::ZERO), blame, act).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no link answered: link 0: deadline over before asking for link 0; \
         link 1: deadline over before asking for link 1"
    );
    for name in chain.names() {
        let snapshot = chain.breaker(name).unwrap().snapshot();
        assert_eq!((snapshot.failed, snapshot.succeeded, snapshot.cancelled), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_miss_asks_the_next_and_counts_as_a_sign_of_life() {
    let chain = chain(&[Does::Miss, Does::Answer]);
    for _ in 0..10 {
        assert_eq!(chain.ask_with(Deadline::never(), blame, act).await.unwrap().rank, 1);
    }
    let snapshot = chain.breaker("link 0").unwrap().snapshot();
    assert_eq!((snapshot.state, snapshot.failed, snapshot.succeeded), (State::Closed, 0, 10));
}

/// A link that answered 198 of 201 questions was taken for one that is down, its misses being no answers.
#[tokio::test(start_paused = true)]
async fn failures_with_misses_between_them_are_no_row() {
    let (chain, question) = (chain(&[Does::Answer]), AtomicU32::new(0));
    let ask = || async {
        let number = question.fetch_add(1, Ordering::Relaxed);
        let does = if number.is_multiple_of(100) { Does::Fail } else { Does::Miss };
        chain.ask_with(Deadline::never(), blame, |turn| act(Turn { link: does, ..turn })).await.unwrap_err()
    };
    for _ in 0..1_000 {
        assert!(matches!(ask().await, FallbackError::NoneAnswered(_)));
    }
    let snapshot = chain.breaker("link 0").unwrap().snapshot();
    assert_eq!((snapshot.state, snapshot.failed, snapshot.succeeded), (State::Closed, 10, 990));
}

/// Misses left the circuit half-open for ever, with one caller at a time.
#[tokio::test(start_paused = true)]
async fn a_probe_that_meets_a_miss_closes_the_circuit() {
    let chain = chain(&[Does::Miss]);
    let breaker = chain.breaker("link 0").unwrap();
    for _ in 0..3 {
        breaker.try_acquire().unwrap().failure();
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    chain.ask_with(Deadline::never(), blame, act).await.unwrap_err();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_is_not_handed_on() {
    let chain = chain(&[Does::Refuse, Does::Answer]);
    let error = chain.ask_with(Deadline::never(), blame, act).await.unwrap_err();
    assert_eq!(error, FallbackError::Refused { link: "link 0".into(), error: Does::Refuse });
    assert_eq!(chain.breaker("link 0").unwrap().snapshot().failed, 0);
    assert_eq!(error.retry_after(), None);
}

#[tokio::test(start_paused = true)]
async fn each_link_gives_its_own_reason() {
    let open = CircuitBreaker::builder().consecutive_failures(1).open_wait_jitter(0.0).build().unwrap();
    open.try_acquire().unwrap().failure();
    let chain = Fallback::builder()
        .link(Link::new("main", Does::Answer).breaker(open))
        .link(Link::new("backup", Does::Miss))
        .link(Link::new("copy", Does::Hang).patience(20 * MS))
        .build()
        .unwrap();
    let error = chain.ask_with(Deadline::never(), blame, act).await.unwrap_err();
    assert_eq!(error.retry_after(), None, "two were asked");
    let FallbackError::NoneAnswered(failures) = error else { panic!("{error:?}") };
    assert_eq!(failures.iter().map(|failure| &*failure.link).collect::<Vec<_>>(), ["main", "backup", "copy"]);
    assert!(matches!(&failures[0].reason, Reason::Open(open) if open.retry_after == Duration::from_secs(60)));
    assert_eq!(failures[1].reason, Reason::Failed(Does::Miss));
    assert!(matches!(&failures[2].reason, Reason::TimedOut(over) if over.waited == 20 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_counts_for_nothing() {
    let chain = chain(&[Does::Hang]);
    let left = Deadline::after(5 * MS).wait_for("it", chain.ask_with(Deadline::never(), blame, act)).await;
    assert!(left.is_err());
    let snapshot = chain.breaker("link 0").unwrap().snapshot();
    assert_eq!((snapshot.failed, snapshot.cancelled), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reply_or_its_link_may_say_that_it_is_stale() {
    let ask = |link_stale, reply_stale| async move {
        let chain = Fallback::builder().link(Link::new("it", ()).stale(link_stale)).build().unwrap();
        let reply = Reply { value: (), stale: reply_stale };
        chain
            .ask_with(Deadline::never(), |(): &()| Blame::Link, |_| async move { Ok(reply) })
            .await
            .unwrap()
            .stale
    };
    assert!(!ask(false, false).await);
    assert!(ask(true, false).await && ask(false, true).await && ask(true, true).await);
}

#[test]
fn a_question_can_be_moved_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&chain(&[Does::Answer]).ask_with(Deadline::never(), blame, act));
}

#[test]
fn wrong_chains_are_refused_by_name() {
    let links = |names: &[&str]| {
        names.iter().fold(Fallback::builder(), |builder, name| builder.link(Link::new(*name, ())))
    };
    let field = |builder: FallbackBuilder<()>| builder.build().expect_err("the settings are wrong").field;
    assert_eq!(field(links(&[])), "link");
    assert_eq!(field(links(&["a"; 2])), "link");
    assert_eq!(field(links(&[""])), "link");
    assert_eq!(field(links(&[&"a".repeat(129)])), "link");
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    assert_eq!(field(links(&many.iter().map(String::as_str).collect::<Vec<_>>())), "link");
    assert_eq!(field(links(&["a"]).patience(Duration::ZERO)), "patience");
    assert_eq!(field(links(&["a"]).least_time(Duration::ZERO)), "least_time");
    assert_eq!(field(links(&["a"]).least_time(Duration::from_secs(1))), "patience");
    assert_eq!(field(Fallback::builder().link(Link::new("a", ()).patience(Duration::ZERO))), "patience");
}
