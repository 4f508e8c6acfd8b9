//! Reads the command line and runs what it asks for.

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use geocached::{
    cli::{Cli, Subject},
    config::Config,
    demo, memcached, node,
};
use tracing_subscriber::EnvFilter;

/// Values come and go on different threads, and frames are large: what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("geocached: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.subject {
        Some(Subject::Version) => {
            println!(
                "geocached {} (memcached text protocol {})",
                env!("CARGO_PKG_VERSION"),
                memcached::VERSION
            );
            Ok(())
        }
        Some(Subject::Demo(options)) => {
            log(options.log.as_deref().unwrap_or("warn"))?;
            Ok(runtime(None)?.block_on(demo::run(options))?)
        }
        None => {
            let config = Config::resolve(cli.node, node::host_name().as_deref())?;
            log(&config.log)?;
            Ok(runtime(Some(config.options.threads))?.block_on(node::run(config))?)
        }
    }
}

fn runtime(threads: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().context("cannot start the runtime")
}

/// Logs go to the standard error output, so that the standard output is the demo's.
fn log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!(
            "the log filter {filter:?} is not understood; use a level such as info, or target=level pairs"
        )
    })?;
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    Ok(())
}
