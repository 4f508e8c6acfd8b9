use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{GeoCluster, stats::Stats};

/// The value of a metric with these labels, as they stand in the text.
fn value(text: &str, metric: &str, labels: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{metric}{{{labels}}} ")))?;
    Some(line.parse().unwrap())
}

#[tokio::test]
async fn two_caches_of_one_process_are_told_apart() {
    let metrics = Metrics::new();
    let users = GeoCache::builder().cache("users").capacity(2).build().await.unwrap();
    let prices = GeoCache::builder().cache("prices").build().await.unwrap();
    for cache in [&users, &prices, &users] {
        metrics.add(cache).unwrap();
    }
    (0..5).for_each(|n| users.put(format!("{n}"), &n).unwrap());
    users.get::<i32>("4").unwrap();
    users.get::<i32>("none").unwrap();
    prices.put("p", &1).unwrap();
    prices.remove("p").unwrap();
    let text = metrics.render();
    let [of_users, of_prices] =
        ["users", "prices"].map(|name| format!(r#"cache="{name}",region="local",node="node-1""#));
    for (metric, in_users, in_prices) in [
        ("geocache_writes_total", 5.0, 1.0),
        ("geocache_hits_total", 1.0, 0.0),
        ("geocache_misses_total", 1.0, 0.0),
        ("geocache_removes_total", 0.0, 1.0),
        ("geocache_evictions_total", 3.0, 0.0),
        ("geocache_entries", 2.0, 0.0),
        ("geocache_ready", 1.0, 1.0),
        ("geocache_held_bytes", users.stats().bytes as f64, 0.0),
    ] {
        assert_eq!(value(&text, metric, &of_users), Some(in_users), "{metric}\n{text}");
        assert_eq!(value(&text, metric, &of_prices), Some(in_prices), "{metric}\n{text}");
        let name = metric.trim_end_matches("_total");
        assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{metric} is described once");
    }
    assert!(text.ends_with("# EOF\n"));
    drop(users);
    assert!(!metrics.render().contains("users"), "no cache is kept alive");
}

#[tokio::test]
async fn caches_of_one_name_are_refused_until_one_is_closed() {
    let metrics = Metrics::new();
    let [one, other] =
        [GeoCache::builder().build().await.unwrap(), GeoCache::builder().build().await.unwrap()];
    metrics.add(&one).unwrap();
    let error = metrics.add(&other).unwrap_err();
    assert!(
        error.to_string().contains("local/node-1") && error.to_string().contains("\"geocache\""),
        "{error}"
    );
    one.close(Duration::ZERO).await;
    metrics.add(&other).unwrap();
    assert_eq!(metrics.render().matches("geocache_ready{").count(), 1);
}

/// What one of two regions tells once it has heard of the other's write.
async fn stats_of_a_region() -> Stats {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    cluster.put("k", "v", "us-east").unwrap();
    cluster.settled(Duration::from_secs(30)).await.unwrap();
    let mut stats = cluster.region("eu-central").unwrap().stats();
    let peer = &mut stats.regions[0].nodes[0];
    (peer.rtt_ms, peer.lag_last_ms, peer.lag_mean_ms, peer.lag_max_ms) =
        (Some(250), Some(20), Some(30.5), Some(40));
    peer.fresh_ago_ms = Some(300);
    stats
}

#[tokio::test]
async fn regions_have_labels_of_their_own_and_times_are_in_seconds() {
    let stats = stats_of_a_region().await;
    let samples = sample::all(&stats, None);
    let of = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap();
    assert_eq!(of("geocache_region_lag").value, Value::Real(0.02));
    assert_eq!(of("geocache_region_rtt").value, Value::Real(0.25));
    assert_eq!(of("geocache_region_lag").labels, [("peer_region", "us-east".to_owned())]);
    assert_eq!(of("geocache_peer_lag_mean").value, Value::Real(0.0305));
    assert_eq!(of("geocache_peer_fresh_ago").value, Value::Real(0.3));
    let labels = [("peer_region", "us-east".to_owned()), ("peer", "node-1".to_owned())];
    assert_eq!(of("geocache_peer_lag_mean").labels, labels);
    assert_eq!(of("geocache_replication_records_applied").value, Value::Count(1));
}

/// The names of the fields that a value shows.
fn fields(shown: &impl fmt::Debug) -> Vec<String> {
    let shown = format!("{shown:#?}");
    let own = shown
        .lines()
        .filter_map(|line| line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}', ']'])));
    own.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}

#[tokio::test]
async fn no_field_of_the_stats_is_forgotten() {
    let stats = stats_of_a_region().await;
    let names: BTreeSet<String> = sample::all(&stats, None).into_iter().map(|sample| sample.name).collect();
    let has = |name: &str| names.contains(name);
    for (prefix, fields, elsewhere) in [
        ("", fields(&stats), &["bytes", "loads", "transport", "outbox", "replication", "regions"][..]),
        ("load_", fields(&stats.loads), &[]),
        ("outbox_", fields(&stats.outbox), &["bytes"]),
        ("replication_", fields(&stats.replication), &[]),
        // The node and its compact form are labels.
        ("peer_", fields(&stats.regions[0].nodes[0]), &["node", "origin"]),
    ] {
        assert!(fields.len() > 3, "{prefix}: {fields:?}");
        for field in fields.iter().filter(|field| !elsewhere.contains(&field.as_str())) {
            let name = field.trim_end_matches("_ms");
            assert!(has(&format!("geocache_{prefix}{name}")), "{prefix}{field} is not exported");
        }
    }
    assert!(
        ["geocache_held", "geocache_outbox", "geocache_transport_connected", "geocache_region_lag"].map(has)
            == [true; 4]
    );
}

/// The table of the documentation, as it has to be.
#[cfg(feature = "rabbitmq")]
fn table(samples: &[Sample]) -> String {
    let mut rows = BTreeSet::new();
    for sample in samples {
        let unit = sample.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let (total, kind) =
            if matches!(sample.value, Value::Count(_)) { ("_total", "count") } else { ("", "gauge") };
        let labels: Vec<String> = sample.labels.iter().map(|(name, _)| format!("`{name}`")).collect();
        let (name, labels) = (&sample.name, labels.join(", "));
        rows.insert(format!("| `{name}{unit}{total}` | {kind} | {labels} | {} |", sample.help));
    }
    let rows: Vec<String> = rows.into_iter().collect();
    format!("| name | kind | labels | what it tells |\n|---|---|---|---|\n{}\n", rows.join("\n"))
}

#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn the_table_of_the_documentation_has_each_metric() {
    use replication::{
        NodeId, Transport as _,
        rabbitmq::{Config, RabbitMq},
    };

    let node = NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    // Nothing listens there: what it tells is the same.
    let transport = RabbitMq::dial(Config::new(node, vec!["amqp://127.0.0.1:1".to_owned()])).unwrap();
    let report = transport.report();
    let wanted = table(&sample::all(&stats_of_a_region().await, Some(&report)));
    transport.close().await.unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("GEOCACHE_WRITE_METRICS_TABLE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == wanted, "{path} is not this; GEOCACHE_WRITE_METRICS_TABLE=1 writes it:\n{wanted}");
}
