//! Once all is settled, every node is ready, and any two that hold a key hold one stamp of it.
//!
//! With room for everything, what one holds all hold. A key that expires is left out of that: one copy may go a little
//! before another.

use replication::Stamp;

use super::{End, Invariant, KEYS_MAX, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Converged;

impl Invariant for Converged {
    fn name(&self) -> &'static str {
        "the nodes converge"
    }

    fn settled(&mut self, end: &End<'_>) -> Verdict {
        for (node, settled) in end.nodes.iter().enumerate() {
            let failure = settled.failure.as_deref().unwrap_or("none");
            let (is_up, is_ready) = (settled.is_up, settled.is_ready);
            if !is_up || !is_ready || settled.failure.is_some() {
                return Err(format!("node {node}: up {is_up}, ready {is_ready}, failure {failure}"));
            }
        }
        (0..KEYS_MAX).try_for_each(|key| agree_on(end, key))
    }
}

fn agree_on(end: &End<'_>, key: usize) -> Verdict {
    let held: Vec<(usize, Option<Stamp>)> = end
        .up()
        .map(|(node, settled)| (node, settled.shown[key].held.as_ref().map(|held| held.stamp)))
        .collect();
    let mut holders = held.iter().filter_map(|(_, stamp)| *stamp);
    let Some(first) = holders.next() else { return Ok(()) };
    let text = key_named(key);
    if holders.any(|stamp| stamp != first) {
        return Err(format!("nodes hold {text:?} differently: {}", listed(&held)));
    }
    let expires = end.ledger.of_stamp(key, first).any(|write| write.deadline_ms.is_some());
    if end.is_plenty && !expires && held.iter().any(|(_, stamp)| stamp.is_none()) {
        return Err(format!("not every node holds {text:?}, with room for everything: {}", listed(&held)));
    }
    Ok(())
}

fn listed(held: &[(usize, Option<Stamp>)]) -> String {
    let words = held.iter().map(|(node, stamp)| match stamp {
        Some(stamp) => format!("node {node} {stamp}"),
        None => format!("node {node} none"),
    });
    words.collect::<Vec<_>>().join(", ")
}
