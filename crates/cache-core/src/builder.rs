//! Configuration of a cache, checked once.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use crate::{
    Cache, Cause, Clock, ConfigError, Policy, Sidecar,
    capacity::{self, Capacity},
    clock::{Jitter, Time, millis},
    inner::{Inner, Listener, Padded, Weigher},
    shard::{Rules, Shard, Store, WEIGHT_MAX},
    sync::Mutex,
    ticker,
};

const SHARDS_MAX: usize = 1024;
/// Left to itself, the builder gives each shard at least this many entries, or this much weight (think of bytes): in smaller ones
/// the capacity would be split so finely that a shard evicts while its neighbour has room.
const SHARE_ENTRIES_MIN: usize = 512;
const SHARE_WEIGHT_MIN: u64 = 4 << 20;
/// From 64 shards on, more are made only where a shard would hold more entries than this, which keeps its scans and its growth short.
const SHARE_ENTRIES_MAX: usize = 16_384;
const SHARDS_USUAL: usize = 64;

/// Builds a [`Cache`]; made by [`Cache::builder`].
///
/// At least one of [`capacity`](Self::capacity) and [`weight_capacity`](Self::weight_capacity) must be set: there is no unbounded
/// cache. Both are divided among the shards exactly: shares differ by at most one and add up to the capacity.
///
/// ```
/// use std::time::Duration;
/// use cache_core::Cache;
///
/// let cache: Cache<String, Vec<u8>> = Cache::builder()
///     .capacity(100_000)
///     .weight_capacity(64 << 20)
///     .weigher(|key: &String, value: &Vec<u8>| (key.len() + value.len()) as u64)
///     .default_ttl(Duration::from_secs(300))
///     .build()?;
/// assert_eq!(cache.capacity(), Some(100_000));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build()`"]
pub struct Builder<K, V, S = RandomState, X = ()> {
    capacity: Option<usize>,
    weight_capacity: Option<u64>,
    weigher: Option<Weigher<K, V>>,
    default_ttl: Option<Duration>,
    time_to_idle: Option<Duration>,
    ttl_jitter: f64,
    policy: Policy,
    remote_depth: f64,
    shards: Option<usize>,
    clock: Clock,
    hasher: S,
    sidecar: Box<dyn FnMut() -> X>,
    listener: Option<Listener<K, V>>,
}

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Builder {
            capacity: None,
            weight_capacity: None,
            weigher: None,
            default_ttl: None,
            time_to_idle: None,
            ttl_jitter: 0.0,
            policy: Policy::Lru,
            remote_depth: 0.0,
            shards: None,
            clock: Clock::coarse(),
            hasher: RandomState::new(),
            sidecar: Box::new(|| ()),
            listener: None,
        }
    }
}

