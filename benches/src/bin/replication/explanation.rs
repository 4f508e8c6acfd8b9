//! Why targets are missed, in words, with the figures of the run: a paragraph for each cause, and only where it applies.

use benches::{
    report::{Figure, Ratio, spread},
    table,
};

use crate::{
    growth::{BROKER_MAX, NODES},
    profile::PROFILES,
    row::{RAW, RAW_AT_OUR_PACE, REDIS},
};

/// The paragraphs; each begins with an empty line.
pub(crate) fn of(figures: &[Figure]) -> String {
    let figures = Figures(figures);
    let mut text = String::new();
    for (profile, _) in PROFILES {
        text.extend(figures.beside_raw(profile));
    }
    text.extend(figures.beside_redis());
    text.extend(figures.broker());
    text.extend(figures.entries());
    text
}

struct Figures<'a>(&'a [Figure]);

impl Figures<'_> {
    fn figure(&self, name: &str) -> Option<&Figure> {
        self.0.iter().find(|figure| figure.name == name)
    }

    /// A ratio that misses its target.
    fn missed(&self, name: &str, peer: &str) -> Option<&Ratio> {
        self.figure(name)?.peers.get(peer).filter(|ratio| ratio.misses_target())
    }

    /// Ours, and what the other's comes to by the ratio.
    fn both(&self, name: &str, peer: &str) -> Option<(f64, f64)> {
        let figure = self.figure(name)?;
        Some((figure.value, figure.value / figure.peers.get(peer)?.median))
    }

    /// Processor seconds of nodes and client library, and of the broker or the servers: ours and the other's.
    fn costs(&self, profile: &str, peer: &str) -> Option<[(f64, f64); 2]> {
        let cost = |whose: &str| self.both(&format!("{profile}: processor time, {whose}"), peer);
        Some([cost("nodes and client library")?, cost("broker")?])
    }

    fn beside_raw(&self, profile: &str) -> Option<String> {
        let ratio = self.missed(&format!("{profile}: throughput"), RAW)?;
        let [nodes, broker] = self.costs(profile, RAW)?;
        Some(format!(
            "\n**{profile}: {} of the bare client library.** That library stores nothing: with the broker, a million records cost it\n\
             {} s of processor time. Ours cost {} s, since they are also written with a stamp, numbered, encoded, decoded and\n\
             merged by two nodes under their shards' locks: {} s more in the nodes alone. All of it is on the same cores, so\n\
             throughput stands in about that proportion.\n",
            short(ratio.median),
            short(nodes.1 + broker.1),
            short(nodes.0 + broker.0),
            short(nodes.0 - nodes.1),
        ))
    }

    fn beside_redis(&self) -> Option<String> {
        let costs = |profile: &str| {
            let ratio = self.missed(&format!("{profile}: throughput"), REDIS)?;
            let [nodes, broker] = self.costs(profile, REDIS)?;
            let [ours, theirs] = [nodes.0 + broker.0, nodes.1 + broker.1].map(short);
            Some(format!("{} in {profile} ({ours} s beside Redis' {theirs} s)", short(ratio.median)))
        };
        let told: Vec<String> = PROFILES.iter().filter_map(|(profile, _)| costs(profile)).collect();
        let told = Some(told.join(", ")).filter(|told| !told.is_empty())?;
        Some(format!(
            "\n**Redis: {told}.** In parentheses is the processor time of a million records, all processes and clients together: on\n\
             cores that are full, throughput differs by about that much and no more. In `durable` and `stream` the broker also\n\
             writes each frame to disk, in `durable` once for each node; Redis here writes nothing to disk.\n"
        ))
    }

    fn broker(&self) -> Option<String> {
        let row = |count| self.figure(&format!("{count} nodes: processor time, broker"));
        let rows: Vec<&Figure> = NODES.into_iter().filter_map(row).collect();
        if !rows.iter().any(|row| row.peers.get(RAW).is_some_and(Ratio::misses_target)) {
            return None;
        }
        let span = |peer| {
            let ratios = rows.iter().filter_map(|row| Some(row.peers.get(peer)?.median));
            let (low, high) = spread(&ratios.collect::<Vec<_>>())?;
            Some((format!("{} to {}", short(low), short(high)), high))
        };
        let (flood, _) = span(RAW)?;
        let (paced, most) = span(RAW_AT_OUR_PACE)?;
        let cause = if most <= BROKER_MAX {
            "The difference is the pace: frames that come one by\none wake it once each, in a flood it takes several at a time."
        } else {
            "So the pace, at which frames that come one by one wake it\nonce each, is not all of it: the nodes' beats come on top."
        };
        Some(format!(
            "\n**The broker as nodes are added: {flood} of its work for bare consumers.** It carries as many copies of the same\n\
             frames for both, and where the bare client sends no faster than the nodes do, ours is {paced} of it. {cause}\n"
        ))
    }

    fn entries(&self) -> Option<String> {
        let grown =
            self.0.iter().find(|figure| figure.name.contains("entries: the nodes' time, of that with"))?;
        if !grown.misses_target() {
            return None;
        }
        let bare =
            self.0.iter().find(|figure| figure.name.contains("entries: a bare map's time, of that with"))?;
        Some(format!(
            "\n**{}: {} times.** A record does no more work\namong many entries; it waits for memory, since hardly any \
             entry and page is still in the processor's caches. The machine's own\npart: a write to a bare map takes {} times \
             as long. A node looks at more places for each record than that map: the table, the\nentry, its neighbours in the \
             order of use, the value.\n",
            grown.name,
            short(grown.value),
            short(bare.value),
        ))
    }
}

fn short(value: f64) -> String {
    table::number(value).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use benches::report::Bound;

    use super::*;

    fn throughput(ratio: f64) -> Vec<Figure> {
        let mut throughput = Figure::new("fast: throughput", 780_000.0, "records/s");
        let target = Some(Bound::AtLeast(0.75));
        throughput.peers.insert(RAW, Ratio { target, ..Ratio::of([ratio]) });
        let nodes = Figure::new("fast: processor time, nodes and client library", 1.6, "s/million");
        let broker = Figure::new("fast: processor time, broker", 0.5, "s/million");
        vec![throughput, nodes.beside(RAW, 4.0), broker.beside(RAW, 1.25)]
    }

    #[test]
    fn a_missed_target_is_explained_by_the_figures_of_the_run() {
        let text = of(&throughput(0.31));
        for part in ["fast: 0.31 of the bare", "cost it\n0.80 s", "Ours cost 2.10 s", "1.20 s more"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_brokers_work_is_put_down_to_the_pace_only_where_that_was_measured() {
        let broker = |paced| {
            let rows = NODES.into_iter().map(|count| {
                let row = Figure::new(format!("{count} nodes: processor time, broker"), 1.0, "s/million");
                let mut row = row.beside(RAW_AT_OUR_PACE, paced);
                let target = Some(Bound::AtMost(BROKER_MAX));
                row.peers.insert(RAW, Ratio { target, ..Ratio::of([1.5]) });
                row
            });
            of(&rows.collect::<Vec<_>>())
        };
        assert!(broker(0.9).contains("The difference is the pace"), "{}", broker(0.9));
        assert!(broker(1.4).contains("is not all of it"), "{}", broker(1.4));
    }

    #[test]
    fn a_target_that_is_held_is_not_explained() {
        assert_eq!(of(&throughput(0.8)), "");
    }
}
