//! What a node's stats are as samples: pure, and complete by the compiler or by a test.

use prometheus_client::registry::Unit;
use replication::{
    Health,
    replica::{OutboxStats, PeerStatus},
    report::{Breaker, BreakerState, Count, Report},
};

use crate::stats::{RegionStats, Stats};

pub(super) type Label = (&'static str, String);

/// One value of one metric, without the labels of its node.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Without its unit and the `_total` of a count.
    pub(super) name: String,
    pub(super) help: String,
    pub(super) unit: Option<Unit>,
    pub(super) value: Value,
    pub(super) labels: Vec<Label>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Whole(u64),
    Real(f64),
}

impl Sample {
    fn new(name: &str, help: &str, value: Value) -> Self {
        Self {
            name: format!("geocache_{name}"),
            help: help.to_owned(),
            unit: None,
            value,
            labels: Vec::new(),
        }
    }

    fn count(name: &str, help: &str, value: u64) -> Self {
        Self::new(name, help, Value::Count(value))
    }

    fn gauge(name: &str, help: &str, value: u64) -> Self {
        Self::new(name, help, Value::Whole(value))
    }

    fn is(name: &str, help: &str, value: bool) -> Self {
        Self::gauge(name, help, value.into())
    }

    fn bytes(name: &str, help: &str, value: u64) -> Self {
        Self { unit: Some(Unit::Bytes), ..Self::gauge(name, help, value) }
    }

    fn seconds(name: &str, help: &str, milliseconds: f64) -> Self {
        let value = Value::Real(milliseconds / 1000.0);
        Self { unit: Some(Unit::Seconds), ..Self::new(name, help, value) }
    }

    fn counted(prefix: &str, count: &Count) -> Self {
        Self::count(&format!("{prefix}_{}", count.name), &plain(count.doc), count.value)
    }
}

/// Every sample of a node.
pub(super) fn all(stats: &Stats, report: Option<&Report>) -> Vec<Sample> {
    // No field may be left out.
    let Stats {
        hits,
        misses,
        writes,
        removes,
        evictions,
        expirations,
        entries,
        bytes,
        loads,
        graves,
        graves_dropped,
        ready,
        transport,
        outbox,
        replication,
        regions,
    } = stats;
    let mut samples = vec![
        Sample::count("hits", "Reads that found a value", *hits),
        Sample::count("misses", "Reads that found none", *misses),
        Sample::count("writes", "Values stored and touched through this node", *writes),
        Sample::count("removes", "Values removed through this node", *removes),
        Sample::count("evictions", "Values given up for room", *evictions),
        Sample::count("expirations", "Values whose life ended", *expirations),
        Sample::gauge("entries", "Values held", *entries as u64),
        Sample::bytes("held", "What the values held weigh, with their keys", *bytes),
        Sample::gauge("load_flying", "Loads under way", loads.flying as u64),
        Sample::gauge("graves", "Keys remembered as gone", *graves as u64),
        Sample::count(
            "graves_dropped",
            "Keys remembered as gone that were forgotten at the bound of these",
            *graves_dropped,
        ),
        Sample::is("ready", "Whether the node is ready", *ready),
    ];
    samples.extend(loads.counts().iter().map(|count| Sample::counted("load", count)));
    samples.extend(transport.iter().flat_map(of_health));
    samples.extend(of_outbox(outbox));
    samples.extend(replication.counts().iter().map(|count| Sample::counted("replication", count)));
    samples.extend(regions.iter().flat_map(of_region));
    if let Some(report) = report.filter(|report| !report.kind.is_empty()) {
        samples.extend(report.counts.iter().map(|count| Sample::counted(report.kind, count)));
        samples.extend(report.breakers.iter().flat_map(of_breaker));
    }
    samples
}

fn of_health(health: &Health) -> Vec<Sample> {
    let since = health.since().map_or(0.0, |since| since.elapsed().as_secs_f64() * 1000.0);
    vec![
        Sample::is(
            "transport_connected",
            "Whether the transport carries frames both ways",
            *health == Health::Connected,
        ),
        Sample::seconds(
            "transport_outage",
            "For how long the transport has not carried frames both ways; 0 while it does",
            since,
        ),
    ]
}

fn of_outbox(outbox: &OutboxStats) -> Vec<Sample> {
    vec![
        Sample::gauge("outbox_records", "Changes waiting to leave", outbox.records as u64),
        Sample::bytes("outbox", "Bytes of the changes waiting to leave", outbox.bytes as u64),
        Sample::count(
            "outbox_coalesced",
            "Changes replaced before they left by a newer one of the key",
            outbox.coalesced,
        ),
        Sample::count(
            "outbox_skipped",
            "Changes not sent since the outbox was full; repaired by a state transfer",
            outbox.skipped,
        ),
    ]
}

