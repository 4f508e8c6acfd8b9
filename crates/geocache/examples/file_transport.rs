//! Swap the transport: one between processes, over files, held to the public contract suite, then used by two regions.
//!
//! `cargo run --package geocache --example file_transport` takes a few seconds and ends by itself. The transport carries
//! frames as files in folders: a shared disk is all that the regions have in common. [`Transport`]'s documentation says who
//! calls what, and what each error makes the caller do; `replication::contract::holds` says when you are finished.
//!
//! In your crate: `geocache`'s feature `contract` among the dev-dependencies, and the call of `holds` below as a test.

use std::{
    collections::{BTreeSet, VecDeque},
    error::Error,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use geocache::{
    Bytes, GeoCache, NodeId, PutOptions, RegionId, Transport, TransportHealth, WriteConcern, async_trait,
    replication::{Ack, Delivery, Destination, Subscription, TransportError, contract},
};
use tokio::sync::watch;

// The transport: a hundred lines from here. Files are small and local enough to be read and written in place; one for a slow disk
// would do so in `tokio::task::spawn_blocking`.

/// How many frames wait for a node; past it the oldest is deleted, and the protocol fetches what was in it.
const WAITING_MAX: usize = 4_096;
/// What a subscription sees when its transport is closed.
const CLOSED: u64 = u64::MAX;

/// Each node has a folder. A frame for it is a file there, and a file is deleted once its frame was handled.
struct Folders {
    root: PathBuf,
    node: NodeId,
    sent: AtomicU64,
    /// The number of the present subscription.
    turn: Arc<AtomicU64>,
    health: watch::Sender<TransportHealth>,
}

/// The frames of one node.
struct Inbox {
    folder: PathBuf,
    waiting: VecDeque<OsString>,
    given: BTreeSet<OsString>,
    own_turn: u64,
    turn: Arc<AtomicU64>,
}

impl Folders {
    fn join(root: &Path, node: NodeId) -> io::Result<Arc<dyn Transport>> {
        let (root, health) = (root.to_owned(), watch::Sender::new(TransportHealth::Connected));
        let transport = Self { root, node, sent: AtomicU64::new(0), turn: Arc::default(), health };
        fs::create_dir_all(transport.root.join(folder(&transport.node)))?;
        Ok(Arc::new(transport))
    }

    fn open(&self) -> Result<(), TransportError> {
        if self.turn.load(Ordering::SeqCst) == CLOSED { Err(TransportError::Closed) } else { Ok(()) }
    }
}

fn folder(node: &NodeId) -> String {
    format!("{}.{}", node.region(), node.name())
}

/// The names in a folder, in their order.
fn names(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn unavailable(error: &io::Error) -> TransportError {
    TransportError::Unavailable { reason: error.to_string() }
}

#[async_trait]
impl Transport for Folders {
    fn node(&self) -> &NodeId {
        &self.node
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        self.open()?;
        let is_meant = |name: &str| match &to {
            Destination::Region(region) => name.starts_with(&format!("{region}.")),
            Destination::Node(node) => name == folder(node),
            _ => true,
        };
        let mut others = names(&self.root).map_err(|error| unavailable(&error))?;
        others.retain(|name| name.to_str().is_some_and(|name| name != folder(&self.node) && is_meant(name)));
        if others.is_empty() && to != Destination::Everyone {
            return Err(TransportError::Unroutable { to });
        }
        let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let name = format!("{since:030}-{}-{}", self.sent.fetch_add(1, Ordering::SeqCst), folder(&self.node));
        for other in others.iter().map(|other| self.root.join(other)) {
            // Whole before it is seen: it is written beside the folders and moved. A node that left meanwhile needs none.
            let draft = self.root.with_extension(&name);
            fs::write(&draft, &frame).map_err(|error| unavailable(&error))?;
            let _ = fs::rename(&draft, other.join(&name)).or_else(|_| fs::remove_file(&draft));
            let waiting = names(&other).unwrap_or_default();
            for oldest in waiting.iter().take(waiting.len().saturating_sub(WAITING_MAX)) {
                let _ = fs::remove_file(other.join(oldest));
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        self.open()?;
        let (folder, turn) = (self.root.join(folder(&self.node)), Arc::clone(&self.turn));
        let own_turn = turn.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Box::new(Inbox { folder, waiting: VecDeque::new(), given: BTreeSet::new(), own_turn, turn }))
    }

    fn health(&self) -> watch::Receiver<TransportHealth> {
        self.health.subscribe()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.turn.store(CLOSED, Ordering::SeqCst);
        self.health.send_replace(TransportHealth::Closed);
        // What waits for a node that left is for nobody.
        let _ = fs::remove_dir_all(self.root.join(folder(&self.node)));
        Ok(())
    }
}

#[async_trait]
impl Subscription for Inbox {
    async fn next(&mut self) -> Option<Delivery> {
        while self.turn.load(Ordering::SeqCst) == self.own_turn {
            let Some(name) = self.waiting.pop_front() else {
                let there = names(&self.folder).unwrap_or_default();
                self.given.retain(|name| there.contains(name));
                self.waiting.extend(there.difference(&self.given).cloned());
                if self.waiting.is_empty() {
                    // The only wait, and nothing is in hand meanwhile: dropping the future loses no frame.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                continue;
            };
            let path = self.folder.join(&name);
            // One that was deleted at the bound is gone.
            if let Ok(frame) = fs::read(&path) {
                self.given.insert(name);
                let handled = move || fs::remove_file(path).unwrap_or_default();
                return Some(Delivery { frame: frame.into(), ack: Ack::new(handled) });
            }
        }
        None
    }
}

// The transport ends here.

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let disk = tempfile::tempdir()?;

    // Each clause gets transports of a cache that no other clause uses: here, a folder of its own. A clause that does not
    // hold panics with its name.
    let caches = AtomicU64::new(0);
    contract::holds(async |nodes: &[NodeId]| {
        let root = disk.path().join(format!("cache-{}", caches.fetch_add(1, Ordering::SeqCst)));
        let join = |node: &NodeId| Folders::join(&root, node.clone()).expect("the folder can be made");
        nodes.iter().map(join).collect()
    })
    .await;
    println!("the transport holds the contract");

    let mut nodes = Vec::new();
    for region in ["us-east", "eu-central"] {
        let transport = Folders::join(&disk.path().join("shop"), NodeId::new(region.parse()?, "node-1")?)?;
        nodes.push(GeoCache::builder().transport(transport).build().await?);
    }
    for node in &nodes {
        node.ready().await?;
    }
    let options = PutOptions::new().concern(WriteConcern::Regions(2)).timeout(Duration::from_secs(20));
    let receipt = nodes[0].put_with("greeting", "hello, by way of files", options).await?;
    let have: Vec<&str> = receipt.have.iter().map(RegionId::as_str).collect();
    println!("written in us-east, and known to be in {}", have.join(" and "));
    let greeting = nodes[1].get::<String>("greeting")?;
    println!("eu-central reads {greeting:?}");
    assert_eq!(greeting.as_deref().map(String::as_str), Some("hello, by way of files"));
    for node in &nodes {
        node.close(Duration::from_secs(5)).await;
    }
    Ok(())
}
