//! Reading through: one load for all who ask, whoever fails, is cancelled, or writes meanwhile.

mod load {
    mod nested;
    mod overtaken;
}

use std::{
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use cache_core::{Cache, Cause, Expiry, LoadError, ManualClock, Stats};
use futures_lite::future::{block_on, yield_now, zip};

fn cache() -> Cache<u32, u32> {
    let built = Cache::builder().capacity(100).clock(ManualClock::new()).build();
    built.expect("a right configuration")
}

/// Until the cache's counters are so.
fn wait_until(cache: &Cache<u32, u32>, what: &str, is_so: impl Fn(Stats) -> bool) {
    let began = Instant::now();
    while !is_so(cache.stats()) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited in vain until {what}: {:?}",
            cache.stats()
        );
        thread::yield_now();
    }
}

/// A task that counts how often it was woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn poll<F: Future + ?Sized>(self: &Arc<Self>, future: &mut Pin<&mut F>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    Arc::<Task>::default().poll(future)
}

#[test]
fn a_hundred_threads_load_once() {
    let (cache, loads) = (cache(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let value = cache.get_or_insert_with(1, || {
                    wait_until(&cache, "all others wait", |stats| stats.load_waits == 99);
                    loads.fetch_add(1, Ordering::Relaxed) as u32 + 10
                });
                assert_eq!(value, 10);
            });
        }
    });
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.load_waits, stats.inserts), (1, 0, 99, 1));
    assert!(stats.load_time > Duration::ZERO);
}

#[test]
fn a_hundred_tasks_and_threads_load_once() {
    let (cache, loads) = (cache(), AtomicUsize::new(0));
    let load = || {
        wait_until(&cache, "all others wait", |stats| stats.load_waits == 99);
        loads.fetch_add(1, Ordering::Relaxed) as u32 + 10
    };
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(cache.get_or_insert_with(1, load), 10));
            scope.spawn(|| assert_eq!(block_on(cache.get_or_insert_async(1, async { load() })), 10));
        }
    });
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn tasks_of_one_thread_share_a_load() {
    let cache = cache();
    let leader = cache.get_or_insert_async(1, async {
        yield_now().await;
        10
    });
    let (one, other) =
        block_on(zip(leader, cache.get_or_insert_async(1, async { unreachable!("it is being loaded") })));
    assert_eq!((one, other, cache.peek(&1)), (10, 10, Some(10)));
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let cache = cache();
    let mut stuck = pin!(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut stuck).is_pending());
    assert_eq!(cache.get_or_insert_with(2, || 20), 20);
}

#[test]
fn a_cancelled_leader_hands_over_to_one_that_waits() {
    let cache = cache();
    let mut leader = Box::pin(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let tasks: [Arc<Task>; 2] = Default::default();
    let mut first = pin!(cache.get_or_insert_async(1, async { 20 }));
    let mut second = pin!(cache.get_or_insert_async(1, async { 30 }));
    assert!(tasks[0].poll(&mut first).is_pending() && tasks[1].poll(&mut second).is_pending());
    drop(leader);
    assert_eq!([tasks[0].wakes(), tasks[1].wakes()], [1, 0]);
    assert_eq!(tasks[0].poll(&mut first), Poll::Ready(20));
    assert_eq!(tasks[1].wakes(), 1);
    assert_eq!(
        tasks[1].poll(&mut second),
        Poll::Ready(20),
        "the second leader's load is for those who still wait"
    );
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (1, 1));
}

