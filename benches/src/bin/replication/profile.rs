//! Three nodes in one profile, beside the bare client library and Redis: throughput, its cost, lag.

use std::time::Duration;

use anyhow::Result;
use benches::report::{Bound, Figure, median};
use replication::rabbitmq::Profile;

use crate::{
    Arguments,
    arrivals::Lag,
    nodes::{Flood, Nodes, Setup, Speed},
    raw::Raw,
    redis::Redis,
    row::{RAW, REDIS, Row},
    usage::Meter,
};

/// What is measured, by the names of its rows.
pub(crate) const PROFILES: &[(&str, Profile)] =
    &[("fast", Profile::Fast), ("durable", Profile::Durable), ("stream", Profile::Stream)];

/// Writes a second while lag is measured, and how many times the bare library's the median may be.
pub(crate) const RATES: [(u64, f64); 2] = [(200, 1.2), (50_000, 1.5)];

/// The least that throughput may be of the bare library's, and of Redis'.
const OF_RAW: Bound = Bound::AtLeast(0.75);
const OF_REDIS: Bound = Bound::AtLeast(2.0);

type Cost = fn(&Speed) -> Option<f64>;

/// What each side reached in the rounds, round by round.
#[derive(Default)]
struct Rounds {
    floods: Vec<Flood>,
    raw: Vec<Speed>,
    redis: Vec<Speed>,
    lags: [Vec<Lag>; RATES.len()],
    raw_lags: [Vec<Lag>; RATES.len()],
}

/// Whether the throughput of the profile of this name is wanted.
pub(crate) fn wants_throughput(name: &str, arguments: &Arguments) -> bool {
    arguments.wants(&format!("{name} throughput"))
}

/// Measures the profile of this name; nothing where no row of it is wanted.
pub(crate) async fn measure(
    (name, profile): (&str, Profile),
    url: &str,
    meter: &Meter,
    arguments: &Arguments,
    redis: &mut Option<Redis>,
) -> Result<Vec<Figure>> {
    let wants_throughput = wants_throughput(name, arguments);
    let wants_lag = arguments.wants(&format!("{name} lag"));
    if !wants_throughput && !wants_lag {
        return Ok(Vec::new());
    }
    let length = arguments.length();
    let cache = format!("bench-{name}-{}", std::process::id());
    let mut nodes = Nodes::start(url, meter, profile, &cache, Setup::THREE).await?;
    let raw = Raw::start(url, meter, profile, &cache, Setup::THREE.nodes).await?;
    // Fills the caches, and says what frames the baseline has to send.
    let mut flood = nodes.flood(length).await?;
    raw.flood(length.min(Duration::from_secs(1)), flood).await?;
    let mut rounds = Rounds::default();
    for _ in 0..arguments.rounds() {
        if wants_throughput {
            flood = nodes.flood(length).await?;
            rounds.floods.push(flood);
            rounds.raw.push(raw.flood(length, flood).await?);
            if let Some(redis) = redis {
                rounds.redis.push(tokio::task::block_in_place(|| redis.flood(length))?);
            }
        }
        for (index, (rate, _)) in RATES.into_iter().enumerate().filter(|_| wants_lag) {
            rounds.lags[index].push(nodes.lag(rate, length).await?);
            rounds.raw_lags[index].push(raw.lag(rate, length, flood).await?);
        }
    }
    println!("\n{name}: {}", nodes.trouble());
    nodes.close().await;
    raw.close(&cache).await?;
    let mut figures = Vec::new();
    if wants_throughput {
        figures.extend(rounds.throughput(name));
    }
    if wants_lag {
        figures.extend(rounds.lag(name));
    }
    Ok(figures)
}

impl Rounds {
    fn throughput(&self, profile: &str) -> Vec<Figure> {
        let ours: Vec<Speed> = self.floods.iter().map(|flood| flood.speed).collect();
        let per_s = |speeds: &[Speed]| speeds.iter().map(|speed| speed.records_per_s).collect::<Vec<_>>();
        let throughput = Row::new(format!("{profile}: throughput"), "records/s", per_s(&ours))
            .beside(RAW, &per_s(&self.raw), Some(OF_RAW))
            .beside(REDIS, &per_s(&self.redis), Some(OF_REDIS));
        let mut figures = vec![throughput.tell()];
        let costs: [(&str, Cost); 2] = [
            ("processor time, nodes and client library", |speed| speed.nodes_s),
            ("processor time, broker", |speed| speed.broker_s),
        ];
        for (what, of) in costs {
            let told = |speeds: &[Speed]| speeds.iter().filter_map(of).collect::<Vec<_>>();
            let row = Row::new(format!("{profile}: {what}"), "s/million", told(&ours));
            figures.extend(
                row.beside(RAW, &told(&self.raw), None).beside(REDIS, &told(&self.redis), None).told(),
            );
        }
        let per_frame = median(self.floods.iter().map(|flood| flood.records_per_frame));
        let bytes = median(self.floods.iter().map(|flood| flood.bytes_per_record));
        let frames = [("records a frame", "records", per_frame), ("bytes a record", "bytes", bytes)];
        figures.extend(
            frames
                .map(|(what, unit, value)| Row::new(format!("{profile}: {what}"), unit, vec![value]).tell()),
        );
        figures
    }

    fn lag(&self, profile: &str) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (index, (rate, target)) in RATES.into_iter().enumerate() {
            let mut tell = |what: &str, unit, of: fn(&Lag) -> f64, target| {
                let take = |lags: &[Lag]| lags.iter().map(of).collect::<Vec<_>>();
                let row = Row::new(format!("{profile}: {what} at {rate}/s"), unit, take(&self.lags[index]));
                figures.push(row.beside(RAW, &take(&self.raw_lags[index]), target).tell());
            };
            tell("lag p50", "ms", |lag| lag.p50_ms, Some(Bound::AtMost(target)));
            tell("lag p99", "ms", |lag| lag.p99_ms, None);
            tell("records a frame", "records", |lag| lag.records_per_frame, None);
            tell("written", "records/s", |lag| lag.written_per_s, None);
        }
        figures
    }
}
