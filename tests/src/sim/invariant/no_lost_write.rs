//! Once all is settled, with room for everything: the newest change of a key that any living node was told is what all
//! nodes hold.
//!
//! A value that expires is left out: it may have gone meanwhile.

use replication::message::Bar;

use super::{End, Invariant, KEYS_MAX, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NoLostWrite;

impl Invariant for NoLostWrite {
    fn name(&self) -> &'static str {
        "no write is lost"
    }

    fn settled(&mut self, end: &End<'_>) -> Verdict {
        if !end.is_plenty {
            return Ok(());
        }
        for key in 0..KEYS_MAX {
            let newest = end.up().map(|(_, settled)| settled.told[key]).max().unwrap_or(Bar::NONE);
            let mut expires = end.ledger.of_stamp(key, newest.stamp).map(|write| write.deadline_ms.is_some());
            if newest == Bar::NONE || newest.strict || expires.any(|expires| expires) {
                continue;
            }
            let lacking = end.up().find(|(_, settled)| {
                settled.shown[key].held.as_ref().is_none_or(|held| held.stamp != newest.stamp)
            });
            if let Some((node, settled)) = lacking {
                let held = settled.shown[key].held.as_ref().map(|held| held.stamp.to_string());
                let key = key_named(key);
                let stamp = newest.stamp;
                return Err(format!(
                    "a living node was told {key:?} at {stamp}, but node {node} holds {held:?}"
                ));
            }
        }
        Ok(())
    }
}