impl<K, V, S, X> Builder<K, V, S, X> {
    /// The most entries, at least 1. Default: bounded by weight alone.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(2).build()?;
    /// (0..9).for_each(|n| { cache.insert(n, ()); });
    /// assert_eq!(cache.len(), 2);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn capacity(mut self, entries: usize) -> Self {
        self.capacity = Some(entries);
        self
    }

    /// The most weight, at least 1, in the [`weigher`](Self::weigher)'s unit. Default: bounded by entries alone.
    ///
    /// **An entry heavier than its shard's share is not kept**: the write takes the old value's place and is evicted at once, which
    /// the sidecar and the listener hear of; no other entry leaves for its sake. The share is the capacity divided by
    /// [`shards`](Self::shards), and at most 2³²−1, so for large entries take few shards.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().weight_capacity(10).weigher(|_, v: &&str| v.len() as u64).build()?;
    /// cache.insert(1, "fits");
    /// cache.insert(2, "too long to be kept");
    /// assert_eq!((cache.peek(&1), cache.peek(&2)), (Some("fits"), None));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn weight_capacity(mut self, weight: u64) -> Self {
        self.weight_capacity = Some(weight);
        self
    }

    /// What an entry weighs; 0 is taken as 1. Default: each entry weighs 1.
    ///
    /// It is asked once per write, and what it said counts until the next write of that entry, so answers that change (or
    /// lie) cannot unbalance the books. Within `update`, `upsert` and a load it runs under the shard's lock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder()
    ///     .weight_capacity(1 << 20)
    ///     .weigher(|key: &String, value: &Vec<u8>| (key.len() + value.len()) as u64)
    ///     .build()?;
    /// cache.insert("k".to_owned(), vec![0; 99]);
    /// assert_eq!(cache.weight(), 100);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// The lifetime of entries written without one, at least one tick of the clock. Default: they never expire.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = cache_core::Cache::builder().capacity(10).default_ttl(Duration::from_secs(60)).build()?;
    /// cache.insert("k", 1);
    /// assert!(cache.read("k", |_, left| left.is_some()).unwrap_or(false));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// For how long an entry may go unused before it expires, whatever is left of its lifetime; at least one tick of the clock.
    /// Default: as long as it lives.
    ///
    /// A read (`get`, `read`) and a write put the end off; a look (`peek`, `contains`, a scan) does not, nor does a write from
    /// another region where there is a [`remote_depth`](Self::remote_depth). An entry that was idle for too long is
    /// [`Expired`](Cause::Expired), as one whose lifetime ended; the lifetime that is shown as left says nothing of it. Costs 16
    /// bytes for each entry.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let minute = Duration::from_secs(60);
    /// let cache = Cache::builder().capacity(10).time_to_idle(2 * minute).clock(clock.clone()).build()?;
    /// (cache.insert("used", 1), cache.insert("idle", 2));
    /// clock.advance(minute);
    /// cache.get("used");
    /// clock.advance(minute);
    /// assert!(cache.contains("used") && !cache.contains("idle"));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn time_to_idle(mut self, idle: Duration) -> Self {
        self.time_to_idle = Some(idle);
        self
    }

    /// The fraction of a lifetime that chance may take off it, from 0.0 to 1.0. Default: 0.0, none.
    ///
    /// With it, entries that were written together do not expire together, and are not all loaded anew at once. Lifetimes are only
    /// ever shortened, and not below one tick of the clock. Applies to every local write that sets a lifetime, not to those that came from another region.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let hour = Duration::from_secs(3600);
    /// let cache = cache_core::Cache::builder().capacity(10).default_ttl(hour).ttl_jitter(0.1).build()?;
    /// cache.insert("k", 1);
    /// let left = cache.read("k", |_, left| left).flatten();
    /// assert!(left >= Some(hour * 9 / 10 - Duration::from_secs(1)) && left <= Some(hour));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn ttl_jitter(mut self, fraction: f64) -> Self {
        self.ttl_jitter = fraction;
        self
    }

    /// How the cache chooses what to evict. Default: [`Policy::Lru`].
    ///
    /// ```
    /// use cache_core::{Cache, Policy};
    ///
    /// let cache = Cache::builder().capacity(100).policy(Policy::TinyLfu).build()?;
    /// for _ in 0..10 {
    ///     (0..50).for_each(|n| { cache.get(&n).is_none().then(|| cache.insert(n, n)); });
    /// }
    /// // A scan of keys that nobody asks for again.
    /// (1_000..10_000).for_each(|n| { cache.insert(n, n); });
    /// assert!((0..50).filter(|n| cache.contains(n)).count() > 40);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Where a new entry enters the order when it came from another region
    /// ([`insert_remote`](Cache::insert_remote), [`Verdict::ReplaceRemote`](crate::Verdict::ReplaceRemote)), as the fraction of
    /// the capacity that is for what stands above it: from 0.0, the hot end (the default), to 1.0, the cold end. Where the bound is
    /// one of weight, it is a fraction of that.
    ///
    /// At 0.0 this is off: a write of another region enters, counts as a use of what it overwrites and is counted by
    /// [`Policy::TinyLfu`] as any other. Only [jitter](Self::ttl_jitter) it has none at any depth, because its lifetime was decided
    /// where it was written. Above 0.0, such a write is no use: what it overwrites keeps its place and may not be idle for longer,
    /// and it adds nothing to how often a key was asked for.
    ///
    /// So writes of other regions, however many, push out at most what stands below that depth; only a single one that takes more
    /// room than all of that does more. An entry that is read here moves up to the hot end when its turn comes. (Databases call this
    /// midpoint insertion.)
    ///
    /// With [`Policy::TinyLfu`], any depth above 0.0 means that such an entry starts at the cold end of the window, unless somebody here
    /// has asked for it lately. There it is the next to go unless it is read soon, so such writes make room for each other. (Segments count
    /// entries there, so one that is heavier than those before it takes the difference from others, once.)
    ///
    /// ```
    /// use cache_core::{Cache, Expiry};
    ///
    /// let cache = Cache::builder().capacity(10).remote_depth(0.7).build()?;
    /// (0..10).for_each(|n| { cache.insert(n, "here"); });
    /// (10..1_000).for_each(|n| { cache.insert_remote(n, "there", Expiry::Default); });
    /// assert_eq!((0..10).filter(|n| cache.contains(n)).count(), 7);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn remote_depth(mut self, fraction: f64) -> Self {
        self.remote_depth = fraction;
        self
    }

    /// The number of shards: a power of two, at most 1024 and at most the capacity.
    ///
    /// Default: as many as give each shard at least 512 entries (by weight: 4 Mi units), up to 64; from there on, as many as keep a
    /// shard at 16,384 entries, up to 1024. So a small cache has a single shard, and evicts exactly in its order.
    ///
    /// ```
    /// let cache = cache_core::Cache::<u32, u32>::builder().capacity(1_000).shards(8).build()?;
    /// assert_eq!(cache.shards(), 8);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Where the time comes from: [`Clock::coarse`] (the default) or a [`ManualClock`](crate::ManualClock).
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let cache = Cache::builder().capacity(10).clock(clock.clone()).build()?;
    /// cache.insert_with_ttl("k", 1, Duration::from_secs(5));
    /// clock.advance(Duration::from_secs(5));
    /// assert_eq!(cache.get("k"), None);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// What hears of each value that leaves, after the lock is released: on the thread that caused it, or on the ticker's.
    ///
    /// Called once per value, with the cause. It may call the cache. By the time it runs, others may have written the key again.
    /// For a replaced value, the key is the one that the write came with. If it panics, the operation is done all the same, the
    /// rest of what left is told, and then the first panic reaches the caller whose operation it was.
    ///
    /// A listener that owns a handle on the cache keeps it alive for ever, as the cache owns the listener. For calling back, give it a
    /// [`Weak`](std::sync::Weak) one:
    ///
    /// ```
    /// use std::sync::{Arc, OnceLock, Weak};
    /// use cache_core::{Cache, Cause};
    ///
    /// let link = Arc::new(OnceLock::<Cache<u32, u32>>::new());
    /// let weak: Weak<_> = Arc::downgrade(&link);
    /// let cache = Cache::builder()
    ///     .capacity(100)
    ///     .listener(move |key: &u32, _: &u32, cause| {
    ///         let link = weak.upgrade();
    ///         if let (Cause::Evicted, Some(cache)) = (cause, link.as_ref().and_then(|link| link.get())) {
    ///             cache.remove(&(key + 1_000));
    ///         }
    ///     })
    ///     .build()?;
    /// // Whoever owns the link owns the cache; when it is dropped, and all other handles, so is the cache.
    /// link.set(cache.clone()).map_err(drop).expect("set once");
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use cache_core::{Cache, Cause};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let cache = Cache::builder()
    ///     .capacity(1)
    ///     .listener(move |key: &&str, _: &u32, cause| drop(tell.send((*key, cause))))
    ///     .build()?;
    /// cache.insert("a", 1);
    /// cache.insert("b", 2);
    /// cache.remove("b");
    /// assert_eq!(told.try_iter().collect::<Vec<_>>(), [("a", Cause::Evicted), ("b", Cause::Removed)]);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn listener(mut self, listener: impl Fn(&K, &V, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// What hashes the keys. Default: the standard library's keyed `RandomState`, safe against keys chosen by an adversary.
    ///
    /// All 64 bits matter: the top bits choose the shard and order the scan, the others address the shard's table.
    ///
    /// ```
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    ///
    /// // The same positions in every process, which a scan that goes on elsewhere needs.
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let cache = cache_core::Cache::<&str, u32>::builder().capacity(10).hasher(hasher.clone()).build()?;
    /// let other = cache_core::Cache::<&str, u32>::builder().capacity(10).hasher(hasher).build()?;
    /// assert_eq!(cache.position("k"), other.position("k"));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T, X> {
        Builder {
            hasher,
            capacity: self.capacity,
            weight_capacity: self.weight_capacity,
            weigher: self.weigher,
            default_ttl: self.default_ttl,
            time_to_idle: self.time_to_idle,
            ttl_jitter: self.ttl_jitter,
            policy: self.policy,
            remote_depth: self.remote_depth,
            shards: self.shards,
            clock: self.clock,
            sidecar: self.sidecar,
            listener: self.listener,
        }
    }

    /// Makes each shard's [`Sidecar`]; called once per shard, in the order of positions. Default: `()`, which hears nothing.
    ///
    /// ```
    /// use cache_core::{Cache, Cause, Sidecar};
    ///
    /// /// Counts what its shard gave up.
    /// #[derive(Default)]
    /// struct Lost(u64);
    ///
    /// impl Sidecar<u32, ()> for Lost {
    ///     fn victim(&mut self, _: u64, _: &u32, _: &(), _: Cause) {
    ///         self.0 += 1;
    ///     }
    /// }
    ///
    /// let cache = Cache::builder().capacity(16).shards(4).sidecar(Lost::default).build()?;
    /// (0..100).for_each(|n| { cache.insert(n, ()); });
    /// cache.with_sidecars(|lost| assert!(lost.0 > 0));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn sidecar<Y>(self, make: impl FnMut() -> Y + 'static) -> Builder<K, V, S, Y> {
        Builder {
            sidecar: Box::new(make),
            hasher: self.hasher,
            capacity: self.capacity,
            weight_capacity: self.weight_capacity,
            weigher: self.weigher,
            default_ttl: self.default_ttl,
            time_to_idle: self.time_to_idle,
            ttl_jitter: self.ttl_jitter,
            policy: self.policy,
            remote_depth: self.remote_depth,
            shards: self.shards,
            clock: self.clock,
            listener: self.listener,
        }
    }

    /// Checks the configuration and makes the cache.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setter and what would be right. With [`Clock::coarse`], also when the operating system refuses one of
    /// its two threads.
    ///
    /// ```
    /// let error = cache_core::Cache::<u32, u32>::builder().capacity(100).shards(3).build().unwrap_err();
    /// assert_eq!(error.field, "shards");
    /// assert_eq!(error.to_string(), "shards: 3 is not a power of two from 1 to 1024; try 4");
    /// ```
    pub fn build(mut self) -> Result<Cache<K, V, S, X>, ConfigError>
    where
        K: Hash + Eq + Send + 'static,
        V: Send + 'static,
        S: BuildHasher + Send + Sync + 'static,
        X: Sidecar<K, V>,
    {
        self.check_bounds()?;
        let time = self.clock.manual().map_or_else(Time::coarse, Time::manual);
        let default_ttl_ms = checked_span("default_ttl", self.default_ttl, &time)?;
        let idle_ms = checked_span("time_to_idle", self.time_to_idle, &time)?;
        check_fraction("ttl_jitter", self.ttl_jitter)?;
        check_fraction("remote_depth", self.remote_depth)?;
        let count = self.checked_shards()?;
        let rules = Rules {
            policy: self.policy,
            remote_depth: self.remote_depth,
            is_weighed: self.weigher.is_some(),
            idle_ms,
        };
        let shards = (0..count)
            .map(|index| {
                let share = capacity::share(self.capacity, self.weight_capacity, index, count);
                let store = Store::new(share, rules);
                Padded(Mutex::new(Shard { store, sidecar: (self.sidecar)() }))
            })
            .collect();
        let inner = Arc::new(Inner {
            shards,
            shard_bits: count.trailing_zeros(),
            hasher: self.hasher,
            time,
            default_ttl_ms,
            ttl_jitter: Jitter::new(self.ttl_jitter),
            capacity: Capacity::new(self.capacity, self.weight_capacity),
            weigher: self.weigher,
            listener: self.listener,
            sweep_panics: AtomicU64::new(0),
        });
        if self.clock.manual().is_none() {
            let _threads = ticker::spawn(&inner).map_err(ConfigError::no_thread)?;
        }
        Ok(Cache::from_inner(inner))
    }

    fn check_bounds(&self) -> Result<(), ConfigError> {
        let (entries, weight) = (self.capacity, self.weight_capacity);
        if entries.is_none() && weight.is_none() {
            return Err(ConfigError::new("capacity", "neither capacity nor weight_capacity is set; set one"));
        }
        if entries == Some(0) {
            return Err(ConfigError::new("capacity", "0 would keep nothing; it must be at least 1"));
        }
        if weight == Some(0) {
            return Err(ConfigError::new("weight_capacity", "0 would keep nothing; it must be at least 1"));
        }
        if weight.is_some() && self.weigher.is_none() {
            return Err(ConfigError::new("weight_capacity", "it needs a weigher; set one, or use capacity"));
        }
        Ok(())
    }

    fn checked_shards(&self) -> Result<usize, ConfigError> {
        let entries = self.capacity.unwrap_or(usize::MAX);
        let weight = self.weight_capacity.unwrap_or(u64::MAX);
        let most = entries.min(usize::try_from(weight).unwrap_or(usize::MAX));
        let Some(shards) = self.shards else { return Ok(self.usual_shards()) };
        if !shards.is_power_of_two() || shards > SHARDS_MAX {
            let near = shards.clamp(1, SHARDS_MAX).next_power_of_two();
            let reason = format!("{shards} is not a power of two from 1 to {SHARDS_MAX}; try {near}");
            return Err(ConfigError::new("shards", reason));
        }
        if shards > most {
            let reason = format!("{shards} shards cannot divide a capacity of {most}; take fewer");
            return Err(ConfigError::new("shards", reason));
        }
        Ok(shards)
    }

    fn usual_shards(&self) -> usize {
        let by_entries = self.capacity.map(|entries| {
            let small = (entries / SHARE_ENTRIES_MIN).clamp(1, SHARDS_USUAL);
            let large = entries.div_ceil(SHARE_ENTRIES_MAX).min(SHARDS_MAX);
            // Rounded down where shards would get too small, and up where they would get too large.
            (1_usize << small.ilog2()).max(if large > SHARDS_USUAL { large.next_power_of_two() } else { 1 })
        });
        let by_weight = self.weight_capacity.map(|weight| {
            let shards = (weight / SHARE_WEIGHT_MIN).clamp(1, SHARDS_USUAL as u64);
            // A share is at most what a 32-bit weight can reach, or the rest of it could not be used by a single entry.
            let wide = weight.div_ceil(WEIGHT_MAX).min(SHARDS_MAX as u64).next_power_of_two();
            (1_usize << shards.ilog2()).max(wide as usize)
        });
        match (by_entries, by_weight) {
            (Some(entries), Some(weight)) => entries.min(weight),
            (Some(shards), None) | (None, Some(shards)) => shards,
            (None, None) => 1,
        }
    }
}

/// A span of time in milliseconds, which the clock must be able to tell from none.
fn checked_span(
    field: &'static str,
    span: Option<Duration>,
    time: &Time,
) -> Result<Option<u64>, ConfigError> {
    let Some(span) = span else { return Ok(None) };
    let tick_ms = time.tick_ms();
    if millis(span) < tick_ms {
        let reason = format!("{span:?} is shorter than the clock's tick; it must be at least {tick_ms} ms");
        return Err(ConfigError::new(field, reason));
    }
    Ok(Some(millis(span)))
}

fn check_fraction(field: &'static str, fraction: f64) -> Result<(), ConfigError> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(());
    }
    Err(ConfigError::new(field, format!("{fraction} is no fraction; it must be from 0.0 to 1.0")))
}

impl<K, V, S, X> fmt::Debug for Builder<K, V, S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("capacity", &self.capacity)
            .field("weight_capacity", &self.weight_capacity)
            .field("default_ttl", &self.default_ttl)
            .field("time_to_idle", &self.time_to_idle)
            .field("ttl_jitter", &self.ttl_jitter)
            .field("policy", &self.policy)
            .field("remote_depth", &self.remote_depth)
            .field("shards", &self.shards)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
