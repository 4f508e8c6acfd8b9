//! The world itself: what it promises to those who test with it.

use super::*;

fn busy(seed: u64) -> World {
    let mut world = World::of_regions(seed, ["us-east", "eu-central", "ap-south"]);
    world.set_links(Link { drop: 0.1, duplicate: 0.1, late: 0.2, corrupt: 0.05, ..Link::delay(1, 60) });
    for n in 0..40u64 {
        let node = (n % 3) as usize;
        world.at(n * 50, Action::put(node, format!("k{}", n % 7), n.to_string()));
    }
    world.at(700, Action::Crash { node: 1 });
    world.at(1_200, Action::Start { node: 1 });
    world
}

#[test]
fn one_seed_run_twice_gives_one_trace() {
    let hash = |seed| {
        let mut world = busy(seed);
        world.run_ms(10_000);
        world.trace_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_write_reaches_every_region() {
    let mut world = busy(3);
    world.run_until(3_000);
    world.calm();
    assert!(world.until(30_000, |world| world.converged()).is_some(), "{:?}", world.differences());
}
