//! What must hold, one file each: after every event, or once all faults have ended and the nodes have settled.
//!
//! An invariant sees what happens on a node ([`At`]), never the simulation itself, so that each can be shown a violation
//! that was planted by hand: a check that cannot fail checks nothing. What it says of a violation becomes the line under
//! which a failing seed is reported.

mod bar_never_falls;
mod bounds_kept;
mod converged;
mod life_not_extended;
mod no_lost_write;
mod no_phantom;
mod no_resurrection;
mod own_write_visible;
mod page_covers;
mod receipt_true;
mod session_monotone;
mod silence;
mod stamps_rise;
mod start_is_fresh;
mod watermark_true;
mod within_drift;

use std::collections::{BTreeMap, BTreeSet};

use replication::{
    Origin, Stream,
    message::{Bar, StreamReport, SyncPage},
    replica::{Counters, Progress, Token},
    sim::{FrameKind, NodeSetup},
};

use super::{
    key::{self, KEYS_MAX},
    ledger::{Ledger, Write},
    watched::Shown,
};

/// What an invariant says: nothing, or how it was broken.
pub type Verdict = Result<(), String>;

/// Where and when something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The true time, in milliseconds.
    pub now_ms: u64,
    /// The node.
    pub node: usize,
    /// Its compact form in stamps.
    pub origin: Origin,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// The bars of a node, by the numbers of the keys.
pub type BarOf<'a> = &'a dyn Fn(usize) -> Bar;

/// The other nodes, for one that starts.
pub struct Others<'a> {
    /// Those that are up and ready.
    pub ready: &'a [usize],
    /// Their bars, by node and key.
    pub bars: &'a dyn Fn(usize, usize) -> Bar,
}

/// What a node says that it has of each stream.
#[derive(Debug)]
pub struct Claims<'a> {
    /// The streams, the node's own included.
    pub streams: &'a [StreamReport],
}

/// What a node says of who has a write of its own.
#[derive(Debug)]
pub struct Receipt<'a> {
    /// The write.
    pub write: &'a Write,
    /// The nodes of the regions that it says have it.
    pub nodes: &'a BTreeSet<usize>,
}

/// What a node says to a session that comes with the token of a write.
#[derive(Debug)]
pub struct Session<'a> {
    /// The write.
    pub write: &'a Write,
    /// The answer.
    pub progress: Progress,
}

/// How much a node holds, and how it is laid out.
#[derive(Debug)]
pub struct Sizes<'a> {
    /// Entries of the store.
    pub entries: usize,
    /// Graves of the store.
    pub graves: usize,
    /// Records waiting in the outbox.
    pub outbox_records: usize,
    /// Their bytes.
    pub outbox_bytes: usize,
    /// Messages to single nodes waiting to leave.
    pub messages: usize,
    /// Their bytes.
    pub message_bytes: usize,
    /// Streams that it reports, its own included.
    pub streams: usize,
    /// Nodes that it knows.
    pub peers: usize,
    /// What it may hold.
    pub setup: &'a NodeSetup,
}

/// A node after all faults have ended and there was time to settle.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Whether its process is up.
    pub is_up: bool,
    /// Whether it is ready rather than warming.
    pub is_ready: bool,
    /// Why it stopped, where it did.
    pub failure: Option<String>,
    /// What it was told of each key in this life: no stamp that this does not admit may be held anywhere.
    pub told: [Bar; KEYS_MAX],
    /// What it shows of each key.
    pub shown: Vec<Shown>,
    /// What it says of itself.
    pub counters: Counters,
}

/// All nodes after all faults have ended and there was time to settle.
pub struct End<'a> {
    /// The true time, in milliseconds.
    pub now_ms: u64,
    /// What was written.
    pub ledger: &'a Ledger,
    /// The nodes.
    pub nodes: &'a [Settled],
    /// The present epoch of each node.
    pub epochs: &'a BTreeMap<Origin, u64>,
    /// Whether every node had room for every key and every grave, so that nothing was ever forgotten for want of it.
    pub is_plenty: bool,
    /// What a node says to the token of a write.
    pub progress: &'a dyn Fn(usize, Token) -> Progress,
    /// The frames of each kind that all nodes together sent in the last seconds.
    pub sent: &'a dyn Fn(FrameKind) -> u64,
}

