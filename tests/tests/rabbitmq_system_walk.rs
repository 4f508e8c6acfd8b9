//! Everything that the RabbitMQ system promised, walked through: its names are in the comments, and its page is
//! `geocache::docs::from_rabbitmq_system`.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use geocache::{Error, GeoCluster, RegionState, config::Config, report::BreakerState};
use serde::{Deserialize, Serialize};
use tests::{
    broker::{Broker, Options, shared_url},
    unique_name, wait_until,
};

/// Generous: the machine may have two cores, shared with a broker.
const BOUND: Duration = Duration::from_secs(90);

const REGIONS: [&str; 2] = ["us-east", "eu-central"];
const CAPACITY: usize = 64;

/// `src/utils/config.py`: capacity, expiration, the broker's address, the circuit breaker.
fn config_file(cache: &str, url: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        r#"
            cache = "{cache}"
            regions = {REGIONS:?}
            capacity = {CAPACITY}
            default_ttl = "10m"

            [rabbitmq]
            uris = ["{url}"]
            retry_base = "50ms"
            retry_max = "500ms"
            breaker_failure_threshold = 3
            breaker_recovery_wait = "500ms"
        "#
    );
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// `GeoDistributedLRUCache(regions=['us-east', 'eu-central'])`
async fn geo_distributed_lru_cache(url: &str) -> GeoCluster {
    let file = config_file(&unique_name("walk"), url);
    let config = Config::from_file(file.path()).unwrap();
    tokio::time::timeout(BOUND, config.cluster()).await.unwrap().unwrap()
}

