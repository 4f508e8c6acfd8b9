//! What cargo knows about the workspace: members, features, targets.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package, Target, TargetKind};

/// The feature of the package `tests` that switches on the tests which need a broker.
pub(crate) const BROKER_FEATURE: &str = "broker";
/// The one that switches on the tests which need a real memcached.
pub(crate) const MEMCACHED_FEATURE: &str = "memcached";

/// The workspace as `cargo metadata` tells it.
#[derive(Debug)]
pub(crate) struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    /// Asks cargo, for the members alone.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub(crate) fn load() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo could not read the workspace")?;
        Ok(Self { metadata })
    }

    pub(crate) fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    /// Those that are published: what lies in `crates/`.
    pub(crate) fn crates(&self) -> Vec<&Package> {
        let crates = root().join("crates");
        self.members().into_iter().filter(|package| package.manifest_path.starts_with(&crates)).collect()
    }

    /// The targets of one kind of one member.
    pub(crate) fn targets(&self, package: &str, kind: &TargetKind) -> Vec<&Target> {
        self.members()
            .into_iter()
            .filter(|member| member.name.as_str() == package)
            .flat_map(|member| &member.targets)
            .filter(|target| target.kind.contains(kind))
            .collect()
    }

    /// The test files that need a broker.
    pub(crate) fn broker_tests(&self) -> Vec<&Target> {
        self.tests_of(BROKER_FEATURE)
    }

    /// The test files that need a real memcached.
    pub(crate) fn memcached_tests(&self) -> Vec<&Target> {
        self.tests_of(MEMCACHED_FEATURE)
    }

    fn tests_of(&self, wanted: &str) -> Vec<&Target> {
        let mut targets = self.targets("tests", &TargetKind::Test);
        targets.retain(|target| target.required_features.iter().any(|feature| feature == wanted));
        targets
    }

    /// A folder beside the builds, for what is not worth committing.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.metadata.target_directory.join(name).into()
    }

    /// Where cargo puts a binary of the ordinary build.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.metadata.target_directory.join("debug").join(name).into()
    }
}

/// The folder of the workspace's manifest.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
