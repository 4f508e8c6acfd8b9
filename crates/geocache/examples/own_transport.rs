//! Swap the transport: one of your own in eighty lines, held to the public contract suite, then used by two regions.
//!
//! `cargo run --package geocache --example own_transport` takes a few seconds and ends by itself. The transport is a board in this
//! process with a mailbox for each node; `file_transport` beside it is one between processes. [`Transport`]'s documentation says
//! who calls what, and what each error makes the caller do; `replication::contract::holds` says when you are finished.
//!
//! In your crate: `geocache`'s feature `contract` among the dev-dependencies, and the call of `holds` below as a test.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use geocache::{
    Bytes, GeoCache, NodeId, PutOptions, RegionId, Transport, TransportHealth, WriteConcern, async_trait,
    replication::{Ack, Delivery, Destination, Subscription, TransportError, contract},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// How many frames wait for a node; past it the oldest is dropped, and the protocol fetches what was in it.
const WAITING_MAX: usize = 4_096;

// The transport: eighty lines from here.

/// A mailbox for each node. A frame stays in it until it was handled.
#[derive(Default)]
struct Board(Mutex<BTreeMap<NodeId, Mailbox>>, Notify);

#[derive(Default)]
struct Mailbox {
    frames: BTreeMap<u64, Bytes>,
    newest: u64,
    /// Which subscription is the present one.
    turn: u64,
}

struct Post(Arc<Board>, NodeId, watch::Sender<TransportHealth>);

struct Inbox {
    post: (Arc<Board>, NodeId),
    turn: u64,
    seen: u64,
}

impl Post {
    fn join(board: &Arc<Board>, node: &NodeId) -> Arc<dyn Transport> {
        board.0.lock().insert(node.clone(), Mailbox::default());
        Arc::new(Self(Arc::clone(board), node.clone(), watch::Sender::new(TransportHealth::Connected)))
    }
}

#[async_trait]
impl Transport for Post {
    fn node(&self) -> &NodeId {
        &self.1
    }
    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        let mut board = self.0.0.lock();
        board.get(&self.1).ok_or(TransportError::Closed)?;
        let is_meant = |node: &NodeId| match &to {
            Destination::Region(region) => node.region() == region && *node != self.1,
            Destination::Node(one) => node == one,
            _ => *node != self.1,
        };
        let mut meant = board.iter_mut().filter(|(node, _)| is_meant(node)).peekable();
        if meant.peek().is_none() && to != Destination::Everyone {
            return Err(TransportError::Unroutable { to });
        }
        for (_, mailbox) in meant {
            mailbox.newest += 1;
            mailbox.frames.insert(mailbox.newest, frame.clone());
            while mailbox.frames.len() > WAITING_MAX && mailbox.frames.pop_first().is_some() {}
        }
        self.0.1.notify_waiters();
        Ok(())
    }
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let mut board = self.0.0.lock();
        let mailbox = board.get_mut(&self.1).ok_or(TransportError::Closed)?;
        mailbox.turn += 1;
        self.0.1.notify_waiters();
        Ok(Box::new(Inbox { post: (Arc::clone(&self.0), self.1.clone()), turn: mailbox.turn, seen: 0 }))
    }
    fn health(&self) -> watch::Receiver<TransportHealth> {
        self.2.subscribe()
    }
    async fn close(&self) -> Result<(), TransportError> {
        self.0.0.lock().remove(&self.1);
        self.0.1.notify_waiters();
        self.2.send_replace(TransportHealth::Closed);
        Ok(())
    }
}

#[async_trait]
impl Subscription for Inbox {
    async fn next(&mut self) -> Option<Delivery> {
        let (board, node) = self.post.clone();
        let (number, frame) = loop {
            // Made before the look, so that what comes in between is heard of.
            let rung = board.1.notified();
            let newer = {
                let board = board.0.lock();
                let mailbox = board.get(&node).filter(|mailbox| mailbox.turn == self.turn)?;
                mailbox.frames.range(self.seen + 1..).next().map(|(number, frame)| (*number, frame.clone()))
            };
            match newer {
                Some(newer) => break newer,
                None => rung.await,
            }
        };
        self.seen = number;
        let handled = move || board.0.lock().get_mut(&node).and_then(|at| at.frames.remove(&number));
        Some(Delivery { frame, ack: Ack::new(move || drop(handled())) })
    }
}

// The transport ends here.

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Each clause gets transports of a cache that no other clause uses: here, a board of its own. A clause that does not
    // hold panics with its name.
    contract::holds(async |nodes: &[NodeId]| {
        let board = Arc::default();
        nodes.iter().map(|node| Post::join(&board, node)).collect()
    })
    .await;
    println!("the transport holds the contract");

    let (board, mut nodes) = (Arc::default(), Vec::new());
    for region in ["us-east", "eu-central"] {
        let transport = Post::join(&board, &NodeId::new(region.parse()?, "node-1")?);
        nodes.push(GeoCache::builder().transport(transport).build().await?);
    }
    for node in &nodes {
        node.ready().await?;
    }
    let options = PutOptions::new().concern(WriteConcern::Regions(2)).timeout(Duration::from_secs(20));
    let receipt = nodes[0].put_with("greeting", "hello, by way of a board", options).await?;
    let have: Vec<&str> = receipt.have.iter().map(RegionId::as_str).collect();
    println!("written in us-east, and known to be in {}", have.join(" and "));
    let greeting = nodes[1].get::<String>("greeting")?;
    println!("eu-central reads {greeting:?}");
    assert_eq!(greeting.as_deref().map(String::as_str), Some("hello, by way of a board"));
    for node in &nodes {
        node.close(Duration::from_secs(5)).await;
    }
    Ok(())
}
