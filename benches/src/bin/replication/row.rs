//! One line of the report: what ours reached in the rounds, and the others in the same ones.

use benches::{
    report::{Bound, Figure, Ratio, median, spread},
    table,
};

pub(crate) const RAW: &str = "raw_lapin";
/// The same, no faster than ours.
pub(crate) const RAW_AT_OUR_PACE: &str = "raw_at_our_pace";
pub(crate) const REDIS: &str = "redis";

pub(crate) struct Row {
    figure: Figure,
    ours: Vec<f64>,
    /// The others' own figures.
    peers: Vec<(&'static str, f64)>,
}

impl Row {
    pub(crate) fn new(name: String, unit: &'static str, ours: Vec<f64>) -> Self {
        let figure = Figure::new(name, median(ours.iter().copied()), unit);
        Self { figure, ours, peers: Vec::new() }
    }

    /// With what somebody else reached in the same rounds, where it was measured.
    pub(crate) fn beside(mut self, peer: &'static str, theirs: &[f64], target: Option<Bound>) -> Self {
        if !theirs.is_empty() && theirs.len() == self.ours.len() {
            let ratios = self.ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
            self.figure.peers.insert(peer, Ratio { target, ..Ratio::of(ratios) });
            self.peers.push((peer, median(theirs.iter().copied())));
        }
        self
    }

    /// It may be at most this.
    pub(crate) fn at_most(mut self, target: f64) -> Self {
        self.figure = self.figure.at_most(target);
        self
    }

    /// Prints it, if anything was measured.
    pub(crate) fn told(self) -> Option<Figure> {
        (!self.ours.is_empty()).then(|| self.tell())
    }

    /// Prints it.
    pub(crate) fn tell(self) -> Figure {
        table::print(&self.figure, spread(&self.ours));
        for (peer, value) in self.peers {
            println!("  {} {} of {peer}", table::number(value), self.figure.unit);
        }
        self.figure
    }
}
