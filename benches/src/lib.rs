//! Measurements: what they have in common, which is how they report.
//!
//! `cargo xtask bench NAME` runs one of them in a release build, `cargo xtask bench` all:
//!
//! | name | measures |
//! |---|---|
//! | `protocol` | from a write to its frame, from a frame to the store, a full sync: without a broker |
//! | `replication` | three nodes over RabbitMQ beside the bare client library and Redis: records a second, processor time, lag; and as nodes and entries grow |
//! | `embedded` | `GeoCache` in the caller's process: reads and writes, and what they allocate |
//! | `facade` | `GeoCache` beside the bare map beneath it: typed and raw reads and writes |
//! | `core` | `cache-core` alone, and beside other caches: speed, latency, hit ratio, memory |
//! | `resilience` | a call that meets no trouble: a closed circuit, beside other crates'; and `geo`'s plan over 3, 13 and 100 regions |
//!
//! Each prints a table and leaves its figures in `target/bench/NAME.json` of the workspace. Figures of two programs are
//! comparable where they come from one run on one machine, which is why each comparison is a ratio taken in one run.
//! A target that is missed is said and does not fail the run; one that could not be measured does.

pub mod contest;
pub mod measured;
pub mod micro;
pub mod offer;
pub mod record;
pub mod report;
pub mod rounds;
pub mod table;
