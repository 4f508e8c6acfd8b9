//! A plan costs no memory once the router has its own.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::time::{Duration, Instant};

use allocation_counter::measure;
use geo::{RegionId, Router};

fn router(regions: usize) -> (Router, Vec<RegionId>) {
    let names: Vec<RegionId> = (0..regions).map(|n| format!("r{n}").parse().unwrap()).collect();
    let builder =
        names.iter().enumerate().fold(Router::builder().from("eu-central"), |builder, (n, name)| {
            builder.region_at(name, -80.0 + 1.5 * n as f64, 170.0 - 3.0 * n as f64)
        });
    (builder.build().unwrap(), names)
}

#[test]
fn a_plan_and_a_call_allocate_nothing_after_warm_up() {
    for regions in [1, 3, 13, 100] {
        let (router, names) = router(regions);
        let mut now = Instant::now();
        let mut request = |n: usize| {
            let region = {
                let plan = router.plan(now);
                assert_eq!(plan.iter().count(), regions);
                plan.first().region.clone()
            };
            router.observe(&names[n % regions], Duration::from_millis(1 + n as u64 % 300), now).unwrap();
            let call = router.begin(&region, now).unwrap();
            // Half a round, so that every other plan is made of a fresh ranking.
            now += Duration::from_millis(500);
            call.success(now);
        };
        (0..10).for_each(&mut request);
        let info = measure(|| (0..1_000).for_each(&mut request));
        assert_eq!(info.count_total, 0, "{regions} regions: {info:?}");
    }
}

#[test]
fn a_plan_that_is_kept_costs_one_ranking_and_is_not_written_over() {
    let (router, _) = router(13);
    let start = Instant::now();
    for round in 0..10 {
        router.plan(start + round * Duration::from_secs(1));
    }
    let kept = router.plan(start + Duration::from_secs(20));
    let before = kept.to_string();
    let info = measure(|| {
        for round in 21..40 {
            router.plan(start + round * Duration::from_secs(1));
        }
    });
    assert_eq!(kept.to_string(), before);
    assert!(info.count_total <= 10, "one fresh ranking, then the two are enough again: {info:?}");
}
