//! Every interleaving of the crate's own code, as loom tells them: `cargo xtask loom`.
//!
//! Each model runs the public operations of a whole cache of one shard, locked by loom's mutex, with waiting built upon loom. A wake
//! that is lost is a deadlock, which loom reports; the claims are asserted at the end of each interleaving, together with the one that
//! no flight is left. Models of two threads are searched completely, those of three with at most [`PREEMPTIONS`] preemptions, which
//! is the bound that loom's authors recommend where a complete search takes too long.

use std::{
    hash::{BuildHasherDefault, DefaultHasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use loom::{future::block_on, thread};

use super::*;
use crate::ManualClock;

/// Of three threads, in one interleaving.
const PREEMPTIONS: usize = 3;

type Modelled = Cache<u32, u32, BuildHasherDefault<DefaultHasher>>;

/// One cache and how many of its loaders ran, and run just now. What is not loom's is invisible to the search, so it adds no states.
#[derive(Clone)]
struct Model {
    cache: Modelled,
    loaders: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl Model {
    fn new() -> Self {
        let builder =
            Cache::builder().capacity(4).clock(ManualClock::new()).hasher(BuildHasherDefault::default());
        let cache = builder.build().expect("a right configuration");
        Model { cache, loaders: Arc::default(), running: Arc::default() }
    }

    /// A loader that others may come between, and that is the only one of the key in this model.
    fn sole<T>(&self, answer: impl FnOnce() -> T) -> T {
        assert_eq!(self.running.fetch_add(1, Ordering::Relaxed), 0, "two loaders at a time");
        let _running = Defer(|| {
            self.running.fetch_sub(1, Ordering::Relaxed);
        });
        self.loaders.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        answer()
    }

    fn loaders(&self) -> usize {
        self.loaders.load(Ordering::Relaxed)
    }

    fn spawn<T: 'static>(&self, f: impl FnOnce(&Model) -> T + 'static) -> thread::JoinHandle<T> {
        let model = self.clone();
        thread::spawn(move || f(&model))
    }

    fn check_nothing_is_left(&self) {
        let flights = self.cache.inner().lock(0).store.flights.len();
        assert_eq!((flights, self.running.load(Ordering::Relaxed)), (0, 0));
    }
}

struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn search(preemptions: Option<usize>, model: impl Fn(&Model) + Send + Sync + 'static) {
    let mut search = loom::model::Builder::new();
    search.preemption_bound = preemptions;
    search.check(move || {
        let cache = Model::new();
        model(&cache);
        cache.check_nothing_is_left();
    });
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("no thread of the model panics")
}

/// Begins to load on this thread and drops the future, as a timeout does.
fn begin_and_cancel(model: &Model, loader: impl Future<Output = u32>) {
    let mut load = pin!(model.cache.get_or_insert_async(1, loader));
    // It may find the value there, or take over and load it.
    let _ = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn who_arrives_while_the_leader_ends_gets_its_value() {
    search(None, |model| {
        let other = model.spawn(|model| model.cache.get_or_insert_with(1, || model.sole(|| 10)));
        assert_eq!(model.cache.get_or_insert_with(1, || model.sole(|| 10)), 10);
        assert_eq!(join(other), 10);
        assert_eq!((model.loaders(), model.cache.peek(&1)), (1, Some(10)));
    });
}

#[test]
fn a_thread_and_a_task_wait_for_each_other_alike() {
    search(None, |model| {
        let other =
            model.spawn(|model| block_on(model.cache.get_or_insert_async(1, async { model.sole(|| 10) })));
        assert_eq!(model.cache.get_or_insert_with(1, || model.sole(|| 10)), 10);
        assert_eq!(join(other), 10);
        assert_eq!(model.loaders(), 1);
    });
}

#[test]
fn two_who_wait_both_get_the_value() {
    search(Some(PREEMPTIONS), |model| {
        let load = |model: &Model| model.cache.get_or_insert_with(1, || model.sole(|| 10));
        let others = [model.spawn(load), model.spawn(load)];
        assert_eq!(load(model), 10);
        assert_eq!(others.map(join), [10, 10]);
        assert_eq!(model.loaders(), 1);
    });
}

#[test]
fn a_leader_that_is_cancelled_hands_over_to_two_who_wait() {
    search(Some(PREEMPTIONS), |model| {
        let load = |model: &Model| model.cache.get_or_insert_with(1, || model.sole(|| 20));
        let others = [model.spawn(load), model.spawn(load)];
        begin_and_cancel(model, std::future::pending());
        assert_eq!(others.map(join), [20, 20]);
        assert_eq!((model.loaders(), model.cache.peek(&1)), (1, Some(20)));
    });
}

#[test]
fn a_caller_that_is_cancelled_while_it_waits_or_leads_keeps_nobody() {
    search(Some(PREEMPTIONS), |model| {
        // Whichever leads, both tasks give up after one poll; the thread among them has to get through.
        let cancelled = model.spawn(|model| begin_and_cancel(model, std::future::pending()));
        let waits = model.spawn(|model| model.cache.get_or_insert_with(1, || model.sole(|| 20)));
        begin_and_cancel(model, std::future::pending());
        join(cancelled);
        assert_eq!(join(waits), 20);
        assert_eq!(model.loaders(), 1);
    });
}

#[test]
fn a_leader_that_panics_hands_over() {
    search(Some(PREEMPTIONS), |model| {
        let panics = model.spawn(|model| {
            let load = || {
                model.cache.get_or_insert_with(1, || model.sole(|| std::panic::resume_unwind(Box::new(()))))
            };
            catch_unwind(AssertUnwindSafe(load)).ok()
        });
        let waits = model.spawn(|model| model.cache.get_or_insert_with(1, || model.sole(|| 20)));
        assert_eq!(model.cache.get_or_insert_with(1, || model.sole(|| 20)), 20);
        assert_eq!(join(waits), 20);
        assert!(matches!(join(panics), None | Some(20)));
        assert!(model.loaders() <= 2);
    });
}

#[test]
fn loaders_that_fail_are_tried_one_at_a_time() {
    search(Some(PREEMPTIONS), |model| {
        let fails = |model: &Model| model.cache.try_get_or_insert_with(1, || model.sole(|| Err(())));
        let others = [model.spawn(fails), model.spawn(fails)];
        assert_eq!(fails(model), Err(LoadError::Failed(())));
        assert_eq!(others.map(join), [Err(LoadError::Failed(())); 2]);
        assert_eq!((model.loaders(), model.cache.peek(&1)), (3, None));
    });
}

#[test]
fn a_write_is_never_undone_by_an_older_load() {
    search(None, |model| {
        let writes = model.spawn(|model| model.cache.insert(1, 99));
        let loaded = model.cache.get_or_insert_with(1, || model.sole(|| 10));
        // Written before the load began, while it ran, or after it had landed.
        assert!(matches!(loaded, 10 | 99));
        join(writes);
        assert_eq!(model.cache.peek(&1), Some(99));
    });
}

#[test]
fn who_asks_after_an_invalidation_never_gets_what_was_read_before_it() {
    search(Some(PREEMPTIONS), |model| {
        // What the loaders read: its changes are followed by an invalidation.
        let source = Arc::new(AtomicUsize::new(10));
        let read = Arc::clone(&source);
        let load = move |model: &Model| {
            model.cache.get_or_insert_with(1, || {
                let value = read.load(Ordering::Relaxed) as u32;
                thread::yield_now();
                value
            })
        };
        let others = [model.spawn(load.clone()), model.spawn(load.clone())];
        source.store(20, Ordering::Relaxed);
        model.cache.remove(&1);
        assert_eq!(load(model), 20);
        assert!(others.map(join).into_iter().all(|value| matches!(value, 10 | 20)));
        assert_eq!(model.cache.peek(&1), Some(20));
    });
}

#[test]
fn a_flight_overtaken_while_it_is_handed_over_is_not_led_on() {
    search(Some(PREEMPTIONS), |model| {
        let waits = model.spawn(|model| model.cache.get_or_insert_with(1, || model.sole(|| 20)));
        let writes = model.spawn(|model| model.cache.insert(1, 99));
        begin_and_cancel(model, std::future::pending());
        let got = join(waits);
        assert!(matches!(got, 20 | 99));
        join(writes);
        assert_eq!(model.cache.peek(&1), Some(99));
    });
}

#[test]
fn two_loaders_that_ask_for_each_others_keys_never_deadlock() {
    search(Some(PREEMPTIONS), |model| {
        let load = |model: &Model, own: u32, other: u32| {
            model.cache.try_get_or_insert_with(own, || {
                model.cache.try_get_or_insert_with(other, || Ok::<_, ()>(7)).map_err(|_| ())
            })
        };
        let other = model.spawn(move |model| load(model, 2, 1));
        let outcomes = [load(model, 1, 2), join(other)];
        assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
        let told = outcomes.iter().all(|outcome| matches!(outcome, Ok(7) | Err(LoadError::Failed(()))));
        assert!(told, "{outcomes:?}");
    });
}
