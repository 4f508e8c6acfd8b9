//! Reads the command line and runs what it asks for.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use geocached::{
    cli::{self, Cli, Subject},
    config::Config,
    demo, log, memcached, node,
};

/// Values come and go on different threads, and frames are large: what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end waits for what cannot be interrupted, such as a look-up of a host's name.
const END_WAIT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => match cli::mistake(&error) {
            Some(text) => {
                eprintln!("{text}");
                return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
            }
            None => error.exit(),
        },
    };
    match run(cli) {
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
            log::start(options.log.as_deref().unwrap_or(log::DEMO_DEFAULT)).map_err(log_error)?;
            block_on(None, demo::run(options))
        }
        None => {
            let config = Config::resolve(cli.node, node::host_name().as_deref())?;
            log::start(&config.log).map_err(log_error)?;
            block_on(Some(config.options.threads), node::run(config))
        }
    }
}

fn log_error(problem: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("--log: {problem}")
}

fn block_on<E>(threads: Option<usize>, run: impl Future<Output = Result<(), E>>) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(run);
    runtime.shutdown_timeout(END_WAIT);
    Ok(result?)
}
