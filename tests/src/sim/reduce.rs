//! Makes a failing scenario small enough to be read.
//!
//! First whole families of faults are switched off and bounds widened, then nodes left out, then the schedule is taken
//! apart line by line; then all of it again, since what was needed at first may not be any more. Each step is kept only
//! if the same invariant is still broken. The fate of a frame depends on its link and its moment alone, so that what is
//! left out does not reshuffle the rest.

use replication::sim::{Action, Link, Rules};

use super::{
    run::run,
    scenario::{NodePlan, Scenario},
    shrink::{Trials, minimize},
};

/// How many runs a reduction may take.
const TRIALS: u32 = 1_500;

/// A way to make a scenario simpler.
type Simplify = fn(&mut Scenario);

/// Makes `scenario`, which breaks `invariant` under these rules, smaller. The same always comes out.
pub fn reduce(scenario: &Scenario, rules: Rules, invariant: &str) -> Scenario {
    let fails = |candidate: &Scenario| {
        run(candidate, rules, 0).violation.is_some_and(|violation| violation.invariant == invariant)
    };
    reduce_by(scenario, &mut Trials::new(TRIALS), fails)
}

/// Makes `scenario`, which fails, smaller.
pub fn reduce_by(
    scenario: &Scenario,
    trials: &mut Trials,
    mut fails: impl FnMut(&Scenario) -> bool,
) -> Scenario {
    let mut kept = scenario.clone();
    loop {
        let before = kept.clone();
        for simplify in SIMPLER {
            let mut candidate = kept.clone();
            simplify(&mut candidate);
            keep_if(&mut kept, candidate, trials, &mut fails);
        }
        for node in (0..kept.nodes.len()).rev() {
            let candidate = without_node(&kept, node);
            keep_if(&mut kept, candidate, trials, &mut fails);
        }
        let schedule = kept.schedule.clone();
        kept.schedule =
            minimize(schedule, trials, |lines| fails(&Scenario { schedule: lines.to_vec(), ..kept.clone() }));
        if kept == before {
            return kept;
        }
    }
}

fn keep_if(
    kept: &mut Scenario,
    candidate: Scenario,
    trials: &mut Trials,
    fails: &mut impl FnMut(&Scenario) -> bool,
) {
    if candidate != *kept && trials.take() && fails(&candidate) {
        *kept = candidate;
    }
}

const SIMPLER: &[Simplify] = &[
    |scenario| scenario.link = scenario.link.without_faults(),
    |scenario| scenario.link = Link::delay(1, 1),
    |scenario| scenario.link.corrupt = 0.0,
    |scenario| scenario.link.duplicate = 0.0,
    |scenario| scenario.link.late = 0.0,
    |scenario| scenario.link.drop = 0.0,
    |scenario| scenario.schedule.retain(|(_, action)| !is_of_network(action)),
    |scenario| scenario.schedule.retain(|(_, action)| !is_of_process(action)),
    |scenario| scenario.schedule.retain(|(_, action)| !is_of_pace(action)),
    |scenario| scenario.schedule.retain(|(_, action)| !is_of_clock(action)),
    |scenario| scenario.schedule.retain(|(_, action)| !matches!(action, Action::Read { .. })),
    |scenario| scenario.schedule.retain(|(_, action)| !matches!(action, Action::Clear { .. })),
    |scenario| scenario.schedule.retain(|(_, action)| !matches!(action, Action::Remove { .. })),
    |scenario| scenario.schedule.iter_mut().for_each(|(_, action)| live_for_ever(action)),
    |scenario| scenario.schedule.iter_mut().for_each(|(_, action)| unpad(action)),
    |scenario| each(scenario, |node, _| node.skew_ms = 0),
    |scenario| each(scenario, |node, _| node.bootstrap = true),
    |scenario| each(scenario, |node, usual| node.capacity = usual.capacity),
    |scenario| each(scenario, |node, usual| node.graves_max = usual.graves_max),
    |scenario| each(scenario, |node, usual| node.outbox_bytes_max = usual.outbox_bytes_max),
    |scenario| each(scenario, |node, usual| node.ring_bytes_max = usual.ring_bytes_max),
    |scenario| each(scenario, |node, usual| node.page_bytes = usual.page_bytes),
    |scenario| each(scenario, |node, usual| node.preview_bytes = usual.preview_bytes),
    |scenario| each(scenario, |node, _| node.preview_bytes = 0),
    |scenario| each(scenario, |node, usual| node.sync_bytes_per_s = usual.sync_bytes_per_s),
    |scenario| each(scenario, |node, usual| node.scrub_samples = usual.scrub_samples),
    |scenario| each(scenario, |node, _| node.scrub_samples = 0),
    |scenario| each(scenario, |node, usual| node.control_max = usual.control_max),
    |scenario| each(scenario, |node, usual| node.control_bytes_max = usual.control_bytes_max),
    |scenario| each(scenario, |node, usual| node.pull_frames_max = usual.pull_frames_max),
    |scenario| each(scenario, |node, usual| node.inbox_frames_max = usual.inbox_frames_max),
    |scenario| each(scenario, |node, usual| node.retire_ms = usual.retire_ms),
    |scenario| each(scenario, |node, usual| node.window = usual.window),
    |scenario| each(scenario, |node, usual| node.confirm_ms = usual.confirm_ms),
    |scenario| scenario.regions = scenario.nodes.len(),
];

