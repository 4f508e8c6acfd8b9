//! One line on one region, for people.

use geocache::{RegionStats, Stats};

/// The widest line, so that it fits the usual terminal.
pub const COLUMNS_MAX: usize = 79;

/// What the columns of [`line()`] are.
pub const HEADER: &str = "region        port  state      keys    hits  misses  writes  lag";

/// What a region holds and how far behind the others it is, in one line of at most [`COLUMNS_MAX`] columns for names of
/// up to twelve letters.
///
/// ```
/// let line = geocached::status::line("us-east", 11211, &geocache::Stats::default());
/// assert_eq!(line, "us-east      11211  warming       0       0       0       0");
/// ```
pub fn line(region: &str, port: u16, stats: &Stats) -> String {
    let state = if stats.ready { "ready" } else { "warming" };
    let counts = [stats.entries as u64, stats.hits, stats.misses, stats.writes].map(short);
    let [keys, hits, misses, writes] = counts;
    let lag = lag(&stats.regions);
    let line =
        format!("{region:<12} {port:>5}  {state:<7}  {keys:>6}  {hits:>6}  {misses:>6}  {writes:>6}  {lag}");
    line.trim_end().to_owned()
}

/// The regions that are not heard; else the one whose writes take longest to come here.
fn lag(regions: &[RegionStats]) -> String {
    let mut silent = regions.iter().filter(|region| !region.nodes.iter().any(|node| node.alive));
    match (silent.next(), silent.count()) {
        (None, _) => {}
        (Some(region), 0) => return format!("no {}", region.region),
        (Some(_), more) => return format!("no {} regions", more + 1),
    }
    let lags = regions.iter().filter_map(|region| Some((region.lag_ms()?, &region.region)));
    lags.max().map_or_else(String::new, |(lag_ms, region)| format!("{}ms {region}", short(lag_ms)))
}

/// A count in at most six characters.
fn short(count: u64) -> String {
    if count < 1_000_000 {
        return count.to_string();
    }
    let mut unit = 1_000_000;
    for letter in ["M", "G", "T", "P"] {
        if count / unit < 1000 {
            // In whole tenths: a rounded-up 999.95 would be a character longer.
            let tenths = count / (unit / 10);
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        unit *= 1000;
    }
    format!("{}E", count / unit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geocache::GeoCluster;

    use super::*;

    #[test]
    fn counts_are_short() {
        for (count, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1.0M"),
            (999_999_999, "999.9M"),
            (1_234_567_890, "1.2G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(short(count), text);
        }
    }

    #[tokio::test]
    async fn no_line_is_wider_than_a_terminal() {
        let cluster = GeoCluster::new(crate::demo::REGIONS).await.unwrap();
        for region in crate::demo::REGIONS {
            cluster.put("k", "v", region).unwrap();
        }
        cluster.settled(Duration::from_secs(30)).await.unwrap();
        for (region, mut stats) in cluster.stats() {
            assert!(line(region.as_str(), 11211, &stats).contains("ms "), "the lag is shown");
            for count in [9, 9_999, 999_999, 12_345_678, u64::MAX] {
                (stats.entries, stats.hits, stats.misses, stats.writes) =
                    (count as usize, count, count, count);
                for node in stats.regions.iter_mut().flat_map(|region| &mut region.nodes) {
                    node.lag_last_ms = Some(count);
                }
                let heard = line(region.as_str(), 65535, &stats);
                stats.ready = false;
                let nodes = |stats: &mut Stats, alive| {
                    stats
                        .regions
                        .iter_mut()
                        .flat_map(|region| &mut region.nodes)
                        .for_each(|node| node.alive = alive);
                };
                nodes(&mut stats, false);
                let silent = line(region.as_str(), 65535, &stats);
                nodes(&mut stats, true);
                stats.regions[1].nodes[0].alive = false;
                let one = line(region.as_str(), 65535, &stats);
                stats.ready = true;
                for line in [heard, silent, one] {
                    assert!(line.chars().count() <= COLUMNS_MAX, "{}: {line}", line.len());
                }
            }
        }
        assert!(HEADER.len() <= COLUMNS_MAX);
    }
}