#[test]
fn a_call_to_lead_is_handed_on_by_who_is_cancelled_with_it() {
    let cache = cache();
    let mut leader = Box::pin(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let tasks: [Arc<Task>; 2] = Default::default();
    let mut called = Box::pin(cache.get_or_insert_async(1, async { 20 }));
    let mut next = pin!(cache.get_or_insert_async(1, async { 30 }));
    assert!(tasks[0].poll(&mut called.as_mut()).is_pending() && tasks[1].poll(&mut next).is_pending());
    drop(leader);
    assert_eq!([tasks[0].wakes(), tasks[1].wakes()], [1, 0]);
    drop(called);
    assert_eq!(tasks[1].wakes(), 1);
    assert_eq!(tasks[1].poll(&mut next), Poll::Ready(30));
}

#[test]
fn a_cancelled_loader_is_gone_before_the_next_begins() {
    struct Guard<'a>(&'a AtomicUsize);
    impl<'a> Guard<'a> {
        fn new(running: &'a AtomicUsize) -> Self {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two loaders of one key");
            Guard(running)
        }
    }
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            // Whoever waits may go on as soon as the leader lets go; it gets the time to.
            (0..1_000).for_each(|_| thread::yield_now());
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (cache, running) = (cache(), AtomicUsize::new(0));
    let mut leader = Box::pin(cache.get_or_insert_async(1, async {
        let _guard = Guard::new(&running);
        pending().await
    }));
    assert!(poll(&mut leader.as_mut()).is_pending());
    thread::scope(|scope| {
        scope.spawn(|| {
            cache.get_or_insert_with(1, || {
                let _guard = Guard::new(&running);
                20
            })
        });
        wait_until(&cache, "the other waits", |stats| stats.load_waits == 1);
        drop(leader);
    });
    assert_eq!(cache.peek(&1), Some(20));
}

#[test]
fn a_panic_reaches_its_own_caller_and_hands_over() {
    let (cache, begun) = (cache(), Barrier::new(2));
    thread::scope(|scope| {
        let leads = scope.spawn(|| {
            catch_unwind(AssertUnwindSafe(|| {
                cache.get_or_insert_with(1, || {
                    begun.wait();
                    wait_until(&cache, "both others wait", |stats| stats.load_waits == 2);
                    panic!("as told")
                })
            }))
        });
        begun.wait();
        let waits = [
            scope.spawn(|| cache.get_or_insert_with(1, || 20)),
            scope.spawn(|| cache.get_or_insert_with(1, || 20)),
        ];
        assert!(waits.into_iter().all(|waits| waits.join().expect("only the first panics") == 20));
        assert!(leads.join().expect("it was caught").is_err());
    });
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (1, 1));
}

#[test]
fn an_asynchronous_panic_hands_over_too() {
    let cache = cache();
    let mut leader = pin!(cache.get_or_insert_async(1, async {
        yield_now().await;
        panic!("as told")
    }));
    assert!(poll(&mut leader).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { 20 }));
    let task = Arc::<Task>::default();
    assert!(task.poll(&mut waits).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut leader))).is_err());
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.poll(&mut waits), Poll::Ready(20));
}

#[test]
fn errors_are_not_kept_and_each_caller_gets_its_own() {
    let (cache, running) = (cache(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for caller in 0..20_u32 {
            let (cache, running) = (&cache, &running);
            scope.spawn(move || {
                let loaded = cache.try_get_or_insert_with(1, || {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                    wait_until(cache, "all others came", |stats| stats.misses == 20);
                    running.fetch_sub(1, Ordering::SeqCst);
                    Err(caller)
                });
                assert_eq!(loaded, Err(LoadError::Failed(caller)));
            });
        }
    });
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, cache.len()), (0, 20, 0));
    assert_eq!(cache.try_get_or_insert_with(1, || Ok::<_, ()>(10)), Ok(10));
}

#[test]
fn a_loaded_value_lives_as_long_as_it_was_given() {
    let clock = ManualClock::new();
    let cache = Cache::<u32, u32>::builder()
        .capacity(100)
        .default_ttl(Duration::from_secs(10))
        .clock(clock.clone())
        .build()
        .unwrap();
    let second = Expiry::After(Duration::from_secs(1));
    cache.get_or_insert_with(1, || 1);
    cache.try_get_or_insert_with_expiry(2, || Ok::<_, ()>((2, second))).unwrap();
    block_on(cache.try_get_or_insert_async_with_expiry(3, async { Ok::<_, ()>((3, Expiry::Never)) }))
        .unwrap();
    block_on(cache.try_get_or_insert_async_with_expiry(4, async { Ok::<_, ()>((4, Expiry::Keep)) })).unwrap();
    let left = |key| cache.read(&key, |_, left| left).expect("it is there");
    assert_eq!(
        [1, 2, 3, 4].map(left),
        [Some(10), Some(1), None, Some(10)].map(|s| s.map(Duration::from_secs))
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.get_or_insert_with(2, || 22), 22, "an expired value is loaded anew");
}

