//! Writes from other regions beside a local working set: what the depth at which they enter is worth.
//!
//! Reads of here: Zipf 0.99 over 10 × the capacity, each miss followed by an insert. After each of them, two remote writes:
//! of keys of which one in ten is read here at some later time, and the rest never. `remote_depth` 0.0 is off: a remote
//! write enters as any insert. What is compared is how often the reads of here hit.

use anyhow::{Result, ensure};
use benches::{
    contest::{Hasher, Key, Zipf},
    report::Figure,
};
use cache_core::{Cache, Expiry, Policy};
use fastrand::Rng;

use crate::{ALL_KEYS, Arguments, CAPACITY, Part, SEED, ZIPF, table::number};

const DEPTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

const READS: u64 = 1_500_000;

const READS_QUICK: u64 = 400_000;

/// Remote writes for each local read.
const REMOTE_WRITES: u64 = 2;

/// One remote key in so many is read here.
const READ_HERE: u64 = 10;

/// How many remote writes lie between a remote write and its read: within what fits beside the local working set.
const READ_AFTER: u64 = CAPACITY as u64 / 10;

/// Far from the keys of here.
const REMOTE: u64 = 1 << 40;

/// How often reads of this kind hit.
#[derive(Debug, Clone, Copy, Default)]
struct Hits {
    reads: u64,
    hits: u64,
}

impl Hits {
    fn count(&mut self, hit: bool) {
        self.reads += 1;
        self.hits += u64::from(hit);
    }

    fn percent(self) -> f64 {
        100.0 * self.hits as f64 / self.reads.max(1) as f64
    }
}

pub(crate) fn measure(arguments: &Arguments) -> Result<Part> {
    let mut part = Part::default();
    for (policy, policy_name) in [(Policy::Lru, "Lru"), (Policy::TinyLfu, "TinyLfu")] {
        let name = |depth: f64| format!("local hit ratio, {policy_name}, remote depth {depth}");
        let margin = format!("remote depth against none, {policy_name}");
        if !DEPTHS.iter().any(|&depth| arguments.wants(&name(depth))) && !arguments.wants(&margin) {
            continue;
        }
        let reads = if arguments.quick { READS_QUICK } else { READS };
        let mut rows = Vec::new();
        for depth in DEPTHS {
            let (local, remote) = hits(policy, depth, reads)?;
            rows.push((depth, local.percent(), remote.percent()));
        }
        if part.markdown.is_empty() {
            part.markdown = "| remote writes beside local reads | local hit ratio, % | margin, points | \
                             reads of remote writes that hit, % |\n|---|--:|--:|--:|\n"
                .to_owned();
        }
        let off = rows[0].1;
        for (depth, local, remote) in &rows {
            println!(
                "{:<48} {local:>7.2} %  {:>+6.2} points; of reads of remote writes {remote:>6.2} %",
                name(*depth),
                local - off
            );
            part.markdown += &format!(
                "| {policy_name}, remote depth {depth} | {local:.2} | {:+.2} | {remote:.2} |\n",
                local - off
            );
            part.figures.push(Figure::new(name(*depth), *local, "%"));
        }
        let worst = rows[1..].iter().map(|(_, local, _)| local - off).fold(f64::INFINITY, f64::min);
        let figure = Figure::new(margin, worst, "points").at_least(0.0);
        println!("{:<48} {} points at the least depth's  {}", figure.name, number(worst), figure.verdict());
        part.figures.push(figure);
    }
    Ok(part)
}

/// Of reads of local keys, and of reads of what was written elsewhere; the first third warms up.
fn hits(policy: Policy, depth: f64, reads: u64) -> Result<(Hits, Hits)> {
    let cache: Cache<u64, u64, Hasher> = Cache::builder()
        .capacity(CAPACITY)
        .policy(policy)
        .remote_depth(depth)
        .hasher(Hasher::default())
        .build()?;
    let mut rng = Rng::with_seed(SEED);
    let zipf = Zipf::new(ALL_KEYS, ZIPF);
    let (mut local, mut remote) = (Hits::default(), Hits::default());
    for at in 0..reads {
        if at == reads / 3 {
            (local, remote) = (Hits::default(), Hits::default());
        }
        let key = u64::of(zipf.draw(&mut rng));
        let hit = cache.get(&key).is_some();
        local.count(hit);
        if !hit {
            cache.insert(key, at);
        }
        for written in at * REMOTE_WRITES..(at + 1) * REMOTE_WRITES {
            cache.insert_remote(u64::of(REMOTE + written), at, Expiry::Default);
            if let Some(earlier) = written.checked_sub(READ_AFTER).filter(|n| n % READ_HERE == 0) {
                remote.count(cache.get(&u64::of(REMOTE + earlier)).is_some());
            }
        }
    }
    ensure!(cache.len() > CAPACITY * 8 / 10, "it holds {} entries only", cache.len());
    Ok((local, remote))
}