fn each(scenario: &mut Scenario, change: impl Fn(&mut NodePlan, &NodePlan)) {
    let usual = NodePlan::default();
    scenario.nodes.iter_mut().for_each(|node| change(node, &usual));
}

fn is_of_network(action: &Action) -> bool {
    matches!(
        action,
        Action::Cut { .. }
            | Action::Mend { .. }
            | Action::Partition { .. }
            | Action::Heal
            | Action::SetLink { .. }
    )
}

fn is_of_process(action: &Action) -> bool {
    matches!(action, Action::Crash { .. } | Action::Start { .. })
}

fn is_of_pace(action: &Action) -> bool {
    matches!(
        action,
        Action::Pause { .. }
            | Action::Resume { .. }
            | Action::Slow { .. }
            | Action::Disconnect { .. }
            | Action::Connect { .. }
    )
}

fn is_of_clock(action: &Action) -> bool {
    matches!(action, Action::Step { .. } | Action::Rate { .. })
}

fn live_for_ever(action: &mut Action) {
    if let Action::Put { ttl_ms, .. } = action {
        *ttl_ms = None;
    }
}

fn unpad(action: &mut Action) {
    if let Action::Put { value, .. } = action {
        value.truncate(value.trim_end_matches('.').len());
    }
}

/// The scenario without one of its nodes and whatever names it.
fn without_node(scenario: &Scenario, gone: usize) -> Scenario {
    let mut less = scenario.clone();
    if less.nodes.len() <= 2 {
        return less;
    }
    less.nodes.remove(gone);
    less.regions = less.regions.min(less.nodes.len());
    let lines = less.schedule.drain(..).filter_map(|(at_ms, action)| {
        let action = renumbered(action, gone)?;
        Some((at_ms, action))
    });
    less.schedule = lines.collect();
    less
}

/// The action with the numbers of the nodes after `gone` one lower; `None` where it is about that node.
fn renumbered(mut action: Action, gone: usize) -> Option<Action> {
    let lower = |node: &mut usize| *node -= usize::from(*node > gone);
    match &mut action {
        Action::Partition { left, right } => {
            for side in [left, right] {
                side.retain(|node| *node != gone);
                side.iter_mut().for_each(lower);
            }
            return Some(action);
        }
        named if named.nodes().contains(&gone) => return None,
        Action::Put { node, .. }
        | Action::Remove { node, .. }
        | Action::Clear { node, .. }
        | Action::Read { node, .. }
        | Action::Crash { node }
        | Action::Start { node }
        | Action::Pause { node }
        | Action::Resume { node }
        | Action::Slow { node, .. }
        | Action::Disconnect { node }
        | Action::Connect { node }
        | Action::Step { node, .. }
        | Action::Rate { node, .. } => lower(node),
        Action::Cut { from, to } | Action::Mend { from, to } | Action::SetLink { from, to, .. } => {
            lower(from);
            lower(to);
        }
        _ => {}
    }
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_planted_failure_only_what_it_needs_stays() {
        let scenario = Scenario::of_seed(3);
        let needed = scenario.schedule[scenario.schedule.len() / 2].clone();
        let fails = |candidate: &Scenario| candidate.schedule.iter().any(|(at_ms, _)| *at_ms == needed.0);
        let reduced = reduce_by(&scenario, &mut Trials::new(10_000), fails);
        assert_eq!(reduced.schedule.len(), 1);
        assert_eq!(reduced.nodes.len(), 2);
        assert!(reduced.link == Link::delay(1, 1) && reduced.nodes.iter().all(|node| node.skew_ms == 0));
    }

    #[test]
    fn without_a_node_the_others_do_what_they_did() {
        let mut scenario = Scenario::of_seed(1);
        scenario.nodes = vec![NodePlan::default(); 3];
        scenario.schedule = vec![
            (1, Action::put(0, "00", "v")),
            (2, Action::put(1, "00", "v")),
            (3, Action::put(2, "00", "v")),
            (4, Action::Cut { from: 0, to: 2 }),
            (5, Action::partition([0, 1], [2])),
        ];
        let less = without_node(&scenario, 1);
        let expected = vec![
            (1, Action::put(0, "00", "v")),
            (3, Action::put(1, "00", "v")),
            (4, Action::Cut { from: 0, to: 1 }),
            (5, Action::partition([0], [1])),
        ];
        assert_eq!((less.nodes.len(), less.schedule), (2, expected));
    }
}
