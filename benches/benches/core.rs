//! `cache-core` alone: what one operation costs one thread, in a full cache of 100,000 `u64` keys.
//!
//! Figures go to `target/bench/core.json`.

use std::hint::black_box;

use anyhow::Result;
use benches::{micro, report};
use cache_core::{Cache, Expiry, Verdict};
use criterion::{BenchmarkGroup, measurement::WallTime};

const GROUP: &str = "core";
const NAMES: &[&str] =
    &["get_hot", "get", "get_miss", "replace", "insert_evicting", "upsert", "scan_page_of_1024"];

const ENTRIES: u64 = 100_000;

/// A step through all keys in an order that the processor does not foresee: coprime to their number.
const STRIDE: u64 = 61_803;

fn main() -> Result<()> {
    let figures = micro::run(GROUP, NAMES, |group| {
        let cache = Cache::builder().capacity(ENTRIES as usize).build()?;
        (0..ENTRIES).for_each(|key| {
            cache.insert(key, key);
        });
        // What the hash put too many of into a shard was evicted.
        reads(group, &cache);
        writes(group, &cache);
        Ok(())
    })?;
    report::write(GROUP, &figures)
}

fn reads(group: &mut BenchmarkGroup<'_, WallTime>, cache: &Cache<u64, u64>) {
    group.bench_function("get_hot", |bencher| bencher.iter(|| cache.get(black_box(&(ENTRIES - 1)))));
    let mut key = 0;
    group.bench_function("get", |bencher| bencher.iter(|| cache.get(&next(&mut key))));
    group.bench_function("get_miss", |bencher| bencher.iter(|| cache.get(&(ENTRIES + next(&mut key)))));
    let mut position = 0;
    group.bench_function("scan_page_of_1024", |bencher| {
        bencher.iter(|| {
            let page = |page: cache_core::ScanPage<'_, u64, u64>, (): &mut ()| (page.items.len(), page.next);
            let (items, next) = cache.scan(position, 1024, page);
            position = next.unwrap_or(0);
            items
        });
    });
}

fn writes(group: &mut BenchmarkGroup<'_, WallTime>, cache: &Cache<u64, u64>) {
    let mut key = 0;
    group.bench_function("replace", |bencher| {
        bencher.iter(|| {
            let key = next(&mut key);
            cache.insert(key, key)
        });
    });
    group.bench_function("upsert", |bencher| {
        bencher.iter(|| {
            cache.upsert(
                &next(&mut key),
                |key| *key,
                |slot, ()| {
                    let value = slot.value.map_or(0, |value| *value + 1);
                    (Verdict::Replace(value, Expiry::Default), value)
                },
            )
        });
    });
    let mut fresh = ENTRIES;
    group.bench_function("insert_evicting", |bencher| {
        bencher.iter(|| {
            fresh += 1;
            cache.insert(fresh, fresh)
        });
    });
}

fn next(key: &mut u64) -> u64 {
    *key = (*key + STRIDE) % ENTRIES;
    *key
}
