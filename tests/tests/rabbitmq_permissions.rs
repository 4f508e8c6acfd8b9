//! The least that a node's user must be allowed at the broker: it suffices, each part of it is needed, and it gives no
//! power over another cache. And what happens when it is taken away from a running node.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

/// They make users, and close their connections.
mod harms_the_broker {
    use std::time::Duration;

    use bytes::Bytes;
    use geocache::{
        GeoCache,
        rabbitmq::{Config, ConnectError, Credentials, Permission, Profile, RabbitMq, permission_pattern},
    };
    use replication::{Destination, Health, NodeId, Transport, TransportError};
    use tests::{
        broker::{Broker, Options},
        unique_name, wait_until,
    };
    use tokio::sync::OnceCell;

    const BOUND: Duration = Duration::from_secs(90);
    const PASSWORD: &str = "a-password";

    /// The pattern of the routing keys, where topic permissions are used.
    const TOPICS: &str = r"^(all|region|node|hello)\.";

    /// Shared by the tests of this process; it ends with it.
    async fn broker() -> &'static Broker {
        static BROKER: OnceCell<Broker> = OnceCell::const_new();
        BROKER.get_or_init(async || Broker::start(Options::default()).await.unwrap()).await
    }

    /// The patterns of configure, write and read.
    type Patterns = [String; 3];

    fn recipe(cache: &str) -> Patterns {
        [(); 3].map(|()| permission_pattern(cache))
    }

    /// Makes users, or changes what they may do.
    async fn allow(users: &[(&str, &Patterns)]) {
        let quoted = |text: &str| format!("<<\"{}\">>", text.replace('\\', "\\\\"));
        let calls: Vec<String> = users
            .iter()
            .map(|(user, [configure, write, read])| {
                format!(
                    "rabbit_auth_backend_internal:put_user(#{{name => {user}, password => {password}, \
                     tags => <<\"\">>}}, <<\"test\">>), \
                     rabbit_auth_backend_internal:set_permissions({user}, <<\"/\">>, {}, {}, {}, <<\"test\">>)",
                    quoted(configure),
                    quoted(write),
                    quoted(read),
                    user = quoted(user),
                    password = quoted(PASSWORD),
                )
            })
            .collect();
        broker().await.ctl(&["eval", &format!("{}.", calls.join(", "))]).await.unwrap();
    }

    async fn config(cache: &str, region: &str, user: &str) -> Config {
        let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
        let uri = format!("amqp://{}/%2f", broker().await.addr());
        Config::new(node, vec![uri])
            .cache(cache)
            .credentials(Credentials::new(user, PASSWORD))
            .retry(Duration::from_millis(50), Duration::from_millis(500))
    }

    async fn node(config: Config, cache: &str) -> GeoCache {
        let transport = RabbitMq::connect(config).await.unwrap();
        let node = GeoCache::builder().cache(cache).transport(transport).build().await.unwrap();
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
        node
    }

    async fn reads(node: &GeoCache, key: &str, value: &str) {
        let what = format!("{} reads {value:?} for {key}", node.node());
        let read = || node.get::<String>(key).unwrap().is_some_and(|found| *found == value);
        wait_until(&what, BOUND, async || read()).await;
    }

    /// With topic permissions too, as tight as the recipe has them; and with a message that is dead-lettered.
    async fn suffices(profile: Profile) {
        let (cache, user) = (unique_name("allowed"), unique_name("user"));
        allow(&[(&user, &recipe(&cache))]).await;
        let exchange = format!("geocache.{cache}");
        let topics = ["set_topic_permissions", &user, &exchange, TOPICS, TOPICS];
        broker().await.ctl(&topics).await.unwrap();
        let here = node(config(&cache, "us-east", &user).await.profile(profile), &cache).await;
        let there = node(config(&cache, "ap-south", &user).await.profile(profile), &cache).await;
        here.put("a", "from here").unwrap();
        there.put("b", "from there").unwrap();
        reads(&there, "a", "from here").await;
        reads(&here, "b", "from there").await;
        for node in [&here, &there] {
            assert_eq!(node.stats().transport, Some(Health::Connected));
        }
        // A queue that is deleted at the end, which its user may, and a frame that nobody can read.
        let transport =
            RabbitMq::connect(config(&cache, "eu-central", &user).await.profile(profile)).await.unwrap();
        let mut subscription = transport.subscribe().await.unwrap();
        transport.publish(Destination::Everyone, Bytes::from_static(b"no frame")).await.unwrap();
        let dead = format!("geocache-dead.{cache}\t2");
        wait_until("both nodes' letters are kept", BOUND, async || {
            let queues = broker().await.ctl(&["list_queues", "--silent", "name", "messages"]).await.unwrap();
            queues.contains(&dead)
        })
        .await;
        let delivery = tokio::time::timeout(BOUND, subscription.next()).await.unwrap().unwrap();
        delivery.ack.done();
        drop(subscription);
        transport.close().await.unwrap();
        for node in [here, there] {
            node.close(Duration::from_secs(5)).await;
        }
        let left = broker().await.ctl(&["list_queues", "--silent", "name"]).await.unwrap();
        assert!(!left.contains(&format!("{exchange}.us-east.n.")), "what its owner may not delete: {left}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_recipe_suffices_in_the_stream_profile() {
        suffices(Profile::Stream).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_recipe_suffices_in_the_fast_profile() {
        suffices(Profile::Fast).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_recipe_suffices_in_the_durable_profile() {
        suffices(Profile::Durable).await;
    }

    /// What connecting and subscribing end with.
    async fn refusal(config: Config) -> String {
        let transport = match RabbitMq::connect(config).await {
            Ok(transport) => transport,
            Err(error) => {
                assert!(matches!(error, ConnectError::Forbidden { .. }), "{error}");
                return error.to_string();
            }
        };
        let error = transport.subscribe().await.map(drop).unwrap_err();
        assert!(matches!(error, TransportError::Fatal { .. }), "{error}");
        let health = transport.health().borrow().reason().map(str::to_owned);
        assert!(health.is_some_and(|reason| error.to_string().contains(&reason)), "health says the same");
        error.to_string()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_part_of_the_recipe_is_needed_and_the_one_that_is_missing_is_named() {
        let cache = unique_name("needed");
        let of_queues = format!(r"^(geocache-[a-z]+\.{cache}|geocache(-[a-z]+)?\.{cache}\..*)$");
        let of_exchanges = format!(r"^geocache(-[a-z]+)?\.{cache}$");
        let permissions = [Permission::Configure, Permission::Write, Permission::Read];
        let mut users: Vec<(String, Patterns, Permission, &str)> = Vec::new();
        for (index, permission) in permissions.into_iter().enumerate() {
            for (missing, left) in [("exchange", &of_queues), ("queue", &of_exchanges)] {
                let mut patterns = recipe(&cache);
                patterns[index].clone_from(left);
                users.push((unique_name("lacks"), patterns, permission, missing));
            }
        }
        let all: Vec<(&str, &Patterns)> =
            users.iter().map(|(user, patterns, ..)| (user.as_str(), patterns)).collect();
        allow(&all).await;
        for (user, _, permission, missing) in &users {
            let told = refusal(config(&cache, "us-east", user).await).await;
            let named = format!("no {permission} permission for the {missing} 'geocache.{cache}");
            assert!(told.contains(&named), "{named}: {told}");
            assert!(told.contains(&permission_pattern(&cache)), "{told}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_user_of_one_cache_can_do_nothing_with_anothers() {
        let (cache, user) = (unique_name("own"), unique_name("user"));
        let other = format!("{cache}-2");
        allow(&[(&user, &recipe(&cache))]).await;
        let error = RabbitMq::connect(config(&other, "us-east", &user).await).await.unwrap_err();
        assert!(matches!(error, ConnectError::Forbidden { .. }), "{error}");
        let judged = |cache: &str| {
            format!(
                "{{ok, U}} = rabbit_access_control:check_user_login(<<\"{user}\">>, [{{password, <<\"{PASSWORD}\">>}}]), \
                 [case catch rabbit_access_control:check_resource_access(U, {{resource, <<\"/\">>, K, N}}, P, #{{}}) of \
                 ok -> allowed; {{'EXIT', {{amqp_error, access_refused, _, _}}}} -> refused end || K <- [exchange, queue], \
                 N <- [<<\"geocache.{cache}\">>, <<\"geocache-dead.{cache}\">>, <<\"geocache-profile.{cache}\">>, \
                 <<\"geocache.{cache}.stream.us-east\">>, <<\"geocache.{cache}.us-east.n.0.hello\">>, \
                 <<\"geocache.{cache}.us-east.n.0\">>], \
                 P <- [configure, write, read]]."
            )
        };
        let broker = broker().await;
        let others = broker.ctl(&["eval", &judged(&other)]).await.unwrap();
        assert_eq!(
            (others.matches("refused").count(), others.matches("allowed").count()),
            (36, 0),
            "{others}"
        );
        let own = broker.ctl(&["eval", &judged(&cache)]).await.unwrap();
        assert_eq!((own.matches("refused").count(), own.matches("allowed").count()), (0, 36), "{own}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn permissions_that_are_revoked_are_told_of_and_given_back_heal_the_node() {
        let (cache, user, peer) = (unique_name("revoked"), unique_name("user"), unique_name("peer"));
        allow(&[(&user, &recipe(&cache)), (&peer, &recipe(&cache))]).await;
        let here = node(config(&cache, "us-east", &user).await, &cache).await;
        let there = node(config(&cache, "ap-south", &peer).await, &cache).await;
        here.put("before", "x").unwrap();
        reads(&there, "before", "x").await;

        let nothing = [(); 3].map(|()| "^$".to_owned());
        allow(&[(&user, &nothing)]).await;
        broker().await.ctl(&["close_all_user_connections", &user, "revoked"]).await.unwrap();
        wait_until("health names the missing permission", BOUND, async || {
            let health = here.stats().transport;
            health.is_some_and(|health| {
                !health.can_publish()
                    && health.reason().is_some_and(|told| told.contains("no configure permission"))
            })
        })
        .await;
        here.put("while", "local").unwrap();
        assert_eq!(here.get::<String>("while").unwrap().as_deref().map(String::as_str), Some("local"));
        there.put("meanwhile", "y").unwrap();

        allow(&[(&user, &recipe(&cache))]).await;
        reads(&there, "while", "local").await;
        reads(&here, "meanwhile", "y").await;
        wait_until("it is connected", BOUND, async || here.stats().transport == Some(Health::Connected))
            .await;
    }
}
