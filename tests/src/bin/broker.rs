//! The broker of the tests, as a process of its own: `run`, `up`, `down`, `status`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::{
    broker::{Broker, Options, URL_VARIABLE, detached, supervisor},
    memcached_server,
    process::mind,
};

#[derive(Parser)]
#[command(name = "broker", about = "A private RabbitMQ for tests and development")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start one, print a JSON line with its url when it is ready, and end it with the standard input or at a signal
    Run {
        /// Start one even if GEOCACHE_AMQP_URL names one
        #[arg(long)]
        private: bool,
        /// Live until a signal, whatever the standard input does
        #[arg(long)]
        until_signal: bool,
        /// How many, joined into a cluster if there are several
        #[arg(long, default_value_t = 1)]
        members: usize,
        /// Plugins and configuration lines, as JSON
        #[arg(long, value_parser = parse_options, default_value = "{\"plugins\":[],\"config\":[]}")]
        options: Options,
    },
    /// Start one that outlives this command
    Up,
    /// End the one that `up` started
    Down,
    /// Say whether it runs, and its url; exits with 1 when it does not
    Status,
    /// Say where a run's broker would come from, without installing or starting anything
    Check,
    /// Say where the memcached of the tests would come from, without fetching or starting anything
    CheckMemcached,
    /// Run a program that ends with this command's standard input
    #[command(hide = true)]
    Mind {
        /// A variable GEOCACHE_… that the program gets; the others it does not
        #[arg(long, value_name = "NAME")]
        keep: Vec<String>,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Hold a broker as a test does, until killed (for the harness's own tests)
    #[command(hide = true)]
    Hold,
}

fn parse_options(text: &str) -> Result<Options, serde_json::Error> {
    serde_json::from_str(text)
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { private, until_signal, members, options } => {
            supervisor::run(&supervisor::Run::new(options, private, until_signal).members(members))?;
        }
        Command::Up => println!("the broker is up; export {URL_VARIABLE}={}", detached::up()?),
        Command::Down if detached::down()? => println!("the broker is down"),
        Command::Down => println!("no broker was up"),
        Command::Status => match detached::status()? {
            Some(status) => println!("{status}"),
            None => {
                println!("no broker is up");
                return Ok(ExitCode::FAILURE);
            }
        },
        Command::CheckMemcached => println!("{}", memcached_server::foresee()?),
        Command::Check => println!("{}", supervisor::check()?),
        Command::Mind { keep, program } => return mind(&program, &keep),
        Command::Hold => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let broker = Broker::start(Options::default()).await?;
                println!("{}", broker.folder().display());
                std::future::pending::<Result<()>>().await
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
