//! Who is worth asking: by the caller's word, by counting, and when all look unhealthy.

use std::{cell::RefCell, rc::Rc};

use super::*;

fn fail(router: &Router, region: &str, now: Instant) {
    router.begin(&id(region), now).unwrap().failure(now);
}

fn succeed(router: &Router, region: &str, now: Instant) {
    router.begin(&id(region), now).unwrap().success(now + ms(20));
}

#[test]
fn an_unhealthy_region_is_left_out_until_it_is_healthy() {
    let now = Instant::now();
    let router = three();
    router.set_health(&id("us-east"), Health::Unhealthy, now).unwrap();
    let plan = router.plan(now);
    assert_eq!(plan.to_string(), "eu-central (110 ms, by distance); ap-south (205 ms, by distance)");
    assert_eq!(plan.left_out(), [id("us-east")]);
    router.set_health(&id("us-east"), Health::Healthy, now).unwrap();
    assert_eq!(order(&router, now), ["us-east", "eu-central", "ap-south"]);
}

#[test]
fn a_region_on_probation_comes_after_the_healthy_and_before_the_drained() {
    let now = Instant::now();
    let router = three();
    router.set_health(&id("us-east"), Health::Probing, now).unwrap();
    router.drain(&id("eu-central"), true, now).unwrap();
    let standings: Vec<Standing> = router.plan(now).iter().map(|candidate| candidate.standing).collect();
    assert_eq!(standings, [Standing::Healthy, Standing::Probing, Standing::Drained]);
    assert_eq!(order(&router, now), ["ap-south", "us-east", "eu-central"]);
}

#[test]
fn a_region_that_goes_down_loses_its_measurements() {
    let now = Instant::now();
    let router = three();
    measure(&router, "ap-south", ms(2), 4, now);
    assert_eq!(order(&router, now)[0], "ap-south");
    router.set_health(&id("ap-south"), Health::Unhealthy, now).unwrap();
    router.set_health(&id("ap-south"), Health::Healthy, now).unwrap();
    assert_eq!(order(&router, now)[0], "us-east");
}

#[test]
fn if_all_look_unhealthy_the_best_is_named_and_flagged() {
    let now = Instant::now();
    let router = three();
    router.drain(&id("us-east"), true, now).unwrap();
    for region in ["us-east", "eu-central", "ap-south"] {
        router.set_health(&id(region), Health::Unhealthy, now).unwrap();
    }
    let plan = router.plan(now);
    assert!(plan.is_last_resort());
    assert_eq!(
        plan.to_string(),
        "eu-central (110 ms, by distance, last resort: all regions look unhealthy)",
        "the closest is drained"
    );
    assert_eq!(plan.left_out(), [id("ap-south"), id("us-east")]);
    assert_eq!(router.explain(now).regions[0].reason, Reason::LastResort);
    // The first that is back is the only one to ask.
    router.set_health(&id("ap-south"), Health::Healthy, now).unwrap();
    assert_eq!(order(&router, now), ["ap-south"]);
    assert!(!router.plan(now).is_last_resort());
}

#[test]
fn a_region_that_dies_is_out_within_three_failures_and_back_only_after_two_probes() {
    let mut now = Instant::now();
    let router = three();
    for failures in 1..=3 {
        assert_eq!(order(&router, now)[0], "us-east");
        fail(&router, "us-east", now);
        assert_eq!(router.plan(now).left_out().len(), usize::from(failures == 3));
    }
    // Time alone does not bring it back, nor does hearing from it otherwise.
    now += 3_600 * ROUND;
    router.observe(&id("us-east"), ms(1), now).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "ap-south"]);
    assert_eq!(router.explain(now).regions[2].reason, Reason::Failing);

    // One probe puts it on probation, a failure there puts it out again.
    assert_eq!(router.probe_due(now), Some(id("us-east")));
    succeed(&router, "us-east", now);
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    fail(&router, "us-east", now);
    assert_eq!(order(&router, now), ["eu-central", "ap-south"]);

    now += 5 * ROUND;
    for _ in 0..2 {
        assert_ne!(order(&router, now)[0], "us-east");
        succeed(&router, "us-east", now);
    }
    assert_eq!(order(&router, now), ["us-east", "eu-central", "ap-south"]);
    assert_eq!(router.probe_due(now + 60 * ROUND), None);
}

#[test]
fn a_late_success_neither_brings_a_region_back_nor_tells_of_the_way_there() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).probes(1).build().unwrap();
    let late = router.begin(&id("a"), now).unwrap();
    (0..3).for_each(|_| fail(&router, "a", now));
    late.success(now + ms(1));
    assert_eq!(order(&router, now), ["b"]);
    assert_eq!(router.explain(now).regions[1].samples, 0);
    assert_eq!(router.in_flight(&id("a")).unwrap(), 0, "it is not in flight any more all the same");
    succeed(&router, "a", now);
    assert_eq!(order(&router, now + ROUND), ["a", "b"]);
}

#[test]
fn a_late_failure_does_not_put_off_the_way_back() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).build().unwrap();
    let late = router.begin(&id("a"), now).unwrap();
    (0..3).for_each(|_| fail(&router, "a", now));
    succeed(&router, "a", now);
    late.failure(now);
    succeed(&router, "a", now);
    assert_eq!(router.plan(now).len(), 2);
}

