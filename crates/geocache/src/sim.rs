//! The store that nodes run on, in simulated time (feature `sim`).
//!
//! [`replication::sim`] runs replicas on a plain store of its own unless it is given another. This is the one of a
//! [`GeoCache`](crate::GeoCache): in shards, each with its own recency, graves and floor.
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

pub use crate::store::NodeStore;
