//! "Depend on just the crates you need", proved: for each library crate, a program outside the workspace that names it
//! alone, in `tests/fixtures/<crate>/`, built and run.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{MetadataCommand, Package};

use crate::{
    child::{cargo, run as run_child},
    layers,
    workspace::{Workspace, root},
};

/// Builds and runs them all.
///
/// # Errors
/// When a crate has none, one names more than its crate, pulls in a crate that the layers do not grant, or fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let crates = workspace.crates();
    for library in crates.iter().filter(|package| is_library(package)) {
        let name = library.name.as_str();
        let folder = root().join("tests/fixtures").join(name);
        if !folder.is_dir() {
            bail!("the crate {name} has no fixture; write {}", folder.display());
        }
        // The versions of the workspace, so that nothing else is fetched or built.
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
        check_edges(name, &folder)?;
        println!("fixture {name}");
        let mut command = cargo("run --quiet --target-dir");
        command.arg(target_folder(workspace)).arg("--manifest-path").arg(folder.join("Cargo.toml"));
        run_child(&mut command)?;
    }
    Ok(())
}

/// The daemon's package has a library for its own tests alone; nobody depends on it.
fn is_library(package: &Package) -> bool {
    !package.targets.iter().any(cargo_metadata::Target::is_bin)
}

fn target_folder(workspace: &Workspace) -> PathBuf {
    let binary = workspace.binary("");
    binary.parent().map_or(binary.clone(), |folder| folder.join("fixtures"))
}

/// The fixture names its crate and no other of the workspace, and gets what the layer law grants that crate, no more.
fn check_edges(name: &str, folder: &std::path::Path) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(folder.join("Cargo.toml"))
        .exec()
        .with_context(|| format!("cargo could not read the fixture of {name}"))?;
    let own = metadata.root_package().context("a fixture is a package")?;
    let local = |package: &&Package| package.source.is_none() && package.id != own.id;
    let named: Vec<&str> =
        own.dependencies.iter().filter(|edge| edge.path.is_some()).map(|edge| edge.name.as_str()).collect();
    if named != [name] {
        bail!("the fixture of {name} names {named:?} of the workspace; it may name {name} alone");
    }
    for package in metadata.packages.iter().filter(local) {
        if package.name.as_str() != name && !layers::reaches(name, &package.name) {
            bail!("whoever depends on {name} gets {} too, which the layers do not grant", package.name);
        }
    }
    Ok(())
}
