//! The cache beside a naive model: every operation, with time, must answer the same and lose the same entries.

mod model {
    pub(crate) mod naive;
}

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use cache_core::{Cache, Cause, Expiry, LoadError, ManualClock, Sidecar, Verdict};
use model::naive::{Model, Shape, Value};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Get(u8),
    Read(u8),
    Peek(u8),
    Contains(u8),
    Insert(u8, u64, Expiry),
    InsertRemote(u8, u64, Expiry),
    Remove(u8),
    Touch(u8, Expiry),
    Upsert(u8, Verdict<u64>),
    Change(u8, u64, Expiry, bool),
    Update(u8, u64),
    UpdateWithExpiry(u8, u64, Expiry),
    InsertWithTtl(u8, u64, u64),
    /// Whether the loader gives a value.
    Load(u8, u64, Expiry, bool),
    Advance(u64),
    Sweep,
    Clear,
    Scan(usize),
    Page(u8, usize),
    RetainPage(u8, usize),
    Retain(u8),
    Iter(usize),
    At(u8, bool),
    Hottest(usize),
    LookAhead(u8, u8),
    Resize(usize),
    ResizeWeight(u64),
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        3 => Just(Expiry::Default),
        1 => Just(Expiry::Never),
        1 => Just(Expiry::Keep),
        4 => (0u64..30).prop_map(|ms| Expiry::After(Duration::from_millis(ms))),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict<u64>> {
    prop_oneof![
        1 => Just(Verdict::Keep),
        1 => Just(Verdict::Remove),
        4 => (0u64..12, expiry()).prop_map(|(weight, expiry)| Verdict::Replace(weight, expiry)),
        2 => (0u64..12, expiry()).prop_map(|(weight, expiry)| Verdict::ReplaceRemote(weight, expiry)),
    ]
}

fn op(keys: u8) -> impl Strategy<Value = Op> {
    let key = 0..keys;
    prop_oneof![
        6 => key.clone().prop_map(Op::Get),
        1 => key.clone().prop_map(Op::Read),
        1 => key.clone().prop_map(Op::Peek),
        1 => key.clone().prop_map(Op::Contains),
        8 => (key.clone(), 0u64..12, expiry()).prop_map(|(k, w, e)| Op::Insert(k, w, e)),
        3 => (key.clone(), 0u64..12, expiry()).prop_map(|(k, w, e)| Op::InsertRemote(k, w, e)),
        2 => key.clone().prop_map(Op::Remove),
        2 => (key.clone(), expiry()).prop_map(|(k, e)| Op::Touch(k, e)),
        4 => (key.clone(), verdict()).prop_map(|(k, v)| Op::Upsert(k, v)),
        2 => (key.clone(), 0u64..12, expiry(), any::<bool>()).prop_map(|(k, w, e, local)| Op::Change(k, w, e, local)),
        2 => (key.clone(), 0u64..12).prop_map(|(k, w)| Op::Update(k, w)),
        1 => (key.clone(), 0u64..12, expiry()).prop_map(|(k, w, e)| Op::UpdateWithExpiry(k, w, e)),
        3 => (key.clone(), 0u64..12, expiry(), any::<bool>()).prop_map(|(k, w, e, gives)| Op::Load(k, w, e, gives)),
        2 => (key, 0u64..12, 0u64..30).prop_map(|(k, w, ms)| Op::InsertWithTtl(k, w, ms)),
        4 => (1u64..15).prop_map(Op::Advance),
        1 => Just(Op::Sweep),
        1 => Just(Op::Clear),
        1 => (1usize..6).prop_map(Op::Scan),
        3 => (0..keys, 1usize..6).prop_map(|(key, limit)| Op::Page(key, limit)),
        1 => (0..keys, 1usize..6).prop_map(|(key, limit)| Op::RetainPage(key, limit)),
        1 => (2u8..5).prop_map(Op::Retain),
        1 => (0usize..70).prop_map(Op::Iter),
        2 => (0..keys, any::<bool>()).prop_map(|(key, keep)| Op::At(key, keep)),
        1 => (0usize..10).prop_map(Op::Hottest),
        1 => (0..keys, 0u8..40).prop_map(|(first, count)| Op::LookAhead(first, count)),
        2 => (0usize..12).prop_map(Op::Resize),
        1 => (0u64..40).prop_map(Op::ResizeWeight),
    ]
}

