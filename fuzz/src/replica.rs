//! The replica: a byte string decoded as a schedule of writes, faults and a stranger's frames.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use replication::{
    message::Bar,
    sim::{Event, Link, NodeSetup, START_WALL_MS, SimStore, World},
    wire,
};

use crate::decode::sealed;

const KEYS: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "c"];

/// How long nodes have to agree after the last fault, in virtual milliseconds.
const SETTLE_MS: u64 = 45_000;

/// The schedule as it is read: each step takes what bytes it needs, and 0 where there are none left.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn next(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Plays the schedule that the bytes say. No bar goes down on the way, nothing panics, and all agree in the end; not so
/// where a stranger spoke, who may claim to hold what nobody can give.
///
/// # Panics
/// Where one of these does not hold.
pub fn check(data: &[u8]) {
    let mut script = Script(data);
    let (count, bounds) = (2 + script.next() % 3, script.next());
    let is_tiny = |bit: usize| bounds >> bit & 1 == 1;
    let mut world = World::new(script.next() as u64);
    for index in 0..count {
        let region = ["us-east", "eu-central", "ap-south", "sa-east"][index];
        let (capacity, graves_max) = (if is_tiny(0) { 3 } else { 1_000 }, if is_tiny(1) { 2 } else { 1_000 });
        let setup = NodeSetup::new(region, "n1")
            .store(capacity, graves_max)
            .outbox_bytes_max(if is_tiny(2) { 1_500 } else { 1 << 20 })
            .config(|config| {
                config.bootstrap = !is_tiny(3);
                config.ring_bytes_max = if is_tiny(4) { 400 } else { 1 << 20 };
                config.page_bytes = 300;
                config.preview_bytes = if is_tiny(5) { 200 } else { 0 };
                config.scrub_samples = 3;
            });
        world.add(setup);
    }
    watch_bars(&mut world);
    world.run_ms(100);
    let mut is_alone = true;
    while !script.0.is_empty() {
        is_alone &= !step(&mut world, &mut script);
    }
    let agreed = settle(&mut world);
    assert!(agreed || !is_alone, "not agreed after all faults ended: {:?}", world.differences());
}

/// Does what the next bytes say; whether it was a stranger's frame.
fn step(world: &mut World, script: &mut Script<'_>) -> bool {
    let (what, node) = (script.next(), script.next() % world.len());
    let key = KEYS[script.next() % KEYS.len()];
    match what % 20 {
        0..6 => drop(world.put(node, key, format!("{}", world.time_ms()))),
        6 => drop(world.put_for(1 + 20 * script.next() as u64, node, key, "expires")),
        7 | 8 => drop(world.remove(node, key)),
        9 => drop(world.clear(node, if what < 128 { "a" } else { "" })),
        10 => drop(world.crash(node)),
        11 | 12 => drop(world.start(node)),
        13 => world.cut(node, script.next() % world.len()),
        14 => world.heal(),
        15 => drop(if what < 128 { world.pause(node) } else { world.resume(node) }),
        16 => drop(if what < 128 { world.disconnect(node) } else { world.connect(node) }),
        17 => set_clock(world, node, (script.next() as i64 - 128) * 1_000),
        18 => world.set_links(Link {
            drop: script.next() as f64 / 512.0,
            duplicate: 0.2,
            corrupt: 0.1,
            ..Link::delay(1, 1 + 2 * script.next() as u64)
        }),
        _ => {
            let len = script.next();
            let frame = sealed(wire::cache_id("geocache"), script.take(len));
            world.call(node, |replica, now| replica.handle(now, frame));
            return true;
        }
    }
    world.run_ms(script.next() as u64);
    false
}

/// Sets a wall clock so far ahead. Never do two of them differ by more than the drift that is allowed: a node beyond it is
/// left out until its clock is mended and it starts again.
fn set_clock(world: &mut World, node: usize, ahead_ms: i64) {
    let shown_ms = world.now(node).wall_ms as i64;
    let right_ms = (START_WALL_MS + world.time_ms()) as i64;
    world.step_clock(node, right_ms + ahead_ms - shown_ms);
}

/// Ends every fault and gives the nodes time; whether they are ready then, and hold no key differently.
fn settle(world: &mut World) -> bool {
    world.heal();
    world.calm();
    for node in 0..world.len() {
        world.resume(node);
        world.connect(node);
        world.start(node);
    }
    let agree = |world: &World| {
        let is_ready = (0..world.len()).all(|node| world.is_ready(node));
        is_ready && !world.differences().iter().any(|found| found.is_conflict())
    };
    world.until(SETTLE_MS, agree).is_some()
}

/// The highest bar of each key in each life of each node.
type Bars = BTreeMap<(usize, u64, &'static str), Bar>;

/// No key's bar goes down in one life of a node.
fn watch_bars(world: &mut World) {
    let bars: Rc<RefCell<Bars>> = Rc::default();
    world.observe(move |world, event: &Event<'_>| {
        let Some(node) = event.node().filter(|node| world.is_up(*node)) else { return };
        for key in KEYS {
            let bar = world.store(node).bar(key.as_bytes());
            let mut bars = bars.borrow_mut();
            let held = bars.entry((node, world.life(node), key)).or_insert(Bar::NONE);
            assert!(bar.stamp >= held.stamp, "the bar of {key} on node {node} went from {held:?} to {bar:?}");
            *held = bar;
        }
    });
}
