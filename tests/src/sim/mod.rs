//! The simulation that tries to break the replica protocol.
//!
//! A seed decides a [`Scenario`]: nodes, clocks, bounds, links, and what is done when. It is [run](run()) in a
//! [`World`](replication::sim::World), the public simulation of a cluster, for forty virtual seconds of faults and as
//! long again to settle, while the [invariants](invariant) are asked after every event. A failing scenario is
//! [shrunk](reduce::reduce) to a few lines that fail in the same way, and can be kept as a file in
//! `tests/regressions/`, each of which is a test from then on.
//!
//! Whether the invariants would notice anything is tested too: `cargo xtask sim --mutants` switches the rules of the
//! protocol off one by one ([`mutant`]), and each has to be missed by one of them.
//!
//! Everything is decided by the scenario, to the last event: two runs have one [hash](run::Outcome::trace_hash).

pub mod campaign;
pub mod invariant;
pub mod key;
pub mod ledger;
pub mod mutant;
pub mod reduce;
pub mod regression;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod watch;
pub mod watched;

pub use self::{
    run::{Outcome, run},
    scenario::Scenario,
    watch::Violation,
};
