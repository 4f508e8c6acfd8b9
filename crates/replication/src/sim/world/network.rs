//! The links between the nodes.

use bytes::Bytes;

use super::{Due, SimStore, Way, World};
use crate::{
    sim::{Event, Fate, FrameKind, Link, link::mix},
    transport::Destination,
};

impl<S: SimStore> World<S> {
    /// How frames fare from one node to another.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.ways[self.way(from, to)].link
    }

    /// Sets how frames fare from one node to another, one way.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn set_link(&mut self, from: usize, to: usize, link: Link) {
        let way = self.way(from, to);
        self.ways[way].link = link;
    }

    /// Sets every link, those of nodes that are added later included.
    pub fn set_links(&mut self, link: Link) {
        self.link = link;
        for way in &mut self.ways {
            way.link = link;
        }
    }

    /// Sets the round-trip time between two nodes: half of it each way, without faults.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn rtt(&mut self, a: usize, b: usize, ms: u64) {
        self.set_link(a, b, Link::rtt(ms));
        self.set_link(b, a, Link::rtt(ms));
    }

    /// Nothing passes from one node to another any more; what is on its way arrives.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn cut(&mut self, from: usize, to: usize) {
        let way = self.way(from, to);
        self.ways[way].is_cut = true;
    }

    /// What [`Self::cut`] did ends.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn mend(&mut self, from: usize, to: usize) {
        let way = self.way(from, to);
        self.ways[way].is_cut = false;
    }

    /// Nothing passes between the two groups any more, either way.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn partition(&mut self, left: &[usize], right: &[usize]) {
        for &a in left {
            for &b in right {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Every cut ends. Links stay as poor as they are: see [`Self::calm`].
    pub fn heal(&mut self) {
        for way in &mut self.ways {
            way.is_cut = false;
        }
    }

    /// Every link keeps its times and loses, repeats, delays and corrupts nothing from now on.
    pub fn calm(&mut self) {
        self.link = self.link.without_faults();
        for way in &mut self.ways {
            way.link = way.link.without_faults();
        }
    }

    fn way(&self, from: usize, to: usize) -> usize {
        let nodes = self.nodes.len();
        assert!(from < nodes && to < nodes, "there is no link {from} -> {to} among {nodes} nodes");
        from * nodes + to
    }

    /// The ways between so many nodes: those that are there stay as they are.
    pub(super) fn ways_for(&self, nodes: usize) -> Vec<Way> {
        let before = nodes - 1;
        let new = Way::new(self.link);
        let way = |from: usize, to: usize| {
            if from < before && to < before { self.ways[from * before + to] } else { new }
        };
        (0..nodes * nodes).map(|place| way(place / nodes, place % nodes)).collect()
    }

    pub(super) fn send(&mut self, from: usize, to: &Destination, frame: &Bytes) {
        let kind = FrameKind::of(frame);
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index].setup.config.node;
            let is_addressed = match to {
                Destination::Everyone => index != from,
                Destination::Node(one) => node == one,
                Destination::Region(region) => index != from && node.region() == region,
            };
            if is_addressed {
                self.nodes[from].traffic.note(kind, frame.len());
                self.send_to(from, index, frame);
            }
        }
    }

    fn send_to(&mut self, from: usize, to: usize, frame: &Bytes) {
        let way = self.way(from, to);
        let seed = mix(self.seed, (from as u64) << 32 | to as u64 | 1 << 63);
        let fate = self.ways[way].send(seed, self.now_ms, frame.len());
        if let Fate::Arrives { at_ms, copy_at_ms, corrupt } = fate {
            let arriving = corrupt.map_or_else(|| frame.clone(), |place| corrupted(frame, place));
            self.plan(at_ms, Due::Arrival { from, to, frame: arriving });
            if let Some(copy_at_ms) = copy_at_ms {
                self.plan(copy_at_ms, Due::Arrival { from, to, frame: frame.clone() });
            }
        }
        self.emit(&Event::Sent { from, to, frame, fate });
    }
}

/// The frame with one byte flipped.
fn corrupted(frame: &Bytes, place: u64) -> Bytes {
    let mut bytes = frame.to_vec();
    if let Some(byte) = usize::try_from(place).ok().and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1 << (place % 8);
    }
    Bytes::from(bytes)
}
