//! The rules of the protocol, each of which a simulation can switch off to see that it is missed.
//!
//! All are on by default, and nothing but the feature `sim` can switch one off: a rule without which no simulation
//! fails would be a rule that nobody needs, or a simulation that looks away.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// Which rules of the protocol are followed. All, unless a simulation says otherwise.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Rules {
            $($(#[doc = $doc])+ pub $name: bool,)+
        }

        impl Rules {
            /// Every rule is followed.
            pub const ALL: Self = Self { $($name: true),+ };

            /// The names of the rules, in the order in which they are declared.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// All rules but the one of this name; `None` where there is none.
            #[must_use]
            pub fn without(mut self, name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => self.$name = false,)+
                    _ => return None,
                }
                Some(self)
            }
        }
    };
}

rules! {
    /// An evicted key leaves a grave.
    grave_on_eviction,
    /// An expired key leaves a grave.
    grave_on_expiry,
    /// A grave dropped at the bound raises the floor.
    floor_rises,
    /// A full sync ends with the peer's floor adopted.
    floor_adopted,
    /// While a full sync runs, keys in the ranges already listed have at least the peer's floor.
    cover_while_syncing,
    /// A full sync that is given up raises the floor, since it has swept already.
    floor_after_abort,
    /// A full page sweeps what the peer does not list and may have forgotten.
    sweep_unlisted,
    /// A partial sync is not trusted once the peer's floor passed what it was asked from.
    full_past_floor,
    /// A warming node takes no records.
    gate_while_warming,
    /// An expiring record waits until its sender's clock is known.
    gate_unknown_clock,
    /// A life is shortened by the time on the way, not begun anew on arrival.
    ttl_by_transit,
    /// The time on the way is taken from measured clock offsets, not from raw wall clocks.
    ttl_by_offset,
    /// The clock is the hybrid one: it observes what it is shown.
    hybrid_clock,
    /// A number counts as applied only after its record was.
    note_only_applied,
    /// What is stamped beyond the allowed drift is refused.
    drift_refused,
    /// A node overtaken by a later epoch of its own begins again above it and re-issues what it wrote.
    re_epoch,
    /// A gap in the stream of a dead or overtaken life is closed from any peer that has more.
    dead_stream,
    /// The streams of this node's own earlier lives are kept like any other's.
    own_old_epochs,
    /// A gap is asked for at its origin while that lives.
    pull,
    /// What two nodes hold is compared in the background.
    scrub,
    /// A superseded change is not claimed to be complete while its successor waits.
    hold_back,
    /// A waiting session is answered by the stamp at the watermark, and only by it.
    session_by_watermark,
    /// A receipt counts the regions whose watermark passed the write, and no other.
    receipt_by_watermark,
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_can_be_switched_off_by_its_name() {
        for name in Rules::NAMES {
            assert_ne!(Rules::ALL.without(name), Some(Rules::ALL), "{name}");
        }
        assert_eq!(Rules::ALL.without("no such rule"), None);
    }
}
