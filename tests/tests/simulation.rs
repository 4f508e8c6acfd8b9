//! The simulation of the replica protocol, held to its own claims.

use replication::sim::Rules;
use tests::sim::{
    Scenario,
    regression::{self, Regression},
    run,
};

#[test]
fn one_seed_run_twice_is_one_trace() {
    for seed in 0..6 {
        let twice = [(); 2].map(|()| run(&Scenario::of_seed(seed), Rules::ALL, 0));
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
}

#[test]
fn what_once_broke_holds() {
    let kept = regression::all().unwrap();
    assert!(!kept.is_empty(), "no regression in {}", regression::folder().display());
    for (name, Regression { was, scenario, .. }) in kept {
        if let Some(violation) = run(&scenario, Rules::ALL, 0).violation {
            panic!("{name} fails again ({was}): {violation}\n{scenario}");
        }
    }
}
