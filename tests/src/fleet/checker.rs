//! Judges what a fault left behind: pure, from what the regions hold and what their nodes had promised.
//!
//! - **Divergence**: every region holds the same keys, with the same value and the same stamp.
//! - **Lost or resurrected**: on its own keys a living writer's last write is what is held, a remove included. A key
//!   that all write holds the last write that *one* of its writers made on it: stamps of one writer rise, so whatever
//!   won cannot be a write that its own writer had already replaced.
//! - **Untrue receipts**: of a writer whose process was killed, no ledger is left, and only those writes are demanded
//!   whose receipt said that they had left the node (published, or in another region): that one, or a later one of the
//!   key.
//! - **Lingering**: what was put to expire is nowhere any more.
//! - **Slow reads**: in no region whose process lives throughout is the 99th percentile during the fault more than twice
//!   that of before, or are there next to no reads during it.
//! - **Unsteady writes**: each writer made at least nine in ten of the writes that were due: what is not written is never
//!   lost, so a fleet that stands still would pass all of the above.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    contents::{BRIEF, Contents},
    latency::Latency,
    order::Told,
    plan::{Ledger, author},
};

/// How much longer the 99th percentile of local reads may be during a fault.
pub const P99_RATIO_MAX: f64 = 2.0;
/// Fewer reads in a phase say too little about a percentile.
const READS_MIN: u64 = 5_000;
/// The part of the writes due that a writer has to make.
pub const STEADY_MIN: f64 = 0.9;
/// Of fewer writes due, one pause of the machine is a large part.
const PACED_MIN: u64 = 5_000;
/// A writer of which so many were due has written more than a hundred keys.
const KEYS_DUE: u64 = 1_000;
/// Findings of one kind that are shown.
const SHOWN: usize = 5;

/// What is judged.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What each region holds.
    pub contents: BTreeMap<String, Contents>,
    /// What each writer did whose process lives, or ended in good order.
    pub ledgers: Vec<Ledger>,
    /// The writers whose ledgers are gone with their processes.
    pub gone: BTreeSet<String>,
    /// What receipts said of them.
    pub told: Vec<Told>,
    /// The reads of each region, before and during the fault. A process that was started since has no `before`.
    pub reads: BTreeMap<String, Reads>,
    /// The regions whose process was started since, so that their reads cannot be compared.
    pub replaced: BTreeSet<String>,
    /// By writer, how it kept pace: of each that has a ledger, since the last time that it was asked.
    pub paces: BTreeMap<String, Pace>,
}

/// What a writer made of what was due, the times left out in which its process was frozen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Writes that its node took.
    pub made: u64,
    /// Writes that its node refused.
    pub refused: u64,
    /// Writes that its rate asked for.
    pub due: u64,
}

impl Pace {
    /// What came since an earlier one of the same writer.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            made: self.made.saturating_sub(earlier.made),
            refused: self.refused.saturating_sub(earlier.refused),
            due: self.due.saturating_sub(earlier.due),
        }
    }

    fn is_steady(self) -> bool {
        self.due < PACED_MIN || self.made as f64 >= STEADY_MIN * self.due as f64
    }
}

/// The reads of one region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Under the same load, before the fault.
    pub before: Latency,
    /// From the begin of the fault to its end.
    pub during: Latency,
}

