//! The order by estimates, and how the first choice is held on to.

use super::*;
use crate::{Basis, catalog};

#[test]
fn the_catalogue_places_regions_by_name() {
    assert_eq!(
        three().plan(Instant::now()).to_string(),
        "us-east (12 ms, by distance); eu-central (110 ms, by distance); ap-south (205 ms, by distance)"
    );
}

#[test]
fn a_region_of_unknown_place_comes_after_the_known_until_it_is_measured() {
    let now = Instant::now();
    let router = Router::builder().from("us-east").region("basement").region("ap-south").build().unwrap();
    assert_eq!(
        router.plan(now).to_string(),
        "ap-south (205 ms, by distance); basement (place unknown, not measured)"
    );
    assert_eq!(router.explain(now).regions[1].reason, Reason::Unknown);
    router.observe(&id("basement"), ms(1), now).unwrap();
    assert_eq!(order(&router, now + ROUND), ["basement", "ap-south"]);
    assert_eq!(order(&router, now + ms(1_200_000)), ["ap-south", "basement"], "the measurement has aged out");
}

#[test]
fn a_router_in_an_unknown_place_goes_by_round_trips_alone() {
    let now = Instant::now();
    let router = Router::builder().from("basement").region("us-east").region("eu-central").build().unwrap();
    assert!(router.plan(now).iter().all(|candidate| candidate.basis == Basis::Nothing));
    router.observe(&id("us-east"), ms(90), now).unwrap();
    assert_eq!(order(&router, now + ROUND), ["us-east", "eu-central"]);
    router.observe(&id("eu-central"), ms(20), now).unwrap();
    // The first is measured by now and held on to for three rounds.
    assert_eq!(order(&router, now + 4 * ROUND), ["us-east", "eu-central"]);
    assert_eq!(order(&router, now + 5 * ROUND), ["us-east", "eu-central"]);
    assert_eq!(order(&router, now + 6 * ROUND), ["eu-central", "us-east"]);
}

#[test]
fn the_order_is_looked_at_once_a_round() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).build().unwrap();
    assert_eq!(order(&router, now), ["a", "b"]);
    measure(&router, "b", ms(10), 4, now);
    assert_eq!(order(&router, now + ROUND - ms(1)), ["a", "b"]);
    assert_eq!(order(&router, now + ROUND), ["b", "a"]);
}

#[test]
fn a_first_choice_gives_way_only_to_one_that_is_ahead_by_the_margin_for_three_rounds() {
    let start = Instant::now();
    let router = unplaced(&["a", "b"]).build().unwrap();
    measure(&router, "a", ms(100), 4, start);
    measure(&router, "b", ms(200), 4, start);
    assert_eq!(order(&router, start), ["a", "b"]);

    // 10 ms ahead is the margin, not more than it.
    measure(&router, "b", ms(90), 60, start);
    for round in 1..20 {
        assert_eq!(order(&router, start + round * ROUND)[0], "a");
    }
    let held = router.explain(start + 20 * ROUND).regions[0].reason;
    assert!(matches!(held, Reason::Held { behind: 0, rounds: 3, .. }), "{held:?}");

    measure(&router, "b", ms(50), 60, start);
    for (round, first, behind) in [(21, "a", Some(1)), (22, "a", Some(2)), (23, "b", None)] {
        let now = start + round * ROUND;
        assert_eq!(order(&router, now)[0], first, "round {round}");
        let rounds = match router.explain(now).regions[0].reason {
            Reason::Held { behind, .. } => Some(behind),
            _ => None,
        };
        assert_eq!(rounds, behind);
        // Looking again within the round is not another round.
        assert_eq!(order(&router, now + ms(1))[0], first);
    }
}

#[test]
fn rounds_in_which_the_first_is_good_enough_start_the_count_anew() {
    let start = Instant::now();
    let router = unplaced(&["a", "b"]).weight(1.0).build().unwrap();
    measure(&router, "a", ms(100), 4, start);
    measure(&router, "b", ms(150), 4, start);
    assert_eq!(order(&router, start)[0], "a");
    for round in 1..=40u32 {
        // Two rounds well ahead, one round not.
        measure(&router, "b", if round % 3 == 0 { ms(99) } else { ms(20) }, 4, start);
        assert_eq!(order(&router, start + round * ROUND)[0], "a", "round {round}");
    }
}

#[test]
fn a_change_that_does_not_wait_for_a_round_is_none() {
    let start = Instant::now();
    let router = unplaced(&["a", "b", "c"]).build().unwrap();
    measure(&router, "a", ms(100), 4, start);
    measure(&router, "b", ms(200), 4, start);
    assert_eq!(order(&router, start)[0], "a");
    measure(&router, "b", ms(20), 60, start);
    for change in 0..20 {
        router.drain(&id("c"), change % 2 == 0, start).unwrap();
        assert_eq!(order(&router, start)[0], "a");
    }
}

#[test]
fn a_first_choice_that_goes_down_is_not_held_on_to() {
    let now = Instant::now();
    let router = unplaced(&["a", "b"]).build().unwrap();
    measure(&router, "a", ms(10), 4, now);
    measure(&router, "b", ms(200), 4, now);
    assert_eq!(order(&router, now)[0], "a");
    router.set_health(&id("a"), Health::Unhealthy, now).unwrap();
    assert_eq!(order(&router, now), ["b"]);
    // Back and unmeasured, it comes after the known; measured, it has to win its place again.
    router.set_health(&id("a"), Health::Healthy, now).unwrap();
    assert_eq!(order(&router, now), ["b", "a"]);
    measure(&router, "a", ms(10), 4, now);
    for (round, first) in [(1, "b"), (2, "b"), (3, "a")] {
        assert_eq!(order(&router, now + round * ROUND)[0], first);
    }
}

