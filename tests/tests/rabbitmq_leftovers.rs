//! Nothing is left at the broker: however often links, connections and the broker itself fail, its queues, exchanges,
//! bindings, consumers, channels and connections are afterwards what they were.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

/// They restart their broker and close its connections.
mod harms_the_broker {
    use std::{
        collections::BTreeMap,
        sync::Arc,
        time::{Duration, Instant},
    };

    use geocache::{
        GeoCache,
        rabbitmq::{Config, Profile, RabbitMq},
    };
    use replication::{Health, NodeId, Transport};
    use tests::{
        broker::{Broker, Census, Options},
        proxy::{Death, Direction, DyingHandshake, End, Fault, Proxy},
        unique_name, wait_until,
    };

    /// Generous: the machine may have two cores, shared with a broker.
    const BOUND: Duration = Duration::from_secs(90);
    /// The shortest: how long a queue outlives the node that was killed.
    const QUEUE_EXPIRES: Duration = Duration::from_secs(10);
    const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
    /// Resets of all links; what is left once would be left so often.
    const CUTS: u32 = 8;
    type Harm = fn(&Proxy);

    /// What then goes wrong with every link until it is noticed.
    const FAULTS: [(&str, Harm); 5] = [
        ("silence", Proxy::hold),
        ("silence from the broker", |link| link.fault(Fault::HoldOneWay(Direction::ToClient))),
        ("silence towards the broker", |link| link.fault(Fault::SwallowOneWay(Direction::ToUpstream))),
        ("the loss of the node's end", |link| link.strand(End::Upstream)),
        ("the loss of the broker's end", |link| link.strand(End::Client)),
    ];

    struct Node {
        cache: GeoCache,
        transport: Arc<RabbitMq>,
        link: Proxy,
    }

    impl Node {
        async fn start(broker: &Broker, cache: &str, region: &str, profile: Profile) -> Self {
            let link = Proxy::start(broker.addr()).await.unwrap();
            let name = NodeId::new(region.parse().unwrap(), "n").unwrap();
            let config = Config::new(name, vec![link.url(broker.url())])
                .cache(cache)
                .profile(profile)
                .heartbeat(Duration::from_secs(1))
                .queue_expires(QUEUE_EXPIRES);
            let transport = RabbitMq::connect(config).await.unwrap();
            let builder = GeoCache::builder().cache(cache).transport(transport.clone());
            let node = Self { cache: builder.build().await.unwrap(), transport, link };
            tokio::time::timeout(BOUND, node.cache.ready()).await.unwrap().unwrap();
            node
        }

        fn reset(&self) {
            self.link.cut();
            self.link.heal();
        }
    }

    /// Waits until what each node writes now is on each.
    async fn works(nodes: &[Node], after: &str) {
        for node in nodes {
            node.cache.put(format!("{}/{after}", node.cache.node()), &after).unwrap();
        }
        for node in nodes {
            let what = format!("{} has what all wrote after {after}", node.cache.node());
            wait_until(&what, BOUND, async || {
                nodes
                    .iter()
                    .all(|other| node.cache.contains(format!("{}/{after}", other.cache.node())).unwrap())
            })
            .await;
        }
    }

    /// Waits until every node has lost its connections since these were counted, and works again.
    async fn reconnected(nodes: &[Node], before: &[u64], after: &str) {
        for (node, &before) in nodes.iter().zip(before) {
            let what = format!("{} is connected again after {after}", node.cache.node());
            wait_until(&what, BOUND, async || node.transport.stats().reconnects > before).await;
        }
        works(nodes, after).await;
    }

    fn reconnects(nodes: &[Node]) -> Vec<u64> {
        nodes.iter().map(|node| node.transport.stats().reconnects).collect()
    }

    /// A count with the same names for what has other names on each connection: the queues of hellos, numbered by node.
    async fn counted(broker: &Broker) -> Census {
        let mut census = broker.census().await.unwrap();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for name in census.queues.keys() {
            if let Some((node, _)) = name.strip_suffix(".hello").and_then(|life| life.rsplit_once('.')) {
                let number = names.values().filter(|taken| taken.starts_with(node)).count();
                names.insert(name.clone(), format!("{node}.hello.{number}"));
            }
        }
        let renamed = |name: String| names.get(&name).cloned().unwrap_or(name);
        census.queues = census.queues.into_iter().map(|(name, queue)| (renamed(name), queue)).collect();
        census.bindings = census.bindings.into_iter().map(|binding| binding.map(renamed)).collect();
        census
    }