type Event = (u8, Value, Cause);

/// Writes down every victim it is told of.
struct Log(Arc<Mutex<Vec<Event>>>);

impl Sidecar<u8, Value> for Log {
    fn victim(&mut self, _: u64, key: &u8, value: &Value, cause: Cause) {
        self.0.lock().expect("no holder panicked").push((*key, *value, cause));
    }
}

struct Real {
    cache: Cache<u8, Value, std::hash::RandomState, Log>,
    clock: ManualClock,
    victims: Arc<Mutex<Vec<Event>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Real {
    fn new(shape: Shape, shards: usize) -> Self {
        let clock = ManualClock::new();
        let (victims, events) = (Arc::<Mutex<Vec<Event>>>::default(), Arc::<Mutex<Vec<Event>>>::default());
        let (for_log, for_listener) = (Arc::clone(&victims), Arc::clone(&events));
        let listener = move |key: &u8, value: &Value, cause| {
            for_listener.lock().expect("no holder panicked").push((*key, *value, cause));
        };
        let mut builder = Cache::builder()
            .capacity(shape.entries)
            .shards(shards)
            .clock(clock.clone())
            .listener(listener)
            .sidecar(move || Log(Arc::clone(&for_log)));
        if let Some(weight) = shape.weight {
            builder = builder.weight_capacity(weight).weigher(|_: &u8, value: &Value| value.weight);
        }
        if let Some(ttl) = shape.default_ttl {
            builder = builder.default_ttl(Duration::from_millis(ttl));
        }
        if let Some(idle) = shape.idle {
            builder = builder.time_to_idle(Duration::from_millis(idle));
        }
        if let Some(depth) = shape.depth {
            builder = builder.remote_depth(depth);
        }
        Real { cache: builder.build().expect("a right configuration"), clock, victims, events }
    }

    fn scan(&self, limit: usize) -> Vec<(u64, u8, Value, Option<u64>)> {
        let mut found = Vec::new();
        let mut at = Some(0);
        while let Some(position) = at {
            at = self.cache.scan(position, limit, |page, _| {
                let ms = |left: Option<Duration>| left.map(|left| left.as_millis() as u64);
                found.extend(page.items.iter().map(|i| (i.position, *i.key, *i.value, ms(i.left))));
                page.next
            });
        }
        found
    }
}

fn take(log: &Mutex<Vec<Event>>) -> Vec<Event> {
    mem::take(&mut *log.lock().expect("no holder panicked"))
}

/// Runs one operation on both and compares answers; returns whether the order of events is defined.
fn run(real: &Real, model: &mut Model, op: &Op, id: u32) -> bool {
    let cache = &real.cache;
    match op.clone() {
        Op::Get(key) => assert_eq!(cache.get(&key), model.get(key)),
        Op::Read(key) => {
            let ms = |left: Option<Duration>| left.map(|left| left.as_millis() as u64);
            let left = model.left(key);
            assert_eq!(cache.read(&key, |v, l| (*v, ms(l))), model.get(key).map(|v| (v, left)));
        }
        Op::Peek(key) => assert_eq!(cache.peek(&key), model.peek(key)),
        Op::Contains(key) => assert_eq!(cache.contains(&key), model.peek(key).is_some()),
        Op::Insert(key, weight, expiry) => {
            let value = Value { id, weight };
            assert_eq!(cache.insert_with_expiry(key, value, expiry), model.insert(key, value, expiry, true));
        }
        Op::InsertRemote(key, weight, expiry) => {
            let value = Value { id, weight };
            assert_eq!(cache.insert_remote(key, value, expiry), model.insert(key, value, expiry, false));
        }
        Op::Remove(key) => assert_eq!(cache.remove(&key), model.remove(key)),
        Op::Touch(key, expiry) => assert_eq!(cache.touch(&key, expiry), model.touch(key, expiry)),
        Op::Upsert(key, verdict) => {
            let verdict = match verdict {
                Verdict::Replace(weight, expiry) => Verdict::Replace(Value { id, weight }, expiry),
                Verdict::ReplaceRemote(weight, expiry) => {
                    Verdict::ReplaceRemote(Value { id, weight }, expiry)
                }
                Verdict::Update(expiry) => Verdict::Update(expiry),
                Verdict::UpdateRemote(expiry) => Verdict::UpdateRemote(expiry),
                Verdict::Remove => Verdict::Remove,
                Verdict::Keep => Verdict::Keep,
            };
            let seen = cache.upsert(
                &key,
                |key| *key,
                |slot, _| {
                    assert_eq!(slot.position, cache.position(&key));
                    let seen =
                        (slot.value.map(|value| *value), slot.left.map(|left| left.as_millis() as u64));
                    (verdict.clone(), seen)
                },
            );
            let left = model.left(key);
            assert_eq!(seen, (model.upsert(key, &verdict), left));
        }
        Op::InsertWithTtl(key, weight, ms) => {
            let (value, ttl) = (Value { id, weight }, Duration::from_millis(ms));
            let was = cache.insert_with_ttl(key, value, ttl);
            assert_eq!(was, model.insert(key, value, Expiry::After(ttl), true));
        }
        Op::Load(key, weight, expiry, gives) => {
            let value = Value { id, weight };
            let loader = || if gives { Ok((value, expiry)) } else { Err(()) };
            let loaded = cache.try_get_or_insert_with_expiry(key, loader);
            let expected = model.get(key).ok_or(LoadError::Failed(()));
            if gives && expected.is_err() {
                assert_eq!(model.insert(key, value, expiry, true), None);
                assert_eq!(loaded, Ok(value));
            } else {
                assert_eq!(loaded, expected);
            }
        }
        Op::Update(key, weight) => {
            let value = Value { id, weight };
            let was = cache.update(&key, |held| mem::replace(held, value));
            assert_eq!(was, model.update(key, value, Expiry::Keep, true));
        }
        Op::UpdateWithExpiry(key, weight, expiry) => {
            let value = Value { id, weight };
            let was = cache.update_with_expiry(&key, expiry, |held| mem::replace(held, value));
            assert_eq!(was, model.update(key, value, expiry, true));
        }
        Op::Change(key, weight, expiry, is_local) => {
            let value = Value { id, weight };
            let was = cache.upsert(
                &key,
                |_| unreachable!("nothing is inserted"),
                |slot, _| {
                    let verdict =
                        if is_local { Verdict::Update(expiry) } else { Verdict::UpdateRemote(expiry) };
                    (verdict, slot.value.map(|held| mem::replace(held, value)))
                },
            );
            assert_eq!(was, model.update(key, value, expiry, is_local));
        }
        Op::Resize(entries) if entries >= cache.shards() => {
            cache.resize(entries).expect("there is a bound of entries");
            model.resize(entries, model.shape.weight);
            assert_eq!(cache.capacity(), Some(entries));
        }
        Op::Resize(entries) => {
            assert_eq!(cache.resize(entries).expect_err("fewer than shards").field, "capacity");
        }
        Op::ResizeWeight(weight) if weight >= cache.shards() as u64 && model.shape.weight.is_some() => {
            cache.resize_weight(weight).expect("there is a bound of weight");
            model.resize(model.shape.entries, Some(weight));
            assert_eq!(cache.weight_capacity(), Some(weight));
        }
        Op::ResizeWeight(weight) => {
            assert_eq!(cache.resize_weight(weight).expect_err("no bound to change").field, "weight_capacity");
        }
        Op::LookAhead(first, count) => {
            let keys: Vec<u8> = (first..first.saturating_add(count)).collect();
            let mut seen = Vec::new();
            cache.look_ahead(&keys, |value| seen.push(*value));
            assert_eq!(by_id(seen.into_iter()), by_id(keys.iter().filter_map(|key| model.peek(*key))));
        }
        Op::Advance(ms) => {
            real.clock.advance(Duration::from_millis(ms));
            model.now += ms;
        }
        Op::Sweep => {
            assert_eq!(cache.sweep(), model.sweep());
            return false;
        }
        Op::Clear => {
            cache.clear();
            model.clear();
            return false;
        }
        Op::Scan(limit) => {
            let found = real.scan(limit);
            assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
            let mut found: Vec<_> =
                found.into_iter().map(|(_, key, value, left)| (key, value, left)).collect();
            found.sort_unstable_by_key(|(key, ..)| *key);
            assert_eq!(found, model.live());
            model.sweep();
            return false;
        }
        // Leaves the rest of a run behind, and what follows has to reckon with it.
        Op::Page(key, limit) => {
            let lo = cache.position(&key);
            let (listed, next): (Vec<_>, _) = cache.scan(lo, limit, |page, _| {
                (page.items.iter().map(|item| (item.position, *item.key, *item.value)).collect(), page.next)
            });
            assert!(listed.len() <= limit);
            assert!(listed.is_sorted_by_key(|item| item.0));
            assert_eq!(by_id(listed.iter().map(|item| item.2)), by_id(within(cache, model, lo, next)));
            model.sweep_if(|key| is_within(cache, key, lo, next));
            return false;
        }
        Op::Iter(count) => {
            let shown: Vec<(u8, Value)> = cache.iter().take(count).collect();
            let expected: Vec<_> =
                model.hottest().into_iter().map(|value| (model.key_of(value), value)).collect();
            assert_eq!(shown.len(), count.min(expected.len()));
            if cache.shards() == 1 {
                assert_eq!(shown, expected[..shown.len()]);
            } else {
                assert!(shown.iter().all(|entry| expected.contains(entry)));
                let hottest = cache.hottest(usize::MAX, |item| Some((*item.key, *item.value)));
                assert_eq!(shown, hottest[..shown.len()]);
            }
        }
        Op::Retain(modulus) => {
            let mut judged = Vec::new();
            let removed = cache.retain(|key, value| {
                judged.push(*value);
                key % modulus != 0
            });
            let live = model.live();
            assert_eq!(by_id(judged.into_iter()), by_id(live.iter().map(|(_, value, _)| *value)));
            let gone = live.iter().filter(|(key, ..)| key % modulus == 0);
            assert_eq!(removed, gone.map(|(key, ..)| model.remove(*key)).filter(Option::is_some).count());
            model.sweep();
            return false;
        }
        Op::RetainPage(key, limit) => {
            let lo = cache.position(&key);
            let mut gone = Vec::new();
            let next = cache.retain_page(lo, limit, |item, _| {
                gone.extend((item.key % 2 == 0).then_some(*item.key));
                item.key % 2 == 1
            });
            for key in gone {
                assert!(model.remove(key).is_some());
            }
            assert!(within(cache, model, lo, next).all(|value| model.key_of(value) % 2 == 1));
            model.sweep_if(|key| is_within(cache, key, lo, next));
            return false;
        }
        Op::At(key, keep) => {
            let seen = cache.at(cache.position(&key), |place, _| {
                let seen: Vec<_> = place.iter().map(|item| (*item.key, *item.value)).collect();
                place.retain(|_| keep);
                assert_eq!(place.is_vacant(), !keep || seen.is_empty());
                seen
            });
            let expected = model.upsert(key, &if keep { Verdict::Keep } else { Verdict::Remove });
            assert_eq!(seen, Vec::from_iter(expected.map(|value| (key, value))));
        }
        Op::Hottest(count) => {
            let hottest = cache.hottest(count, |item| Some(*item.value));
            let expected = model.hottest();
            if cache.shards() == 1 {
                assert_eq!(hottest, expected[..count.min(expected.len())]);
            } else {
                assert!(hottest.iter().all(|value| expected.contains(value)));
            }
        }
    }
    true
}

/// The live values at positions `lo..next`.
fn within<'a>(
    cache: &'a Cache<u8, Value, std::hash::RandomState, Log>,
    model: &Model,
    lo: u64,
    next: Option<u64>,
) -> impl Iterator<Item = Value> + 'a {
    let live = model.live().into_iter().filter(move |(key, ..)| is_within(cache, *key, lo, next));
    live.map(|(_, value, _)| value)
}

