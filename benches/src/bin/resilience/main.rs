//! What `resilience` costs a call that meets no trouble, beside other crates' circuit breakers.
//!
//! `cargo xtask bench resilience`, which switches the feature `peers` on; without it there is nobody beside. Each subject
//! is a module that returns its figures, and all of them go to `target/bench/resilience.json`.

mod breaker;
#[cfg(feature = "peers")]
mod peers;

use anyhow::Result;
use benches::report;

fn main() -> Result<()> {
    let figures = breaker::figures()?;
    report::write("resilience", &figures)
}
