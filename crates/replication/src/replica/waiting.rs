//! A queue bounded by number and by bytes, which gives its oldest up.

use std::collections::VecDeque;

/// Waits for its turn, oldest first. What is dropped at a bound is asked for again by whoever misses it.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

/// How many may wait, and how many bytes of them; one alone may be larger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl<T> Waiting<T> {
    pub(super) const fn new() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds one of so many bytes, and returns how many older ones had to go.
    pub(super) fn push(&mut self, item: T, bytes: usize, room: Room) -> u64 {
        let mut dropped = 0;
        while self.items.len() >= room.items || self.bytes.saturating_add(bytes) > room.bytes {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        self.items.push_back((item, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        dropped
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut waiting: Waiting<u32>) -> Vec<u32> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn the_oldest_goes_at_either_bound() {
        let room = Room { items: 3, bytes: 100 };
        let mut waiting = Waiting::new();
        let dropped: Vec<u64> = (0..5).map(|number| waiting.push(number, 10, room)).collect();
        assert_eq!(dropped, [0, 0, 0, 1, 1]);
        assert_eq!(waiting.push(5, 81, room), 2, "two of ten bytes leave too little room");
        assert_eq!(all(waiting), [4, 5]);
    }

    #[test]
    fn one_alone_may_be_larger_than_the_room() {
        let room = Room { items: 3, bytes: 100 };
        let mut waiting = Waiting::new();
        assert_eq!((waiting.push(0, 10, room), waiting.push(1, usize::MAX, room)), (0, 1));
        assert_eq!(waiting.push(2, 1, room), 1);
        assert_eq!(all(waiting), [2]);
    }
}
