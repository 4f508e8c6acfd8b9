//! A hasher that puts keys where a test wants them.

use std::hash::{BuildHasher, Hasher};

/// Gives each number that is a key the position that the function says.
#[derive(Clone, Copy)]
pub(crate) struct Placed(pub(crate) fn(u64) -> u64);

pub(crate) struct Position(u64, fn(u64) -> u64);

impl BuildHasher for Placed {
    type Hasher = Position;

    fn build_hasher(&self) -> Position {
        Position(0, self.0)
    }
}

impl Hasher for Position {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are u64")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = (self.1)(key);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
