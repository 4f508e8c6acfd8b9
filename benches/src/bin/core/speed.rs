//! Operations a second.
//!
//! | load | keys | checked |
//! |---|---|---|
//! | hits | gets, Zipf 0.99 over 75,000 keys that are all there | each get hits |
//! | read-through | gets, Zipf 0.99 over 10 × the capacity; a miss is followed by an insert | some hit, some miss |
//! | 95/5, 50/50 | as hits, with this share of inserts over keys that are there | each get hits |
//! | churn | inserts of keys that are not there, each evicting | full, never overfull |
//!
//! A cache is filled once per load, and measured on 1, 2 and 8 threads in turn. An operation of read-through is a get with
//! the insert that it may need. Keys are made before, also the strings; an insert of one clones it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use benches::{
    contest::{self, Drive, Effort, Entrant, Key, Kind, Load, OURS, Run, WITHOUT_TTL, Zipf},
    report::{Bound, Figure, Ratio, median, spread},
};
use fastrand::Rng;

use crate::{ALL_KEYS, Arguments, CAPACITY, HOT_KEYS, SEED, ZIPF, table};

/// The loads, as they are called in the names of the figures.
const LOADS: [(&str, Kind); 5] = [
    ("hits", Kind::Hits),
    ("read-through", Kind::ReadThrough),
    ("95/5", Kind::Mixed(0.05)),
    ("50/50", Kind::Mixed(0.5)),
    ("churn", Kind::Churn),
];

const THREADS: [usize; 3] = [1, 2, 8];

/// Keys of a load, before it begins again. Far more than the capacity, so that nobody remembers the last turn.
const KEYS: usize = 1 << 21;

/// The same of strings, which take more room.
const STRING_KEYS: usize = 1 << 20;

/// The least share of gets that hit where all should: another thread's insert may hide a key for an instant.
const ALL_HIT: f64 = 0.9999;

pub(crate) fn name(load: &str, key: &str, threads: usize) -> String {
    format!("{load}, {key}, {threads} thread{}", if threads == 1 { "" } else { "s" })
}

pub(crate) fn load<K: Key>(kind: Kind) -> Load<K> {
    let count = if K::NAME == u64::NAME { KEYS } else { STRING_KEYS };
    let mut rng = Rng::with_seed(SEED);
    let zipf = |keys| {
        let zipf = Zipf::new(keys, ZIPF);
        move |rng: &mut Rng| K::of(zipf.draw(rng))
    };
    let keys = match kind {
        Kind::Hits | Kind::Mixed(_) => {
            let draw = zipf(HOT_KEYS);
            (0..count).map(|_| draw(&mut rng)).collect()
        }
        Kind::ReadThrough => {
            let draw = zipf(ALL_KEYS);
            (0..count).map(|_| draw(&mut rng)).collect()
        }
        Kind::Churn => (0..count as u64).map(K::of).collect(),
    };
    Load { kind, keys }
}

/// A cache, filled as a load wants it, and how far it has come.
pub(crate) struct Runner<K> {
    pub(crate) name: &'static str,
    pub(crate) cache: Box<dyn Drive<K>>,
    from: usize,
}

impl<K: Key> Runner<K> {
    pub(crate) fn ready(entrant: &Entrant<K>, load: &Load<K>) -> Result<Self> {
        let context = || format!("{} with {:?}", entrant.name, load.kind);
        let cache = entrant.make(CAPACITY).with_context(context)?;
        let mut from = 0;
        match load.kind {
            Kind::Hits | Kind::Mixed(_) => {
                cache.fill(&mut (0..HOT_KEYS).map(K::of));
                cache.holds_all(&mut (0..HOT_KEYS).map(K::of)).with_context(context)?;
            }
            Kind::ReadThrough | Kind::Churn => {
                from = 3 * CAPACITY;
                cache.replay(&mut load.keys[..from].iter().cloned());
            }
        }
        Ok(Self { name: entrant.name, cache, from })
    }

    fn run(&mut self, load: &Load<K>, effort: Effort) -> Run {
        let run = self.cache.run(load, Effort { from: self.from, ..effort });
        self.from = self.from.wrapping_add(run.operations as usize / effort.threads);
        run
    }