#[test]
fn a_drained_region_comes_last_but_before_nobody() {
    let now = Instant::now();
    let router = three();
    router.drain(&id("us-east"), true, now).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    for region in ["eu-central", "ap-south"] {
        router.set_health(&id(region), Health::Unhealthy, now).unwrap();
    }
    let plan = router.plan(now);
    assert_eq!(plan.to_string(), "us-east (12 ms, by distance, drained)");
    assert!(!plan.is_last_resort());
    router.drain(&id("us-east"), false, now).unwrap();
    assert_eq!(router.plan(now).first().standing, Standing::Healthy);
}

#[test]
fn equally_good_regions_keep_their_order() {
    let now = Instant::now();
    let same = |names: [&str; 2]| {
        let builder = Router::builder().from("us-east");
        names.into_iter().fold(builder, |builder, name| builder.region(name)).build().unwrap()
    };
    assert_eq!(order(&same(["us-east-1", "eastus"]), now), ["eastus", "us-east-1"]);
    assert_eq!(order(&same(["eastus", "us-east-1"]), now), ["eastus", "us-east-1"]);
}

#[test]
fn a_region_may_be_added_later_but_not_twice() {
    let now = Instant::now();
    let router = three();
    assert_eq!(order(&router, now).len(), 3);
    let dublin = catalog::find("eu-west").unwrap().location;
    router.add(id("eu-west"), Some(dublin)).unwrap();
    assert_eq!(order(&router, now)[1], "eu-west");
    let error = router.add(id("eu-west"), None).unwrap_err();
    assert_eq!(error.to_string(), "`region`: eu-west is given twice; name each region once");
    assert_eq!(router.regions().len(), 4);
}

#[test]
fn an_unknown_region_is_refused_with_the_known_ones() {
    let now = Instant::now();
    let router = three();
    let mars = id("mars");
    let message = "unknown region mars; the router knows us-east, eu-central, ap-south";
    assert_eq!(router.observe(&mars, ms(1), now).unwrap_err().to_string(), message);
    assert_eq!(router.set_health(&mars, Health::Unhealthy, now).unwrap_err().to_string(), message);
    assert_eq!(router.drain(&mars, true, now).unwrap_err().to_string(), message);
    assert_eq!(router.begin(&mars, now).unwrap_err().to_string(), message);
    let error = router.begin(&id("us-esat"), now).unwrap_err();
    assert_eq!(error.nearest(), ["us-east"]);
}

#[test]
fn the_explanation_shows_what_each_place_rests_on() {
    let now = Instant::now();
    let router = three();
    router.add(id("basement"), None).unwrap();
    router.observe(&id("eu-central"), ms(88), now).unwrap();
    router.set_health(&id("ap-south"), Health::Unhealthy, now).unwrap();
    router.drain(&id("us-east"), true, now).unwrap();
    let call = router.begin(&id("eu-central"), now).unwrap();
    let explanation = router.explain(now + ms(3_000));
    let lines = [
        " 1. eu-central: healthy, 105 ms (25 % measured); 6549 km suggest 110 ms; 88 ms over 1 sample, 3 s ago; \
         1 in flight",
        " 2. basement: healthy, place unknown, not measured; after those that are known",
        " 3. us-east: healthy, 12 ms (by distance); 0 km suggest 12 ms; drained: after all others",
        " -. ap-south: unhealthy, 205 ms (by distance); 12854 km suggest 205 ms; left out: said to be unhealthy",
    ];
    assert_eq!(explanation.to_string().lines().collect::<Vec<_>>(), lines);
    assert_eq!(explanation.regions[2].place, Some((3, Standing::Drained)));
    assert_eq!(explanation.regions[0].in_flight, 1);
    drop(call);
}

#[test]
fn extreme_round_trips_neither_panic_nor_hide_a_region() {
    let now = Instant::now();
    let router = three();
    for rtt in [Duration::ZERO, Duration::MAX, Duration::MAX, Duration::MAX, Duration::MAX] {
        router.observe(&id("us-east"), rtt, now).unwrap();
    }
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    assert!(!router.explain(now).to_string().is_empty());
}

#[test]
fn a_plan_stays_as_it_is_while_the_router_changes() {
    let now = Instant::now();
    let router = three();
    let plans: Vec<Plan> = (0..8)
        .map(|round| {
            let plan = router.plan(now + round * ROUND);
            let health = if round % 2 == 0 { Health::Unhealthy } else { Health::Healthy };
            router.set_health(&id("us-east"), health, now + round * ROUND).unwrap();
            plan
        })
        .collect();
    for (round, plan) in plans.iter().enumerate() {
        let expected = if round % 2 == 0 { "us-east" } else { "eu-central" };
        assert_eq!(plan.first().region.as_str(), expected);
        assert_eq!(plan.len() + plan.left_out().len(), 3);
    }
}

#[test]
fn a_clock_that_steps_back_changes_nothing() {
    let now = Instant::now() + 100 * ROUND;
    let router = three();
    measure(&router, "us-east", ms(3), 4, now);
    assert_eq!(order(&router, now)[0], "us-east");
    assert_eq!(order(&router, now - 50 * ROUND)[0], "us-east");
    let call = router.begin(&id("us-east"), now).unwrap();
    call.success(now - 10 * ROUND);
    assert_eq!(router.in_flight(&id("us-east")).unwrap(), 0);
}
