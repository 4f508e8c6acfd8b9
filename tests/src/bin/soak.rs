//! `cargo xtask soak`: random faults for minutes or hours, while contents, memory and descriptors are watched.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use tests::{
    fleet::program,
    soak::run::{Settings, play},
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "soak",
    about = "Random faults under load, while contents, memory and descriptors are watched"
)]
struct Arguments {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = minutes)]
    minutes: f64,
    /// What decides the faults; random and printed unless told
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// fast, durable or stream
    #[arg(long, default_value = "fast")]
    profile: String,
    /// What each region writes a second
    #[arg(long, value_name = "WRITES", default_value_t = 1_000)]
    rate: u32,
    /// The folder for the outcome as JSON, and for what the regions held
    #[arg(long, value_name = "FOLDER", default_value = "target/soak")]
    folder: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (1.0..=7.0 * 24.0 * 60.0).contains(&minutes) => Ok(minutes),
        _ => Err("not a number of minutes from 1 to a week".to_owned()),
    }
}

fn main() -> Result<ExitCode> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    program::profile(&arguments.profile)?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let folder = arguments.folder.join(format!("{}-{seed}", arguments.profile));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("no folder {}", folder.display()))?;
    let Arguments { minutes, profile, rate, .. } = arguments;
    println!(
        "the same faults again: cargo xtask soak --minutes {minutes} --seed {seed} --profile {profile} --rate {rate}"
    );
    let settings = Settings {
        length: Duration::from_secs_f64(minutes * 60.0),
        seed,
        profile: profile.clone(),
        writes_per_second: *rate,
        folder: folder.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = play(&settings) => Ok(Some(outcome)),
            ended = ended() => ended.map(|()| None),
        }
    })?;
    let Some(outcome) = outcome else {
        eprintln!("interrupted; the broker and the nodes are ended");
        return Ok(ExitCode::from(130));
    };
    let file = folder.with_extension("json");
    fs::write(&file, serde_json::to_vec(&outcome)?)?;
    println!("{outcome}; all of it is in {}", file.display());
    Ok(if outcome.green { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At Ctrl-C, or when whoever runs this ends it.
async fn ended() -> Result<()> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}
