//! A node far from its broker: it keeps its connection and its bindings, as one beside it does.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

/// They take bindings away at their broker.
mod harms_the_broker {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use geocache::{
        GeoCache,
        rabbitmq::{Config, Profile, RabbitMq},
    };
    use replication::NodeId;
    use tests::{
        broker::{Broker, Options},
        proxy::Proxy,
        unique_name, wait_until,
    };

    /// Generous: the machine may have two cores, shared with a broker.
    const BOUND: Duration = Duration::from_secs(120);
    /// Each way: Sydney to São Paulo and back is 327 ms.
    const FAR: Duration = Duration::from_millis(150);
    /// With the profile Stream each has a stream, which every node reads and asserts.
    const NEAR: [&str; 4] = ["us-east", "eu-central", "eu-west", "us-west"];

    async fn node(cache: &str, region: &str, url: String, profile: Profile) -> (GeoCache, Arc<RabbitMq>) {
        let name = NodeId::new(region.parse().unwrap(), "n").unwrap();
        let config = Config::new(name, vec![url]).cache(cache).profile(profile);
        let transport = RabbitMq::connect(config).await.unwrap();
        let builder = GeoCache::builder().cache(cache).transport(transport.clone());
        (builder.build().await.unwrap(), transport)
    }

    async fn has(node: &GeoCache, key: &str) {
        let what = format!("{} has {key}", node.node());
        wait_until(&what, BOUND, async || node.contains(key).unwrap()).await;
    }

    /// Bindings that go without a word come back with the next assertion, every few seconds; over a link this long it took so
    /// many round trips one after the other that it ran into its limit, and the connection was given up each time.
    async fn a_far_node_keeps_its_connection_and_its_bindings(profile: Profile) {
        let broker = Broker::start(Options::default()).await.unwrap();
        let (cache, link) = (unique_name("far"), Proxy::start(broker.addr()).await.unwrap());
        let mut near = Vec::new();
        for region in NEAR {
            near.push(node(&cache, region, broker.url().to_owned(), profile).await);
        }
        link.delay(FAR);
        let (far, transport) = node(&cache, "ap-south", link.url(broker.url()), profile).await;
        for node in near.iter().map(|(node, _)| node).chain([&far]) {
            tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
        }
        let whole = broker.census().await.unwrap();
        let reconnects = transport.stats().reconnects;

        let exchange = format!("geocache.{cache}");
        for round in 0..2 {
            let unbind = format!(
                "[rabbit_binding:remove(B, <<\"test\">>) \
                     || B <- rabbit_binding:list_for_source({{resource, <<\"/\">>, exchange, <<\"{exchange}\">>}}), \
                        element(4, element(4, B)) =:= <<\"{}\">>], \
                 ok.",
                transport.queue()
            );
            broker.ctl(&["eval", &unbind]).await.unwrap();
            let start = Instant::now();
            loop {
                let now = broker.census().await.unwrap();
                if now.bindings.is_superset(&whole.bindings) {
                    break;
                }
                let missing: Vec<_> = whole.bindings.difference(&now.bindings).collect();
                assert!(start.elapsed() < BOUND, "not bound again: {missing:?}");
            }
            let (to, from) = (format!("to/{round}"), format!("from/{round}"));
            near[0].0.put(&to, &round).unwrap();
            far.put(&from, &round).unwrap();
            has(&far, &to).await;
            for (node, _) in &near {
                has(node, &from).await;
            }
        }
        let stats = transport.stats();
        assert_eq!((stats.reconnects, stats.connect_failures), (reconnects, 0), "{stats:?}");
        assert_eq!(stats.queues_replaced, 0, "{stats:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_far_node_keeps_what_it_has_at_the_broker_in_the_durable_profile() {
        a_far_node_keeps_its_connection_and_its_bindings(Profile::Durable).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_far_node_keeps_what_it_has_at_the_broker_in_the_stream_profile() {
        a_far_node_keeps_its_connection_and_its_bindings(Profile::Stream).await;
    }
}
