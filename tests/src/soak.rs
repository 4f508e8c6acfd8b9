//! Hours of random faults, while contents, memory and descriptors are watched; `cargo xtask soak` runs it.
//!
//! - [`schedule`]: which fault comes when, from a seed;
//! - [`resources`]: what the processes have of the system's, and whether it grows.

pub mod resources;
pub mod schedule;
