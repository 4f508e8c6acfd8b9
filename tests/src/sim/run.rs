//! Runs one scenario: the faults, the end of them, and the time to settle.

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::Once,
};

use replication::{
    Stream,
    sim::{Link, Rules, START_WALL_MS, SimStore as _, World},
};

use super::{
    scenario::{FAULTS_MS, QUIET_MS, SANE_MS, SETTLE_MS, Scenario},
    watch::{Violation, Watch},
    watched::Watched,
};

/// The name under which a panic inside the protocol is reported.
pub const NO_PANIC: &str = "nothing panics";

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// The last events, where they were asked for.
    pub trace: Vec<String>,
    /// The nodes as they were at the end, where the events were asked for.
    pub nodes: Vec<String>,
}

/// Runs a scenario under these rules and keeps the last `trace_lines` events as text.
pub fn run(scenario: &Scenario, rules: Rules, trace_lines: usize) -> Outcome {
    run_with(scenario, rules, trace_lines, Watch::default())
}

/// As [`run`], under this watch.
pub fn run_with(scenario: &Scenario, rules: Rules, trace_lines: usize, watch: Watch) -> Outcome {
    let watch = Rc::new(RefCell::new(watch));
    let mut world = World::<Watched>::with_stores(scenario.seed);
    world.keep_trace(trace_lines);
    let panicked = caught(|| play(&mut world, scenario, rules, &watch));
    let violation = match panicked {
        Some(text) => Some(Violation { invariant: NO_PANIC, at_ms: world.time_ms(), text }),
        None => watch.borrow().violation().cloned(),
    };
    let trace = world.trace().map(str::to_owned).collect();
    let shown = if trace_lines > 0 { 0..world.len() } else { 0..0 };
    let nodes = shown.map(|node| described(&world, node)).collect();
    Outcome { violation, trace_hash: world.trace_hash(), trace, nodes }
}

/// What a node holds and claims, for those who look for the cause of a failure.
fn described(world: &World<Watched>, node: usize) -> String {
    let Some(status) = world.status(node) else { return format!("node {node} is down") };
    let mut text = format!("node {node}, ready {}, holds", status.ready);
    for (key, stamp) in world.store(node).contents() {
        text.push_str(&format!(" {}@{stamp}", key.escape_ascii()));
    }
    for report in status.streams {
        let Stream { origin, epoch } = report.stream;
        text.push_str(&format!(
            "\n    life {epoch:x} of {:016x}: {} of {}, up to {:x}, generation {}",
            origin.0, report.watermark, report.max, report.watermark_hlc.0, report.generation
        ));
    }
    text
}

fn play(world: &mut World<Watched>, scenario: &Scenario, rules: Rules, watch: &Rc<RefCell<Watch>>) {
    let observer = Rc::clone(watch);
    world.observe(move |world, event| observer.borrow_mut().see(world, event));
    for setup in scenario.setups(rules) {
        world.add(setup);
    }
    world.set_links(scenario.link);
    world.play(&scenario.schedule);
    world.run_until(FAULTS_MS);
    end_faults(world);
    world.run_until(FAULTS_MS + SETTLE_MS - QUIET_MS);
    watch.borrow_mut().begin_quiet(world);
    world.run_until(FAULTS_MS + SETTLE_MS);
    if !world.is_stopped() {
        watch.borrow_mut().see_settled(world, scenario.is_plenty());
    }
}

/// Every link is whole, every node up, connected and at its full speed, and every clock sane. A node whose clock was
/// beyond the allowed drift is started again once it is mended, and so is one that had to stop.
fn end_faults(world: &mut World<Watched>) {
    if world.is_stopped() {
        return;
    }
    world.heal();
    world.set_links(Link::default());
    for node in 0..world.len() {
        world.slow(node, 0);
        world.resume(node);
        world.connect(node);
        let ahead_ms = world.now(node).wall_ms as i64 - (START_WALL_MS + world.time_ms()) as i64;
        let is_sane = ahead_ms.abs() <= SANE_MS;
        let has_stopped = world.replica(node).is_some_and(|replica| replica.failure().is_some());
        if !is_sane || has_stopped {
            world.crash(node);
        }
        if !is_sane {
            world.step_clock(node, -ahead_ms);
        }
        world.start(node);
    }
}

thread_local! {
    /// What the panic that is being caught says; `None` while none is expected.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; what it says if it panics.
fn caught(work: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_CATCHING.get() {
                CAUGHT.with(|caught| *caught.borrow_mut() = Some(info.to_string().replace('\n', " ")));
            } else {
                usual(info);
            }
        }));
    });
    IS_CATCHING.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CATCHING.set(false);
    ended.err().map(|_| CAUGHT.take().unwrap_or_default())
}
