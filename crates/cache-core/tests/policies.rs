//! What holds whatever chooses the victims: the books of who was told what, and lifetimes with jitter.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex},
    time::Duration,
};

use cache_core::{Cache, Cause, Expiry, LoadError, ManualClock, Policy, Stats, Verdict};
use fastrand::Rng;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Get(u8),
    Insert(u8, Expiry),
    InsertRemote(u8, Expiry),
    Upsert(u8, Told),
    Update(u8),
    UpdateWithExpiry(u8, Expiry),
    Touch(u8, Expiry),
    Load(u8, Loader),
    Remove(u8),
    Retain(u8),
    RetainPage(u8, usize),
    At(u8, bool),
    Scan(usize),
    Resize(usize),
    Advance(u64),
    Sweep,
    Clear,
}

/// What a loader comes to.
#[derive(Debug, Clone, Copy)]
enum Loader {
    Gives,
    Fails,
    Panics,
    /// The key is written while it is loaded.
    IsOvertaken,
}

/// What an upsert tells.
#[derive(Debug, Clone, Copy)]
enum Told {
    Keep,
    Remove,
    Replace,
    ReplaceRemote,
    Update,
    UpdateRemote,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0u8..80;
    let expiry = || {
        prop_oneof![
            2 => Just(Expiry::Default),
            1 => Just(Expiry::Keep),
            1 => Just(Expiry::Never),
            1 => (1u64..40).prop_map(|ms| Expiry::After(Duration::from_millis(ms))),
        ]
    };
    let told = prop_oneof![
        Just(Told::Keep),
        Just(Told::Remove),
        Just(Told::Replace),
        Just(Told::ReplaceRemote),
        Just(Told::Update),
        Just(Told::UpdateRemote),
    ];
    let loader = prop_oneof![
        3 => Just(Loader::Gives),
        1 => Just(Loader::Fails),
        1 => Just(Loader::Panics),
        1 => Just(Loader::IsOvertaken),
    ];
    prop_oneof![
        8 => key().prop_map(Op::Get),
        6 => (key(), expiry()).prop_map(|(key, expiry)| Op::Insert(key, expiry)),
        4 => (key(), expiry()).prop_map(|(key, expiry)| Op::InsertRemote(key, expiry)),
        3 => (key(), told).prop_map(|(key, told)| Op::Upsert(key, told)),
        2 => key().prop_map(Op::Update),
        1 => (key(), expiry()).prop_map(|(key, expiry)| Op::UpdateWithExpiry(key, expiry)),
        1 => (key(), expiry()).prop_map(|(key, expiry)| Op::Touch(key, expiry)),
        3 => (key(), loader).prop_map(|(key, loader)| Op::Load(key, loader)),
        2 => key().prop_map(Op::Remove),
        1 => (2u8..9).prop_map(Op::Retain),
        1 => (key(), 1usize..6).prop_map(|(key, limit)| Op::RetainPage(key, limit)),
        1 => (key(), any::<bool>()).prop_map(|(key, keep)| Op::At(key, keep)),
        1 => (1usize..9).prop_map(Op::Scan),
        1 => (8usize..60).prop_map(Op::Resize),
        2 => (1u64..8).prop_map(Op::Advance),
        1 => Just(Op::Sweep),
        1 => Just(Op::Clear),
    ]
}

type Events = Arc<Mutex<Vec<(u8, u32, Cause)>>>;