fn of_region(stats: &RegionStats) -> Vec<Sample> {
    let RegionStats { region, nodes } = stats;
    let mut samples = vec![
        Sample::is("region_ready", "Whether one of the region's nodes is heard and ready", stats.is_ready()),
        Sample::gauge(
            "region_behind_records",
            "Records of the region not applied here yet",
            stats.behind_records(),
        ),
    ];
    let lag = |ms| {
        Sample::seconds("region_lag", "From the region's newest write to its application here", ms as f64)
    };
    let rtt =
        |ms| Sample::seconds("region_rtt", "The shortest round trip to one of the region's nodes", ms as f64);
    samples.extend(stats.lag_ms().map(lag));
    samples.extend(stats.rtt_ms().map(rtt));
    let mut samples = labelled(samples, &[("peer_region", region.to_string())]);
    samples.extend(nodes.iter().flat_map(of_peer));
    samples
}

fn of_peer(peer: &PeerStatus) -> Vec<Sample> {
    let mut samples = vec![
        Sample::gauge("peer_epoch", "The epoch of another node's present life", peer.epoch),
        Sample::is("peer_alive", "Whether another node was heard lately", peer.alive),
        Sample::is("peer_ready", "Whether another node said that it is ready", peer.ready),
        Sample::is(
            "peer_drifts",
            "Whether another node's clock is too far ahead, so that its writes are refused",
            peer.drifts,
        ),
        Sample::seconds("peer_heard_ago", "How long ago another node was heard", peer.heard_ago_ms as f64),
        Sample::gauge(
            "peer_behind_records",
            "Records of another node not applied here yet",
            peer.behind_records,
        ),
    ];
    let seconds = |name, help| move |ms: f64| Sample::seconds(name, help, ms);
    let whole = |ms: Option<u64>| ms.map(|ms| ms as f64);
    samples.extend(whole(peer.rtt_ms).map(seconds("peer_rtt", "The round trip to another node")));
    let last = seconds("peer_lag_last", "From another node's newest write to its application here");
    samples.extend(whole(peer.lag_last_ms).map(last));
    samples.extend(
        peer.lag_mean_ms
            .map(seconds("peer_lag_mean", "The mean of a node's lags, the newest weighing a fifth")),
    );
    samples.extend(
        whole(peer.lag_max_ms).map(seconds("peer_lag_max", "The longest lag of a node's present life")),
    );
    let fresh = "How long ago all that another node had by then is shown to be here";
    samples.extend(whole(peer.fresh_ago_ms).map(seconds("peer_fresh_ago", fresh)));
    let labels = [("peer_region", peer.region().to_string()), ("peer", peer.node.name().to_owned())];
    labelled(samples, &labels)
}

fn of_breaker(breaker: &Breaker) -> Vec<Sample> {
    let state = match breaker.state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        _ => 2,
    };
    let wait = breaker.retry_after.as_secs_f64() * 1000.0;
    let samples = vec![
        Sample::gauge("breaker_state", "The breaker of a broker: 0 closed, 1 half-open, 2 open", state),
        Sample::count("breaker_opened", "How often the breaker of a broker opened", breaker.opened),
        Sample::gauge(
            "breaker_consecutive_failures",
            "Attempts at a broker in a row that failed while its breaker was closed",
            breaker.consecutive_failures.into(),
        ),
        Sample::seconds(
            "breaker_retry_after",
            "How long until the broker is tried again; 0 unless open",
            wait,
        ),
    ];
    labelled(samples, &[("broker", breaker.broker.clone()), ("purpose", breaker.purpose.to_owned())])
}

fn labelled(mut samples: Vec<Sample>, labels: &[Label]) -> Vec<Sample> {
    samples.iter_mut().for_each(|sample| sample.labels.extend_from_slice(labels));
    samples
}

/// The first sentence of a field's documentation, without the marks of links and code.
fn plain(doc: &str) -> String {
    let sentence = doc.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches('.');
    let mut text = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while let Some(open) = rest.find("](") {
        text.push_str(&rest[..open]);
        rest = rest[open..].split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.retain(|c| !matches!(c, '`' | '[' | ']'));
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn documentation_is_told_as_plain_text() {
        assert_eq!(
            plain("Frames given to the broker, with the profile `Stream` too."),
            "Frames given to the broker, with the profile Stream too"
        );
        assert_eq!(plain("One, see [`A::b`](super::A::b), two. Three."), "One, see A::b, two");
        assert_eq!(plain(""), "");
    }
}
