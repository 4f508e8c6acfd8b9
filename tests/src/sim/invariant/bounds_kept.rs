//! Every store, queue and list of a node is within its bound.

use super::{At, Invariant, Sizes, Verdict};

/// Epochs of one node of which a node keeps streams.
const EPOCHS_MAX: usize = 4;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct BoundsKept;

impl Invariant for BoundsKept {
    fn name(&self) -> &'static str {
        "bounds are kept"
    }

    fn grew(&mut self, at: At, sizes: &Sizes<'_>) -> Verdict {
        let setup = sizes.setup;
        let peers_max = setup.config.peers_max;
        // The outbox always takes one record, however large.
        let outbox_bytes = if sizes.outbox_records > 1 { sizes.outbox_bytes } else { 0 };
        // So do the messages to single nodes.
        let message_bytes = if sizes.messages > 1 { sizes.message_bytes } else { 0 };
        let held = [
            ("entries", sizes.entries, setup.capacity),
            ("graves", sizes.graves, setup.graves_max),
            ("bytes in the outbox", outbox_bytes, setup.outbox_bytes_max),
            ("messages", sizes.messages, setup.config.control_max),
            ("bytes of messages", message_bytes, setup.config.control_bytes_max),
            ("nodes known", sizes.peers, peers_max),
            ("streams", sizes.streams, EPOCHS_MAX * (peers_max + 1) + 1),
        ];
        match held.into_iter().find(|(_, held, most)| held > most) {
            Some((what, held, most)) => Err(format!("node {} holds {held} {what} of {most}", at.node)),
            None => Ok(()),
        }
    }
}