fn run<S: BuildHasher>(
    cache: &Cache<u8, u32, S>,
    clock: &ManualClock,
    op: &Op,
    id: u32,
    books: &mut HashMap<u8, u32>,
) {
    match *op {
        Op::Get(key) => drop(cache.get(&key)),
        Op::Insert(key, expiry) => {
            cache.insert_with_expiry(key, id, expiry);
            books.insert(key, id);
        }
        Op::InsertRemote(key, expiry) => {
            cache.insert_remote(key, id, expiry);
            books.insert(key, id);
        }
        Op::Upsert(key, told) => {
            let is_written = cache.upsert(
                &key,
                |key| *key,
                |slot, ()| {
                    let verdict = match told {
                        Told::Keep => Verdict::Keep,
                        Told::Remove => Verdict::Remove,
                        Told::Replace => Verdict::Replace(id, Expiry::Default),
                        Told::ReplaceRemote => Verdict::ReplaceRemote(id, Expiry::Default),
                        Told::Update => Verdict::Update(Expiry::Default),
                        Told::UpdateRemote => Verdict::UpdateRemote(Expiry::Default),
                    };
                    match (told, slot.value) {
                        (Told::Replace | Told::ReplaceRemote, _) => (verdict, true),
                        (Told::Update | Told::UpdateRemote, Some(value)) => {
                            *value = id;
                            (verdict, true)
                        }
                        _ => (verdict, false),
                    }
                },
            );
            if is_written {
                books.insert(key, id);
            }
        }
        Op::Update(key) => {
            if cache.update(&key, |value| *value = id).is_some() {
                books.insert(key, id);
            }
        }
        Op::UpdateWithExpiry(key, expiry) => {
            if cache.update_with_expiry(&key, expiry, |value| *value = id).is_some() {
                books.insert(key, id);
            }
        }
        Op::Touch(key, expiry) => drop(cache.touch(&key, expiry)),
        Op::Load(key, loader) => load(cache, key, loader, id, books),
        Op::Remove(key) => drop(cache.remove(&key)),
        Op::Retain(modulus) => drop(cache.retain(|key, _| key % modulus != 0)),
        Op::RetainPage(key, limit) => {
            cache.retain_page(cache.position(&key), limit, |item, ()| item.key % 2 == 0);
        }
        Op::At(key, keep) => cache.at(cache.position(&key), |place, ()| place.retain(|_| keep)),
        Op::Scan(limit) => {
            let mut at = Some(0);
            while let Some(position) = at {
                at = cache.scan(position, limit, |page, ()| page.next);
            }
        }
        Op::Resize(entries) => cache.resize(entries).expect("as many as shards at least"),
        Op::Advance(ms) => clock.advance(Duration::from_millis(ms)),
        Op::Sweep => drop(cache.sweep()),
        Op::Clear => cache.clear(),
    }
}

