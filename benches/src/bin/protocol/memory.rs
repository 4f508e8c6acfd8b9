//! The memory of this process, as the system counts it (Linux).

use std::fs;

use anyhow::{Context, Result};

const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory now, in MiB.
pub(crate) fn resident_mib() -> Result<f64> {
    status("VmRSS:")
}

/// Begins to look for a new peak of resident memory.
pub(crate) fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak in /proc/self/clear_refs")
}

/// The peak of resident memory since then, in MiB. The kernel keeps it, so no moment is missed.
pub(crate) fn peak_mib() -> Result<f64> {
    status("VmHWM:")
}

fn status(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("memory is measured on Linux alone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.with_context(|| format!("/proc/self/status says nothing of {field}"))? * 1024.0 / MIB)
}
