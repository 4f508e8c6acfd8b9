//! The broker's alarms for memory and disk: publishing stops and is said to, everything else goes on.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

/// They set the alarms off.
mod harms_the_broker {
    use std::time::Duration;

    use geocache::{
        GeoCache,
        rabbitmq::{Config, Profile, RabbitMq},
    };
    use replication::{Health, NodeId, Transport};
    use tests::{
        broker::{Broker, Options},
        unique_name, wait_until,
    };

    const BOUND: Duration = Duration::from_secs(90);
    /// Within which an alarm shows in health: a node's heartbeat is what the broker does not take.
    const TOLD: Duration = Duration::from_secs(20);
    /// Too little memory for the broker, and enough.
    const SHORT: [&str; 2] = ["set_vm_memory_high_watermark", "0.000001"];
    const CALM: [&str; 3] = ["set_vm_memory_high_watermark", "absolute", "2GB"];

    async fn node(config: Config, cache: &str) -> GeoCache {
        let transport = RabbitMq::connect(config).await.unwrap();
        let node = GeoCache::builder().cache(cache).transport(transport).build().await.unwrap();
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
        node
    }

    fn is_blocked(node: &GeoCache, resource: &str) -> bool {
        match node.stats().transport {
            Some(Health::Blocked { reason, .. }) => reason.contains(resource),
            _ => false,
        }
    }

    async fn an_alarm_blocks_publishing_alone(
        profile: Profile,
        resource: &str,
        alarm: &[&str],
        calm: &[&str],
    ) {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("alarm");
        let config = |region: &str| {
            let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
            Config::new(node, vec![broker.url().to_owned()]).cache(&cache).profile(profile)
        };
        let here = node(config("us-east"), &cache).await;
        let there = node(config("ap-south"), &cache).await;
        let ear = RabbitMq::connect(config("eu-central")).await.unwrap();
        let mut frames = ear.subscribe().await.unwrap();

        broker.ctl(alarm).await.unwrap();
        for node in [&here, &there] {
            wait_until("health says blocked and why", TOLD, async || is_blocked(node, resource)).await;
        }
        // Written while blocked, far more than the window holds.
        for n in 0..1_000 {
            here.put(format!("here-{n}"), &n).unwrap();
            there.put(format!("there-{n}"), &n).unwrap();
            assert_eq!(
                here.get::<i32>(format!("here-{n}")).unwrap().as_deref(),
                Some(&n),
                "the local cache answers"
            );
        }
        // What the broker itself sends arrives.
        let say = format!(
            "rabbit_basic:publish({{resource, <<\"/\">>, exchange, <<\"geocache.{cache}\">>}}, \
             <<\"node.eu-central.n.0\">>, [], <<\"while blocked\">>)."
        );
        broker.ctl(&["eval", &say]).await.unwrap();
        let heard = async {
            loop {
                let delivery = frames.next().await.unwrap();
                delivery.ack.done();
                if delivery.frame == "while blocked" {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, heard).await.unwrap();
        // A connection that is made now says so too, rather than that it cannot be made.
        let late = RabbitMq::connect(config("sa-east")).await.unwrap();
        let health = late.health();
        wait_until("a new connection is blocked", TOLD, async || {
            matches!(&*health.borrow(), Health::Blocked { .. })
        })
        .await;
        assert!(is_blocked(&here, resource), "it still is");

        broker.ctl(calm).await.unwrap();
        wait_until("the new connection works", BOUND, async || *health.borrow() == Health::Connected).await;
        for node in [&here, &there] {
            wait_until("all is there", BOUND, async || {
                (0..1_000).all(|n| {
                    node.contains(format!("here-{n}")).unwrap()
                        && node.contains(format!("there-{n}")).unwrap()
                })
            })
            .await;
            assert_eq!(node.stats().transport, Some(Health::Connected));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_memory_alarm_blocks_publishing_alone_and_is_told() {
        an_alarm_blocks_publishing_alone(Profile::Fast, "memory", &SHORT, &CALM).await;
    }

    /// Its frames for all are in streams, which the alarm keeps nobody from reading.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_memory_alarm_blocks_publishing_alone_in_the_stream_profile_too() {
        an_alarm_blocks_publishing_alone(Profile::Stream, "memory", &SHORT, &CALM).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_disk_alarm_blocks_publishing_alone_and_is_told() {
        let alarm = ["set_disk_free_limit", "1000000GB"];
        an_alarm_blocks_publishing_alone(Profile::Fast, "disk", &alarm, &["set_disk_free_limit", "50MB"])
            .await;
    }
}
