//! Replicates records between regions over any transport.

pub mod driver;
pub mod message;
mod node;
mod record;
pub mod replica;
mod stamp;
mod transport;
pub mod wire;

pub use node::{NodeId, Origin, Stream};
pub use record::{Op, Record, Ttl, Value};
pub use stamp::{Clock, Hlc, Stamp};
pub use transport::{Ack, Delivery, Destination, Health, Subscription, Transport, TransportError};