async fn reads(cache: &GeoCluster, key: &str, region: &str, value: Option<&str>) {
    let what = format!("{region} reads {value:?} for {key}");
    let held = || cache.get::<String>(key, region).unwrap();
    wait_until(&what, BOUND, async || held().as_deref().map(String::as_str) == value).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_in_one_region_is_read_in_the_other() {
    let cache = geo_distributed_lru_cache(&shared_url().unwrap()).await;
    // cache.put(key='myKey', value='myValue', region='us-east')
    cache.put("myKey", "myValue", "us-east").unwrap();
    // cache.get(key='myKey', region='eu-central')
    reads(&cache, "myKey", "eu-central", Some("myValue")).await;
    cache.put("myKey", "newer", "eu-central").unwrap();
    reads(&cache, "myKey", "us-east", Some("newer")).await;
    cache.remove("myKey", "us-east").unwrap();
    reads(&cache, "myKey", "eu-central", None).await;
    cache.close(BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_any_type_are_in_one_cache() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct User {
        name: String,
        languages: Vec<String>,
    }

    let cache = geo_distributed_lru_cache(&shared_url().unwrap()).await;
    let ada = User { name: "Ada".to_owned(), languages: vec!["en".to_owned(), "fr".to_owned()] };
    cache.put("user:1", &ada, "us-east").unwrap();
    cache.put("visits", &41_u64, "us-east").unwrap();
    cache.settled(BOUND).await.unwrap();
    assert_eq!(cache.get::<User>("user:1", "eu-central").unwrap().as_deref(), Some(&ada));
    assert_eq!(cache.get::<u64>("visits", "eu-central").unwrap().as_deref(), Some(&41));
    cache.close(BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_goes_when_the_capacity_is_reached() {
    let cache = geo_distributed_lru_cache(&shared_url().unwrap()).await;
    cache.put("used", "v", "us-east").unwrap();
    cache.put("unused", "v", "us-east").unwrap();
    for n in 0..CAPACITY * 4 {
        // What is read stays: it is the most recently used each time.
        assert!(cache.get::<String>("used", "us-east").unwrap().is_some(), "after {n} others");
        cache.put(format!("other-{n}"), "v", "us-east").unwrap();
    }
    let stats = cache.region("us-east").unwrap().stats();
    assert!(cache.get::<String>("unused", "us-east").unwrap().is_none());
    assert!(stats.entries <= CAPACITY && stats.evictions as usize >= CAPACITY * 3, "{stats:?}");
    cache.settled(BOUND).await.unwrap();
    assert!(cache.region("eu-central").unwrap().stats().entries <= CAPACITY);
    cache.close(BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_expires_in_every_region() {
    let cache = geo_distributed_lru_cache(&shared_url().unwrap()).await;
    cache.put("by-default", "v", "us-east").unwrap();
    let ttl = Duration::from_secs(2);
    let began = Instant::now();
    cache.put_with_ttl("short", "v", ttl, "us-east").unwrap();
    reads(&cache, "short", "eu-central", Some("v")).await;
    for region in REGIONS {
        reads(&cache, "short", region, None).await;
    }
    assert!(began.elapsed() >= ttl - Duration::from_millis(50), "not before its time");
    reads(&cache, "by-default", "eu-central", Some("v")).await;
    let left = cache.region("eu-central").unwrap().item(b"by-default").unwrap().left.unwrap();
    assert!(
        left <= Duration::from_secs(600) && left > Duration::from_secs(400),
        "the file says ten minutes: {left:?}"
    );
    cache.close(BOUND).await;
}

/// `src/exceptions/exceptions.py`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_typed_errors_that_say_what_to_do() {
    let cache = geo_distributed_lru_cache(&shared_url().unwrap()).await;
    let error = cache.put("k", "v", "mars").unwrap_err();
    assert!(matches!(error, Error::UnknownRegion { .. }));
    assert_eq!(error.to_string(), r#"there is no region "mars"; the regions are us-east, eu-central"#);
    assert!(matches!(cache.put("", "v", "us-east"), Err(Error::Key { .. })));
    cache.put("k", "text", "us-east").unwrap();
    assert!(matches!(cache.get::<u64>("k", "us-east"), Err(Error::Decode { .. })));
    assert!(matches!(cache.partition("us-east", "eu-central"), Err(Error::NoHub)));
    cache.stop("us-east").await.unwrap();
    assert!(matches!(cache.get::<String>("k", "us-east"), Err(Error::RegionStopped { .. })));
    let file = config_file("walk", "amqp://localhost");
    let text = std::fs::read_to_string(file.path()).unwrap().replace("capacity = 64", "capacity = 0");
    let error = Config::from_toml(&text).unwrap_err().to_string();
    assert!(error.starts_with("line 4, ") && error.contains("\"capacity\""), "{error}");
    cache.close(BOUND).await;
}

/// Tests that kill their broker, which is a private one.
mod harms_the_broker {
    use super::*;

    /// Whether the breakers for frames of a region's node are all in this state.
    fn breakers_are(cache: &GeoCluster, region: &str, state: BreakerState) -> bool {
        let report = cache.region(region).unwrap().transport_report().unwrap();
        let mut of_frames = report.breakers.iter().filter(|breaker| breaker.purpose != "dead letters");
        of_frames.all(|breaker| breaker.state == state)
    }

    /// `src/messaging/circuitbreaker.py`, and "Resilience to Network Failures".
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_breakers_open_while_the_broker_is_away_and_close_after_and_nothing_is_lost() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = geo_distributed_lru_cache(broker.url()).await;
        cache.put("before", "v", "us-east").unwrap();
        reads(&cache, "before", "eu-central", Some("v")).await;
        assert!(REGIONS.iter().all(|region| breakers_are(&cache, region, BreakerState::Closed)));

        broker.kill_9().await.unwrap();
        for region in REGIONS {
            wait_until("the breakers open", BOUND, async || breakers_are(&cache, region, BreakerState::Open))
                .await;
            // The local cache answers all the while.
            cache.put(format!("from-{region}"), "written while the broker was away", region).unwrap();
            assert!(cache.get::<String>("before", region).unwrap().is_some());
            assert!(!cache.region(region).unwrap().health().is_well(), "the outage is told");
        }
        cache.put("before", "newer", "eu-central").unwrap();

        broker.restart().await.unwrap();
        for region in REGIONS {
            let other = REGIONS.into_iter().find(|other| *other != region).unwrap();
            reads(&cache, &format!("from-{region}"), other, Some("written while the broker was away")).await;
            reads(&cache, "before", region, Some("newer")).await;
            wait_until("the breakers close", BOUND, async || {
                breakers_are(&cache, region, BreakerState::Closed)
            })
            .await;
            let node = cache.region(region).unwrap();
            wait_until("all is well", BOUND, async || node.health().is_well()).await;
            assert_eq!(node.health().regions[0].state, RegionState::Ready);
            assert_eq!(node.divergence(), 0);
        }
        cache.close(BOUND).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_broker_loses_no_write_that_came_meanwhile() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = geo_distributed_lru_cache(broker.url()).await;
        let stop = AtomicBool::new(false);
        // A few keys, changed all the time: each region's own, so that the last value is known.
        let writing = async {
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            let mut written = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                written += 1;
                for region in REGIONS {
                    cache.put(format!("{region}-{}", written % 20), &written, region).unwrap();
                }
            }
            written
        };
        let fault = async {
            broker.kill_9().await.unwrap();
            for region in REGIONS {
                wait_until("the breakers open", BOUND, async || {
                    breakers_are(&cache, region, BreakerState::Open)
                })
                .await;
            }
            broker.restart().await.unwrap();
            for region in REGIONS {
                let node = cache.region(region).unwrap();
                wait_until("all is well", BOUND, async || node.health().is_well()).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (written, ()) = tokio::join!(writing, fault);
        assert!(written > 100, "{written} writes are too few to have met the fault");
        let last = |residue: u64| written - (written + 20 - residue) % 20;
        for reader in REGIONS {
            for writer in REGIONS {
                for residue in 0..20 {
                    let (key, value) = (format!("{writer}-{residue}"), last(residue));
                    let what = format!("{reader} reads {value} for {key}");
                    let held = || cache.get::<u64>(&key, reader).unwrap();
                    wait_until(&what, BOUND, async || held().as_deref() == Some(&value)).await;
                }
            }
        }
        cache.close(BOUND).await;
    }
}
