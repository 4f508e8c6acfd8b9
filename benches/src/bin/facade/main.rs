//! What `GeoCache` costs above the map beneath it: reads and writes beside bare `cache-core`, in one run.
//!
//! `cargo xtask bench facade`. The same keys, values and time to live on both sides, one thread, and turns that alternate, so
//! that what else the machine does meets both alike; a ratio is taken within a round, and the median of the rounds is
//! reported. The value is a struct, held by `cache-core` in an `Arc` and by `GeoCache` encoded, with its decoded form
//! beside it since the first read.
//!
//! | load | keys |
//! |---|---|
//! | hot | one key |
//! | warm | 10,000 keys in an order that the processor does not foresee |
//!
//! The target: a typed read of what is decoded costs at most twice the bare read of an `Arc`. As in every measurement, one
//! that is missed is told, red on a terminal, and does not fail the run.

use std::{hint::black_box, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use benches::{
    report::{self, Figure, median},
    rounds::{Cost, Subject, measure},
};
use bytes::Bytes;
use geocache::{Expect, GeoCache, Write};
use serde::{Deserialize, Serialize};

/// The allocator of the programs of this workspace.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a typed read may cost of a bare one.
const RATIO_MAX: f64 = 2.0;

const CAPACITY: usize = 100_000;
const KEYS: usize = 10_000;
/// A step through all keys: coprime to their number.
const STRIDE: usize = 6_181;
const TTL: Duration = Duration::from_secs(3_600);
const RAW_BYTES: usize = 112;

/// A typed value as an application has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    user: u64,
    name: String,
    roles: Vec<String>,
}

/// What is measured, by the names of the figures.
struct Sides {
    bare: cache_core::Cache<String, Arc<Session>>,
    bytes: cache_core::Cache<String, Bytes>,
    ours: GeoCache,
    users: GeoCache,
    keys: Vec<String>,
    value: Session,
    raw: Bytes,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sides = Sides::new(&runtime)?;
    println!(
        "one thread, {KEYS} keys of {CAPACITY}, processor time, medians; a ratio is to the bare map in the same round"
    );
    let mut figures = Vec::new();
    for (load, keys) in [("hot", &sides.keys[..1]), ("warm", &sides.keys[..])] {
        figures.extend(sides.reads(load, keys));
        figures.extend(sides.writes(load, keys));
    }
    sides.check()?;
    let missed: usize = figures.iter().map(Figure::targets_missed).sum();
    println!(
        "{}",
        if missed == 0 { "every target held".to_owned() } else { format!("targets missed: {missed}") }
    );
    report::write("facade", &figures)
}

impl Sides {
    fn new(runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let roles = ["reader", "writer"].map(str::to_owned).to_vec();
        let value = Session { user: 1_815, name: "Ada Lovelace".to_owned(), roles };
        let ours = runtime.block_on(GeoCache::builder().capacity(CAPACITY).default_ttl(TTL).build())?;
        let sides = Self {
            bare: cache_core::Cache::builder().capacity(CAPACITY).default_ttl(TTL).build()?,
            bytes: cache_core::Cache::builder().capacity(CAPACITY).default_ttl(TTL).build()?,
            users: ours.namespace("user")?,
            ours,
            keys: (0..KEYS).map(|key| format!("session:{key:08}")).collect(),
            value,
            raw: Bytes::from_static(&[b'v'; RAW_BYTES]),
        };
        sides.fill()?;
        Ok(sides)
    }

    /// Every value is held on both sides, and decoded.
    fn fill(&self) -> Result<()> {
        for key in &self.keys {
            self.bare.insert(key.clone(), Arc::new(self.value.clone()));
            self.bytes.insert(key.clone(), self.raw.clone());
            self.ours.put(key, &self.value)?;
            self.users.put(key, &self.value)?;
            ensure!(self.ours.get::<Session>(key)?.is_some() && self.users.get::<Session>(key)?.is_some());
        }
        Ok(())
    }

    /// That it was hits that were measured.
    fn check(&self) -> Result<()> {
        let stats = self.ours.stats();
        ensure!(stats.misses == 0 && stats.evictions == 0, "reads missed: {stats:?}");
        ensure!(self.bare.stats().misses == 0, "bare reads missed");
        Ok(())
    }

    fn reads(&self, load: &str, keys: &[String]) -> Vec<Figure> {
        let subjects = [
            subject("bare cache-core, get of an Arc", keys, |key| drop(black_box(self.bare.get(key)))),
            subject("get::<T>, decoded", keys, |key| drop(black_box(self.ours.get::<Session>(key)))),
            subject("get::<T>, decoded, in a namespace", keys, |key| {
                drop(black_box(self.users.get::<Session>(key)));
            }),
            subject("item, the bytes as stored", keys, |key| drop(black_box(self.ours.item(key.as_bytes())))),
        ];
        let targets = [None, Some(RATIO_MAX), None, None];
        told(load, &subjects, &measure(1, &subjects), &targets)
    }

    /// The typed reads are measured first: a write leaves nothing decoded.
    fn writes(&self, load: &str, keys: &[String]) -> Vec<Figure> {
        let subjects = [
            subject("bare cache-core, insert of bytes", keys, |key| {
                drop(black_box(self.bytes.insert(key.to_owned(), self.raw.clone())));
            }),
            subject("write, 112 bytes as they are", keys, |key| {
                let write = Write { bytes: self.raw.clone(), ..Write::default() };
                drop(black_box(self.ours.write(key.as_bytes(), write, Expect::Any)));
            }),
            subject("put, a struct to encode", keys, |key| drop(black_box(self.ours.put(key, &self.value)))),
        ];
        let figures = told(load, &subjects, &measure(1, &subjects), &[None; 3]);
        self.fill().expect("what was written is held");
        figures
    }
}

/// An operation on each key in turn.
fn subject<'a>(name: &'static str, keys: &'a [String], operation: impl Fn(&str) + Sync + 'a) -> Subject<'a> {
    let calls = move |calls: u64| {
        let mut at = 0;
        for _ in 0..calls {
            operation(black_box(&keys[at]));
            at = (at + STRIDE) % keys.len();
        }
    };
    Subject { name, calls: Box::new(calls) }
}

/// A figure of each subject, beside the first one.
fn told(load: &str, subjects: &[Subject<'_>], costs: &[Cost], targets: &[Option<f64>]) -> Vec<Figure> {
    let bare = &costs[0];
    let mut figures = Vec::new();
    for ((subject, cost), target) in subjects.iter().zip(costs).zip(targets) {
        let figure = |name, value, unit| Figure::new(format!("{load}: {name}"), value, unit);
        let ns = median(cost.processor_ns.iter().copied());
        let ratio = median(cost.processor_ns.iter().zip(&bare.processor_ns).map(|(ours, bare)| ours / bare));
        figures.push(figure(subject.name.to_owned(), ns, "ns"));
        if std::ptr::eq(cost, bare) {
            println!("{load:<5} {:<36} {ns:>8.1} ns", subject.name);
            continue;
        }
        let times = figure(format!("{}, of the bare one", subject.name), ratio, "×");
        let times = target.map_or(times.clone(), |most| times.at_most(most));
        let verdict = target.map_or_else(String::new, |_| times.verdict());
        println!("{load:<5} {:<36} {ns:>8.1} ns  × {ratio:.2}  {verdict}", subject.name);
        figures.push(times);
    }
    figures
}
