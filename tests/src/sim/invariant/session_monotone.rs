//! A session token never reads older: where its write is said to be, a read returns it, something newer, or nothing.
//!
//! And once all is settled no session is left waiting: its write is there, or it is known to be lost.

use replication::{
    Stream,
    message::Bar,
    replica::{Progress, Token},
};

use super::{At, BarOf, End, Invariant, Session, Verdict};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct SessionMonotone;

impl Invariant for SessionMonotone {
    fn name(&self) -> &'static str {
        "a session never reads older"
    }

    fn session(&mut self, at: At, session: &Session<'_>, bars: BarOf<'_>) -> Verdict {
        let write = session.write;
        if session.progress != Progress::Reached || bars(write.key) >= Bar::at(write.stamp) {
            return Ok(());
        }
        let bar = bars(write.key);
        Err(format!("node {} says that it has {write}, but its bar lets it through: {bar:?}", at.node))
    }

    fn settled(&mut self, end: &End<'_>) -> Verdict {
        // The last write of each life: whoever has it has all before it. A life under a clock that was too far ahead is
        // above its node's present one, and nobody took anything of it: its sessions wait until they give up.
        let is_past =
            |stream: &Stream| end.epochs.get(&stream.origin).is_some_and(|epoch| stream.epoch <= *epoch);
        let last = |stream| end.ledger.of_stream(stream).next_back();
        for write in end.ledger.streams().filter(is_past).filter_map(last) {
            let token = Token { stream: write.stream, hlc: write.stamp.hlc };
            for (node, _) in end.up() {
                if let Progress::Behind { lag_ms } = (end.progress)(node, token) {
                    return Err(format!("node {node} is behind {write} by {lag_ms:?} ms for good"));
                }
            }
        }
        Ok(())
    }
}
