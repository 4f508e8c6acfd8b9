//! Micro benches: criterion measures, its medians are reported.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};

use crate::report::{Figure, folder};

/// Runs a group of benchmarks, prints their medians, and returns them in nanoseconds an iteration. One that this run left
/// out, because a filter was given, shows its last run's figure; one that never ran is left out.
///
/// Run by anything but `cargo bench`, as by `cargo test --benches`, each benchmark is run once and nothing is returned.
///
/// # Errors
/// What `benchmarks` fails with, or when criterion's files are not what they are known to be.
pub fn run(
    group: &str,
    names: &[&str],
    benchmarks: impl FnOnce(&mut BenchmarkGroup<'_, WallTime>) -> Result<()>,
) -> Result<Vec<Figure>> {
    // Criterion's own records, by which it compares one run with the one before.
    let records = folder().join("criterion");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .output_directory(&records)
        .configure_from_args();
    let mut open = criterion.benchmark_group(group);
    benchmarks(&mut open)?;
    open.finish();
    criterion.final_summary();
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(Vec::new());
    }
    let mut figures = Vec::new();
    for name in names {
        let path = records.join(group).join(name).join("new").join("estimates.json");
        if path.exists() {
            let figure = Figure::new(*name, median_ns(&path)?, "ns");
            println!("{:<28} {:>9.1} ns", figure.name, figure.value);
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn median_ns(path: &Path) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let estimates: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let median = estimates["median"]["point_estimate"].as_f64();
    median.with_context(|| format!("{} holds no median", path.display()))
}
