use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    Behind, GeoCluster,
    memory::{Faults, Hub, Place},
};

const LONG: Duration = Duration::from_secs(20);
const TENTH: Duration = Duration::from_millis(100);

fn place(region: &str) -> Place {
    Place::Region(region.parse().unwrap())
}

async fn two() -> GeoCluster {
    GeoCluster::new(["us-east", "eu-central"]).await.unwrap()
}

fn patient() -> FreshOptions {
    FreshOptions::new().timeout(LONG)
}

fn behind(error: Error) -> Behind {
    let Error::NotFresh { behind, .. } = error else { panic!("{error:?}") };
    behind
}

#[tokio::test(start_paused = true)]
async fn without_any_lag_every_write_before_the_call_is_read() {
    let cluster = two().await;
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    for number in 0..20_u64 {
        here.put("n", &number).unwrap();
        let read = there.get_fresh_with::<u64>("n", Duration::ZERO, patient()).await.unwrap();
        assert_eq!(read.as_deref(), Some(&number));
    }
    here.remove("n").unwrap();
    assert_eq!(there.get_fresh::<u64>("n", Duration::ZERO).await.unwrap(), None);
    here.put("n", &7_u64).unwrap();
    here.clear().unwrap();
    assert_eq!(there.get_fresh::<u64>("n", Duration::ZERO).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_held_are_waited_for_or_told() {
    let cluster = two().await;
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    cluster.hub().hold(place("us-east"), place("eu-central"));
    here.put("n", &1_u64).unwrap();
    tokio::time::sleep(10 * TENTH).await;
    let error = there.get_fresh_with::<u64>("n", 5 * TENTH, FreshOptions::new().timeout(TENTH)).await;
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "not shown to have all that was written 500ms ago, after a wait of 100ms: what is here of \
             us-east/node-1 is as of "
        ),
        "{text}"
    );
    assert!(behind(error).age().unwrap() >= 10 * TENTH);
    let older = there.get_fresh_with::<u64>("n", 2 * LONG, FreshOptions::new().timeout(Duration::ZERO)).await;
    assert_eq!(older.unwrap(), None, "so old an answer is allowed, and comes at once");
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { there.get_fresh_with::<u64>("n", TENTH, patient()).await }
    });
    tokio::time::sleep(5 * TENTH).await;
    assert!(!waiting.is_finished());
    cluster.heal();
    assert_eq!(waiting.await.unwrap().unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_one_way_leaves_its_sender_fresh() {
    let cluster = two().await;
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    cluster.hub().cut(place("us-east"), place("eu-central"));
    tokio::time::sleep(10 * TENTH).await;
    there.put("n", &1_u64).unwrap();
    tokio::time::sleep(5 * TENTH).await;
    let read = here.get_fresh::<u64>("n", 5 * TENTH).await.unwrap();
    assert_eq!(read.as_deref(), Some(&1), "what is heard says how long ago it was made");
    let error = there.get_fresh_with::<u64>("n", TENTH, FreshOptions::new().timeout(TENTH)).await;
    let Behind::Older { fresh_ago: Some(ago), .. } = behind(error.unwrap_err()) else { panic!("older") };
    assert!(ago >= 14 * TENTH, "{ago:?}");
    cluster.heal();
    assert_eq!(there.get_fresh_with::<u64>("n", TENTH, patient()).await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_region_is_named_until_it_is_back_and_left_out_on_demand() {
    let cluster = GeoCluster::new(["us-east", "eu-central", "ap-south"]).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    cluster.put("n", &1_u64, "ap-south").unwrap();
    cluster.settled(LONG).await.unwrap();
    cluster.kill("ap-south").await.unwrap();
    tokio::time::sleep(40 * TENTH).await;
    let error = here.get_fresh::<u64>("n", TENTH).await.unwrap_err();
    let Behind::Unheard { region, heard_ago: Some(ago) } = behind(error) else { panic!("unheard") };
    assert!(region.as_str() == "ap-south" && ago >= 30 * TENTH, "{region} {ago:?}");
    let heard = FreshOptions::new().to(FreshTo::Heard);
    assert_eq!(here.get_fresh_with::<u64>("n", TENTH, heard).await.unwrap().as_deref(), Some(&1));
    cluster.start("ap-south").await.unwrap();
    let back = here.get_fresh_with::<u64>("n", TENTH, patient()).await.unwrap();
    assert_eq!(back.as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_configured_and_was_never_heard_is_named() {
    let hub = Hub::new();
    let node = replication::NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    let builder = GeoCache::builder().transport(hub.join(node)).bootstrap(true);
    let alone = builder.clone().regions(["us-east"]).build().await.unwrap();
    assert_eq!(alone.get_fresh::<u64>("n", Duration::ZERO).await.unwrap(), None, "there is nobody else");
    alone.close(LONG).await;
    assert!(matches!(alone.get_fresh::<u64>("n", LONG).await, Err(Error::Closed)));
    let node = replication::NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    let builder = builder.transport(hub.join(node)).regions(["us-east", "mars"]);
    let waits = builder.build().await.unwrap();
    let error = waits.get_fresh::<u64>("n", LONG).await.unwrap_err();
    let mars = "mars".parse().unwrap();
    assert_eq!(behind(error), Behind::Unheard { region: mars, heard_ago: None });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_warming_waits_until_it_has_the_state_of_the_others() {
    let cluster = two().await;
    cluster.put("n", &1_u64, "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    cluster.stop("eu-central").await.unwrap();
    cluster.start("eu-central").await.unwrap();
    let there = cluster.region("eu-central").unwrap();
    assert!(!there.is_ready());
    let at_once = FreshOptions::new().timeout(Duration::ZERO);
    let error = there.get_fresh_with::<u64>("n", LONG, at_once).await.unwrap_err();
    assert_eq!(behind(error), Behind::Warming);
    let read = there.get_fresh_with::<u64>("n", TENTH, patient()).await.unwrap();
    assert_eq!(read.as_deref(), Some(&1));
}

#[tokio::test]
async fn a_node_alone_is_always_fresh_and_a_bad_key_or_another_type_is_told_as_by_any_read() {
    let cache = GeoCache::builder().build().await.unwrap();
    cache.put("text", "x").unwrap();
    assert!(cache.get_fresh::<String>("text", Duration::ZERO).await.unwrap().is_some());
    assert!(matches!(cache.get_fresh::<u64>("", LONG).await, Err(Error::Key { .. })));
    assert!(matches!(cache.get_fresh::<u64>("text", LONG).await, Err(Error::Decode { .. })));
    let users = cache.namespace("user").unwrap();
    users.put("1", "Ada").unwrap();
    assert!(users.get_fresh::<String>("1", LONG).await.unwrap().is_some());
}

/// The promise itself, under loss, delay, duplicates, reordering and cuts: whatever a writer had written longer ago than the
/// lag allowed is in the answer, or the answer is an error.
#[tokio::test(start_paused = true)]
async fn no_write_older_than_the_lag_allowed_is_missing_whatever_the_links_do() {
    let seeds = 1..=12;
    let (mut answers, mut refusals) = (0, 0);
    for seed in seeds {
        let (answered, refused) = poor_links(seed).await;
        answers += answered;
        refusals += refused;
    }
    assert!(answers > 200, "the links were too poor to say anything: {answers} answers");
    assert!(refusals > 20, "the links were too good to say anything: {refusals} refusals");
}

async fn poor_links(seed: u64) -> (u32, u32) {
    println!("seed {seed}");
    let hub = Hub::seeded(seed);
    let cluster = GeoCluster::builder().regions(["us-east", "eu-central", "ap-south"]).hub(hub.clone());
    let cluster = cluster.build().await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let ms = Duration::from_millis;
    let delay = ms(5)..=ms(10 + random.u64(..150));
    hub.set_faults(Faults::none().drop(0.15).duplicate(0.1).reorder(0.1).delay(delay));
    let nodes = cluster.nodes();
    // Each region writes a key of its own, numbers that rise; beside it when each was written.
    let mut written: Vec<Vec<(Instant, u64)>> = vec![Vec::new(); nodes.len()];
    let (mut answers, mut refusals) = (0, 0);
    for step in 1..=150_u64 {
        match random.u32(..40) {
            0 => hub.isolate(place("ap-south")),
            1 => hub.hold(place("us-east"), place("eu-central")),
            2..=5 => {
                hub.readmit(place("ap-south"));
                hub.release(place("us-east"), place("eu-central"));
            }
            _ => {}
        }
        for (node, written) in nodes.iter().zip(&mut written) {
            if random.bool() {
                node.put(node.region().as_str(), &step).unwrap();
                written.push((Instant::now(), step));
            }
        }
        tokio::time::sleep(ms(random.u64(..40))).await;
        if step % 3 != 0 {
            continue;
        }
        let max_lag = ms([0, 50, 300, 1_000, 5_000][random.usize(..5)]);
        let reader = &nodes[random.usize(..nodes.len())];
        let asked = Instant::now();
        let options = FreshOptions::new().timeout(ms(random.u64(..400)));
        if reader.fresh(max_lag, options).await.is_err() {
            refusals += 1;
            continue;
        }
        answers += 1;
        for (writer, written) in nodes.iter().zip(&written) {
            let old = written.iter().rev().find(|(at, _)| *at + max_lag < asked);
            let Some(&(_, number)) = old else { continue };
            let read = reader.get::<u64>(writer.region().as_str()).unwrap();
            let read = read.as_deref().copied().unwrap_or(0);
            assert!(
                read >= number,
                "seed {seed}, step {step}: {} reads {read} of {}, which had written {number} longer than \
                 {max_lag:?} before",
                reader.region(),
                writer.region()
            );
        }
    }
    cluster.close(Duration::ZERO).await;
    (answers, refusals)
}

#[tokio::test(start_paused = true)]
async fn times_of_any_length_are_taken() {
    let cluster = two().await;
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    here.put("n", &1_u64).unwrap();
    let for_ever = FreshOptions::new().timeout(Duration::MAX);
    for max_lag in [Duration::ZERO, Duration::MAX, Duration::from_nanos(1), Duration::from_millis(u64::MAX)] {
        let read = there.get_fresh_with::<u64>("n", max_lag, for_ever).await.unwrap();
        assert_eq!(read.as_deref(), Some(&1), "{max_lag:?}");
    }
}
