//! `cargo xtask sim`: simulated clusters by the seed, and what broke in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use replication::sim::Rules;
use tests::sim::{
    Scenario, Violation,
    campaign::{run_seeds, survey_seeds},
    mutant,
    reduce::reduce,
    regression::Regression,
    run,
};

/// The last events that are shown of a failing run, ticks and beats apart.
const SHOWN_LINES: usize = 60;

/// The longest line of these.
const LINE_CHARS: usize = 160;

/// Events that are kept for that.
const TRACE_LINES: usize = 20_000;

/// A run without an end of its own.
const NO_BOUND: Duration = Duration::from_secs(365 * 24 * 3_600);

#[derive(Parser)]
#[command(name = "sim", about = "Simulated clusters that try to break the replica protocol")]
struct Arguments {
    /// How many seeds, from the first on
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// One seed alone, with its trace
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// As many seeds as there is time for
    #[arg(long)]
    minutes: Option<u64>,
    /// Switch the rules of the protocol off, one at a time, until something notices
    #[arg(long)]
    mutants: bool,
    /// Only the rules whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Leave the rule of this name out of every run
    #[arg(long)]
    without: Option<String>,
    /// Write what failed, made smaller, into this file, as a regression to be described
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Run what is kept in this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Run every seed, and count what failed by the invariant that was broken
    #[arg(long)]
    survey: bool,
    /// Print what failed as it is, without making it smaller
    #[arg(long)]
    whole: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let rules = match &arguments.without {
        None => Rules::ALL,
        Some(name) => match Rules::ALL.without(name) {
            Some(rules) => rules,
            None => {
                eprintln!("error: there is no rule {name}; there are: {}", Rules::NAMES.join(", "));
                return ExitCode::FAILURE;
            }
        },
    };
    let passed = if arguments.mutants {
        mutants(&arguments)
    } else if let Some(path) = &arguments.file {
        replay_file(path, rules, &arguments)
    } else if arguments.survey {
        survey(&arguments, rules)
    } else if let Some(seed) = arguments.seed {
        replay(&Scenario::of_seed(seed), rules, &arguments)
    } else {
        seeds(&arguments, rules)
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(arguments: &Arguments, rules: Rules) -> bool {
    let range = match arguments.minutes {
        Some(_) => arguments.from..u64::MAX,
        None => arguments.from..arguments.from.saturating_add(arguments.seeds),
    };
    let bound = arguments.minutes.map_or(NO_BOUND, |minutes| Duration::from_secs(60 * minutes));
    let campaign = run_seeds(range, |_| rules, bound);
    let (rate, threads) = (campaign.rate(), campaign.threads);
    println!(
        "{} seeds in {:.1} s on {threads} threads: {rate:.1} seeds/s, {:.1} per thread",
        campaign.ran,
        campaign.took.as_secs_f64(),
        rate / threads as f64
    );
    match campaign.failed {
        None => {
            println!("all passed");
            true
        }
        Some((seed, violation)) => {
            println!("seed {seed} is the lowest that failed: {violation}");
            show(&Scenario::of_seed(seed), rules, &violation, arguments);
            println!("replay it with: cargo xtask sim --seed {seed}");
            false
        }
    }
}

fn survey(arguments: &Arguments, rules: Rules) -> bool {
    let range = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let began = Instant::now();
    let survey = survey_seeds(range, |_| rules);
    println!("{} seeds in {:.1} s", arguments.seeds, began.elapsed().as_secs_f64());
    for (invariant, (count, seed, violation)) in &survey {
        println!("{count:>6} broke {invariant:?}; first seed {seed}: {violation}");
    }
    survey.is_empty()
}

fn replay_file(path: &Path, rules: Rules, arguments: &Arguments) -> bool {
    let kept = fs::read_to_string(path).map_err(anyhow::Error::from);
    match kept.and_then(|text| Ok(serde_json::from_str::<Regression>(&text)?)) {
        Ok(kept) => replay(&kept.scenario, rules, arguments),
        Err(error) => {
            eprintln!("error: {} cannot be read as a kept scenario: {error}", path.display());
            false
        }
    }
}

fn replay(scenario: &Scenario, rules: Rules, arguments: &Arguments) -> bool {
    let outcome = run(scenario, rules, TRACE_LINES);
    println!("seed {}: trace {:016x}", scenario.seed, outcome.trace_hash);
    match outcome.violation {
        None => {
            println!("{scenario}passed");
            true
        }
        Some(violation) => {
            println!("{violation}");
            show(scenario, rules, &violation, arguments);
            false
        }
    }
}

/// Makes a failing scenario small, shows it, and keeps it if that is wanted.
fn show(scenario: &Scenario, rules: Rules, violation: &Violation, arguments: &Arguments) {
    let small = if arguments.whole { scenario.clone() } else { reduce(scenario, rules, violation.invariant) };
    let outcome = run(&small, rules, TRACE_LINES);
    println!("\n── the scenario, {} lines of {}", small.schedule.len(), scenario.schedule.len());
    print!("{small}");
    println!("── its last events (trace {:016x})", outcome.trace_hash);
    let is_telling = |line: &&String| !line.ends_with(" ticks") && !line.contains(" Beat ");
    let telling: Vec<&String> = outcome.trace.iter().filter(is_telling).collect();
    for line in &telling[telling.len().saturating_sub(SHOWN_LINES)..] {
        // A padded value would fill the screen.
        println!("{}", line.chars().take(LINE_CHARS).collect::<String>());
    }
    outcome.nodes.iter().for_each(|node| println!("{node}"));
    if let Some(violation) = outcome.violation {
        println!("── {violation}");
    }
    if let Some(path) = &arguments.keep {
        let broke = violation.invariant.to_owned();
        let kept = Regression { was: "to be described".to_owned(), broke, scenario: small };
        match kept.text().map_err(io::Error::other).and_then(|text| fs::write(path, text)) {
            Ok(()) => println!("── kept in {}", path.display()),
            Err(error) => eprintln!("error: {} could not be written: {error}", path.display()),
        }
    }
}

fn mutants(arguments: &Arguments) -> bool {
    let wanted = |rule: &&str| arguments.only.as_ref().is_none_or(|only| rule.contains(only.as_str()));
    println!("{:<22} {:>7} {:>7}  caught by", "rule left out", "seed", "tried");
    let mut survived = Vec::new();
    for rule in mutant::rules().filter(wanted) {
        let Some(mutant) = mutant::without(rule, 0..arguments.seeds, NO_BOUND) else { continue };
        let tried = mutant.campaign.ran;
        match mutant.caught() {
            Some((seed, violation)) => {
                println!("{rule:<22} {seed:>7} {tried:>7}  {}: {}", violation.invariant, violation.text);
            }
            None => {
                println!("{rule:<22} {:>7} {tried:>7}  nothing", "-");
                survived.push(rule);
            }
        }
    }
    if survived.is_empty() {
        println!("each was caught");
    } else {
        println!("survived: {}", survived.join(", "));
    }
    survived.is_empty()
}