/// Loads what is not there. The answer is what was there, or what the loader gave, or what overtook it.
fn load<S: BuildHasher>(
    cache: &Cache<u8, u32, S>,
    key: u8,
    loader: Loader,
    id: u32,
    books: &mut HashMap<u8, u32>,
) {
    let held = cache.peek(&key);
    let loaded = panic::catch_unwind(AssertUnwindSafe(|| {
        cache.try_get_or_insert_with(key, || match loader {
            Loader::Gives => Ok(id),
            Loader::Fails => Err("told to"),
            // Without the hook that prints each panic.
            Loader::Panics => panic::resume_unwind(Box::new("told to")),
            Loader::IsOvertaken => {
                cache.insert(key, id);
                Ok(u32::MAX)
            }
        })
    }));
    match (held, loader) {
        (Some(held), _) => assert_eq!(loaded.ok(), Some(Ok(held))),
        (None, Loader::Fails) => assert_eq!(loaded.ok(), Some(Err(LoadError::Failed("told to")))),
        (None, Loader::Panics) => assert!(loaded.is_err()),
        (None, Loader::Gives) => assert_eq!(loaded.ok(), Some(Ok(id))),
        // Where what was written did not stay, there is no other answer than what was loaded.
        (None, Loader::IsOvertaken) => {
            let answer = cache.peek(&key).unwrap_or(u32::MAX);
            assert_eq!(loaded.ok(), Some(Ok(answer)));
        }
    }
    if held.is_none() && matches!(loader, Loader::Gives | Loader::IsOvertaken) {
        books.insert(key, id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// What was written and not told as gone is there, and nothing else is: nothing is lost in silence, told twice or told wrongly.
    #[test]
    fn what_was_not_told_as_gone_is_there(
        policy in prop_oneof![Just(Policy::Lru), Just(Policy::TinyLfu)],
        depth in prop_oneof![Just(0.0), 0.0..=1.0],
        idle in prop_oneof![Just(None), (1u64..20).prop_map(Some)],
        (shards, weighed) in (prop_oneof![Just(1usize), Just(8)], any::<bool>()),
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let (events, clock) = (Events::default(), ManualClock::new());
        let heard = Arc::clone(&events);
        let mut builder = Cache::builder()
            .capacity(40)
            .shards(shards)
            .policy(policy)
            .remote_depth(depth)
            .default_ttl(Duration::from_millis(30))
            .ttl_jitter(0.5)
            .clock(clock.clone())
            .listener(move |key: &u8, value: &u32, cause| {
                heard.lock().expect("no holder panicked").push((*key, *value, cause));
            });
        if let Some(idle) = idle {
            builder = builder.time_to_idle(Duration::from_millis(idle));
        }
        if weighed {
            builder = builder.weight_capacity(100).weigher(|_, value| u64::from(value % 16));
        }
        let cache = builder.build().expect("a right configuration");
        let mut books = HashMap::new();
        for (id, op) in ops.iter().enumerate() {
            run(&cache, &clock, op, id as u32, &mut books);
            for (key, value, cause) in events.lock().expect("no holder panicked").drain(..) {
                if cause == Cause::Replaced {
                    prop_assert_ne!(books.get(&key), Some(&value), "replaced by itself, at {:?}", op);
                } else if books.get(&key) == Some(&value) {
                    books.remove(&key);
                } else {
                    // The one way in which another value than the last one may leave: it was over when it was written over.
                    prop_assert_eq!(cause, Cause::Expired, "{} of {} at {:?}", value, key, op);
                }
            }
            prop_assert_eq!(cache.len(), books.len(), "at {:?}", op);
            for key in 0..80 {
                let found = cache.peek(&key);
                prop_assert!(found.is_none() || found.as_ref() == books.get(&key), "{} at {:?}", key, op);
            }
            prop_assert!(cache.len() <= cache.capacity().unwrap_or(usize::MAX));
        }
        let stats = cache.stats();
        let gone = stats.evictions + stats.expirations + stats.removals + stats.cleared;
        prop_assert_eq!(stats.inserts, cache.len() as u64 + gone);
        // With the clock standing, all that the books hold must be there, unless it is over.
        let over = cache.sweep();
        prop_assert_eq!(over + cache.iter().count(), books.len());
    }

    /// Where there is no depth, what is told of a write's origin changes nothing.
    #[test]
    fn without_a_depth_a_write_of_another_region_is_as_any_other(
        policy in prop_oneof![Just(Policy::Lru), Just(Policy::TinyLfu)],
        idle in prop_oneof![Just(None), (1u64..20).prop_map(Some)],
        weighed in any::<bool>(),
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let built = || {
            let clock = ManualClock::new();
            let mut builder = Cache::builder()
                .capacity(40)
                .shards(1)
                .policy(policy)
                .default_ttl(Duration::from_millis(30))
                .clock(clock.clone())
                .hasher(hasher.clone());
            if let Some(idle) = idle {
                builder = builder.time_to_idle(Duration::from_millis(idle));
            }
            if weighed {
                builder = builder.weight_capacity(100).weigher(|_, value| u64::from(value % 16));
            }
            (builder.build().expect("a right configuration"), clock)
        };
        let ((told, told_clock), (plain, plain_clock)) = (built(), built());
        for (id, op) in ops.iter().enumerate() {
            let as_local = match op.clone() {
                Op::InsertRemote(key, expiry) => Op::Insert(key, expiry),
                Op::Upsert(key, Told::ReplaceRemote) => Op::Upsert(key, Told::Replace),
                Op::Upsert(key, Told::UpdateRemote) => Op::Upsert(key, Told::Update),
                other => other,
            };
            run(&told, &told_clock, op, id as u32, &mut HashMap::new());
            run(&plain, &plain_clock, &as_local, id as u32, &mut HashMap::new());
            let hottest = |cache: &Cache<u8, u32, _>| cache.hottest(100, |item| Some((*item.key, *item.value, item.left)));
            prop_assert_eq!(hottest(&told), hottest(&plain), "at {:?}", op);
            let counted = |cache: &Cache<u8, u32, _>| {
                let mut stats: Stats = cache.stats();
                stats.load_time = Duration::ZERO;
                stats
            };
            prop_assert_eq!(counted(&told), counted(&plain), "at {:?}", op);
        }
    }

    /// A lifetime is shortened by at most the fraction, and never lengthened.
    #[test]
    fn jitter_shortens_within_its_fraction(fraction in 0.0..=1.0_f64, ttl_ms in 1u64..100_000, start in 0u64..1_000) {
        let clock = ManualClock::new();
        clock.advance(Duration::from_millis(start));
        let cache = Cache::builder()
            .capacity(1_000)
            .default_ttl(Duration::from_millis(ttl_ms))
            .ttl_jitter(fraction)
            .clock(clock)
            .build()
            .expect("a right configuration");
        let ttl = Expiry::After(Duration::from_millis(ttl_ms));
        let left = |key: u32| {
            let left = cache.read(&key, |_, left| left).flatten().expect("it has a lifetime");
            left.as_millis() as u64
        };
        // A part of a millisecond is rounded away; no lifetime is shortened to less than a tick.
        let least = ((ttl_ms as f64 * (1.0 - fraction)) as u64).saturating_sub(1).max(1);
        for key in 0..100 {
            match key % 5 {
                0 => drop(cache.insert(key, 0)),
                1 => drop(cache.insert_with_expiry(key, 0, ttl)),
                2 => {
                    cache.insert_with_expiry(key, 0, Expiry::Never);
                    cache.touch(&key, ttl);
                }
                3 => {
                    cache.insert_with_expiry(key, 0, Expiry::Never);
                    cache.update_with_expiry(&key, ttl, |value| *value += 1);
                }
                _ => {
                    cache.upsert(&key, |key| *key, |_, ()| (Verdict::Replace(0, ttl), ()));
                }
            }
            prop_assert!((least..=ttl_ms).contains(&left(key)), "{} of {ttl_ms}, at least {least}", left(key));
            let before = left(key);
            cache.insert_with_expiry(key, 1, Expiry::Keep);
            prop_assert_eq!(left(key), before, "what is kept is not shortened again");
            cache.insert_remote(key, 2, ttl);
            prop_assert_eq!(left(key), ttl_ms, "a lifetime that another region chose is as it chose");
        }
    }
}

/// What is done with a cache.
type Work = fn(&Cache<u32, u32>);

fn ignore<R>(_: R) {}

#[test]
fn jitter_spreads_what_was_written_together() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .capacity(100_000)
        .default_ttl(Duration::from_secs(100))
        .ttl_jitter(0.1)
        .clock(clock.clone())
        .build()
        .expect("a right configuration");
    for key in 0..10_000 {
        cache.insert(key, ());
    }
    clock.advance(Duration::from_secs(90));
    // Ten slices of a second each: none of them has more than twice its even part.
    let over: Vec<usize> = (0..10)
        .map(|_| {
            clock.advance(Duration::from_secs(1));
            cache.sweep()
        })
        .collect();
    assert_eq!(over.iter().sum::<usize>(), 10_000);
    assert!(over.iter().all(|over| (500..2_000).contains(over)), "{over:?}");
}

#[test]
fn the_time_to_idle_is_put_off_by_uses_alone_and_capped_by_the_lifetime() {
    let clock = ManualClock::new();
    let ms = Duration::from_millis;
    let builder = || Cache::builder().capacity(10).time_to_idle(ms(10)).clock(clock.clone());
    let cache = builder().remote_depth(0.5).build().unwrap();
    let looks: [(&str, Work); 8] = [
        ("peek", |cache| ignore(cache.peek(&1))),
        ("contains", |cache| ignore(cache.contains(&1))),
        ("iter", |cache| ignore(cache.iter().count())),
        ("scan", |cache| cache.scan(0, 10, |page, ()| assert_eq!(page.items.len(), 1))),
        ("hottest", |cache| ignore(cache.hottest(1, |item| Some(*item.key)))),
        ("look_ahead", |cache| cache.look_ahead(&[1], |_| ())),
        ("a kept upsert", |cache| cache.upsert(&1, |key| *key, |_, ()| (Verdict::Keep, ()))),
        ("a remote write", |cache| ignore(cache.insert_remote(1, 2, Expiry::Default))),
    ];
    for (name, look) in looks {
        cache.insert(1, 1);
        clock.advance(ms(9));
        look(&cache);
        clock.advance(ms(1));
        assert!(!cache.contains(&1), "{name} is no use");
    }
    let cache = builder().build().unwrap();
    let uses: [(&str, Work); 8] = [
        ("a remote write without a depth", |cache| ignore(cache.insert_remote(1, 2, Expiry::Keep))),
        ("get", |cache| ignore(cache.get(&1))),
        ("read", |cache| ignore(cache.read(&1, |_, _| ()))),
        ("insert", |cache| ignore(cache.insert(1, 2))),
        ("touch", |cache| ignore(cache.touch(&1, Expiry::Keep))),
        ("update", |cache| ignore(cache.update(&1, |value| *value += 1))),
        ("update_with_expiry", |cache| ignore(cache.update_with_expiry(&1, Expiry::Keep, |_| ()))),
        ("an upsert", |cache| cache.upsert(&1, |key| *key, |_, ()| (Verdict::Replace(3, Expiry::Keep), ()))),
    ];
    for (name, use_it) in uses {
        cache.insert_with_ttl(1, 1, ms(25));
        for _ in 0..2 {
            clock.advance(ms(9));
            assert!(cache.contains(&1), "{name} is a use");
            use_it(&cache);
        }
        clock.advance(ms(10));
        assert!(!cache.contains(&1), "{name}: neither longer than idle nor than it lives");
    }
}

/// What is kept by slot, weights and lifetimes and idle times, must be the entry's own however it rises and falls, and whoever had the slot
/// before it: each one is checked by itself.
#[test]
fn what_is_known_of_an_entry_stays_its_own_from_segment_to_segment() {
    const IDLE: u64 = 60;
    let ms = Duration::from_millis;
    for (policy, depth) in [(Policy::Lru, 0.5), (Policy::TinyLfu, 0.5)] {
        let expired = Arc::<Mutex<Vec<u64>>>::default();
        let heard = Arc::clone(&expired);
        let clock = ManualClock::new();
        let cache = Cache::builder()
            .capacity(60)
            .weight_capacity(300)
            .weigher(|_, value: &u64| *value)
            .shards(1)
            .policy(policy)
            .remote_depth(depth)
            .time_to_idle(ms(IDLE))
            .hasher(BuildHasherDefault::<DefaultHasher>::default())
            .clock(clock.clone())
            .listener(move |key: &u64, _: &u64, cause| {
                if cause == Cause::Expired {
                    heard.lock().expect("no holder panicked").push(*key);
                }
            })
            .build()
            .expect("a right configuration");
        let mut random = Rng::with_seed(7);
        // What each key was given last: when its lifetime ends, and when it was idle for too long.
        let (mut ends, mut now) = (HashMap::<u64, (u64, u64)>::new(), 0);
        for _ in 0..5_000 {
            let (key, weight, ttl) = (random.u64(..120), 1 + random.u64(..9), 1 + random.u64(..200));
            let idle_end = now + IDLE;
            match random.u64(..10) {
                0..2 => {
                    cache.insert_with_ttl(key, weight, ms(ttl));
                    ends.insert(key, (now + ttl, idle_end));
                }
                2..4 => {
                    let was = cache.insert_remote(key, weight, Expiry::After(ms(ttl)));
                    let kept = ends.get(&key).filter(|_| was.is_some()).map(|(_, idle_end)| *idle_end);
                    ends.insert(key, (now + ttl, kept.unwrap_or(idle_end)));
                }
                4..9 => {
                    if cache.get(&key).is_some() {
                        ends.entry(key).and_modify(|ends| ends.1 = idle_end);
                    }
                }
                _ => {
                    clock.advance(ms(1));
                    now += 1;
                    cache.sweep();
                }
            }
            for key in expired.lock().expect("no holder panicked").drain(..) {
                // One that expired under a write of its key was replaced in the books by then.
                let (lifetime, idle_end) = ends[&key];
                assert!(cache.contains(&key) || lifetime.min(idle_end) <= now, "{policy:?}: {key} at {now}");
            }
            let shown = cache.hottest(60, |item| Some((*item.key, *item.value, item.left)));
            for (key, _, left) in &shown {
                let (lifetime, idle_end) = ends[key];
                assert!(idle_end > now, "{policy:?}: {key} was idle until {now}");
                assert_eq!(*left, Some(ms(lifetime - now)), "{policy:?}: {key} at {now}");
            }
            let weight: u64 = shown.iter().map(|(_, weight, _)| weight).sum();
            assert_eq!(cache.weight(), weight, "{policy:?}: at {now}");
        }
        assert!(cache.stats().evictions > 300 && cache.stats().expirations > 50, "{:?}", cache.stats());
    }
}
