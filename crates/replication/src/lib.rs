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
//! | [`driver`] | runs a replica on a transport: one tokio task per node; answers who has a write, and waits for one |
//! | `sim` (feature) | a cluster in virtual time: rehearse an outage in a unit test |
//!
//! A transport is usable without a cache behind it; a replica needs only a [`replica::Store`].
//!
//! # Features
//! - `rabbitmq`: the module `rabbitmq`, a transport on the `lapin` client.
//! - `contract`: the module `contract`.
//! - `sim`: the module `sim`, a cluster in virtual time in which an outage is rehearsed from a seed, and the switches of
//!   the protocol's rules. For tests; nothing in it changes what a program does.
//!
//! # Promises
//! Each is checked by the simulation at every step, or once its faults have ended.
//! - **Converged**: after faults end, any two nodes that hold a key hold the same stamp of it, and none holds less than
//!   the newest that a living node has processed.
//! - **No resurrection**: a removed, cleared or expired key stays so, whatever arrives late.
//! - **Nothing acknowledged is lost** while one node that applied it lives, and capacity suffices.
//! - **No regress**: the stamp with which a node serves a key never goes back in that node's life; a write is visible on
//!   its own node at once.
//! - **No life is extended**: a value is served nowhere for longer than it was given, whatever the clocks say.
//! - **A receipt never lies**, and a session that waited for its token never reads older than it wrote.
//! - **Bounded**: every buffer has a bound, and what happens at it is counted.
//! - **Silence**: once nodes agree, nothing is sent but heartbeats and the scrub; an outage costs what changed.
//!
//! # Messages
//! | message | to | when |
//! |---|---|---|
//! | [`Records`](message::Message::Records) | everyone, or one node | writes in batches; the answer to a pull |
//! | [`Beat`](message::Message::Beat) | everyone | at a steady pace; at once when a new peer is heard or a receipt is waited for |
//! | [`Pull`](message::Message::Pull), [`Gone`](message::Message::Gone) | one node | a gap in a stream; the ring starts later than asked |
//! | [`SyncReq`](message::Message::SyncReq), [`SyncPage`](message::Message::SyncPage) | one node | state transfer, asked for some pages at a time |
//! | [`Probe`](message::Message::Probe) | one node | the scrub: stamps to be compared |
//! | [`State`](message::Message::State) | one node | what a comparison found newer; the hottest records ahead of a full sync |
//! | [`Fetch`](message::Message::Fetch), [`Fetched`](message::Message::Fetched) | one node | a read of the nearest region |
//! | [`Lease`](message::Message::Lease), [`Granted`](message::Message::Granted) | one node | who loads a key for all regions |
//!
//! # Bounds
//! Each is a field of [`replica::ReplicaConfig`] or named here; at each, what happens is counted
//! ([`replica::Counters`], [`replica::OutboxStats`]).
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | outbox | bytes, 64 MiB | the oldest change is skipped: peers find the gap and sync; the writer never waits |
//! | ring of sent frames | bytes, 16 MiB | the oldest frame goes; who asks for it is told, and syncs |
//! | graves | as many as entries, per shard | the oldest goes and the floor rises to its bar: unknown keys below are refused |
//! | clear barriers | 16 namespaces | the oldest becomes one of the whole cache |
//! | peers | 256 | further nodes are ignored until one is retired |
//! | streams | 4 lives of a node | the oldest life goes |
//! | ranges ahead of a watermark | 8 a stream | the newest is dropped, and asked for again |
//! | messages to single nodes | 128, and 16 MiB unless it is one | the oldest goes, and is asked for again |
//! | sync | 1 at a time, 8 pages a question, 64 MiB a second | the next page waits |
//! | leases for loads | 4,096 granted by a node, and as many loads remembered | a lease is refused: its asker loads without one; the oldest load is forgotten |
//! | scrub | 512 stamps each 250 ms, one frame an answer | the rest is found by the next pass |
//! | frame | 1,024 records or 128 KiB, at least one record; 8 MiB | the next frame takes the rest; a longer one is refused |
//!
//! # Known anomalies
//! - Of two regions that write one key at once, one write loses.
//! - A compare-and-set is atomic on its own node only; counters across regions are not exact.
//! - A clear also removes writes made elsewhere at the same time with an older stamp.
//! - A write to a key of which nothing is known, older than what was forgotten ([`replica::Guard`]), is a miss.
//! - A remote copy may expire up to two round trips early.
//! - A node whose clock is more than five minutes ahead is left out, visibly, until its clock is mended and it starts
//!   again. One whose clock went back behind the start of its last life begins again above that life by itself and issues
//!   anew what it wrote, so that those writes win over what others wrote to the same keys before they heard of them.
//! - A write known only to nodes that died is gone. A broker's confirmation alone is weak: write concerns and receipts
//!   say which regions have it.
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
pub mod report;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod stamp;
mod transport;
mod wall;
pub mod wire;

pub use node::{NodeId, Origin, Stream};
pub use record::{Change, Op, Record, Ttl, Value};
pub use stamp::{Clock, Hlc, Stamp};
pub use transport::{Ack, Delivery, Destination, Handled, Health, Subscription, Transport, TransportError};
pub use wall::WallClock;
