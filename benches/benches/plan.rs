//! `geo` alone: what a plan over 3, 13 and 100 regions costs one thread.
//!
//! - `plan_N`: a plan as most requests make it, between two looks at the order; one call in a plan is in flight, so that
//!   the balance of load is part of it.
//! - `round_N`: a plan that looks at the order, as one request a second does, after a measurement that moved a region.
//! - `sorted_N`: what one would write without a router: the regions and their round trips, collected and sorted.
//! - `call_13`: a plan, a call's begin and its end.
//!
//! Figures go to `target/bench/plan.json`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use benches::{micro, report};
use criterion::{BenchmarkGroup, measurement::WallTime};
use geo::{RegionId, Router};

const GROUP: &str = "plan";
const NAMES: &[&str] = &[
    "plan_3",
    "plan_13",
    "plan_100",
    "round_3",
    "round_13",
    "round_100",
    "sorted_3",
    "sorted_13",
    "sorted_100",
    "call_13",
];

/// A plan must be cheap enough for each request; one that looks at the order of 100 regions is rare and may cost more.
const PLAN_NS_MAX: f64 = 200.0;
const ROUND_OF_100_NS_MAX: f64 = 2_000.0;

const ROUND: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let figures = micro::run(GROUP, NAMES, |group| {
        [3, 13, 100].into_iter().try_for_each(|regions| plans(group, regions))?;
        call(group, 13)
    })?;
    let with_target = figures.into_iter().map(|figure| match figure.name.as_str() {
        "plan_3" | "plan_13" | "plan_100" => figure.at_most(PLAN_NS_MAX),
        "round_100" => figure.at_most(ROUND_OF_100_NS_MAX),
        _ => figure,
    });
    let figures: Vec<_> = with_target.collect();
    for figure in figures.iter().filter(|figure| figure.target.is_some()) {
        println!("{:<28} {}", figure.name, figure.verdict());
    }
    report::write(GROUP, &figures)
}

/// A router over regions that are all around the world, measured, the first two of them as close.
fn measured(regions: usize, now: Instant) -> Result<(Router, Vec<RegionId>)> {
    let names = (0..regions).map(|n| RegionId::new(format!("region-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let place =
        |n: usize| (60.0 - 120.0 * n as f64 / regions as f64, 170.0 - 340.0 * n as f64 / regions as f64);
    let builder =
        names.iter().enumerate().fold(Router::builder().from("eu-central").seed(1), |builder, (n, name)| {
            let (latitude, longitude) = place(n);
            builder.region_at(name, latitude, longitude)
        });
    let router = builder.build()?;
    for (n, name) in names.iter().enumerate() {
        for _ in 0..4 {
            router.observe(name, Duration::from_millis(20 + 3 * n as u64), now)?;
        }
    }
    Ok((router, names))
}

fn plans(group: &mut BenchmarkGroup<'_, WallTime>, regions: usize) -> Result<()> {
    let mut now = Instant::now();
    let (router, names) = measured(regions, now)?;
    let busy = router.begin(&router.plan(now).first().region, now)?;
    group.bench_function(format!("plan_{regions}"), |bencher| bencher.iter(|| router.plan(black_box(now))));
    drop(busy);

    let mut random = fastrand::Rng::with_seed(2);
    group.bench_function(format!("round_{regions}"), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                now += ROUND;
                let rtt = Duration::from_millis(random.u64(20..300));
                // The router knows all its regions.
                let _ = router.observe(&names[random.usize(..regions)], rtt, now);
                let began = Instant::now();
                black_box(router.plan(black_box(now)));
                spent += began.elapsed();
            }
            spent
        });
    });

    let mut rtts: Vec<(RegionId, f64)> =
        names.iter().map(|name| (name.clone(), random.f64() * 300.0)).collect();
    group.bench_function(format!("sorted_{regions}"), |bencher| {
        bencher.iter(|| {
            rtts[random.usize(..regions)].1 = random.f64() * 300.0;
            let mut sorted = black_box(&rtts).clone();
            sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
            sorted
        });
    });
    Ok(())
}

fn call(group: &mut BenchmarkGroup<'_, WallTime>, regions: usize) -> Result<()> {
    let now = Instant::now();
    let (router, _) = measured(regions, now)?;
    let rtt = Duration::from_millis(20);
    group.bench_function(format!("call_{regions}"), |bencher| {
        bencher.iter(|| {
            let plan = router.plan(now);
            if let Ok(call) = router.begin(&plan.first().region, now) {
                call.success(now + rtt);
            }
        });
    });
    Ok(())
}