fn is_within(
    cache: &Cache<u8, Value, std::hash::RandomState, Log>,
    key: u8,
    lo: u64,
    next: Option<u64>,
) -> bool {
    let position = cache.position(&key);
    position >= lo && next.is_none_or(|next| position < next)
}

fn by_id(values: impl Iterator<Item = Value>) -> Vec<u32> {
    let mut ids: Vec<u32> = values.map(|value| value.id).collect();
    ids.sort_unstable();
    ids
}

fn by_key(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|(key, ..)| *key);
    events
}

fn shape() -> impl Strategy<Value = Shape> {
    let weight = prop_oneof![1 => Just(None), 2 => (1u64..30).prop_map(Some)];
    let default_ttl = prop_oneof![Just(None), (1u64..40).prop_map(Some)];
    let idle = prop_oneof![Just(None), (1u64..20).prop_map(Some)];
    let depth = prop_oneof![Just(None), (0.01..=1.0).prop_map(Some)];
    (1usize..8, weight, default_ttl, idle, depth).prop_map(|(entries, weight, default_ttl, idle, depth)| {
        Shape { entries, weight, default_ttl, idle, depth }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// One shard: the eviction order itself is held to the model.
    #[test]
    fn one_shard_behaves_as_the_naive_model(
        shape in shape(),
        ops in prop::collection::vec(op(12), 1..200),
    ) {
        let real = Real::new(shape, 1);
        let mut model = Model::new(shape);
        for (id, op) in ops.iter().enumerate() {
            let ordered = run(&real, &mut model, op, id as u32);
            let (mut events, mut expected) = (take(&real.events), mem::take(&mut model.events));
            let (mut victims, mut lost) = (take(&real.victims), mem::take(&mut model.victims));
            if !ordered {
                (events, expected) = (by_key(events), by_key(expected));
                (victims, lost) = (by_key(victims), by_key(lost));
            }
            prop_assert_eq!(events, expected, "listener, at {:?}", op);
            prop_assert_eq!(victims, lost, "sidecar, at {:?}", op);
            prop_assert_eq!(real.cache.len(), model.order.len());
            prop_assert_eq!(real.cache.weight(), model.weight());
            let Shape { entries, weight, .. } = model.shape;
            prop_assert!(real.cache.len() <= entries && real.cache.weight() <= weight.unwrap_or(u64::MAX));
            let stats = real.cache.stats();
            let gone = stats.evictions + stats.expirations + stats.removals + stats.cleared;
            prop_assert_eq!(stats.inserts, real.cache.len() as u64 + gone);
            prop_assert_eq!((stats.hits, stats.misses), (model.hits, model.misses));
        }
    }

    /// Many shards with room for all: nothing unexpired is ever lost, whichever shard it is in.
    #[test]
    fn many_shards_with_room_lose_nothing(ops in prop::collection::vec(op(60), 1..200)) {
        let shape =
            Shape { entries: 60 * 8, weight: Some(60 * 12 * 8), default_ttl: Some(20), idle: Some(15), depth: None };
        let real = Real::new(shape, 8);
        let mut model = Model::new(shape);
        for (id, op) in ops.iter().enumerate() {
            if matches!(op, Op::Resize(8..) | Op::ResizeWeight(8..)) {
                continue; // There would be no room any more.
            }
            run(&real, &mut model, op, id as u32);
            prop_assert_eq!(by_key(take(&real.events)), by_key(mem::take(&mut model.events)), "at {:?}", op);
            prop_assert_eq!(real.cache.len(), model.order.len());
        }
        prop_assert_eq!(real.cache.stats().evictions, 0);
    }

    /// Many shards without room: bounds hold after every operation, and what is read is what was last written.
    #[test]
    fn many_shards_without_room_stay_within_bounds(
        entries in 8usize..20,
        weight in 8u64..60,
        ops in prop::collection::vec(op(60), 1..300),
    ) {
        let real = Real::new(Shape { entries, weight: Some(weight), default_ttl: None, idle: None, depth: None }, 8);
        let mut last: HashMap<u8, Value> = HashMap::new();
        for (id, op) in ops.iter().enumerate() {
            match op {
                Op::Insert(key, weight, _) | Op::Upsert(key, Verdict::Replace(weight, _)) => {
                    let value = Value { id: id as u32, weight: *weight };
                    real.cache.insert(*key, value);
                    last.insert(*key, value);
                }
                Op::Remove(key) => {
                    real.cache.remove(key);
                    last.remove(key);
                }
                Op::Get(key) => {
                    if let Some(value) = real.cache.get(key) {
                        prop_assert_eq!(Some(&value), last.get(key));
                    }
                }
                _ => {}
            }
            prop_assert!(real.cache.len() <= entries && real.cache.weight() <= weight);
        }
    }
}
