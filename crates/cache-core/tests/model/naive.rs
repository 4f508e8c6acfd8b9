//! A cache of one shard as one would write it without a thought for speed: a list from the coldest to the hottest.
//!
//! With a depth, what stands below it comes first, and each entry knows which side it is on.

use cache_core::{Cause, Expiry, SECOND_CHANCES_MAX, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) id: u32,
    pub(crate) weight: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Held {
    key: u8,
    value: Value,
    deadline: Option<u64>,
    /// Until when it may be idle.
    idle_end: Option<u64>,
    marked: bool,
    /// It stands below the depth.
    is_lower: bool,
}

/// How a cache is built, as far as the model knows of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) entries: usize,
    /// Without it, every entry weighs 1.
    pub(crate) weight: Option<u64>,
    pub(crate) default_ttl: Option<u64>,
    pub(crate) idle: Option<u64>,
    /// Where writes of other regions enter; without it they are as any others.
    pub(crate) depth: Option<f64>,
}

pub(crate) struct Model {
    pub(crate) order: Vec<Held>,
    pub(crate) now: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// What the listener and the sidecar should have heard.
    pub(crate) events: Vec<(u8, Value, Cause)>,
    pub(crate) victims: Vec<(u8, Value, Cause)>,
    pub(crate) shape: Shape,
}

impl Model {
    pub(crate) fn new(shape: Shape) -> Self {
        Model {
            order: Vec::new(),
            now: 0,
            hits: 0,
            misses: 0,
            events: Vec::new(),
            victims: Vec::new(),
            shape,
        }
    }

    pub(crate) fn weight(&self) -> u64 {
        self.order.iter().map(|held| self.weight_of(held.value)).sum()
    }

    fn weight_of(&self, value: Value) -> u64 {
        if self.shape.weight.is_some() { value.weight.max(1) } else { 1 }
    }

    fn weight_max(&self) -> u64 {
        self.shape.weight.unwrap_or(u64::MAX)
    }

    fn idle_end(&self) -> Option<u64> {
        self.shape.idle.map(|idle| self.now + idle)
    }

    /// Another shape at run time: what is too much goes, the coldest first.
    pub(crate) fn resize(&mut self, entries: usize, weight: Option<u64>) {
        while self.order.len() > entries || self.weight() > weight.unwrap_or(u64::MAX) {
            self.evict_one(None);
        }
        (self.shape.entries, self.shape.weight) = (entries, weight);
    }

    pub(crate) fn get(&mut self, key: u8) -> Option<Value> {
        let found = self.live_at(key);
        match found {
            Some(at) => {
                self.hits += 1;
                self.order[at].marked = true;
                self.order[at].idle_end = self.idle_end();
                Some(self.order[at].value)
            }
            None => {
                self.misses += 1;
                None
            }
        }
    }

    pub(crate) fn peek(&self, key: u8) -> Option<Value> {
        self.order.iter().find(|held| held.key == key && !self.is_over(held)).map(|held| held.value)
    }

    pub(crate) fn left(&self, key: u8) -> Option<u64> {
        let held = self.order.iter().find(|held| held.key == key && !self.is_over(held))?;
        held.deadline.map(|deadline| deadline - self.now)
    }

    pub(crate) fn insert(&mut self, key: u8, value: Value, expiry: Expiry, is_local: bool) -> Option<Value> {
        let at = self.live_at(key);
        self.write(key, at, value, expiry, is_local)
    }

    pub(crate) fn remove(&mut self, key: u8) -> Option<Value> {
        let at = self.live_at(key)?;
        let held = self.order.remove(at);
        self.events.push((key, held.value, Cause::Removed));
        Some(held.value)
    }

    pub(crate) fn touch(&mut self, key: u8, expiry: Expiry) -> bool {
        let Some(at) = self.live_at(key) else { return false };
        self.order[at].deadline = self.deadline(expiry, Some(self.order[at].deadline));
        self.order[at].marked = true;
        self.order[at].idle_end = self.idle_end();
        true
    }

    pub(crate) fn upsert(&mut self, key: u8, verdict: &Verdict<Value>) -> Option<Value> {
        let at = self.live_at(key);
        let seen = at.map(|at| self.order[at].value);
        match verdict {
            Verdict::Keep => {}
            Verdict::Remove => {
                self.remove(key);
            }
            Verdict::Replace(value, expiry) => {
                self.write(key, at, *value, *expiry, true);
            }
            Verdict::ReplaceRemote(value, expiry) => {
                self.write(key, at, *value, *expiry, false);
            }
            Verdict::Update(expiry) | Verdict::UpdateRemote(expiry) => {
                if let Some(value) = seen {
                    self.update(key, value, *expiry, matches!(verdict, Verdict::Update(_)));
                }
            }
        }
        seen
    }

