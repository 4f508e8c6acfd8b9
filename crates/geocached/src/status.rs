//! One line on one region, for people.

use std::fmt::Write as _;

use geocache::Stats;

/// What a region holds and how far the others are behind, in one line.
///
/// ```
/// let line = geocached::status::line("us-east", 11211, &geocache::Stats::default());
/// assert!(line.starts_with("us-east       :11211  warming"));
/// ```
pub fn line(region: &str, port: u16, stats: &Stats) -> String {
    let state = if stats.ready { "ready" } else { "warming" };
    let mut line = format!(
        "{region:<12}  :{port:<5}  {state:<7}  {:>6} keys  {:>6} hits  {:>6} misses  {:>6} writes  ",
        stats.entries, stats.hits, stats.misses, stats.writes,
    );
    let lags = stats.regions.iter().filter_map(|region| Some((&region.region, region.lag_ms()?)));
    for (index, (region, lag_ms)) in lags.enumerate() {
        let before = if index == 0 { "lag from " } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{before}{region} {lag_ms} ms");
    }
    let down = stats.regions.iter().filter(|region| !region.nodes.iter().any(|node| node.alive));
    for region in down {
        let _ = write!(line, "  {} not heard", region.region);
    }
    line.truncate(line.trim_end().len());
    line
}