    /// Whether it was that which was to be measured, in all rounds together.
    fn check(&self, kind: Kind, run: Run) -> Result<()> {
        let (ratio, entries) = (run.hit_ratio(), self.cache.settled());
        match kind {
            Kind::Hits | Kind::Mixed(_) => {
                ensure!(ratio >= ALL_HIT, "only {ratio:.5} of the gets hit, where all should");
                ensure!(entries == HOT_KEYS as usize, "it holds {entries} entries, not {HOT_KEYS}");
            }
            Kind::ReadThrough => ensure!((0.3..0.99).contains(&ratio), "{ratio:.3} of the gets hit"),
            Kind::Churn => ensure!(run.gets == 0, "an insert is not a get"),
        }
        ensure!(entries <= CAPACITY, "it holds {entries} entries, more than its capacity");
        ensure!(
            matches!(kind, Kind::Hits | Kind::Mixed(_)) || entries > CAPACITY * 8 / 10,
            "it holds {entries} entries only, so an insert does not evict"
        );
        Ok(())
    }
}

/// All loads with one type of key.
pub(crate) fn measure<K: Key>(arguments: &Arguments) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (load_name, kind) in LOADS {
        let threads: Vec<usize> = THREADS
            .into_iter()
            .filter(|&threads| arguments.wants(&name(load_name, K::NAME, threads)))
            .collect();
        if threads.is_empty() {
            continue;
        }
        let load = load::<K>(kind);
        let mut entrants = contest::entrants();
        if kind == Kind::Hits {
            // Beside ours, so that the two are measured one after the other.
            entrants.insert(1, contest::without_ttl());
        }
        let mut runners =
            entrants.iter().map(|entrant| Runner::ready(entrant, &load)).collect::<Result<Vec<_>>>()?;
        for threads in threads {
            let figure_name = name(load_name, K::NAME, threads);
            let mut rounds = rounds(arguments, &mut runners, &load, threads)?;
            let ours = rounds.remove(OURS).unwrap_or_default();
            let mut figure = Figure::new(figure_name, median(ours.iter().copied()), "Mops/s");
            for (peer, theirs) in rounds {
                let mut ratio = Ratio::of(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
                ratio.target = target(load_name, K::NAME == u64::NAME, threads, peer);
                figure.peers.insert(peer, ratio);
            }
            table::print(&figure, spread(&ours));
            figures.push(figure);
        }
    }
    Ok(figures)
}

/// Everybody's speed in each round, by name.
fn rounds<K: Key>(
    arguments: &Arguments,
    runners: &mut [Runner<K>],
    load: &Load<K>,
    threads: usize,
) -> Result<BTreeMap<&'static str, Vec<f64>>> {
    let effort = Effort { threads, length: arguments.length(), from: 0 };
    let mut runs: BTreeMap<&'static str, Vec<Run>> = BTreeMap::new();
    for _ in 0..arguments.rounds() {
        for runner in runners.iter_mut() {
            runs.entry(runner.name).or_default().push(runner.run(load, effort));
        }
        runners.rotate_left(1);
    }
    for runner in runners {
        let sum = runs.get(runner.name).into_iter().flatten().copied().reduce(Run::and).unwrap_or_default();
        let context = || format!("{} with {:?} on {threads} threads", runner.name, load.kind);
        runner.check(load.kind, sum).with_context(context)?;
    }
    Ok(runs.into_iter().map(|(name, runs)| (name, runs.into_iter().map(Run::mops).collect())).collect())
}

/// What a ratio is held to: on as many threads as the machine that the targets were set on has cores.
fn target(load: &str, is_u64: bool, threads: usize, peer: &str) -> Option<Bound> {
    let least = match (peer, load, threads) {
        (_, _, 8..) => return None,
        ("quick_cache", _, _) if !is_u64 => 0.85,
        (_, _, _) if !is_u64 => return None,
        ("moka", "hits", 1) => 8.0,
        ("moka", "hits" | "95/5", _) => 6.0,
        ("moka", "churn", _) => 8.0,
        ("quick_cache", "hits", 1) => 1.2,
        ("quick_cache", "hits" | "95/5" | "50/50", _) => 1.0,
        ("quick_cache", "read-through" | "churn", _) => 0.9,
        (WITHOUT_TTL, "hits", _) => 0.95,
        _ => return None,
    };
    Some(Bound::AtLeast(least))
}

/// What 8 threads reach of the speed of 2: on fewer cores than threads, speed may not collapse.
pub(crate) fn relations(figures: &[Figure]) -> Vec<Figure> {
    const KEPT: f64 = 0.8;
    let of = |name: String| figures.iter().find(|figure| figure.name == name);
    let mut relations = Vec::new();
    for key in [u64::NAME, String::NAME] {
        for (load, _) in LOADS {
            if let (Some(two), Some(eight)) = (of(name(load, key, 2)), of(name(load, key, 8))) {
                let relation = Figure::new(
                    format!("{load}, {key}, 8 threads / 2 threads"),
                    eight.value / two.value,
                    "x",
                );
                let relation = relation.at_least(KEPT);
                table::print(&relation, None);
                relations.push(relation);
            }
        }
    }
    relations
}