impl Reads {
    /// How much longer the 99th percentile was; `None` where one of the two has too few reads, as that of a process
    /// that was killed.
    pub fn ratio(&self) -> Option<f64> {
        let enough = self.before.reads.min(self.during.reads) >= READS_MIN;
        enough.then(|| self.during.p99_ns as f64 / self.before.p99_ns.max(1) as f64)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Regions hold different things of a key.
    Divergent {
        /// The key.
        key: String,
        /// What each region holds of it.
        held: BTreeMap<String, Option<String>>,
    },
    /// An acknowledged write is not what is held.
    Lost {
        /// The key.
        key: String,
        /// The region that holds something else.
        region: String,
        /// What should be held.
        wanted: String,
        /// What is.
        held: Option<String>,
    },
    /// A removed key is held.
    Resurrected {
        /// The key.
        key: String,
        /// The region.
        region: String,
        /// What it holds.
        held: String,
    },
    /// A receipt said more than is so.
    Untrue {
        /// What it said.
        told: Told,
        /// The region that does not have the write.
        region: String,
        /// What it holds.
        held: Option<String>,
    },
    /// A value outlived its time.
    Lingering {
        /// The key.
        key: String,
        /// The region.
        region: String,
    },
    /// Reads became slow.
    Slow {
        /// The region.
        region: String,
        /// Before and during.
        reads: Reads,
    },
    /// A writer did not keep pace.
    Unsteady {
        /// The writer.
        writer: String,
        /// What it made.
        pace: Pace,
    },
    /// There is too little to judge by.
    Unproven {
        /// What is missing.
        what: String,
    },
}

/// Everything that is wrong; nothing where all is well.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut found = judge_contents(evidence);
    let mut compared =
        evidence.contents.keys().filter(|region| !evidence.replaced.contains(*region)).peekable();
    if compared.peek().is_none() {
        found.push(Finding::Unproven { what: "no region has reads to compare".to_owned() });
    }
    for region in compared {
        let reads = evidence.reads.get(region).copied().unwrap_or_default();
        if reads.before.reads < READS_MIN {
            let what = format!("{region} made only {} reads before the fault", reads.before.reads);
            found.push(Finding::Unproven { what });
        } else if reads.ratio().is_none_or(|ratio| ratio > P99_RATIO_MAX) {
            // Too few reads during the fault are reads that took too long.
            found.push(Finding::Slow { region: region.clone(), reads });
        }
    }
    found
}

/// Everything that is wrong with what the regions hold and with how steadily it was written, however long reads took.
pub fn judge_contents(evidence: &Evidence) -> Vec<Finding> {
    let mut found = enough(evidence);
    let unsteady = evidence.paces.iter().filter(|(_, pace)| !pace.is_steady());
    found.extend(unsteady.map(|(writer, &pace)| Finding::Unsteady { writer: writer.clone(), pace }));
    found.extend(diverging(&evidence.contents));
    for (region, contents) in &evidence.contents {
        found.extend(unlike_the_ledgers(region, contents, evidence));
        found.extend(untrue(region, contents, &evidence.told));
        let lingers = contents.keys().filter(|key| range(key) == BRIEF);
        found.extend(lingers.map(|key| Finding::Lingering { key: key.clone(), region: region.clone() }));
    }
    found
}

/// A check of nothing passes; so there has to be something.
fn enough(evidence: &Evidence) -> Vec<Finding> {
    let mut missing = Vec::new();
    let mut need = |is_there: bool, what: &str| {
        if !is_there {
            missing.push(Finding::Unproven { what: what.to_owned() });
        }
    };
    need(evidence.contents.len() >= 2, "fewer than two regions were compared");
    need(evidence.contents.values().all(|held| held.len() >= 100), "a region holds next to nothing");
    need(evidence.ledgers.iter().any(|ledger| ledger.last.len() >= 100), "no writer wrote much");
    for Ledger { writer, last } in &evidence.ledgers {
        let pace = evidence.paces.get(writer);
        need(pace.is_some(), &format!("nobody knows what was due of {writer}"));
        let is_young = pace.is_some_and(|pace| pace.due < KEYS_DUE);
        need(is_young || last.len() >= 100, &format!("{writer} wrote {} keys", last.len()));
    }
    missing
}

fn diverging(contents: &BTreeMap<String, Contents>) -> Vec<Finding> {
    let keys: BTreeSet<&String> = contents.values().flat_map(BTreeMap::keys).collect();
    let differing = keys.into_iter().filter_map(|key| {
        let mut held = contents.values().map(|contents| contents.get(key));
        let first = held.next()?;
        held.any(|other| other != first).then(|| Finding::Divergent {
            key: key.clone(),
            held: contents
                .iter()
                .map(|(region, contents)| {
                    let held = contents.get(key).map(|held| format!("{} at {}", held.value, held.stamp));
                    (region.clone(), held)
                })
                .collect(),
        })
    });
    differing.collect()
}

