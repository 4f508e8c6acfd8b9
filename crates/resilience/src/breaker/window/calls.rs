//! The last so many calls.

use super::{Call, Totals};

const FAILED: u8 = 1;
const OVERLOADED: u8 = 2;
const SLOW: u8 = 4;

/// A ring of the newest calls, one byte each; `totals` always equals what a walk over it would count.
#[derive(Debug)]
pub(in crate::breaker) struct Calls {
    ring: Box<[u8]>,
    next: usize,
    totals: Totals,
}

impl Calls {
    /// An empty window of `size` calls; `size` is at least 1.
    pub(super) fn new(size: u32) -> Self {
        Self { ring: vec![0; size as usize].into_boxed_slice(), next: 0, totals: Totals::default() }
    }

    pub(super) fn push(&mut self, call: Call) {
        let full = self.totals.calls == self.ring.len() as u64;
        let slot = &mut self.ring[self.next];
        if full {
            let mut oldest = Totals::default();
            oldest.add(unpacked(*slot));
            self.totals.subtract(oldest);
        }
        *slot = packed(call);
        self.totals.add(call);
        self.next += 1;
        if self.next == self.ring.len() {
            self.next = 0;
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn clear(&mut self) {
        (self.next, self.totals) = (0, Totals::default());
    }
}

fn packed(call: Call) -> u8 {
    u8::from(call.failed) * FAILED + u8::from(call.overloaded) * OVERLOADED + u8::from(call.slow) * SLOW
}

fn unpacked(byte: u8) -> Call {
    Call { failed: byte & FAILED != 0, overloaded: byte & OVERLOADED != 0, slow: byte & SLOW != 0 }
}
