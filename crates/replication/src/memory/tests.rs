//! The hub's faults, bounds and lives.

mod faults;
mod lives;
mod publishes;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::*;
use crate::transport::{Ack, Delivery, Destination, Health, Subscription, Transport, TransportError};

const MS: Duration = Duration::from_millis(1);

const NOTHING: [u32; 0] = [];

fn node(region: &str, name: &str) -> NodeId {
    NodeId::new(region.parse().unwrap(), name).unwrap()
}

fn us() -> NodeId {
    node("us-east", "a")
}

fn eu() -> NodeId {
    node("eu-central", "a")
}

fn ap() -> NodeId {
    node("ap-south", "a")
}

fn frame(number: u32) -> Bytes {
    Bytes::from(number.to_string())
}

async fn broadcast(from: &HubTransport, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        from.publish(Destination::Everyone, frame(number)).await.unwrap();
    }
}

fn number(delivery: Delivery) -> u32 {
    let number = std::str::from_utf8(&delivery.frame).unwrap().parse().unwrap();
    delivery.ack.done();
    number
}

/// What comes until nothing comes for ten seconds of the paused clock; all acknowledged.
async fn drain(subscription: &mut Box<dyn Subscription>) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Ok(Some(delivery)) = timeout(10_000 * MS, subscription.next()).await {
        numbers.push(number(delivery));
    }
    numbers
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

fn range(numbers: std::ops::Range<u32>) -> Vec<u32> {
    numbers.collect()
}
