//! Bytes an entry beyond key and value, at 100,000 entries of `u64` to `u64`: measured by the program `core_memory`.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use benches::{
    contest::{Footprint, MOKA_EXPIRING, OURS},
    report::{Bound, Figure},
};

use crate::{Arguments, table};

const BYTES_MAX: f64 = 75.0;

/// Of moka with a lifetime for each entry.
const OF_MOKA_MAX: f64 = 0.3;

const NAMES: [&str; 2] = ["memory an entry, filled", "memory an entry, after churn"];

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Figure>> {
    if !NAMES.iter().any(|name| arguments.wants(name)) {
        return Ok(Vec::new());
    }
    let mut footprints = ask()?;
    let ours = footprints.remove(OURS).context("core_memory says nothing of cache-core")?;
    let columns: [fn(&Footprint) -> f64; 2] = [|footprint| footprint.fresh, |footprint| footprint.churned];
    let mut figures = Vec::new();
    for (name, column) in NAMES.into_iter().zip(columns) {
        let mut figure = Figure::new(name, column(&ours), "bytes").at_most(BYTES_MAX);
        for (peer, theirs) in &footprints {
            // Names outlive the run: there are a handful.
            let peer: &'static str = peer.clone().leak();
            figure = figure.beside(peer, column(&ours) / column(theirs));
        }
        if let Some(ratio) = figure.peers.get_mut(MOKA_EXPIRING) {
            ratio.target = Some(Bound::AtMost(OF_MOKA_MAX));
        }
        table::print(&figure, None);
        figures.push(figure);
    }
    Ok(figures)
}

fn ask() -> Result<BTreeMap<String, Footprint>> {
    let program = std::env::current_exe().context("the path of this program")?.with_file_name("core_memory");
    let output = Command::new(&program)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}; `cargo xtask bench core` builds it", program.display()))?;
    ensure!(output.status.success(), "core_memory failed: {}", output.status);
    let footprints: Vec<Footprint> =
        serde_json::from_slice(&output.stdout).context("what core_memory said")?;
    Ok(footprints.into_iter().map(|footprint| (footprint.name.clone(), footprint)).collect())
}
