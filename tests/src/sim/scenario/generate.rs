//! What a seed makes: the families of faults, the bounds, and the schedule.

use fastrand::Rng;
use replication::sim::{Action, Link};

use super::{FAULTS_MS, NodePlan, SANE_MS, Scenario};
use crate::sim::key::{self, KEYS_MAX, NAMESPACES};

/// How far the clocks of sane nodes are from the world's: any two are within four minutes of each other.
const SKEW_MS_MAX: i64 = 120_000;

/// How far a clock beyond the allowed drift is: at least six minutes from any sane one.
const OUTLIER_MS: std::ops::Range<i64> = 480_000..600_000;

/// Chances and measures of one scenario, drawn once.
struct Weather {
    nodes: usize,
    keys: usize,
    /// The mean time between two actions.
    gap_ms: u64,
    removes: bool,
    clears: bool,
    expires: bool,
    crashes: bool,
    /// A node starts again and again, oftener than lives of a node are remembered.
    crash_loops: bool,
    /// Nodes unheard for some seconds are retired.
    retires: bool,
    /// Little is remembered and much removed, and a transfer takes long.
    forgetful: bool,
    clocks_go_back: bool,
    clocks_step: bool,
    outliers: bool,
    cuts: bool,
    /// The longest of them.
    cut_ms_max: u64,
    pauses: bool,
    disconnects: bool,
    /// Bytes to which a value is padded.
    padded: usize,
}

impl Scenario {
    /// The scenario that a seed decides.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x7363_656e_6172_696f);
        let is_calm = rng.u32(..5) == 0;
        let weather = Weather::draw(&mut rng, is_calm);
        let nodes = plans(&mut rng, &weather, is_calm);
        let link = link(&mut rng, is_calm, weather.forgetful);
        let skews = nodes.iter().map(|node| node.skew_ms).collect();
        let regions = if rng.u32(..4) == 0 { rng.usize(1..=weather.nodes) } else { weather.nodes };
        let script = Script { rng, weather, skews, down: Vec::new(), lines: Vec::new(), writes: 0 };
        Self { seed, nodes, regions, link, schedule: script.written() }
    }
}

