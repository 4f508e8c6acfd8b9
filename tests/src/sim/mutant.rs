//! Deliberate faults of the protocol: each rule is switched off until an invariant notices.
//!
//! A rule that is missed by nothing would be a rule that nobody needs, or a simulation that looks away.

use std::{ops::Range, time::Duration};

use replication::sim::Rules;

use super::{
    Violation,
    campaign::{Campaign, run_seeds},
};

/// Rules that may be left out: a pull is only the cheap way to what a sync brings as well.
const EXEMPT: &[&str] = &["pull"];

/// A rule that was switched off, and what came of it.
#[derive(Debug)]
pub struct Mutant {
    /// The rule.
    pub rule: &'static str,
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

/// Runs these seeds without a rule until one fails. No rule needs another one off beside it: what the scrub makes up for
/// in the end, a session that waits for it notices.
pub fn without(rule: &'static str, seeds: Range<u64>, bound: Duration) -> Option<Mutant> {
    let less = Rules::ALL.without(rule)?;
    Some(Mutant { rule, campaign: run_seeds(seeds, |_| less, bound) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_there_are_have_an_exception() {
        for name in EXEMPT {
            assert!(Rules::NAMES.contains(name), "{name}");
        }
    }
}
