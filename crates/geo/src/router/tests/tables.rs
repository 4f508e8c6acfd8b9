//! What two clouds' measured round trips say of the guess by distance, and of the order once they are known.

use super::{
    rtt::{AWS, IBM, Table},
    *,
};
use crate::Basis;

fn router_in(table: &Table, city: &str) -> (Router, usize) {
    let from = table.cities.iter().position(|(name, ..)| *name == city).unwrap();
    (router(table, from), from)
}

fn measure_all(router: &Router, table: &Table, from: usize, samples: usize, now: Instant) {
    for (to, (name, ..)) in table.cities.iter().enumerate().filter(|(to, _)| *to != from) {
        measure(router, name, ms(table.rtt_ms[from][to]), samples, now);
    }
}

fn rtts_in_order(router: &Router, table: &Table, from: usize, now: Instant) -> Vec<u64> {
    let column = |name: &str| table.cities.iter().position(|(city, ..)| *city == name).unwrap();
    order(router, now).iter().map(|name| table.rtt_ms[from][column(name)]).collect()
}

#[test]
fn distance_alone_picks_the_fastest_region_23_times_of_26() {
    let now = Instant::now();
    let mut right = 0;
    for table in [&AWS, &IBM] {
        for from in 0..13 {
            let rtts = rtts_in_order(&router(table, from), table, from, now);
            right += u32::from(rtts[0] == *rtts.iter().min().unwrap());
        }
    }
    assert_eq!(right, 23);
}

#[test]
fn canada_is_closest_to_northern_virginia_by_distance_and_by_round_trip() {
    let now = Instant::now();
    let (router, from) = router_in(&AWS, "n-virginia");
    assert_eq!(order(&router, now)[0], "canada");
    assert_eq!(router.plan(now).first().basis, Basis::Distance);
    measure_all(&router, &AWS, from, 4, now);
    assert_eq!(router.plan(now + ROUND).first().to_string(), "canada (14 ms, measured)");
}

#[test]
fn mumbais_second_choice_becomes_london_once_round_trips_are_observed() {
    let now = Instant::now();
    let (router, from) = router_in(&IBM, "mumbai");
    assert_eq!(order(&router, now)[..2], ["chennai", "osaka"]);
    measure_all(&router, &IBM, from, 4, now);
    assert_eq!(order(&router, now + ROUND)[..2], ["chennai", "london"]);
}

#[test]
fn sydney_turns_from_sao_paulo_to_dallas_though_it_is_farther() {
    let now = Instant::now();
    let (router, from) = router_in(&IBM, "sydney");
    let before = |a: &str, b: &str, now| {
        let order = order(&router, now);
        order.iter().position(|name| name == a) < order.iter().position(|name| name == b)
    };
    assert!(before("sao-paulo", "dallas", now));
    measure_all(&router, &IBM, from, 4, now);
    assert!(before("dallas", "sao-paulo", now + ROUND));
}

#[test]
fn after_samples_the_order_is_that_of_the_true_round_trips_everywhere() {
    let now = Instant::now();
    for table in [&AWS, &IBM] {
        for from in 0..13 {
            let router = router(table, from);
            let _by_distance = router.plan(now);
            measure_all(&router, table, from, 4, now);
            let rtts = rtts_in_order(&router, table, from, now + ROUND);
            assert!(rtts.is_sorted(), "from {}: {rtts:?}", table.cities[from].0);
        }
    }
}

#[test]
fn old_measurements_give_way_to_distance_again() {
    let now = Instant::now();
    let (router, from) = router_in(&IBM, "mumbai");
    let by_distance = router.order(now);
    measure_all(&router, &IBM, from, 4, now);
    assert_ne!(router.order(now + ms(600_000)), by_distance);
    assert_eq!(router.order(now + ms(1_200_000)), by_distance);
}