impl Weather {
    fn draw(rng: &mut Rng, is_calm: bool) -> Self {
        let mut often = |of_ten: u32| rng.u32(..10) < of_ten;
        let [removes, clears, expires] = [often(9), often(4), often(6)];
        let [crashes, clocks_go_back, clocks_step] =
            [often(7), often(6), often(3)].map(|any| any && !is_calm);
        let [crash_loops, forgetful, retires] = [3, 2, 1].map(|of_ten| often(of_ten) && !is_calm);
        let [outliers, cuts] = [often(2) && !is_calm, often(7) || crash_loops || forgetful || retires];
        let is_fat = often(1);
        let [pauses, disconnects] = [often(3), often(4) || is_fat];
        Self {
            nodes: [2, 2, 3, 3, 3, 4, 5][rng.usize(..7)],
            keys: rng.usize(if forgetful { 16 } else { 4 }..=KEYS_MAX),
            // A life that writes nothing leaves nothing to be asked for, so the loops have few writes.
            gap_ms: rng.u64(40..250) * if crash_loops { 8 } else { 1 + u64::from(is_fat) },
            removes,
            clears,
            expires,
            crashes,
            crash_loops,
            forgetful,
            retires,
            clocks_go_back,
            clocks_step,
            outliers,
            cuts,
            cut_ms_max: match (crash_loops || retires, forgetful) {
                (true, _) => 25_000,
                (_, true) => 3_000,
                _ => 10_000,
            },
            pauses,
            disconnects,
            padded: if is_fat { rng.usize(30_000..60_000) } else { 0 },
        }
    }
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn plans(rng: &mut Rng, weather: &Weather, is_calm: bool) -> Vec<NodePlan> {
    let usual = NodePlan::default();
    let is_skewed = rng.u32(..10) < 7;
    let small = |rng: &mut Rng, of_ten: u32| rng.u32(..10) < of_ten;
    let mut plan = NodePlan { bootstrap: small(rng, 8), ..usual };
    if !is_calm && small(rng, 6) {
        plan.capacity = pick(rng, &[8, 8, 12, 1_000]);
        plan.graves_max = pick(rng, &[6, 6, 16, 1_000]);
    }
    if small(rng, 5) {
        plan.ring_bytes_max = pick(rng, &[200, 500, 2_000]);
    }
    if small(rng, 4) {
        plan.outbox_bytes_max = pick(rng, &[700, 2_600]);
    }
    if small(rng, 7) {
        plan.page_bytes = pick(rng, &[150, 300, 700]);
    }
    if small(rng, 4) {
        plan.sync_bytes_per_s = if weather.padded > 0 { 1 << 20 } else { pick(rng, &[6_000, 20_000]) };
    }
    if small(rng, 5) {
        plan.preview_bytes = pick(rng, &[0, 300]);
    }
    if small(rng, 3) {
        plan.scrub_samples = pick(rng, &[4, 8]);
    }
    if small(rng, 2) {
        plan.control_max = pick(rng, &[4, 12]);
        plan.control_bytes_max = pick(rng, &[1_500, plan.control_bytes_max]);
        plan.pull_frames_max = pick(rng, &[2, 4]);
    }
    if small(rng, 2) {
        plan.inbox_frames_max = pick(rng, &[4, 30]);
    }
    if weather.retires {
        plan.retire_ms = pick(rng, &[4_000, 8_000]);
    }
    if small(rng, 3) || weather.padded > 0 {
        plan.window = pick(rng, &[1, 2]);
        plan.confirm_ms = pick(rng, &[10, 25]);
    }
    if weather.forgetful {
        plan.graves_max = pick(rng, &[4, 6, 10]);
        plan.ring_bytes_max = pick(rng, &[200, 500]);
        plan.page_bytes = 150;
        plan.sync_bytes_per_s = if weather.padded > 0 { 1 << 20 } else { 6_000 };
    }
    let mut nodes: Vec<NodePlan> = (0..weather.nodes).map(|_| plan).collect();
    for node in &mut nodes {
        if is_skewed {
            node.skew_ms = rng.i64(-SKEW_MS_MAX..=SKEW_MS_MAX);
        }
        if small(rng, 1) && !weather.forgetful {
            (node.capacity, node.graves_max) = (usual.capacity, usual.graves_max);
        }
    }
    if weather.outliers && rng.bool() {
        let node = rng.usize(..nodes.len());
        nodes[node].skew_ms = outlier(rng);
    }
    nodes
}

fn outlier(rng: &mut Rng) -> i64 {
    let by_ms = rng.i64(OUTLIER_MS);
    if rng.bool() { by_ms } else { -by_ms }
}

fn link(rng: &mut Rng, is_calm: bool, is_slow: bool) -> Link {
    // In thousandths, so that a kept scenario is read back as it was.
    let mut some = |of_ten: u32, most: f64| match rng.u32(..10) < of_ten {
        true => (rng.f64() * most * 1_000.0).round() / 1_000.0,
        false => 0.0,
    };
    let worst = if is_calm { 0.1 } else { 0.35 };
    let (drop, duplicate) = (some(7, worst), some(6, worst));
    let late = if is_slow { some(10, 0.3).max(0.1) } else { some(6, worst) };
    let corrupt = some(2, 0.05);
    let delay_ms_min = rng.u64(1..40);
    Link {
        delay_ms_min,
        delay_ms_max: delay_ms_min + if is_slow { 250 } else { pick(rng, &[0, 4, 60, 250]) },
        drop,
        duplicate,
        late,
        late_ms_max: if is_slow { pick(rng, &[3_000, 8_000]) } else { pick(rng, &[50, 400, 2_000, 8_000]) },
        corrupt,
        ..Link::default()
    }
}

/// A schedule in the making.
struct Script {
    rng: Rng,
    weather: Weather,
    /// The clocks against the world's, as they will be.
    skews: Vec<i64>,
    /// The nodes that are down at this point, and until when.
    down: Vec<(usize, u64)>,
    lines: Vec<(u64, Action)>,
    writes: usize,
}

impl Script {
    fn written(mut self) -> Vec<(u64, Action)> {
        let mut at_ms = self.rng.u64(..1_500);
        while at_ms < FAULTS_MS {
            self.down.retain(|(_, until_ms)| *until_ms > at_ms);
            self.step(at_ms);
            at_ms += 1 + self.rng.u64(..2 * self.weather.gap_ms);
        }
        // A few writes come when the faults have ended.
        for _ in 0..self.rng.u64(..6) {
            let at_ms = FAULTS_MS + self.rng.u64(..12_000);
            let node = self.rng.usize(..self.weather.nodes);
            self.local(at_ms, node);
        }
        self.lines.sort_by_key(|(at_ms, _)| *at_ms);
        self.lines
    }

