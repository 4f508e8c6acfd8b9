//! A node sees its own write at once.

use super::{At, Invariant, Shown, Verdict, Write};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct OwnWriteVisible;

impl Invariant for OwnWriteVisible {
    fn name(&self) -> &'static str {
        "own writes are visible at once"
    }

    fn wrote(&mut self, at: At, write: &Write, shown: &Shown) -> Verdict {
        let is_over = write.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= at.now_ms);
        let is_as_written = match (&shown.held, &write.value) {
            (Some(held), Some(value)) => held.stamp == write.stamp && held.bytes == *value,
            (None, Some(_)) => is_over,
            (held, None) => held.is_none(),
        };
        if is_as_written {
            return Ok(());
        }
        Err(format!("node {} shows {:?} right after {write}", at.node, shown.held))
    }
}
