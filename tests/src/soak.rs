//! Hours of random faults, while contents, memory and descriptors are watched; `cargo xtask soak` runs it.
//!
//! Three regions write steadily over one private broker. Episodes of faults follow each other from a seed; every few
//! minutes they pause, the writers rest, and the regions have to hold the same, every acknowledged write among it. All
//! along, the resident memory, the descriptors and the threads of the nodes and of the broker are watched, and judged at
//! the end; what the broker has is counted at each pause.
//!
//! - [`schedule`]: which fault comes when, from a seed; pure;
//! - [`resources`]: what the processes have of the system's, and whether it grows; the judge is pure;
//! - [`rest`]: what the broker has while nothing goes on, and whether it grows; the judge is pure;
//! - [`watch`]: takes the samples while processes come and go;
//! - [`report`]: the table at the end;
//! - `inject` and `run` (with the feature `fleet`): make the faults on a fleet, and play the whole.

#[cfg(feature = "fleet")]
mod inject;
pub mod report;
pub mod resources;
pub mod rest;
#[cfg(feature = "fleet")]
pub mod run;
pub mod schedule;
pub mod watch;