#[test]
fn an_expired_entry_is_reloaded_by_its_own_listener() {
    let (clock, link) = (ManualClock::new(), Arc::<OnceLock<Cache<u32, u32>>>::default());
    let reloads = Arc::clone(&link);
    let listener = move |key: &u32, value: &u32, cause| {
        if let (Cause::Expired, Some(cache)) = (cause, reloads.get()) {
            cache.get_or_insert_with(*key, || value + 1);
        }
    };
    let cache = Cache::builder().capacity(1).clock(clock.clone()).listener(listener).build().unwrap();
    assert!(link.set(cache.clone()).is_ok());
    let second = Expiry::After(Duration::from_secs(1));
    cache.insert_with_expiry(1, 10, second);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.get_or_insert_with(1, || unreachable!("the listener has loaded it")), 11);
    // The same at a landing: the load of 2 pushes the expired 1 out, whose listener then pushes 2 out.
    cache.insert_with_expiry(1, 20, second);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.get_or_insert_with(2, || 30), 30);
    assert_eq!((cache.peek(&1), cache.peek(&2)), (Some(21), None));
}

#[test]
fn an_expired_entry_that_is_met_after_a_wait_is_told_of_before_the_key_has_a_flight() {
    let (clock, link) = (ManualClock::new(), Arc::<OnceLock<Cache<u32, u32>>>::default());
    let reloads = Arc::clone(&link);
    let listener = move |key: &u32, value: &u32, _| {
        if let Some(cache) = reloads.get() {
            cache.get_or_insert_with(*key, || value + 1);
        }
    };
    let cache = Cache::builder().capacity(1).clock(clock.clone()).listener(listener).build().unwrap();
    assert!(link.set(cache.clone()).is_ok());
    let mut leader = Box::pin(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { unreachable!("the listener has loaded it") }));
    assert!(poll(&mut waits).is_pending());
    cache.insert_with_expiry(1, 10, Expiry::After(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    drop(leader);
    assert_eq!(poll(&mut waits), Poll::Ready(11));
}

#[test]
fn a_value_too_heavy_to_keep_is_returned_all_the_same() {
    let weigher = |_: &u32, value: &u32| u64::from(*value);
    let cache =
        Cache::builder().weight_capacity(10).weigher(weigher).clock(ManualClock::new()).build().unwrap();
    assert_eq!((cache.get_or_insert_with(1, || 11), cache.peek(&1)), (11, None));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.loads_overtaken, stats.refusals), (1, 0, 1));
}

#[test]
fn a_weigher_that_panics_hands_over() {
    let weigher = |_: &u32, value: &u32| if *value == 13 { panic!("as told") } else { 1 };
    let cache =
        Cache::builder().weight_capacity(10).weigher(weigher).clock(ManualClock::new()).build().unwrap();
    let mut leader = pin!(cache.get_or_insert_async(1, async {
        yield_now().await;
        13
    }));
    assert!(poll(&mut leader).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { 20 }));
    assert!(poll(&mut waits).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut leader))).is_err());
    assert_eq!((poll(&mut waits), cache.peek(&1)), (Poll::Ready(20), Some(20)));
}

#[test]
fn futures_are_send_where_the_loader_is() {
    fn is_send(_: impl Send) {}
    let cache = cache();
    is_send(cache.get_or_insert_async(1, async { 1 }));
    is_send(cache.try_get_or_insert_async(1, async { Ok::<_, ()>(1) }));
    is_send(cache.try_get_or_insert_async_with_expiry(1, async { Ok::<_, ()>((1, Expiry::Never)) }));
}

#[test]
fn a_loader_that_is_not_needed_is_not_polled() {
    let cache = cache();
    cache.insert(1, 10);
    let loader = poll_fn(|_| unreachable!("the value is there"));
    assert_eq!(block_on(cache.get_or_insert_async(1, loader)), 10);
}
