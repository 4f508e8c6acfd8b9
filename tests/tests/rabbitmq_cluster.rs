//! Nodes of three regions on a RabbitMQ cluster of three members, each of which may die.
//!
//! One cluster serves the tests of this file, one test at a time, since it takes longer to form than a test takes.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod steady;

/// Tests that kill the members of their cluster, which is a private one.
mod harms_the_broker {
    use std::{collections::BTreeMap, time::Duration};

    use geocache::rabbitmq::Profile;
    use replication::Transport;
    use tests::{
        broker::{Cluster, Options},
        wait_until,
    };
    use tokio::sync::{Mutex, MutexGuard, OnceCell};

    use crate::steady::Fleet;

    const ALL: [usize; 3] = [0, 1, 2];

    /// Generous: the machine may have two cores, shared with three brokers.
    const BOUND: Duration = Duration::from_secs(90);

    /// The cluster, all members running. It ends with the process, by the end of its supervisor's pipe.
    async fn cluster() -> MutexGuard<'static, Cluster> {
        static CLUSTER: OnceCell<Mutex<Cluster>> = OnceCell::const_new();
        let start = async || Mutex::new(Cluster::start(3, Options::default()).await.unwrap());
        let cluster = CLUSTER.get_or_init(start).await.lock().await;
        // A test that failed may have left some of them dead.
        if cluster.running(0).await.map_or(true, |running| running.len() < ALL.len()) {
            cluster.restart(&ALL).await.unwrap();
        }
        cluster
    }

    /// Every region names every member: the nodes of `rotated` each another one first.
    fn uris(cluster: &Cluster, rotated: bool) -> [Vec<String>; 3] {
        ALL.map(|region| {
            let mut uris = cluster.urls();
            uris.rotate_left(if rotated { region } else { 0 });
            uris
        })
    }

    /// Which member leads which of the fleet's queues.
    async fn leaders_of(cluster: &Cluster, fleet: &Fleet, asked: usize) -> BTreeMap<String, usize> {
        cluster.leaders(&format!("geocache.{}.", fleet.cache), asked).await.unwrap()
    }

    /// A member is killed, the nodes write on without it, and it comes back.
    async fn dies_and_returns(cluster: &Cluster, fleet: &Fleet, member: usize, who: &str) {
        cluster[member].kill_9().await.unwrap();
        fleet.recovers(&ALL, &format!("the death of {who}")).await;
        fleet.writes_on(&ALL, 500).await;
        cluster[member].restart().await.unwrap();
        fleet.recovers(&ALL, &format!("the return of {who}")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_the_durable_profile_a_dead_leader_and_a_dead_follower_lose_no_write() {
        let cluster = cluster().await;
        let fleet = Fleet::start(Profile::Durable, &uris(&cluster, false)).await;
        let leaders = leaders_of(&cluster, &fleet, 0).await;
        // The first, where all clients are, unless its answer to one of them took too long.
        let led = |member: &usize| leaders.values().filter(|leader| *leader == member).count();
        let leader = [2, 1, 0].into_iter().max_by_key(led).unwrap();
        assert!(led(&leader) >= 1, "{leaders:?}");
        println!("the leaders are {leaders:?}, {leader} is killed");
        dies_and_returns(&cluster, &fleet, leader, "the leader").await;

        let leaders = leaders_of(&cluster, &fleet, 1).await;
        let follower = [2, 1].into_iter().find(|member| !leaders.values().any(|leader| leader == member));
        let follower = follower.unwrap_or(0);
        println!("the leaders are {leaders:?}, the follower {follower}");
        dies_and_returns(&cluster, &fleet, follower, "the follower").await;
        fleet.lost_nothing().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_the_fast_profile_a_node_leaves_the_queue_whose_host_died() {
        let cluster = cluster().await;
        let fleet = Fleet::start(Profile::Fast, &uris(&cluster, true)).await;
        let hosts = leaders_of(&cluster, &fleet, 0).await;
        assert!(hosts.values().any(|&host| host == 0), "no queue at the member that will die: {hosts:?}");
        cluster[0].kill_9().await.unwrap();
        fleet.recovers(&ALL, "the host's death").await;
        let replaced: Vec<u64> =
            ALL.map(|region| fleet.node(region).transport.stats().queues_replaced).into();
        println!("queues replaced: {replaced:?}");
        assert!(replaced.iter().sum::<u64>() >= 1, "{replaced:?}");
        fleet.writes_on(&ALL, 500).await;
        cluster[0].restart().await.unwrap();
        fleet.recovers(&ALL, "the host's return").await;
        fleet.lost_nothing().await;
    }

    /// Each region's stream has a replica at every member, and each node reads at its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_the_stream_profile_a_dead_leader_and_a_dead_follower_lose_no_write() {
        let cluster = cluster().await;
        let fleet = Fleet::start(Profile::Stream, &uris(&cluster, true)).await;
        let prefix = format!("geocache.{}.stream.", fleet.cache);
        let leaders = cluster.leaders(&prefix, 0).await.unwrap();
        let led = |member: &usize| leaders.values().filter(|leader| *leader == member).count();
        let leader = [2, 1, 0].into_iter().max_by_key(led).unwrap();
        assert!(led(&leader) >= 1, "{leaders:?}");
        println!("the leaders are {leaders:?}, {leader} is killed");
        dies_and_returns(&cluster, &fleet, leader, "the leader").await;

        let asked = (leader + 1) % ALL.len();
        let leaders = cluster.leaders(&prefix, asked).await.unwrap();
        let led = |member: &usize| leaders.values().filter(|leader| *leader == member).count();
        let follower = ALL.into_iter().min_by_key(led).unwrap();
        println!("the leaders are {leaders:?}, {follower} is killed, which leads the fewest");
        dies_and_returns(&cluster, &fleet, follower, "the member that leads the fewest").await;
        fleet.lost_nothing().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_a_minority_pauses_the_nodes_go_on_and_they_converge_when_it_is_over() {
        let cluster = cluster().await;
        let fleet = Fleet::start(Profile::Durable, &uris(&cluster, false)).await;
        cluster.kill_9(&[0, 1]).await.unwrap();
        wait_until("the third member has paused", BOUND, async || {
            ALL.iter().all(|&region| !fleet.node(region).transport.health().borrow().can_publish())
        })
        .await;
        fleet.writes_on(&ALL, 3_000).await;
        cluster.restart(&[0, 1]).await.unwrap();
        fleet.recovers(&ALL, "the death of two of three members, both being back").await;
        fleet.lost_nothing().await;
    }
}
