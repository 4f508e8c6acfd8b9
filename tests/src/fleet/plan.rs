//! What a node writes: a fixed mixture, and what became of it.
//!
//! Of each hundred writes, 69 put and 5 remove keys of the writer's own, in turn; 15 put or remove keys that every region
//! writes; 10 put values that live for seconds; and one, on a key of the writer's own, is told of: its receipt is waited
//! for ([`Step::asks`]). Every value names its writer and its number, so that whatever is held can be traced to one write.
//!
//! Ranges of keys, by what stands before the first slash: `own` and `told` are one writer's, `all` are everyone's,
//! `brief` hold what expires.

use std::{collections::BTreeMap, time::Duration};

use geocache::WriteConcern;
use serde::{Deserialize, Serialize};

/// Keys of its own that a writer uses: a prime, so that each key is put and removed in turn.
pub(super) const OWN_KEYS: u64 = 4_999;
/// Keys that all regions write.
pub(super) const SHARED_KEYS: u64 = 211;
/// Keys of a writer whose writes are told of.
pub(super) const TOLD_KEYS: u64 = 199;
/// Keys of a writer that hold what expires.
pub(super) const BRIEF_KEYS: u64 = 997;
/// The longest life in the range `brief`.
pub const BRIEF_MAX: Duration = Duration::from_secs(4);
/// The length of a value.
pub(super) const VALUE_BYTES: usize = 128;

/// One write to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The number of the write, from 1.
    pub counter: u64,
    /// The key.
    pub key: String,
    /// What is done with it.
    pub change: Change,
    /// Whether its receipt is waited for, and how far the write shall have come.
    pub asks: Option<WriteConcern>,
}

/// What a write does with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Puts a value that stays.
    Put,
    /// Puts a value that lives this long.
    PutFor(Duration),
    /// Removes the key.
    Remove,
}

/// The writes of one writer: one life of one node.
#[derive(Debug)]
pub struct Plan {
    writer: String,
    /// Whose the range `own` is: the writer's, unless another life goes on with its keys.
    owner: String,
    random: fastrand::Rng,
    counter: u64,
    own: u64,
    brief: u64,
    told: u64,
}

impl Plan {
    /// The writes of `writer`.
    pub fn new(writer: &str, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (writer, owner) = (writer.to_owned(), writer.to_owned());
        Self { writer, owner, random, counter: 0, own: 0, brief: 0, told: 0 }
    }

    /// The same with the range `own` of someone else: all lives of a region that write the same keys hold no more than one.
    #[must_use]
    pub fn on_keys_of(mut self, owner: &str) -> Self {
        owner.clone_into(&mut self.owner);
        self
    }

    /// The next write.
    pub fn step(&mut self) -> Step {
        let slot = self.counter % 100;
        self.counter += 1;
        let counter = self.counter;
        let plain = |key, change| Step { counter, key, change, asks: None };
        match slot {
            99 => {
                self.told += 1;
                let asks = match self.told % 3 {
                    0 => WriteConcern::Published,
                    1 => WriteConcern::Regions(2),
                    _ => WriteConcern::All,
                };
                let key = format!("told/{}/{}", self.writer, self.told % TOLD_KEYS);
                Step { asks: Some(asks), ..plain(key, Change::Put) }
            }
            _ if slot.is_multiple_of(10) => {
                self.brief += 1;
                let life = Duration::from_millis(self.random.u64(200..=BRIEF_MAX.as_millis() as u64));
                plain(format!("brief/{}/{}", self.writer, self.brief % BRIEF_KEYS), Change::PutFor(life))
            }
            _ if slot % 7 == 1 => {
                let change = if self.random.u8(..8) == 0 { Change::Remove } else { Change::Put };
                plain(format!("all/{}", self.random.u64(..SHARED_KEYS)), change)
            }
            _ => {
                self.own += 1;
                let change = if self.own.is_multiple_of(15) { Change::Remove } else { Change::Put };
                plain(own_key(&self.owner, self.own % OWN_KEYS), change)
            }
        }
    }
}

