//! What happens on a node, as it happens: changes of values, of the other nodes, and of the breakers in front of brokers.
//!
//! Events are for observing: invalidating something derived, a status page, a test. They are not a log: they wait in a ring of a bounded
//! length, and a watcher that falls behind it is told how many it missed ([`Missed`]). While nobody watches, nothing is built.
//!
//! Events of one key come in the order in which the node made the changes, since they are sent under the lock of its shard; those of
//! different keys in any order. What a full state transfer brings is told as any write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use replication::{
    NodeId, Transport,
    replica::{PeerStatus, Status},
    report::{Breaker, BreakerState},
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use crate::{error::Error, node::GeoCache};

/// How many events wait for a watcher; past it the oldest are dropped, and the watcher is told how many.
const WAITING_MAX: usize = 4_096;

/// Between two looks at the transport's breakers.
const BREAKERS_EVERY: Duration = Duration::from_millis(100);

/// Something that happened on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A key has a new value, or its value a new life.
    Put {
        /// The key.
        key: Bytes,
        /// Whether another node wrote it.
        remote: bool,
    },
    /// A key that held a value was removed.
    Removed {
        /// The key.
        key: Bytes,
        /// Whether another node removed it.
        remote: bool,
    },
    /// Every key of a namespace is gone; of the whole cache where the prefix is empty.
    Cleared {
        /// What the keys begin with.
        prefix: Bytes,
        /// Whether another node cleared it.
        remote: bool,
    },
    /// A value's time was over. It is told when the memory is given back, which may be some time after.
    Expired {
        /// The key.
        key: Bytes,
    },
    /// A value was given up for room, here alone.
    Evicted {
        /// The key.
        key: Bytes,
    },
    /// Another node is heard and ready.
    PeerReady {
        /// The node.
        node: NodeId,
    },
    /// Another node is heard, and warming.
    PeerWarming {
        /// The node.
        node: NodeId,
    },
    /// Another node is heard no more.
    PeerDown {
        /// The node.
        node: NodeId,
    },
    /// Another node's clock is so far ahead that its writes are refused; `drifts` is false when that is over.
    PeerDrift {
        /// The node.
        node: NodeId,
        /// Whether it is so.
        drifts: bool,
    },
    /// A breaker in front of one of the transport's brokers changed, as it was seen ten times a second: what came and went in
    /// between is not told. The breakers as they are when the watch begins are in
    /// [`transport_report`](crate::GeoCache::transport_report).
    Breaker {
        /// The broker, without its password.
        broker: String,
        /// What it is connected to for, as `publishing`.
        purpose: &'static str,
        /// What the breaker does now.
        state: BreakerState,
    },
    /// This node is ready.
    Ready,
}

/// A watcher fell behind: this many events were dropped for it. The next ones follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{events} events were missed; read what matters anew")]
pub struct Missed {
    /// How many.
    pub events: u64,
}

/// What a node tells its watchers.
#[derive(Debug)]
pub(crate) struct Bell {
    events: broadcast::Sender<Event>,
    /// How many watch. The channel's own count takes a lock, which is too much for each write.
    watchers: Arc<AtomicUsize>,
    /// Whether the changes of the other nodes are told.
    tells_peers: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        let events = broadcast::Sender::new(WAITING_MAX);
        Self { events, watchers: Arc::default(), tells_peers: AtomicBool::new(false) }
    }
}

impl Bell {
    /// Tells the watchers, if there are any; `event` is built only then. Runs no one's code but the runtime's, so it may be called
    /// under a lock.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_watched() {
            // Nobody may be left by now.
            let _ = self.events.send(event());
        }
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    fn watch(&self, prefix: Bytes) -> Events {
        // The receiver first: whoever sees the count finds it there.
        let events = self.events.subscribe();
        self.watchers.fetch_add(1, Ordering::SeqCst);
        Events { events, prefix, watchers: Arc::clone(&self.watchers) }
    }
}

