//! Who of those as close as the first gets the next call.

use std::collections::BTreeMap;

use super::*;

fn close(names: &[&str], now: Instant) -> Router {
    let router = unplaced(names).health_by_caller().build().unwrap();
    for name in names {
        measure(&router, name, ms(50), 4, now);
    }
    router
}

fn first(router: &Router, now: Instant) -> String {
    router.plan(now).first().region.to_string()
}

#[test]
fn with_nothing_in_flight_a_plan_begins_with_the_first_choice() {
    let now = Instant::now();
    let router = close(&["a", "b", "c", "d"], now);
    for _ in 0..1_000 {
        assert_eq!(first(&router, now), "a");
    }
}

#[test]
fn calls_under_way_spread_over_regions_as_close_as_the_first() {
    let now = Instant::now();
    let router = close(&["a", "b", "c"], now);
    measure(&router, "c", ms(50), 4, now);
    router.add(id("far"), None).unwrap();
    measure(&router, "far", ms(56), 4, now);
    let calls: Vec<InFlight> =
        (0..300).map(|_| router.begin(&router.plan(now).first().region, now).unwrap()).collect();
    for (region, least, most) in [("a", 95, 105), ("b", 80, 120), ("c", 80, 120), ("far", 0, 0)] {
        let in_flight = router.in_flight(&id(region)).unwrap();
        assert!((least..=most).contains(&in_flight), "{region}: {in_flight}");
    }
    drop(calls);
    assert_eq!(first(&router, now), "a");
}

#[test]
fn each_plan_holds_all_candidates_whichever_it_begins_with() {
    let now = Instant::now();
    let router = close(&["a", "b", "c"], now);
    let mut begun = BTreeMap::new();
    let _busy = router.begin(&id("a"), now).unwrap();
    for _ in 0..100 {
        let plan = router.plan(now);
        let mut names: Vec<&str> = plan.iter().map(|candidate| candidate.region.as_str()).collect();
        *begun.entry(names[0].to_owned()).or_insert(0) += 1;
        assert!(names[1..].is_sorted(), "{names:?}");
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);
    }
    assert_eq!(begun.keys().collect::<Vec<_>>(), ["b", "c"], "{begun:?}");
}

#[test]
fn without_balance_each_plan_begins_with_the_first_choice() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).balance(false).build().unwrap();
    measure(&router, "a", ms(50), 4, now);
    measure(&router, "b", ms(50), 4, now);
    let _calls: Vec<InFlight> = (0..50).map(|_| router.begin(&id("a"), now).unwrap()).collect();
    assert_eq!(first(&router, now), "a");
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let choices = || {
        let now = Instant::now();
        let router = close(&["a", "b", "c", "d", "e"], now);
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(router.begin(&router.plan(now).first().region, now).unwrap());
        }
        calls.iter().map(|call| call.region().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(choices(), choices());
}

/// By load alone a region that fails at once would be the least loaded of all, and get nearly every call.
#[test]
fn fast_errors_never_attract_calls() {
    let mut now = Instant::now();
    let router = close(&["a", "b", "broken"], now);
    let mut working: Vec<InFlight> = Vec::new();
    let mut failed = 0;
    for _ in 0..1_000 {
        // Twenty calls are under way at any time, each takes 50 ms; but the broken region's fail at once.
        now += ms(50) / 20;
        let call = router.begin(&router.plan(now).first().region, now).unwrap();
        if call.region().as_str() == "broken" {
            failed += 1;
            call.failure(now);
        } else {
            working.push(call);
        }
        if working.len() > 20 {
            working.remove(0).success(now);
        }
    }
    assert!(failed <= 1, "{failed} calls within 2.5 s");
    let broken = router.explain(now);
    let broken = broken.regions.iter().find(|region| region.region.as_str() == "broken").unwrap();
    assert_eq!((broken.samples, broken.measured), (4, Some(ms(50))), "an error is no round trip");
    assert!(broken.suspect);
}

#[test]
fn a_first_choice_that_failed_lately_is_passed_over_while_another_is_as_close() {
    let now = Instant::now();
    let router = close(&["a", "b"], now);
    router.begin(&id("a"), now).unwrap().end(Outcome::Overloaded, now);
    let _busy: Vec<InFlight> = (0..5).map(|_| router.begin(&id("b"), now).unwrap()).collect();
    assert_eq!(first(&router, now + ms(9_999)), "b");
    assert_eq!(first(&router, now + ms(10_000)), "a");
}
