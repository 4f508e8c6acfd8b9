//! What a full page says of a range of keys holds on the node that took it, from then on: no key of the range is below
//! the record, the grave or, where the page names neither, the floor that it carries.
//!
//! The page before the last counts as well: a transfer takes a while, and what arrives meanwhile is judged by it.

use replication::message::{Bar, SyncPage};

use super::{At, BarOf, Invariant, Verdict, key, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct PageCovers;

impl Invariant for PageCovers {
    fn name(&self) -> &'static str {
        "a page covers its range"
    }

    fn took_page(&mut self, at: At, page: &SyncPage, bars: BarOf<'_>) -> Verdict {
        if !page.full {
            return Ok(());
        }
        let positions = (0..key::KEYS_MAX).map(|key| (key, key::position(key)));
        for (key, position) in positions {
            let is_within = position >= page.lo && page.hi.is_none_or(|hi| position < hi);
            if !is_within || page.keep.contains(&position) {
                continue;
            }
            let record = page.records.iter().find(|record| record.key == key::text(key).as_bytes());
            let grave = page.graves.iter().find(|grave| grave.position == position);
            let told = match (record, grave) {
                (Some(record), _) => Bar::at(record.stamp),
                (None, Some(grave)) => grave.bar,
                (None, None) => page.floor,
            };
            let bar = bars(key);
            if bar < told {
                return Err(format!(
                    "node {} took a page that puts {:?} at {told:?}, but its bar is {bar:?}",
                    at.node,
                    key_named(key)
                ));
            }
        }
        Ok(())
    }
}