    fn add(&mut self, at_ms: u64, action: Action) {
        self.lines.push((at_ms, action));
    }

    fn step(&mut self, at_ms: u64) {
        let node = self.rng.usize(..self.weather.nodes);
        let is_up = self.down.iter().all(|(down, _)| *down != node);
        let Weather {
            crashes, crash_loops, forgetful, clocks_step, outliers, cuts, pauses, disconnects, ..
        } = self.weather;
        match self.rng.u32(..1_000) {
            0..12 if crash_loops && is_up => self.crash_loop(at_ms, node),
            0..18 if crashes && is_up => self.crash(at_ms, node),
            18..24 if clocks_step => {
                let by_ms = self.rng.i64(1_000..60_000);
                self.step_clock(at_ms, node, by_ms);
            }
            24..26 if outliers => {
                let by_ms = self.rng.i64(OUTLIER_MS) + SKEW_MS_MAX;
                self.skews[node] += by_ms;
                self.add(at_ms, Action::Step { node, by_ms });
            }
            26..28 if clocks_step => {
                let ppm = self.rng.i64(-500..500);
                self.add(at_ms, Action::Rate { node, ppm });
            }
            // A node that is often cut off for a short time asks for many transfers.
            30..100 if forgetful => self.cut(at_ms, node),
            30..50 if cuts => self.cut(at_ms, node),
            100..106 if pauses => self.pause(at_ms, node),
            106..116 if disconnects => self.disconnect(at_ms, node),
            _ => self.local(at_ms, node),
        }
    }

    fn local(&mut self, at_ms: u64, node: usize) {
        let key = self.rng.usize(..self.weather.keys);
        let text = key::text(key);
        let Weather { removes, clears, forgetful, .. } = self.weather;
        match self.rng.u32(..100) {
            60.. if forgetful => self.add(at_ms, Action::remove(node, text)),
            0..18 if removes => self.add(at_ms, Action::remove(node, text)),
            18..34 => self.add(at_ms, Action::read(node, text)),
            34..36 if clears => {
                let namespace = pick(&mut self.rng, &NAMESPACES).to_owned();
                self.add(at_ms, Action::Clear { node, namespace });
            }
            _ => self.put(at_ms, node, text),
        }
    }

    fn put(&mut self, at_ms: u64, node: usize, key: &str) {
        self.writes += 1;
        let mut value = format!("w{}", self.writes);
        let padded = self.weather.padded;
        value.extend(std::iter::repeat_n('.', padded.saturating_sub(value.len())));
        let is_mortal = self.weather.expires && self.rng.u32(..3) == 0;
        let ttl_ms = is_mortal.then(|| match self.rng.u32(..10) {
            0..6 => self.rng.u64(20..3_000),
            6..9 => self.rng.u64(3_000..20_000),
            _ => 3_600_000,
        });
        self.add(at_ms, Action::Put { node, key: key.to_owned(), value, ttl_ms });
    }