impl End<'_> {
    /// The nodes whose processes are up.
    pub fn up(&self) -> impl Iterator<Item = (usize, &Settled)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_up)
    }
}

/// Something that must hold.
pub trait Invariant {
    /// Its name: that of its file, in words.
    fn name(&self) -> &'static str;

    /// A process started with nothing in memory.
    fn started(&mut self, _at: At, _others: &Others<'_>) {}

    /// A node became ready, with these bars.
    fn readied(&mut self, _at: At, _bars: BarOf<'_>) {}

    /// A process ended; these were its bars.
    fn ended(&mut self, _at: At, _bars: BarOf<'_>) {}

    /// A local write was applied; this is what the node shows of its key then.
    fn wrote(&mut self, _at: At, _write: &Write, _shown: &Shown) -> Verdict {
        Ok(())
    }

    /// Something of a key may have changed on a node.
    fn shows(&mut self, _at: At, _ledger: &Ledger, _shown: &Shown) -> Verdict {
        Ok(())
    }

    /// What a node says it has of the streams may have changed.
    fn claims(&mut self, _at: At, _ledger: &Ledger, _claims: &Claims<'_>, _bars: BarOf<'_>) -> Verdict {
        Ok(())
    }

    /// A writer was asked who has its write. The bars are those of the nodes by their numbers.
    fn receipt(&mut self, _at: At, _receipt: &Receipt<'_>, _bars: &dyn Fn(usize, usize) -> Bar) -> Verdict {
        Ok(())
    }

    /// A session asked whether its write is here.
    fn session(&mut self, _at: At, _session: &Session<'_>, _bars: BarOf<'_>) -> Verdict {
        Ok(())
    }

    /// How much a node holds may have changed.
    fn grew(&mut self, _at: At, _sizes: &Sizes<'_>) -> Verdict {
        Ok(())
    }

    /// A node took a page of a transfer.
    fn took_page(&mut self, _at: At, _page: &SyncPage, _bars: BarOf<'_>) -> Verdict {
        Ok(())
    }

    /// All faults have ended, and there was time to settle.
    fn settled(&mut self, _end: &End<'_>) -> Verdict {
        Ok(())
    }
}

/// All of them, each as if nothing had happened yet.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<bar_never_falls::BarNeverFalls>::default(),
        Box::<stamps_rise::StampsRise>::default(),
        Box::<own_write_visible::OwnWriteVisible>::default(),
        Box::<no_phantom::NoPhantom>::default(),
        Box::<life_not_extended::LifeNotExtended>::default(),
        Box::<within_drift::WithinDrift>::default(),
        Box::<start_is_fresh::StartIsFresh>::default(),
        Box::<page_covers::PageCovers>::default(),
        Box::<watermark_true::WatermarkTrue>::default(),
        Box::<receipt_true::ReceiptTrue>::default(),
        Box::<session_monotone::SessionMonotone>::default(),
        Box::<bounds_kept::BoundsKept>::default(),
        Box::<converged::Converged>::default(),
        Box::<no_resurrection::NoResurrection>::default(),
        Box::<no_lost_write::NoLostWrite>::default(),
        Box::<silence::Silence>::default(),
    ]
}

/// Something that is kept per node and forgotten when its process ends.
#[derive(Debug)]
struct PerNode<T>(Vec<T>);

impl<T> Default for PerNode<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> PerNode<T> {
    fn of(&mut self, node: usize) -> &mut T {
        if self.0.len() <= node {
            self.0.resize_with(node + 1, T::default);
        }
        &mut self.0[node]
    }

    fn all(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    fn forget(&mut self, node: usize) {
        *self.of(node) = T::default();
    }
}

/// What a node shows of a stream's writes: each that is claimed has to be under its key's bar.
fn first_above_its_bar<'a>(
    writes: impl Iterator<Item = &'a Write>,
    bars: BarOf<'_>,
) -> Option<(&'a Write, Bar)> {
    let mut judged = writes.map(|write| (write, bars(write.key)));
    judged.find(|(write, bar)| *bar < Bar::at(write.stamp))
}

/// A stream in words.
fn named(stream: Stream) -> String {
    format!("life {:x} of {:016x}", stream.epoch, stream.origin.0)
}

fn key_named(key: usize) -> &'static str {
    key::text(key)
}

#[cfg(test)]
mod planted;