    /// As a replacement, but nobody hears of the value that it was; a vacant key stays vacant.
    pub(crate) fn update(&mut self, key: u8, value: Value, expiry: Expiry, is_local: bool) -> Option<Value> {
        let at = self.live_at(key)?;
        let was = self.order[at].value;
        let heard = self.events.len();
        self.write(key, Some(at), value, expiry, is_local);
        let replaced = self.events.remove(heard);
        assert_eq!(replaced, (key, was, Cause::Replaced));
        Some(was)
    }

    pub(crate) fn sweep(&mut self) -> usize {
        self.sweep_if(|_| true)
    }

    /// Gives up what is over among these keys, as a page does in its range.
    pub(crate) fn sweep_if(&mut self, is_met: impl Fn(u8) -> bool) -> usize {
        let before = self.order.len();
        while let Some(at) = self.order.iter().position(|held| self.is_over(held) && is_met(held.key)) {
            self.give_up(at, Cause::Expired);
        }
        before - self.order.len()
    }

    pub(crate) fn clear(&mut self) {
        self.events.extend(self.order.drain(..).map(|held| (held.key, held.value, Cause::Removed)));
    }

    /// Key, value and lifetime left, by key.
    pub(crate) fn live(&self) -> Vec<(u8, Value, Option<u64>)> {
        let live = self.order.iter().filter(|held| !self.is_over(held));
        let mut live: Vec<_> = live
            .map(|held| (held.key, held.value, held.deadline.map(|deadline| deadline - self.now)))
            .collect();
        live.sort_unstable_by_key(|(key, ..)| *key);
        live
    }

    pub(crate) fn key_of(&self, value: Value) -> u8 {
        self.order.iter().find(|held| held.value == value).expect("it is held").key
    }

    /// Live values, those used since they came to the hot end first, and then the hotter.
    pub(crate) fn hottest(&self) -> Vec<Value> {
        let live = self.order.iter().rev().filter(|held| !self.is_over(held));
        let (mut hottest, unmarked): (Vec<&Held>, Vec<&Held>) = live.partition(|held| held.marked);
        hottest.extend(unmarked);
        hottest.into_iter().map(|held| held.value).collect()
    }

    /// A local write of a present key is a use; one from another region is not, where there is a depth.
    fn write(
        &mut self,
        key: u8,
        at: Option<usize>,
        value: Value,
        expiry: Expiry,
        is_local: bool,
    ) -> Option<Value> {
        let is_local = is_local || self.shape.depth.is_none();
        let deadline = self.deadline(expiry, at.map(|at| self.order[at].deadline));
        let (weight, weight_max) = (self.weight_of(value), self.weight_max());
        let refusal = if deadline.is_some_and(|deadline| deadline <= self.now) {
            Some(Cause::Expired)
        } else {
            (weight > weight_max).then_some(Cause::Evicted)
        };
        if let Some(cause) = refusal {
            let old = at.map(|at| self.order.remove(at).value);
            if let Some(old) = old {
                self.events.push((key, old, Cause::Replaced));
            }
            self.events.push((key, value, cause));
            self.victims.push((key, value, cause));
            return old;
        }
        if let Some(at) = at {
            let old = self.order[at].value;
            self.events.push((key, old, Cause::Replaced));
            while self.weight() - self.weight_of(old) + weight > weight_max {
                self.evict_one(Some(key));
            }
            let used_now = self.idle_end();
            let held = self.order.iter_mut().find(|held| held.key == key).expect("it is kept");
            let idle_end = if is_local { used_now } else { held.idle_end };
            *held = Held { key, value, deadline, idle_end, marked: held.marked || is_local, ..*held };
            return Some(old);
        }
        while self.order.len() >= self.shape.entries || self.weight() + weight > weight_max {
            self.evict_one(None);
        }
        let at = if is_local { self.order.len() } else { self.border() };
        let idle_end = self.idle_end();
        self.order.insert(at, Held { key, value, deadline, idle_end, marked: false, is_lower: !is_local });
        // What it weighs itself counts from the next search on.
        self.shorten(if is_local { weight } else { 0 }, Some(key));
        None
    }

