//! Replicates records between regions over any transport.

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
mod stamp;
mod transport;
pub mod wire;

pub use node::{NodeId, Origin, Stream};
pub use record::{Op, Record, Ttl, Value};
pub use stamp::{Clock, Hlc, Stamp};
pub use transport::{Ack, Delivery, Destination, Health, Subscription, Transport, TransportError};