    /// A crash, and the start after it, under a clock that may have moved.
    fn crash(&mut self, at_ms: u64, node: usize) {
        self.add(at_ms, Action::Crash { node });
        let away_ms = match self.rng.u32(..4) {
            0 => self.rng.u64(1..100),
            1 | 2 => self.rng.u64(100..5_000),
            _ => self.rng.u64(5_000..20_000),
        };
        self.down.push((node, at_ms + away_ms));
        if self.weather.clocks_go_back && self.rng.bool() {
            let by_ms = match self.rng.u32(..4) {
                // The new life is stamped like the one before.
                0 | 1 => -((away_ms + self.rng.u64(..6_000)) as i64),
                2 => -self.rng.i64(1..60_000),
                _ => self.rng.i64(1..60_000),
            };
            self.step_clock(at_ms + away_ms - 1, node, by_ms);
        }
        self.add(at_ms + away_ms, Action::Start { node });
    }

    /// A node that starts again and again, while it may be cut off from another.
    fn crash_loop(&mut self, at_ms: u64, node: usize) {
        let other = (node + 1 + self.rng.usize(..self.weather.nodes - 1)) % self.weather.nodes;
        let lives = self.rng.u64(4..8);
        let life_ms = self.rng.u64(900..2_500);
        let begin_ms = at_ms + self.rng.u64(500..4_000);
        let end_ms = begin_ms + lives * life_ms;
        self.add(at_ms, Action::partition([node], [other]));
        let key = self.rng.usize(..self.weather.keys);
        self.put(at_ms + 100, node, key::text(key));
        for life in 0..lives {
            self.add(begin_ms + life * life_ms, Action::Crash { node });
            self.add(begin_ms + life * life_ms + 20, Action::Start { node });
        }
        self.add(end_ms, Action::Heal);
        self.down.push((node, end_ms));
    }

    /// Moves a clock as far as it stays sane.
    fn step_clock(&mut self, at_ms: u64, node: usize, by_ms: i64) {
        let skew_ms = &mut self.skews[node];
        let by_ms = (*skew_ms + by_ms).clamp(-SKEW_MS_MAX, SKEW_MS_MAX) - *skew_ms;
        if skew_ms.abs() <= SANE_MS {
            *skew_ms += by_ms;
            self.add(at_ms, Action::Step { node, by_ms });
        }
    }

    fn cut(&mut self, at_ms: u64, node: usize) {
        let other = (node + 1 + self.rng.usize(..self.weather.nodes - 1)) % self.weather.nodes;
        let until_ms = at_ms + self.rng.u64(100..self.weather.cut_ms_max);
        match self.rng.u32(..4) {
            0 => {
                let (left, right) = (0..self.weather.nodes).partition(|_| self.rng.bool());
                self.add(at_ms, Action::Partition { left, right });
                self.add(until_ms, Action::Heal);
            }
            1 => {
                let right = (0..self.weather.nodes).filter(|other| *other != node).collect::<Vec<_>>();
                self.add(at_ms, Action::partition([node], right));
                self.add(until_ms, Action::Heal);
            }
            _ => {
                self.add(at_ms, Action::Cut { from: node, to: other });
                self.add(until_ms, Action::Mend { from: node, to: other });
            }
        }
    }

    fn pause(&mut self, at_ms: u64, node: usize) {
        let until_ms = at_ms + self.rng.u64(50..8_000);
        if self.rng.u32(..4) == 0 {
            let frame_ms = self.rng.u64(1..40);
            self.add(at_ms, Action::Slow { node, frame_ms });
            self.add(until_ms, Action::Slow { node, frame_ms: 0 });
        } else {
            self.add(at_ms, Action::Pause { node });
            self.add(until_ms, Action::Resume { node });
        }
    }

    fn disconnect(&mut self, at_ms: u64, node: usize) {
        self.add(at_ms, Action::Disconnect { node });
        let until_ms = at_ms + self.rng.u64(50..6_000);
        self.add(until_ms, Action::Connect { node });
    }
}