    /// How many stand below the depth.
    fn border(&self) -> usize {
        self.order.iter().filter(|held| held.is_lower).count()
    }

    /// What the upper part holds, and what it should hold at most: entries, and weight if there is a bound of that.
    fn upper(&self) -> ((usize, u64), (usize, u64)) {
        let upper = self.order.iter().filter(|held| !held.is_lower);
        let held = (upper.clone().count(), upper.map(|held| self.weight_of(held.value)).sum());
        let Some(depth) = self.shape.depth else { return (held, (usize::MAX, u64::MAX)) };
        let entries = (self.shape.entries as f64 * depth) as usize;
        let weight = self.shape.weight.map_or(u64::MAX, |weight| (weight as f64 * depth) as u64);
        (held, (entries.max(1), weight.max(1)))
    }

    fn is_full(&self) -> bool {
        let ((entries, weight), (entries_max, weight_max)) = self.upper();
        entries >= entries_max || weight >= weight_max
    }

    /// What the upper part holds too much, but for so much weight, falls below the depth; never its only entry.
    fn shorten(&mut self, uncounted: u64, keep: Option<u8>) {
        let falls = if self.shape.weight.is_some() { SECOND_CHANCES_MAX } else { 2 };
        for _ in 0..falls {
            let ((entries, weight), (entries_max, weight_max)) = self.upper();
            let (weight, border) = (weight - uncounted, self.border());
            let is_too_much = entries > entries_max || (entries > 1 && weight > weight_max);
            if !is_too_much || self.order.get(border).is_none_or(|coldest| keep == Some(coldest.key)) {
                return;
            }
            self.order[border].is_lower = true;
        }
    }

    fn evict_one(&mut self, keep: Option<u8>) {
        self.shorten(0, keep);
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let at = self.coldest_but(keep);
            if self.is_over(&self.order[at]) {
                return self.give_up(at, Cause::Expired);
            }
            if !self.order[at].marked || chances == 0 {
                return self.give_up(at, Cause::Evicted);
            }
            chances -= 1;
            self.rise(at, keep);
        }
    }

    /// The coldest below the depth, or if nothing stands there, above it. The one to keep goes to the hot end of its part.
    fn coldest_but(&mut self, keep: Option<u8>) -> usize {
        let border = self.border();
        for (from, end) in [(0, border), (border, self.order.len())] {
            if from < end && keep == Some(self.order[from].key) {
                self.order[from..end].rotate_left(1);
            }
            if from < end && keep != Some(self.order[from].key) {
                return from;
            }
        }
        unreachable!("alone, an entry fits");
    }

    /// A used entry loses its mark and goes to the hot end of all, and if there is no room above the depth, the coldest there comes
    /// down for it.
    fn rise(&mut self, at: usize, keep: Option<u8>) {
        let is_full = self.is_full();
        let mut risen = self.order.remove(at);
        risen.marked = false;
        if risen.is_lower && is_full {
            let border = self.border();
            if self.order.get(border).is_none_or(|coldest| keep == Some(coldest.key)) {
                self.order.insert(border, risen);
                return;
            }
            self.order[border].is_lower = true;
        }
        risen.is_lower = false;
        self.order.push(risen);
    }

    /// Where a live entry is; one that is over is given up on the way.
    fn live_at(&mut self, key: u8) -> Option<usize> {
        let at = self.order.iter().position(|held| held.key == key)?;
        if self.is_over(&self.order[at]) {
            self.give_up(at, Cause::Expired);
            return None;
        }
        Some(at)
    }

    fn give_up(&mut self, at: usize, cause: Cause) {
        let held = self.order.remove(at);
        self.victims.push((held.key, held.value, cause));
        self.events.push((held.key, held.value, cause));
    }

    fn is_over(&self, held: &Held) -> bool {
        [held.deadline, held.idle_end].into_iter().flatten().any(|end| end <= self.now)
    }

    fn deadline(&self, expiry: Expiry, present: Option<Option<u64>>) -> Option<u64> {
        match (expiry, present) {
            (Expiry::Never, _) => None,
            (Expiry::Keep, Some(deadline)) => deadline,
            (Expiry::After(ttl), _) => Some(self.now + ttl.as_millis() as u64),
            _ => self.shape.default_ttl.map(|ttl| self.now + ttl),
        }
    }
}
