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

/// A region of which this share of the calls fails, at once, and else answers as the others do.
struct Broken {
    name: &'static str,
    share: f64,
}

/// Lets 40 s pass, with some 20 calls of 50 ms under way at any time. Of those to regions that are not broken one of
/// `good` fails too, after its 50 ms. Says how many calls there were, how many of them to broken regions, and how
/// many failed there.
fn run(router: &Router, broken: &[Broken], good: u64, start: Instant) -> (u32, u32, u32) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut working: Vec<(InFlight, bool)> = Vec::new();
    let (mut ends, mut sent, mut failed) = (0, 0, 0);
    for call_at in 1..=16_000 {
        let now = start + call_at * ms(50) / 20;
        let call = router.begin(&router.plan(now).first().region, now).unwrap();
        let broken = broken.iter().find(|broken| broken.name == call.region().as_str());
        sent += u32::from(broken.is_some());
        if broken.is_some_and(|broken| random.f64() < broken.share) {
            failed += 1;
            call.failure(now);
        } else {
            working.push((call, broken.is_none()));
        }
        if working.len() > 20 {
            let (call, is_good) = working.remove(0);
            ends += u64::from(is_good);
            let outcome = if is_good && ends % good == 0 { Outcome::Failure } else { Outcome::Success };
            call.end(outcome, now);
        }
    }
    (16_000, sent, failed)
}

/// By load alone a region that fails at once would be the least loaded of all, and get nearly every call.
#[test]
fn fast_errors_never_attract_calls() {
    for name in ["a", "b", "c"] {
        let now = Instant::now();
        let router = close(&["a", "b", "c"], now);
        let (_, sent, failed) = run(&router, &[Broken { name, share: 1.0 }], u64::MAX, now);
        assert_eq!(sent, failed);
        assert!(failed <= 4, "{failed} calls to {name} within 40 s");
        let explained = router.explain(now);
        let explained = explained.regions.iter().find(|region| region.region.as_str() == name).unwrap();
        assert_eq!((explained.samples, explained.measured), (4, Some(ms(50))), "an error is no round trip");
    }
}

/// If the last failure alone were counted, then at this rate all would be suspect, always, and load would decide.
#[test]
fn fast_errors_attract_no_calls_though_good_regions_fail_now_and_then_too() {
    for good in [2_000, 200, 50] {
        for name in ["a", "b", "c"] {
            for share in [0.2, 0.6, 1.0] {
                let now = Instant::now();
                let router = close(&["a", "b", "c"], now);
                let (calls, sent, failed) = run(&router, &[Broken { name, share }], good, now);
                // A third would be its part; what it gets is a try whenever its failures have faded.
                let what = format!("{name} fails {share}, others 1 of {good}: {sent} sent, {failed} failed");
                assert!(sent <= calls / 30, "{what}");
                assert!(failed <= 40, "{what}");
            }
        }
    }
}

#[test]
fn fast_errors_too_few_to_tell_from_chance_attract_no_calls_either() {
    for name in ["a", "b", "c"] {
        let now = Instant::now();
        let router = close(&["a", "b", "c"], now);
        let (calls, sent, _) = run(&router, &[Broken { name, share: 0.03 }], 200, now);
        let (_, even, _) = run(&close(&["a", "b", "c"], now), &[Broken { name, share: 0.0 }], 200, now);
        assert!(sent <= even + calls / 100, "{name}: {sent} of {calls}, {even} if none failed");
    }
}

#[test]
fn of_several_that_fail_at_once_none_is_chosen_while_another_is_sound() {
    let now = Instant::now();
    let router = close(&["a", "b", "c", "d"], now);
    let broken = ["a", "b", "c"].map(|name| Broken { name, share: 0.6 });
    let (calls, sent, failed) = run(&router, &broken, 200, now);
    assert!(sent <= calls / 10 && failed <= 120, "{sent} of {calls} sent, {failed} failed");
}

#[test]
fn where_all_fail_alike_load_decides() {
    let now = Instant::now();
    let router = close(&["a", "b", "c"], now);
    for name in ["a", "b", "c"] {
        (0..20).for_each(|_| router.begin(&id(name), now).unwrap().failure(now));
    }
    let now = now + ROUND;
    assert!(router.explain(now).regions.iter().all(|region| region.failed > 0.9 && !region.suspect));
    assert_eq!(first(&router, now), "a");
    let _busy = router.begin(&id("a"), now).unwrap();
    assert_ne!(first(&router, now), "a");
}

#[test]
fn a_first_choice_that_failed_lately_is_passed_over_while_another_is_as_close() {
    let now = Instant::now();
    let router = close(&["a", "b"], now);
    router.begin(&id("a"), now).unwrap().end(Outcome::Overloaded, now);
    let _busy: Vec<InFlight> = (0..5).map(|_| router.begin(&id("b"), now).unwrap()).collect();
    let explained = router.explain(now + ROUND).regions.swap_remove(0);
    assert!(explained.suspect && explained.to_string().ends_with("; 44 % failed lately"), "{explained}");
    assert_eq!(first(&router, now + ms(12_700)), "b");
    assert_eq!(first(&router, now + ms(12_800)), "a");
}

#[test]
fn one_failure_among_many_calls_does_not_make_a_region_suspect() {
    let now = Instant::now();
    let router = close(&["a", "b"], now);
    (0..99).for_each(|_| router.begin(&id("a"), now).unwrap().success(now + ms(50)));
    router.begin(&id("a"), now).unwrap().failure(now + ms(50));
    assert_eq!(first(&router, now + ms(50)), "a");
    assert!(!router.explain(now + ms(50)).regions[0].suspect);
}
