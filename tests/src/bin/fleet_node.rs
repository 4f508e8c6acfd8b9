//! A node of the fleet that goes through faults: `tests::fleet::program`.

use anyhow::Result;
use clap::Parser;
use tests::fleet::program::{Arguments, run};

fn main() -> Result<()> {
    run(&Arguments::parse())
}
