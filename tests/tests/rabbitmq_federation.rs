//! A broker per region, linked by federation: each node names the broker of its own region and no other.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod steady;

/// Tests that kill brokers and break links, all of them private.
mod harms_the_broker {
    use std::time::Instant;

    use geocache::rabbitmq::Profile;
    use tests::{
        broker::{Federation, Links, Options},
        wait_until,
    };
    use tokio::sync::{Mutex, MutexGuard};

    use crate::steady::{BOUND, Fleet};

    const ALL: [usize; 3] = [0, 1, 2];

    /// Three linked brokers, and the turn of this test: those of two tests at once would be six.
    async fn federation(links: Links) -> (MutexGuard<'static, ()>, Federation) {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let start = Instant::now();
        let federation = Federation::start(ALL.len(), links, Options::default()).await.unwrap();
        println!("three brokers were up and linked after {:.1?}", start.elapsed());
        (turn, federation)
    }

    /// What a region's node names: its own broker.
    fn own(federation: &Federation, region: usize) -> Vec<String> {
        vec![federation.broker(region).url().to_owned()]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writes_arrive_everywhere_once_and_a_late_region_gets_the_state() {
        const BURST: u32 = 50_000;
        let (_turn, federation) = federation(Links::Direct).await;
        let regions = [0, 1].map(|region| own(&federation, region));
        let mut fleet = Fleet::start(Profile::Fast, &regions).await;
        fleet.writes_on(&[0, 1], 1_000).await;
        fleet.recovers(&[0, 1], "nothing, over one link").await;
        // A broadcast goes to both queues, an addressed frame to one: what comes twice would show as more. What was
        // published is counted last, so that what arrived was published by then.
        let received = [0, 1].map(|region| fleet.node(region).transport.stats());
        let published = [0, 1].map(|region| fleet.node(region).transport.stats().published);
        let published: u64 = published.iter().sum();
        for stats in received {
            assert!(stats.received - stats.redelivered <= published, "{stats:?} of {published} frames");
        }

        fleet.join(own(&federation, 2)).await;
        let start = Instant::now();
        tokio::time::timeout(BOUND, fleet.node(2).cache.ready()).await.unwrap().unwrap();
        println!("the late region was ready after {:.1?}", start.elapsed());

        let start = Instant::now();
        for number in 0..BURST {
            fleet.node(0).cache.put(format!("burst-{number}"), &number).unwrap();
        }
        for region in [1, 2] {
            let mut next = 0;
            wait_until("the burst is over the links", BOUND, async || {
                let at = |next: &u32| fleet.node(region).cache.get::<u32>(format!("burst-{next}")).unwrap();
                while next < BURST && at(&next).as_deref() == Some(&next) {
                    next += 1;
                }
                next == BURST
            })
            .await;
        }
        let rate = f64::from(BURST) / start.elapsed().as_secs_f64();
        println!("{BURST} records written at once were in all regions at {rate:.0} records/s");
        fleet.lost_nothing().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_link_that_breaks_and_a_broker_that_dies_lose_no_write() {
        loses_no_write(Profile::Durable).await;
    }

    /// Each broker has a stream of each region, and hears of the regions over the links.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_link_that_breaks_and_a_broker_that_dies_lose_no_write_in_the_stream_profile() {
        loses_no_write(Profile::Stream).await;
    }

    async fn loses_no_write(profile: Profile) {
        let (_turn, federation) = federation(Links::Proxied).await;
        let regions = ALL.map(|region| own(&federation, region));
        let fleet = Fleet::start(profile, &regions).await;
        fleet.recovers(&ALL, "nothing").await;

        let wan = |from, to| federation.link(from, to).unwrap();
        for (from, to) in [(0, 1), (1, 0), (0, 2)] {
            wan(from, to).cut();
        }
        fleet.writes_on(&ALL, 2_500).await;
        for (from, to) in [(0, 1), (1, 0), (0, 2)] {
            wan(from, to).heal();
        }
        fleet.recovers(&ALL, "links that were cut").await;

        federation.broker(0).kill_9().await.unwrap();
        fleet.writes_on(&ALL, 1_000).await;
        fleet.recovers(&[1, 2], "another region's broker being dead").await;
        federation.broker(0).restart().await.unwrap();
        fleet.recovers(&ALL, "the death of a region's broker, it being back").await;
        fleet.lost_nothing().await;
    }
}
