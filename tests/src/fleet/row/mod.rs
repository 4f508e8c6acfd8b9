//! The faults, one row each: what is done to a running fleet, and mended.
//!
//! A row's function makes its fault, sees that it took hold, and mends it; it returns when all is mended. What has to be
//! so afterwards is the same for all of them, and is said in `checker.rs`.

mod access;
mod broker;
mod clock;
mod link;
mod object;
mod process;

use std::{pin::Pin, time::Duration};

use anyhow::Result;

use super::Scene;
pub use super::scene::play;

/// The region that is harmed where only one is.
const HARMED: usize = 2;

/// One fault.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// How long, where that is an input.
    pub length: Duration,
    /// How long the broker keeps the queue of a node that is away.
    pub queue_expires: Duration,
    /// Whether the nodes have a user of their own at the broker, with the rights they need alone.
    pub user: bool,
    /// Makes the fault, and mends it.
    pub fault: Fault,
}

/// What makes a fault of some length and mends it.
pub type Fault = for<'a> fn(&'a mut Scene, Duration) -> Acting<'a>;

/// A fault on its way. It stays on the thread that plays the row.
pub type Acting<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

impl Row {
    const fn new(name: &'static str, about: &'static str, seconds: u64, fault: Fault) -> Self {
        let (length, queue_expires) = (Duration::from_secs(seconds), Duration::from_secs(600));
        Self { name, about, length, queue_expires, user: false, fault }
    }

    /// The same fault for another time.
    #[must_use]
    pub fn lasting(self, length: Duration) -> Self {
        Self { length, ..self }
    }
}

/// All rows, in the order in which they are run.
pub fn all() -> Vec<Row> {
    [broker::rows(), link::rows(), object::rows(), access::rows(), process::rows(), clock::rows()].concat()
}

/// Waits until a count of a node's report went above what it was: the proof that a fault took hold.
async fn until_more(
    scene: &Scene,
    index: usize,
    what: &str,
    than: u64,
    count: impl Fn(&super::Report) -> u64,
) -> Result<()> {
    let fleet = &scene.fleet;
    let bound = Duration::from_secs(60);
    fleet
        .until(what, bound, async |fleet| Ok(count(&fleet.node(index)?.report().await?) > than))
        .await
        .map(drop)
}

/// A count of every node's report, in the order of the regions.
async fn of_each(scene: &Scene, count: impl Fn(&super::Report) -> u64) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for (_, node) in scene.fleet.nodes() {
        counts.push(count(&node.report().await?));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        let rows = all();
        let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
    }
}
