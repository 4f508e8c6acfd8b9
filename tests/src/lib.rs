//! The harness of the workspace's tests: brokers, faulty links, daemons.
//!
//! The tests themselves are in `tests/tests/`. A file there that needs a broker has an entry in this package's manifest
//! with `required-features = ["broker"]`, so a plain `cargo test` leaves it out and `cargo xtask test-integration`, which
//! provisions a broker, runs it. One that needs a real memcached has `required-features = ["memcached"]` and is run by the same
//! command. A test that *harms* a broker starts its own ([`broker::Broker::start`]) and lives in a
//! module named `harms_the_broker`, the name by which `--url-only` leaves such tests out.
//!
//! - [`broker`]: a private RabbitMQ that ends with the test, however the test ends;
//! - [`proxy`]: a TCP link that is slow, narrow, one-way, silent, half-open or broken, and heals;
//! - [`process`]: the daemon as a black box, ended with the test;
//! - [`memcached`]: just enough of a client to talk to it;
//! - [`memcached_server`]: a real memcached, ended with the test;
//! - `fleet` (with the feature of that name): three regions in processes of their own, a steady load, faults, a checker;
//! - `sim` (with the feature of that name): the simulation that tries to break the replica protocol;
//! - [`soak`]: random faults from a seed, and whether memory and descriptors grow meanwhile;
//! - [`wait_until`]: wait for a condition, to a bound, instead of sleeping.
//!
//! Nothing but `fleet` and `sim` names another crate of the workspace, and there are no fixed sleeps: each wait is for a condition.
//! The harness needs a Unix (signals, process groups, file locks).

pub mod broker;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod memcached;
pub mod memcached_server;
pub mod process;
pub mod proxy;
#[cfg(feature = "sim")]
pub mod sim;
pub mod soak;
mod wait;

pub use wait::{unique_name, wait_until};
