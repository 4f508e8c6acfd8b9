//! The measurements of the package `benches`: its binaries, and its criterion targets.

use anyhow::{Result, bail};
use cargo_metadata::TargetKind;

use crate::{
    broker::{Broker, URL_VARIABLE},
    child::{cargo, run as run_child},
    workspace::Workspace,
};

/// The measurements that need a broker.
const WITH_BROKER: &[&str] = &["replication"];

/// Runs the named measurement, or all of them.
///
/// # Errors
/// When there is none of that name, or one fails.
pub(crate) fn run(workspace: &Workspace, name: Option<&str>, arguments: &[String]) -> Result<()> {
    let targets = |kind| workspace.targets("benches", &kind).into_iter().map(|target| target.name.as_str());
    let binaries: Vec<&str> = targets(TargetKind::Bin).collect();
    let micro: Vec<&str> = targets(TargetKind::Bench).collect();
    let wanted: Vec<&str> = match name {
        Some(name) => vec![name],
        None => binaries.iter().chain(&micro).copied().collect(),
    };
    if let Some(unknown) = wanted.iter().find(|name| !binaries.contains(name) && !micro.contains(name)) {
        let known = binaries.iter().chain(&micro).copied().collect::<Vec<_>>().join(", ");
        bail!("there is no measurement {unknown}; there are: {known}");
    }
    for name in wanted {
        println!("── bench {name}");
        let mut command = if binaries.contains(&name) {
            cargo(&format!("run --release --quiet --package benches --bin {name} --"))
        } else {
            cargo(&format!("bench --quiet --package benches --bench {name} --"))
        };
        command.args(arguments);
        let broker = if WITH_BROKER.contains(&name) { Some(Broker::provide()?) } else { None };
        if let Some(broker) = &broker {
            command.env(URL_VARIABLE, broker.url());
        }
        run_child(&mut command)?;
    }
    Ok(())
}
