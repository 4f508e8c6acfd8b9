//! The measurements of the package `benches`: its binaries, and its criterion targets.
//!
//! Where both have one name, they are one measurement: first the criterion target, then the binary. Arguments are for the
//! binary, so with any it runs alone.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use cargo_metadata::TargetKind;

use crate::{
    broker::{Broker, URL_VARIABLE},
    child::{cargo, run as run_child},
    workspace::Workspace,
};

/// The measurements that need a broker.
const WITH_BROKER: &[&str] = &["replication"];

/// The measurements that need a feature of the package, which nothing else switches on: other crates to compare with.
const WITH_FEATURE: &[(&str, &str)] = &[("core", PEERS), ("resilience", PEERS)];

/// Binaries that are no measurements of their own: the measurement runs them.
const PARTS: &[(&str, &str)] = &[("core", "core_memory")];

/// The feature of the package `benches` that compiles the crates of others.
pub(crate) const PEERS: &str = "peers";

/// Runs the named measurement, or all of them.
///
/// # Errors
/// When there is none of that name, or one fails.
pub(crate) fn run(workspace: &Workspace, name: Option<&str>, arguments: &[String]) -> Result<()> {
    let targets = |kind| workspace.targets("benches", &kind).into_iter().map(|target| target.name.as_str());
    let is_part = |name: &str| PARTS.iter().any(|(_, part)| *part == name);
    let binaries: Vec<&str> = targets(TargetKind::Bin).filter(|name| !is_part(name)).collect();
    let micro: Vec<&str> = targets(TargetKind::Bench).collect();
    let known: BTreeSet<&str> = binaries.iter().chain(&micro).copied().collect();
    let wanted: Vec<&str> = name.map_or_else(|| known.iter().copied().collect(), |name| vec![name]);
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(*name)) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        bail!("there is no measurement {unknown}; there are: {known}");
    }
    for name in wanted {
        println!("── bench {name}");
        let is_binary = binaries.contains(&name);
        let mut commands = Vec::new();
        if micro.contains(&name) && (!is_binary || arguments.is_empty()) {
            commands.push(cargo(&format!("bench --quiet --package benches --bench {name} --")));
        }
        if is_binary {
            let feature = WITH_FEATURE.iter().find(|(of, _)| *of == name);
            let options = feature.map_or_else(String::new, |(_, feature)| format!(" --features {feature}"));
            let options = format!("--release --quiet --package benches{options}");
            for (_, part) in PARTS.iter().filter(|(of, _)| *of == name) {
                commands.push(cargo(&format!("build {options} --bin {part}")));
            }
            commands.push(cargo(&format!("run {options} --bin {name} --")));
        }
        if let Some(last) = commands.last_mut() {
            last.args(arguments);
        }
        let broker = if WITH_BROKER.contains(&name) { Some(Broker::provide()?) } else { None };
        for mut command in commands {
            if let Some(broker) = &broker {
                command.env(URL_VARIABLE, broker.url());
            }
            run_child(&mut command)?;
        }
    }
    Ok(())
}
