//! Replicates records between regions over any transport.
//!
//! A record is one stamped change of one key. Each node applies its own writes at once and publishes them; every other
//! node merges what arrives, last writer wins by a hybrid logical clock. Nodes may be cut off, crash and return: gaps
//! are found by numbers and repaired, a starting node gets the state of a ready one, and a removed key stays removed.
//!
//! # Parts
//! | module | what it is |
//! |---|---|
//! | [`Transport`] | how frames travel; [`memory`] joins nodes in one process, [`rabbitmq`](crate#features) over a broker |
//! | `contract` (feature) | the clauses that every transport keeps; hold your own to them |
//! | [`wire`], [`message`] | the bytes of a frame, and what frames say |
//! | [`replica`] | the protocol: a pure core that is told the time and what arrived, and says what to send |
//! | [`driver`] | runs a replica on a transport: one tokio task per node |
//!
//! A transport is usable without a cache behind it; a replica needs only a [`replica::Store`].
//!
//! # Features
//! - `rabbitmq`: the module `rabbitmq`, a transport on the `lapin` client.
//! - `contract`: the module `contract`.
//!
//! # Promises
//! After faults end, any two nodes that hold a key hold the same stamp of it, and a removed key stays removed. A write
//! that another node applied survives while one such node lives and capacity suffices. The stamp of a key never goes
//! back on a node. Replication never lengthens a life. Every buffer has a bound, and what happens at it is counted.
//!
//! # Known anomalies
//! - Of two regions that write one key at once, one write loses.
//! - A compare-and-set is atomic on its own node only; counters across regions are not exact.
//! - A clear also removes writes made elsewhere at the same time with an older stamp.
//! - A write to a key of which nothing is known, older than what was forgotten ([`replica::Guard`]), is a miss.
//! - A remote copy may expire up to one round trip early.
//! - A node whose clock is more than five minutes ahead is left out, visibly, until its clock is mended and it starts
//!   again. One whose clock went back behind the start of its last life begins again above that life by itself, and
//!   issues anew what it wrote.
//! - A write known only to nodes that died is gone.
//! - A full sync may drop entries that the node it came from can no longer confirm.

#[cfg(feature = "contract")]
pub mod contract;
pub mod driver;
pub mod memory;
pub mod message;
mod node;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod record;
pub mod replica;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod stamp;
mod transport;
mod wall;
pub mod wire;

pub use node::{NodeId, Origin, Stream};
pub use record::{Op, Record, Ttl, Value};
pub use stamp::{Clock, Hlc, Stamp};
pub use transport::{Ack, Delivery, Destination, Health, Subscription, Transport, TransportError};
pub use wall::WallClock;
