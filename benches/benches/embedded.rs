//! `GeoCache` in the caller's process: what a read and a write cost the caller, and what they allocate.
//!
//! Standalone, through a client that routes, and as the writing node of three that an in-memory hub joins, whose tasks run beside the caller. There the
//! keys come in turn from a set that the outbox holds at once, so the caller never waits for the others and the outbox
//! coalesces what they are too slow for. Figures go to `target/bench/embedded.json`; that a read of a hot key allocates
//! nothing is checked, and that it takes less than a microsecond is told.

use std::{hint::black_box, sync::Arc};

use allocation_counter::measure;
use anyhow::{Context, Result, ensure};
use benches::{
    micro,
    report::{self, Bound, Figure},
};
use bytes::Bytes;
use criterion::{BenchmarkGroup, measurement::WallTime};
use futures_util::FutureExt;
use geocache::{Expect, GeoCache, GeoCluster, Write, client::GeoClient};
use serde::{Deserialize, Serialize};

const GROUP: &str = "embedded";
const NAMES: &[&str] = &[
    "get_hot",
    "item_hot",
    "item_routed",
    "get_miss",
    "put",
    "write_112_bytes",
    "update",
    "put_replicated",
    "write_112_bytes_replicated",
];

const HOT_NS_MAX: f64 = 1_000.0;
const KEYS: usize = 10_000;
const REPEATS: u64 = 1_000;

/// A typed value as an application has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    user: u64,
    name: String,
    roles: Vec<String>,
}

fn session() -> Session {
    let roles = ["reader", "writer"].map(str::to_owned).to_vec();
    Session { user: 1_815, name: "Ada Lovelace".to_owned(), roles }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let alone = runtime.block_on(GeoCache::builder().build())?;
    let cluster = runtime.block_on(GeoCluster::new(["us-east", "eu-central", "ap-south"]))?;
    let replicated = cluster.region("us-east")?;
    let client = GeoClient::builder().node(alone.clone()).endpoint("us-east", cluster.endpoint("us-east")?);
    let client = client.build()?;
    let allocated = allocations(&alone)?;
    let mut figures = micro::run(GROUP, NAMES, |group| {
        reads(group, &alone);
        routed(group, &client);
        writes(group, &alone, "");
        group.bench_function("update", |bencher| {
            bencher.iter(|| {
                alone.update("visits", |visits: Option<Arc<u64>>| visits.map_or(Some(1), |v| Some(*v + 1)))
            });
        });
        writes(group, &replicated, "_replicated");
        Ok(())
    })?;
    if let Some(hot) = figures.iter_mut().find(|figure| figure.name == "get_hot") {
        hot.target = Some(Bound::AtMost(HOT_NS_MAX));
        println!("a read of a hot typed key: {:.0} ns, {}", hot.value, hot.verdict());
        figures.extend(allocated);
    }
    report::write(GROUP, &figures)
}

fn reads(group: &mut BenchmarkGroup<'_, WallTime>, cache: &GeoCache) {
    group
        .bench_function("get_hot", |bencher| bencher.iter(|| cache.get::<Session>(black_box("session:hot"))));
    group.bench_function("item_hot", |bencher| bencher.iter(|| cache.item(black_box(b"session:hot"))));
    group.bench_function("get_miss", |bencher| {
        bencher.iter(|| cache.get::<Session>(black_box("session:none")));
    });
}

/// The same read through a client that routes it: the plan, the breaker, the place in flight and the clock come on top.
fn routed(group: &mut BenchmarkGroup<'_, WallTime>, client: &GeoClient) {
    group.bench_function("item_routed", |bencher| {
        // A node of this process answers at once, so the future is done when it was polled once.
        bencher.iter(|| client.item(black_box(b"session:hot")).now_or_never());
    });
}

fn writes(group: &mut BenchmarkGroup<'_, WallTime>, cache: &GeoCache, suffix: &str) {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("session:{key:08}")).collect();
    let mut turn = keys.iter().cycle();
    let value = session();
    group.bench_function(format!("put{suffix}"), |bencher| {
        bencher.iter(|| turn.next().map(|key| cache.put(key, &value)));
    });
    let bytes = [b'v'; 112];
    group.bench_function(format!("write_112_bytes{suffix}"), |bencher| {
        bencher.iter(|| {
            let write = Write { bytes: Bytes::copy_from_slice(&bytes), ..Write::default() };
            turn.next().map(|key| cache.write(key.as_bytes(), write, Expect::Any))
        });
    });
}

/// What operations allocate on the caller's thread. A read of a hot key must not allocate at all.
fn allocations(cache: &GeoCache) -> Result<Vec<Figure>> {
    let value = session();
    cache.put("session:hot", &value)?;
    cache.get::<Session>("session:hot")?.context("it was just put")?;
    let count = |operation: &dyn Fn()| {
        let counted = measure(|| (0..REPEATS).for_each(|_| operation()));
        counted.count_total as f64 / REPEATS as f64
    };
    let get = count(&|| drop(black_box(cache.get::<Session>("session:hot"))));
    let item = count(&|| drop(black_box(cache.item(b"session:hot"))));
    let put = count(&|| drop(black_box(cache.put("session:other", &value))));
    println!("allocations: {get} a read of a hot typed key, {item} as bytes, {put} a typed put");
    ensure!(get == 0.0, "a read of a hot typed key allocates {get} times");
    ensure!(item == 0.0, "a read of a hot key as bytes allocates {item} times");
    let figure = |name: &str, count| Figure::new(name, count, "allocations");
    Ok(vec![
        figure("get_hot_allocations", get),
        figure("item_hot_allocations", item),
        figure("put_allocations", put),
    ])
}