/// What happens on a node, from the call of [`GeoCache::watch`] on.
#[derive(Debug)]
pub struct Events {
    events: broadcast::Receiver<Event>,
    prefix: Bytes,
    watchers: Arc<AtomicUsize>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Events {
    /// The next event; `None` when the node is gone.
    ///
    /// # Errors
    /// [`Missed`] where this watcher fell behind by more than 4,096 events.
    ///
    /// # Cancel safety
    /// Safe: no event is lost by dropping the future.
    pub async fn next(&mut self) -> Result<Option<Event>, Missed> {
        loop {
            match self.events.recv().await {
                Ok(event) => {
                    if let Some(event) = within(&self.prefix, event) {
                        return Ok(Some(event));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(events)) => return Err(Missed { events }),
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            }
        }
    }
}

/// The event as a namespace sees it, its keys without the prefix; nothing where it is another's.
fn within(prefix: &Bytes, event: Event) -> Option<Event> {
    let own = |key: Bytes| key.starts_with(prefix).then(|| key.slice(prefix.len()..));
    Some(match event {
        Event::Put { key, remote } => Event::Put { key: own(key)?, remote },
        Event::Removed { key, remote } => Event::Removed { key: own(key)?, remote },
        Event::Expired { key } => Event::Expired { key: own(key)? },
        Event::Evicted { key } => Event::Evicted { key: own(key)? },
        // What contains the namespace clears it too.
        Event::Cleared { prefix: cleared, remote } if prefix.starts_with(&cleared) => {
            Event::Cleared { prefix: Bytes::new(), remote }
        }
        Event::Cleared { prefix: cleared, remote } => Event::Cleared { prefix: own(cleared)?, remote },
        others => others,
    })
}

impl GeoCache {
    /// Watches what happens on this node from now on; in a [`namespace`](Self::namespace) its own keys alone, and without the name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{Event, GeoCache};
    ///
    /// let cache = GeoCache::builder().build().await?;
    /// let mut events = cache.watch()?;
    /// cache.put("k", "v")?;
    /// assert_eq!(events.next().await?, Some(Event::Put { key: "k".into(), remote: false }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoRuntime`] where the node has a transport, and this is not called within a tokio runtime.
    pub fn watch(&self) -> Result<Events, Error> {
        let bell = self.store().bell();
        let events = bell.watch(Bytes::copy_from_slice(self.prefix()));
        if let Some(replication) = self.replication()
            && !bell.tells_peers.load(Ordering::SeqCst)
        {
            let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
            if !bell.tells_peers.swap(true, Ordering::SeqCst) {
                let mut status = replication.status.clone();
                // As it is now: what changes before the task has its turn is told.
                let known = Seen::of(&status.borrow_and_update());
                let breakers = Breakers::of(replication.transport());
                runtime.spawn(tell_peers(Arc::clone(bell), (status, known), breakers, self.alive()));
            }
        }
        Ok(events)
    }
}

/// Tells what changes of the other nodes and of the breakers, until nobody watches or the node is gone.
async fn tell_peers(
    bell: Arc<Bell>,
    (mut status, mut known): (watch::Receiver<Status>, Seen),
    mut breakers: Breakers,
    mut alive: watch::Receiver<()>,
) {
    loop {
        tokio::select! {
            changed = status.changed() => if changed.is_err() { break },
            // Nothing is ever sent: it resolves when the node is gone.
            _ = alive.changed() => break,
        }
        let now = Seen::of(&status.borrow_and_update());
        now.news_since(&known).into_iter().for_each(|event| bell.tell(|| event));
        known = now;
        breakers.news().into_iter().for_each(|event| bell.tell(|| event));
        if !bell.is_watched() {
            bell.tells_peers.store(false, Ordering::SeqCst);
            // One who began to watch in between relies on this task, unless a newer one has begun.
            if !bell.is_watched() || bell.tells_peers.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
    bell.tells_peers.store(false, Ordering::SeqCst);
}

/// What of the transport's breakers is told.
struct Breakers {
    transport: Weak<dyn Transport>,
    known: BTreeMap<(String, &'static str), BreakerState>,
    looked: Instant,
}

impl Breakers {
    /// As they are now.
    fn of(transport: Weak<dyn Transport>) -> Self {
        let mut breakers = Self { transport, known: BTreeMap::new(), looked: Instant::now() };
        breakers.known = breakers.states();
        breakers
    }

    fn states(&self) -> BTreeMap<(String, &'static str), BreakerState> {
        let report = self.transport.upgrade().map(|transport| transport.report()).unwrap_or_default();
        let state = |Breaker { broker, purpose, state, .. }| ((broker, purpose), state);
        report.breakers.into_iter().map(state).collect()
    }

    /// What changed since the last look, where that was long enough ago.
    fn news(&mut self) -> Vec<Event> {
        if self.looked.elapsed() < BREAKERS_EVERY {
            return Vec::new();
        }
        self.looked = Instant::now();
        let states = self.states();
        // One that is told of for the first time was closed before.
        let before =
            |of: &(String, &'static str)| self.known.get(of).copied().unwrap_or(BreakerState::Closed);
        let changed = states.iter().filter(|(of, state)| before(of) != **state);
        let event = |((broker, purpose), &state): (&(String, &'static str), &BreakerState)| Event::Breaker {
            broker: broker.clone(),
            purpose,
            state,
        };
        let news = changed.map(event).collect();
        self.known = states;
        news
    }
}

/// What of the other nodes is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    ready: bool,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    state: State,
    drifts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Warming,
    Down,
}

impl Seen {
    fn of(status: &Status) -> Self {
        let peer = |peer: &PeerStatus| {
            let state = match (peer.alive, peer.ready) {
                (false, _) => State::Down,
                (true, true) => State::Ready,
                (true, false) => State::Warming,
            };
            (peer.node.clone(), Peer { state, drifts: peer.drifts })
        };
        Self { ready: status.ready, peers: status.peers.iter().map(peer).collect() }
    }

    fn news_since(&self, before: &Self) -> Vec<Event> {
        let mut news = Vec::new();
        if self.ready && !before.ready {
            news.push(Event::Ready);
        }
        for (node, peer) in &self.peers {
            let node = || node.clone();
            let old = before.peers.get(&node());
            if old.map(|old| old.state) != Some(peer.state) {
                news.push(match peer.state {
                    State::Ready => Event::PeerReady { node: node() },
                    State::Warming => Event::PeerWarming { node: node() },
                    State::Down => Event::PeerDown { node: node() },
                });
            }
            if old.is_some_and(|old| old.drifts) != peer.drifts {
                news.push(Event::PeerDrift { node: node(), drifts: peer.drifts });
            }
        }
        // One that was retired was down before, or is now.
        let gone = before
            .peers
            .iter()
            .filter(|(node, peer)| !self.peers.contains_key(*node) && peer.state != State::Down);
        news.extend(gone.map(|(node, _)| Event::PeerDown { node: node.clone() }));
        news
    }
}

#[cfg(test)]
mod tests;
