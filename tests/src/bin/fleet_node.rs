//! A node of the fleet that goes through faults: `tests::fleet::program`.

use std::process::ExitCode;

use clap::Parser;
use tests::fleet::program::{Arguments, run};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