/// One of the keys that a writer has for itself.
pub(super) fn own_key(owner: &str, index: u64) -> String {
    format!("own/{owner}/{index}")
}

/// The value of a write.
pub(super) fn value(writer: &str, counter: u64) -> String {
    format!("{:<VALUE_BYTES$}", format!("{writer}#{counter}"))
}

/// Who wrote a value, and the number of the write.
pub(super) fn author(value: &str) -> Option<(&str, u64)> {
    let (writer, counter) = value.trim_end().split_once('#')?;
    Some((writer, counter.parse().ok()?))
}

/// What a writer did last on each key whose values stay: every change in it was acknowledged by its own node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The writer.
    pub writer: String,
    /// By key: the number of the last write, and whether it removed the key.
    pub last: BTreeMap<String, Last>,
}

/// The last write of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its number.
    pub counter: u64,
    /// Whether it removed the key.
    pub removed: bool,
}

impl Ledger {
    /// Of a writer that has written nothing.
    pub fn new(writer: &str) -> Self {
        Self { writer: writer.to_owned(), last: BTreeMap::new() }
    }

    /// Takes down a write that was acknowledged.
    pub fn note(&mut self, step: &Step) {
        let removed = match step.change {
            Change::Put => false,
            Change::Remove => true,
            Change::PutFor(_) => return,
        };
        self.last.insert(step.key.clone(), Last { counter: step.counter, removed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_as_told() {
        let mut plan = Plan::new("us-east.1", 7);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let (mut removes, mut asked) = (0, 0);
        for _ in 0..10_000 {
            let step = plan.step();
            let range = step.key.split('/').next().unwrap().to_owned();
            removes += u32::from(range == "own" && step.change == Change::Remove);
            asked += u32::from(step.asks.is_some());
            *counts.entry(range).or_default() += 1;
        }
        assert_eq!((counts["told"], counts["brief"], asked), (100, 1_000, 100));
        assert!((1_300..1_500).contains(&counts["all"]), "{counts:?}");
        assert_eq!(removes, counts["own"] / 15);
    }

    #[test]
    fn each_own_key_is_put_and_removed_in_turn() {
        let mut plan = Plan::new("us-east.1", 7);
        let mut seen: BTreeMap<String, [bool; 2]> = BTreeMap::new();
        while seen.len() < OWN_KEYS as usize || seen.values().any(|seen| *seen != [true; 2]) {
            let step = plan.step();
            assert!(step.counter < 200_000, "it takes too long");
            if step.key.starts_with("own/") {
                seen.entry(step.key).or_default()[usize::from(step.change == Change::Remove)] = true;
            }
        }
    }

    #[test]
    fn lives_on_the_keys_of_their_region_share_only_these() {
        let keys = |writer| -> std::collections::BTreeSet<String> {
            let mut plan = Plan::new(writer, 7).on_keys_of("us-east");
            (0..20_000).map(|_| plan.step().key).filter(|key| !key.starts_with("all/")).collect()
        };
        let (first, second) = (keys("us-east.1"), keys("us-east.2"));
        assert!(first.intersection(&second).all(|key| key.starts_with("own/us-east/")));
        assert_eq!(first.intersection(&second).count() as u64, OWN_KEYS);
    }

    #[test]
    fn a_value_names_its_author() {
        let value = value("us-east.1", 42);
        assert_eq!((value.len(), author(&value)), (VALUE_BYTES, Some(("us-east.1", 42))));
        assert_eq!(author("nobody"), None);
    }

    #[test]
    fn the_ledger_keeps_the_last_change_of_what_stays() {
        let mut ledger = Ledger::new("w");
        let step = |counter, change| Step { counter, key: "k".to_owned(), change, asks: None };
        ledger.note(&step(1, Change::Put));
        ledger.note(&step(2, Change::Remove));
        ledger.note(&step(3, Change::PutFor(BRIEF_MAX)));
        assert_eq!(ledger.last["k"], Last { counter: 2, removed: true });
    }
}
