//! A cache of one shard as one would write it without a thought for speed: a list from the coldest to the hottest.

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
    marked: bool,
}

pub(crate) struct Model {
    pub(crate) order: Vec<Held>,
    pub(crate) now: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// What the listener and the sidecar should have heard.
    pub(crate) events: Vec<(u8, Value, Cause)>,
    pub(crate) victims: Vec<(u8, Value, Cause)>,
    entries: usize,
    weight: u64,
    default_ttl: Option<u64>,
}

impl Model {
    pub(crate) fn new(entries: usize, weight: u64, default_ttl: Option<u64>) -> Self {
        Model {
            order: Vec::new(),
            now: 0,
            hits: 0,
            misses: 0,
            events: Vec::new(),
            victims: Vec::new(),
            entries,
            weight,
            default_ttl,
        }
    }

    pub(crate) fn weight(&self) -> u64 {
        self.order.iter().map(|held| held.value.weight.max(1)).sum()
    }

    pub(crate) fn get(&mut self, key: u8) -> Option<Value> {
        let found = self.live_at(key);
        match found {
            Some(at) => {
                self.hits += 1;
                self.order[at].marked = true;
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

    /// A local write of a present key is a use; one from another region is not.
    fn write(
        &mut self,
        key: u8,
        at: Option<usize>,
        value: Value,
        expiry: Expiry,
        is_local: bool,
    ) -> Option<Value> {
        let deadline = self.deadline(expiry, at.map(|at| self.order[at].deadline));
        let weight = value.weight.max(1);
        if weight > self.weight {
            let old = at.map(|at| self.order.remove(at).value);
            if let Some(old) = old {
                self.events.push((key, old, Cause::Replaced));
            }
            self.events.push((key, value, Cause::Evicted));
            self.victims.push((key, value, Cause::Evicted));
            return old;
        }
        if let Some(at) = at {
            let old = self.order[at].value;
            self.events.push((key, old, Cause::Replaced));
            while self.weight() - old.weight.max(1) + weight > self.weight {
                self.evict_one(Some(key));
            }
            let held = self.order.iter_mut().find(|held| held.key == key).expect("it is kept");
            *held = Held { key, value, deadline, marked: held.marked || is_local };
            return Some(old);
        }
        while self.order.len() >= self.entries || self.weight() + weight > self.weight {
            self.evict_one(None);
        }
        self.order.push(Held { key, value, deadline, marked: false });
        None
    }

    fn evict_one(&mut self, keep: Option<u8>) {
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let coldest = &self.order[0];
            if keep == Some(coldest.key) {
                self.order.rotate_left(1);
            } else if self.is_over(coldest) {
                return self.give_up(0, Cause::Expired);
            } else if coldest.marked && chances > 0 {
                chances -= 1;
                self.order[0].marked = false;
                self.order.rotate_left(1);
            } else {
                return self.give_up(0, Cause::Evicted);
            }
        }
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
        held.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    fn deadline(&self, expiry: Expiry, present: Option<Option<u64>>) -> Option<u64> {
        match (expiry, present) {
            (Expiry::Never, _) => None,
            (Expiry::Keep, Some(deadline)) => deadline,
            (Expiry::After(ttl), _) => Some(self.now + ttl.as_millis() as u64),
            _ => self.default_ttl.map(|ttl| self.now + ttl),
        }
    }
}
