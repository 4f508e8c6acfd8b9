use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::{node::Origin, stamp::Hlc};

/// What a ledger takes beside its graves, whatever their number.
const CONSTANT_BYTES: usize = 2_048;
const GRAVE_BYTES_MAX: usize = 72;

impl Ledger {
    /// What it asked of the allocator and still holds.
    pub(in crate::replica::grave) fn bytes(&self) -> usize {
        let leaves = self.leaves.iter().map(|leaf| leaf.capacity() * size_of::<u32>()).sum::<usize>();
        self.nodes.capacity() * size_of::<Node>()
            + self.index.allocation_size()
            + leaves
            + self.leaves.capacity() * size_of::<Vec<u32>>()
            + self.firsts.capacity() * size_of::<u64>()
    }

    fn check(&self) {
        assert!(
            self.bytes() <= GRAVE_BYTES_MAX * self.len() + CONSTANT_BYTES,
            "{} for {}",
            self.bytes(),
            self.len()
        );
        assert_eq!((self.index.len(), self.firsts.len()), (self.nodes.len(), self.leaves.len()));
        assert!(self.firsts.is_sorted() && self.firsts.first().is_none_or(|first| *first == 0));
        for (number, node) in self.nodes.iter().enumerate() {
            assert_eq!(self.find(node.position), Some(number as u32));
            assert!(self.leaves[self.leaf_of(node.position)].contains(&(number as u32)));
        }
        assert_eq!(self.leaves.iter().map(Vec::len).sum::<usize>(), self.nodes.len());
        for leaf in &self.leaves {
            assert!(leaf.len() <= LEAF_MAX && leaf.capacity() - leaf.len() <= LEAF_SPARE_MAX);
        }
        assert!(self.leaves.windows(2).all(|pair| pair[0].len() + pair[1].len() > LEAF_PAIR_MIN));
    }

    /// The positions in the order of burial, walked from both ends.
    fn order(&self) -> Vec<u64> {
        let walk = |from: u32, next: fn(&Node) -> u32| {
            let mut at = if self.nodes.is_empty() { NONE } else { from };
            let mut positions = Vec::new();
            while let Some(node) = self.nodes.get(at as usize) {
                positions.push(node.position);
                at = next(node);
            }
            positions
        };
        let order = walk(self.oldest, Node::newer);
        let mut backward = walk(self.newest, |node| node.older);
        backward.reverse();
        assert_eq!(order, backward);
        order
    }
}

/// The same, naively.
#[derive(Default)]
struct Model {
    bars: BTreeMap<u64, Bar>,
    order: VecDeque<u64>,
}

impl Model {
    fn bury(&mut self, position: u64, bar: Bar, graves_max: usize) -> Option<Grave> {
        if self.bars.get(&position).is_some_and(|held| *held >= bar) {
            return None;
        }
        self.remove(position);
        self.bars.insert(position, bar);
        self.order.push_back(position);
        let oldest = *self.order.front().filter(|_| self.order.len() > graves_max)?;
        Some(Grave { position: oldest, bar: self.remove(oldest)? })
    }

    fn remove(&mut self, position: u64) -> Option<Bar> {
        self.order.retain(|held| *held != position);
        self.bars.remove(&position)
    }

    fn remove_below(&mut self, bar: Bar) {
        self.bars.retain(|_, held| *held >= bar);
        self.order.retain(|position| self.bars.contains_key(position));
    }
}

fn at(ms: u64) -> Bar {
    Bar { stamp: Stamp { hlc: Hlc::from_ms(ms), origin: Origin(ms % 7) }, strict: ms.is_multiple_of(2) }
}

#[test]
fn a_node_is_32_bytes() {
    assert_eq!(size_of::<Node>(), 32);
}

#[test]
fn it_does_what_a_map_and_a_queue_would() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut ledger, mut model) = (Ledger::default(), Model::default());
        let (keys, most) = (random.u64(1..2_000), random.usize(0..1_000));
        // Near each other, or all over the space, the ends included.
        let spread = if random.bool() { 1 } else { u64::MAX / keys };
        for step in 0..3_000 {
            let position = random.u64(0..=keys) * spread;
            match random.u32(0..100) {
                0..60 => {
                    let bar = at(random.u64(0..step + 1));
                    let forgotten = ledger.bury(position, bar, most);
                    assert_eq!(forgotten, model.bury(position, bar, most), "seed {seed}");
                }
                60..98 => {
                    ledger.remove(position);
                    model.remove(position);
                }
                98 => {
                    let lo = random.u64(0..=keys) * spread;
                    let from: Vec<Grave> = ledger.from(lo).collect();
                    let wanted = model.bars.range(lo..).map(|(&position, &bar)| Grave { position, bar });
                    assert_eq!(from, wanted.collect::<Vec<_>>(), "seed {seed}");
                }
                _ => {
                    let bar = at(random.u64(0..step / 4 + 1));
                    ledger.remove_below(bar);
                    model.remove_below(bar);
                }
            }
            assert_eq!(ledger.bar(position), model.bars.get(&position).copied(), "seed {seed}");
            if step % 64 == 0 {
                ledger.check();
                assert_eq!(model.order, ledger.order(), "seed {seed}");
            }
        }
        while let Some(&oldest) = model.order.front() {
            model.remove(oldest);
            ledger.remove(oldest);
            assert_eq!(ledger.bar(oldest), None, "seed {seed}");
        }
        assert_eq!(ledger.len(), 0);
        ledger.check();
    }
}

#[test]
fn a_grave_costs_at_most_72_bytes_at_every_size_on_the_way_up_and_down() {
    // The table of numbers doubles past 14,336 and past 28,672.
    for (seed, most) in [(0, 14_400), (1, 14_400), (2, 20_000), (3, 28_600)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ledger = Ledger::default();
        let mut peak = 0.0_f64;
        let mut told = |ledger: &Ledger| {
            let (bytes, len) = (ledger.bytes(), ledger.len());
            assert!(
                bytes <= GRAVE_BYTES_MAX * len + CONSTANT_BYTES,
                "{bytes} bytes for {len} graves, seed {seed}"
            );
            if len > 1_000 {
                peak = peak.max(bytes as f64 / len as f64);
            }
        };
        let mut positions = Vec::new();
        for n in 0..most as u64 {
            // In the order of positions, as a sync brings them, or in none.
            let position = if seed == 0 { n << 40 } else { random.u64(..) };
            positions.push(position);
            ledger.bury(position, at(n), most);
            if n % 16 == 0 {
                told(&ledger);
            }
        }
        // At the bound, each new one takes the place of the oldest.
        for n in 0..2 * most as u64 {
            let position = random.u64(..);
            positions.push(position);
            ledger.bury(position, at(n), most);
            if n % 16 == 0 {
                told(&ledger);
            }
        }
        // In no order, so that all leaves shrink alike.
        random.shuffle(&mut positions);
        for (n, position) in positions.into_iter().enumerate() {
            ledger.remove(position);
            if n % 16 == 0 {
                told(&ledger);
            }
        }
        assert_eq!(ledger.len(), 0);
        println!("at most {peak:.1} bytes a grave, of {most}");
    }
}
