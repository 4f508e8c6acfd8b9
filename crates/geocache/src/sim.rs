//! The store that nodes run on, in simulated time, and what a running node holds (feature `sim`).
//!
//! [`replication::sim`] runs replicas on a plain store of its own unless it is given another. This is the one of a
//! [`GeoCache`]: in shards, each with its own recency, graves and floor.
//!
//! ```
//! use geocache::sim::NodeStore;
//! use replication::sim::{Action, NodeSetup, World};
//!
//! let mut world = World::<NodeStore>::with_stores(7);
//! let [us, eu] = ["us-east", "eu-central"].map(|region| world.add(NodeSetup::new(region, "n1").bootstrapped()));
//! world.at(1_000, Action::partition([us], [eu]));
//! world.at(2_000, Action::put(us, "price", "12"));
//! world.at(9_000, Action::Heal);
//! world.run_until(9_000);
//! assert_eq!(world.text(eu, "price"), None, "cut off");
//! assert!(world.until(10_000, World::converged).is_some());
//! assert_eq!(world.text(eu, "price").as_deref(), Some("12"));
//! ```

use replication::{Record, WallClock, replica::Store};

use crate::GeoCache;
pub use crate::store::NodeStore;

/// About how many bytes of records are copied under one lock.
const PAGE_BYTES: usize = 64 << 10;

/// Every live record of a running node with its stamp, in the order of the replica hash: for tests that compare whole
/// regions. Not one moment of the node but one of each page, so it says what the node holds only where nobody writes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = geocache::GeoCluster::new(["us-east", "eu-central"]).await?;
/// cluster.put("greeting", "hello", "us-east")?;
/// cluster.settled(std::time::Duration::from_secs(5)).await?;
/// let here = geocache::sim::records(&cluster.region("us-east")?);
/// assert_eq!(here.len(), 1);
/// assert_eq!(here[0].stamp, geocache::sim::records(&cluster.region("eu-central")?)[0].stamp);
/// # Ok(())
/// # }
/// ```
pub fn records(node: &GeoCache) -> Vec<Record> {
    let mono_ms = WallClock::shared().mono_ms();
    let (mut records, mut next) = (Vec::new(), Some(0));
    while let Some(position) = next {
        let page = node.store().page(position, PAGE_BYTES, mono_ms);
        records.extend(page.records);
        next = page.hi;
    }
    records
}