    /// Waits until nothing is told of the broker any more.
    async fn until(broker: &Broker, after: &str, told: impl Fn(&Census) -> Vec<String>) -> Census {
        let start = Instant::now();
        loop {
            let now = counted(broker).await;
            let left = told(&now);
            if left.is_empty() {
                return now;
            }
            assert!(start.elapsed() < BOUND, "at the broker after {after}: {left:#?}");
        }
    }

    /// What the one has and the other has not, either way.
    fn differs(now: &Census, before: &Census) -> Vec<String> {
        let gone = before.beyond(now).into_iter().map(|what| format!("gone: {what}"));
        now.beyond(before).into_iter().map(|what| format!("left: {what}")).chain(gone).collect()
    }

    async fn leaves_nothing(profile: Profile) {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("leftovers");
        let mut nodes = Vec::new();
        for region in REGIONS {
            nodes.push(Node::start(&broker, &cache, region, profile).await);
        }
        works(&nodes, "their start").await;
        // Consumers of a quorum queue are counted some seconds late.
        let unread = |now: &Census| {
            let queues = nodes.iter().map(|node| node.transport.queue());
            queues.filter(|queue| now.queues.get(queue).is_none_or(|queue| queue.consumers == 0)).collect()
        };
        let whole = until(&broker, "the nodes' start, unread", unread).await;
        assert!(whole.connections >= 2 * nodes.len() as u64, "{whole:?}");

        for round in 0..CUTS {
            let before = reconnects(&nodes);
            nodes.iter().for_each(Node::reset);
            reconnected(&nodes, &before, &format!("cut {round}")).await;
        }
        for (name, fault) in FAULTS {
            let before = reconnects(&nodes);
            nodes.iter().for_each(|node| fault(&node.link));
            for node in &nodes {
                let health = node.transport.health();
                let what = format!("{} notices {name}", node.cache.node());
                wait_until(&what, BOUND, async || *health.borrow() != Health::Connected).await;
            }
            nodes.iter().for_each(|node| node.link.heal());
            reconnected(&nodes, &before, name).await;
        }
        let before = reconnects(&nodes);
        let failures: Vec<u64> = nodes.iter().map(|node| node.transport.stats().connect_failures).collect();
        for node in &nodes {
            node.link.kill_handshakes(DyingHandshake { client_bytes: 100, passed: true, then: Death::Mute });
            node.link.cut();
            node.link.fault(Fault::None);
        }
        for (node, failures) in nodes.iter().zip(failures) {
            wait_until("some handshakes died", BOUND, async || {
                node.transport.stats().connect_failures > failures
            })
            .await;
            node.link.heal();
        }
        reconnected(&nodes, &before, "handshakes that died").await;
        let before = reconnects(&nodes);
        broker.ctl(&["close_all_connections", "leftovers"]).await.unwrap();
        reconnected(&nodes, &before, "an operator's close").await;
        until(&broker, "faults of links", |now| differs(now, &whole)).await;

        for how in ["in good order", "by SIGKILL"] {
            let before = reconnects(&nodes);
            if how == "by SIGKILL" {
                broker.kill_9().await.unwrap();
            }
            broker.restart().await.unwrap();
            reconnected(&nodes, &before, &format!("a broker that ended {how}")).await;
        }
        until(&broker, "the broker's restarts", |now| differs(now, &whole)).await;

        // Who closes takes all of its own along, and the queues of who dies expire.
        let died = nodes.pop().unwrap();
        died.link.cut();
        drop(died);
        for node in nodes {
            let closed = node.cache.close(Duration::from_secs(10)).await;
            assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (0, 0));
        }
        let lasting = lasting(&whole, &cache);
        let left = until(&broker, "the nodes' end", |now| now.beyond(&lasting)).await;
        assert_eq!((left.connections, left.channels), (0, 0));
    }

    /// What outlives the nodes by intention: the cache's exchange, and the streams of its regions, with their bindings.
    fn lasting(whole: &Census, cache: &str) -> Census {
        let (exchange, streams) = (format!("geocache.{cache}"), format!("geocache.{cache}.stream."));
        let mut lasting = Census::default();
        let is_own = |name: &&String| **name == exchange || !name.contains(cache);
        lasting.exchanges = whole.exchanges.iter().filter(is_own).cloned().collect();
        let is_stream = |name: &str| name.starts_with(&streams);
        lasting.queues = whole.queues.clone();
        lasting.queues.retain(|name, _| is_stream(name));
        lasting.bindings = whole.bindings.iter().filter(|[_, to, _]| is_stream(to)).cloned().collect();
        lasting
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_in_the_fast_profile() {
        leaves_nothing(Profile::Fast).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_in_the_durable_profile() {
        leaves_nothing(Profile::Durable).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_in_the_stream_profile() {
        leaves_nothing(Profile::Stream).await;
    }
}
