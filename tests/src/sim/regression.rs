//! Scenarios that once broke something, each a file in `tests/regressions/`.
//!
//! A seed means another scenario whenever the generator changes, so what a seed found is kept as the scenario itself,
//! shrunk. Each file is a test from then on; it says what was wrong.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Scenario;

/// A scenario that once broke an invariant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// What was wrong.
    pub was: String,
    /// The invariant that was broken.
    pub broke: String,
    /// What broke it.
    pub scenario: Scenario,
}

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// All that are kept, with the names of their files, in their order.
///
/// # Errors
/// When the folder or a file cannot be read, or a file is not a regression.
pub fn all() -> io::Result<Vec<(String, Regression)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let regression =
            serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        found.push((name, regression));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