#[test]
fn probes_that_are_due_are_handed_out_one_at_a_time_and_the_longest_waiting_first() {
    let now = Instant::now();
    let router = unplaced(&["a", "b", "c"]).failures(1).build().unwrap();
    fail(&router, "b", now);
    fail(&router, "a", now + ms(1));
    assert_eq!(router.probe_due(now + ms(4_999)), None);
    let later = now + ms(6_000);
    assert_eq!(router.probe_due(later), Some(id("b")));
    assert_eq!(router.probe_due(later + ms(1)), Some(id("a")));
    assert_eq!(router.probe_due(later + ms(1)), None);
    assert_eq!(router.probe_due(later + ms(5_001)), Some(id("b")), "nobody answered for it");
}

#[test]
fn the_worse_of_what_is_said_and_what_is_counted_holds() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).failures(1).probes(1).build().unwrap();
    router.set_health(&id("a"), Health::Healthy, now).unwrap();
    fail(&router, "a", now);
    assert_eq!(order(&router, now), ["b"]);
    router.set_health(&id("a"), Health::Unhealthy, now).unwrap();
    succeed(&router, "a", now);
    assert_eq!(order(&router, now), ["b"]);
    router.set_health(&id("a"), Health::Healthy, now).unwrap();
    assert_eq!(router.plan(now).len(), 2);
}

/// Counted out as well as said to be out, it stayed out for ever: a region that is out gets no calls to count.
#[test]
fn a_region_that_the_caller_declares_healthy_again_comes_back_though_its_failures_were_counted_too() {
    let mut now = Instant::now();
    let router = three();
    (0..3).for_each(|_| fail(&router, "us-east", now));
    router.set_health(&id("us-east"), Health::Unhealthy, now).unwrap();
    now += 60 * ROUND;
    assert_eq!(order(&router, now), ["eu-central", "ap-south"]);
    // Half-open, its breaker needs calls, so the region must be in the plan.
    router.set_health(&id("us-east"), Health::Probing, now).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    router.set_health(&id("us-east"), Health::Healthy, now).unwrap();
    assert_eq!(order(&router, now), ["us-east", "eu-central", "ap-south"]);
    assert_eq!(router.probe_due(now + 60 * ROUND), None);
    // From there on counting begins anew.
    (0..2).for_each(|_| fail(&router, "us-east", now));
    assert_eq!(router.plan(now).len(), 3);
    fail(&router, "us-east", now);
    assert_eq!(router.plan(now).left_out(), [id("us-east")]);
}

#[test]
fn a_region_that_counting_alone_put_out_comes_back_by_the_callers_word_though_said_before() {
    let now = Instant::now();
    let router = three();
    for _ in 0..2 {
        (0..3).for_each(|_| fail(&router, "us-east", now));
        assert_eq!(router.plan(now).left_out(), [id("us-east")]);
        router.set_health(&id("us-east"), Health::Healthy, now).unwrap();
        assert_eq!(order(&router, now)[0], "us-east");
    }
}

#[test]
fn with_health_by_the_caller_failures_are_the_callers_to_count() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).health_by_caller().build().unwrap();
    (0..50).for_each(|_| fail(&router, "a", now));
    assert_eq!(router.plan(now).len(), 2);
    assert_eq!(router.probe_due(now + 3_600 * ROUND), None);
}

/// A circuit breaker as a caller's might be: it hears of each end through the closure, and opens after `k` failures.
#[test]
fn a_callers_breaker_is_fed_through_the_closure_and_speaks_through_set_health() {
    let now = Instant::now();
    let router = Router::builder().from("us-east").region("us-east").region("eu-central").health_by_caller();
    let router = router.build().unwrap();
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let call = || {
        let plan = router.plan(now);
        let region = plan.first().region.clone();
        let (outcomes, name) = (Rc::clone(&outcomes), region.clone());
        router.begin_with(&region, now, move |outcome| outcomes.borrow_mut().push((name, outcome))).unwrap()
    };
    for _ in 0..3 {
        call().failure(now);
        let failures = outcomes.borrow().iter().filter(|(_, outcome)| *outcome == Outcome::Failure).count();
        if failures == 3 {
            router.set_health(&id("us-east"), Health::Unhealthy, now).unwrap();
        }
    }
    call().success(now + ms(90));
    call().end(Outcome::Ignored, now);
    call().end(Outcome::Overloaded, now);
    drop(call());
    let (dead, alive) = (id("us-east"), id("eu-central"));
    let expected = [
        (dead.clone(), Outcome::Failure),
        (dead.clone(), Outcome::Failure),
        (dead, Outcome::Failure),
        (alive.clone(), Outcome::Success),
        (alive.clone(), Outcome::Ignored),
        (alive.clone(), Outcome::Overloaded),
        (alive.clone(), Outcome::Cancelled),
    ];
    assert_eq!(*outcomes.borrow(), expected);
    assert_eq!(router.in_flight(&alive).unwrap(), 0);
    let explained = &router.explain(now).regions[0];
    assert_eq!((explained.samples, explained.measured), (1, Some(ms(90))));
}