fn unlike_the_ledgers(region: &str, contents: &Contents, evidence: &Evidence) -> Vec<Finding> {
    let Evidence { ledgers, gone, .. } = evidence;
    let mut found = Vec::new();
    let lost = |key: &String, wanted: String, held: Option<&str>| Finding::Lost {
        key: key.clone(),
        region: region.to_owned(),
        wanted,
        held: held.map(str::to_owned),
    };
    let keys: BTreeSet<&String> = ledgers.iter().flat_map(|ledger| ledger.last.keys()).collect();
    for key in keys {
        let held = contents.get(key).map(|held| held.value.as_str());
        let lasts =
            ledgers.iter().filter_map(|ledger| Some((ledger.writer.as_str(), *ledger.last.get(key)?)));
        let is_shared = range(key) == "all";
        match held {
            Some(value) => {
                let Some((writer, counter)) = author(value) else {
                    found.push(lost(key, "the value of a writer".to_owned(), held));
                    continue;
                };
                match lasts.clone().find(|(name, _)| *name == writer) {
                    Some((_, last)) if last.counter == counter => {}
                    Some((_, last)) if last.removed && !is_shared => found.push(Finding::Resurrected {
                        key: key.clone(),
                        region: region.to_owned(),
                        held: value.to_owned(),
                    }),
                    Some((_, last)) => found.push(lost(key, format!("{writer}#{}", last.counter), held)),
                    // It may have won a key that all write.
                    None if is_shared && gone.contains(writer) => {}
                    None => found.push(lost(key, "a value of its own writer".to_owned(), held)),
                }
            }
            None => {
                let removed = lasts.clone().any(|(_, last)| last.removed);
                // The last may be a remove of a writer whose ledger is gone.
                let unknown = is_shared && !gone.is_empty();
                if !removed && !unknown {
                    let wanted: Vec<String> =
                        lasts.map(|(writer, last)| format!("{writer}#{}", last.counter)).collect();
                    found.push(lost(key, wanted.join(" or "), None));
                }
            }
        }
    }
    found
}

fn untrue(region: &str, contents: &Contents, told: &[Told]) -> Vec<Finding> {
    let broken = told.iter().filter_map(|told| {
        let held = contents.get(&told.key).map(|held| held.value.clone());
        let has = held.as_deref().and_then(author).is_some_and(|(_, counter)| counter >= told.counter);
        (!has).then(|| Finding::Untrue { told: told.clone(), region: region.to_owned(), held })
    });
    broken.collect()
}

fn range(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

impl Finding {
    /// The kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Divergent { .. } => "divergent",
            Self::Lost { .. } => "lost",
            Self::Resurrected { .. } => "resurrected",
            Self::Untrue { .. } => "untrue receipt",
            Self::Lingering { .. } => "lingering",
            Self::Slow { .. } => "slow reads",
            Self::Unsteady { .. } => "unsteady writes",
            Self::Unproven { .. } => "unproven",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_nothing = |held: &Option<String>| held.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::Divergent { key, held } => {
                write!(f, "{key} differs:")?;
                held.iter().try_for_each(|(region, held)| write!(f, " {region} holds {};", or_nothing(held)))
            }
            Self::Lost { key, region, wanted, held } => {
                write!(f, "{region} holds {} of {key}, where {wanted} was acknowledged", or_nothing(held))
            }
            Self::Resurrected { key, region, held } => {
                write!(f, "{region} holds {held} of {key}, which was removed")
            }
            Self::Untrue { told, region, held } => write!(
                f,
                "a receipt said of write {} of {} that it was {}in {:?}, and {region} holds {}",
                told.counter,
                told.key,
                if told.published { "published and " } else { "" },
                told.elsewhere,
                or_nothing(held)
            ),
            Self::Lingering { key, region } => write!(f, "{region} still holds {key}, whose life is over"),
            Self::Slow { region, reads } => write!(
                f,
                "{} reads in {region} took {} ns at the 99th percentile, {} took {} ns before",
                reads.during.reads, reads.during.p99_ns, reads.before.reads, reads.before.p99_ns
            ),
            Self::Unsteady { writer, pace: Pace { made, refused, due } } => {
                write!(f, "{writer} made {made} of {due} writes that were due; its node refused {refused}")
            }
            Self::Unproven { what } => write!(f, "nothing is proven: {what}"),
        }
    }
}

/// The findings to show: of each kind the first few, and how many there are.
pub fn shown(findings: &[Finding]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        kinds.entry(finding.kind()).or_default().push(finding);
    }
    let mut lines = Vec::new();
    for (kind, findings) in kinds {
        lines.extend(findings.iter().take(SHOWN).map(ToString::to_string));
        if findings.len() > SHOWN {
            lines.push(format!("… {} {kind} in all", findings.len()));
        }
    }
    lines
}

#[cfg(test)]
mod tests;
