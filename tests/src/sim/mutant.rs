//! Deliberate faults of the protocol: each rule is switched off until an invariant notices.
//!
//! A rule that is missed by nothing would be a rule that nobody needs, or a simulation that looks away.

use std::{ops::Range, time::Duration};

use replication::sim::Rules;

use super::{
    Scenario, Violation,
    campaign::{Campaign, run_seeds},
};

/// Rules that may be left out: a pull is only the cheap way to what a sync brings as well.
const EXEMPT: &[&str] = &["pull"];

/// Rules that the scrub makes up for in the end, so that they are missed only where it is off as well.
const WITHOUT_SCRUB: &[&str] = &["dead_stream", "own_old_epochs"];

/// A rule that was switched off, and what came of it.
#[derive(Debug)]
pub struct Mutant {
    /// The rule.
    pub rule: &'static str,
    /// Whether the scrub was off as well.
    pub without_scrub: bool,
    /// The seeds that were tried, the last of which failed where one did.
    pub campaign: Campaign,
}

impl Mutant {
    /// The seed that noticed it, and by what.
    pub fn caught(&self) -> Option<&(u64, Violation)> {
        self.campaign.failed.as_ref()
    }
}

/// The rules that are switched off one at a time.
pub fn rules() -> impl Iterator<Item = &'static str> {
    Rules::NAMES.iter().copied().filter(|name| !EXEMPT.contains(name))
}

/// Runs these seeds without a rule until one fails.
pub fn without(rule: &'static str, seeds: Range<u64>, bound: Duration) -> Option<Mutant> {
    let less = Rules::ALL.without(rule)?;
    let without_scrub = WITHOUT_SCRUB.contains(&rule);
    let campaign = run_seeds(
        seeds,
        |scenario: &mut Scenario| {
            if without_scrub {
                scenario.nodes.iter_mut().for_each(|node| node.scrub_samples = 0);
            }
            less
        },
        bound,
    );
    Some(Mutant { rule, without_scrub, campaign })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_there_are_have_an_exception() {
        for name in EXEMPT.iter().chain(WITHOUT_SCRUB) {
            assert!(Rules::NAMES.contains(name), "{name}");
        }
    }
}
