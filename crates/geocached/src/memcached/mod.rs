//! memcached's classic text protocol and the basic part of its meta protocol, answered from a [`GeoCache`](geocache::GeoCache).
//!
//! Four parts, of which the first three are pure: [`Parser`] finds the [`Command`]s in a buffer, [`Session`] executes
//! one and appends the answer to another buffer, the counters and `stats` tell what happened; [`Server`] alone knows
//! sockets. Another protocol, transport or limit adds to one of them without touching the rest.
//!
//! **What replication means here.** Each command is atomic on its own node and replicates its result: `incr` and
//! `append` send the value they made, so of two made at once in two regions the later one stays; `cas` fails as well
//! when another region wrote since; `touch` is a write of the same value; `flush_all` is a stamped barrier that
//! empties every region, its delay counted on the node that was told. A refused command changes
//! nothing: where a `set` is too large the older value under that key stays, which memcached would remove. While the
//! node is warming, `get`, `gets`, `gat`, `gats` and `mg` ask the nearest ready region for what is not here yet.
//!
//! **Typed values.** A value that a program stored with a codec shows the codec's [mark](geocache::Codec::to_flags) as its client flags,
//! and what is stored with such flags has that codec in every region; all other flags are the client's own.

mod buffers;
mod command;
mod connection;
mod counter;
mod meta;
mod number;
mod parser;
mod read_through;
mod server;
mod session;
mod stats;

pub use command::{Command, Direction, Keys, Refusal, Store, Verb};
pub use counter::{Counter, Counters, Tally};
pub use meta::{Meta, MetaVerb};
pub use parser::{BINARY_MAGIC, KEY_BYTES_MAX, KEYS_LINE_BYTES_MAX, LINE_BYTES_MAX, Parser, Step};
pub use server::{BindError, Options, Server, listen};
pub use session::{Flow, Session, Shared};
pub use stats::VERSION;
