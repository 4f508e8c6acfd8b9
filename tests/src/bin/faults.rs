//! `cargo xtask test-integration --faults`: every row of the fault matrix, one after the other, and their table.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tests::fleet::{
    Outcome, Times, program,
    row::{self, Row},
};

#[derive(Parser)]
#[command(name = "faults", about = "Faults under load, and what they leave behind")]
struct Arguments {
    /// Only the rows whose name contains this
    #[arg(long, value_name = "ROW")]
    only: Option<String>,
    /// fast, durable or stream
    #[arg(long, default_value = "fast")]
    profile: String,
    /// What decides the writes and reads; random and printed unless told
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print each row as a line of JSON
    #[arg(long)]
    json: bool,
    /// Name the rows and run none
    #[arg(long)]
    list: bool,
    /// The folder for what the regions held, and for the rows as JSON
    #[arg(long, value_name = "FOLDER", default_value = "target/faults")]
    folder: PathBuf,
}

fn main() -> Result<()> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<()> {
    program::profile(&arguments.profile)?;
    let mut rows = row::all();
    if arguments.list {
        rows.iter().for_each(|row| println!("{:<22} {}", row.name, row.about));
        return Ok(());
    }
    if let Some(only) = &arguments.only {
        rows.retain(|row| row.name.contains(only));
    }
    if rows.is_empty() {
        let names: Vec<_> = row::all().iter().map(|row| row.name).collect();
        bail!("no row's name contains {:?}; there are: {}", arguments.only, names.join(", "));
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("the same writes again: --profile {} --seed {seed}", arguments.profile);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcomes = runtime.block_on(play_all(arguments, seed, &rows))?;
    if !arguments.json {
        println!("\n{} profile, seed {seed}\n{}", arguments.profile, Outcome::head());
        outcomes.iter().for_each(|outcome| println!("{outcome}"));
    }
    let red: Vec<_> = outcomes.iter().filter(|outcome| !outcome.green).map(|outcome| &*outcome.row).collect();
    let took: f64 = outcomes.iter().map(|outcome| outcome.took_s).sum();
    eprintln!("{} rows in {took:.0} s, {} red", outcomes.len(), red.len());
    if !red.is_empty() {
        bail!("red: {}; what the regions held is in {}", red.join(", "), arguments.folder.display());
    }
    Ok(())
}

async fn play_all(arguments: &Arguments, seed: u64, rows: &[Row]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    if !arguments.json {
        println!("{}", Outcome::head());
    }
    for row in rows {
        let folder = arguments.folder.join(&arguments.profile).join(row.name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("no folder {}", folder.display()))?;
        let outcome = row::play(row, &arguments.profile, seed, Times::default(), folder.clone()).await;
        let json = serde_json::to_string(&outcome)?;
        fs::write(folder.with_extension("json"), &json)?;
        if arguments.json {
            println!("{json}");
        } else {
            println!("{outcome}");
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
