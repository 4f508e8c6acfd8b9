use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{Basis, Health};

fn router(regions: usize) -> Router {
    (0..regions).fold(Router::builder(), |builder, n| builder.region(format!("r{n}"))).build().unwrap()
}

fn id(name: &str) -> RegionId {
    name.parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn health(router: &Router, region: &str) -> Health {
    let explanation = router.explain(clock_now());
    explanation.regions.iter().find(|explained| explained.region.as_str() == region).unwrap().health
}

#[tokio::test(start_paused = true)]
async fn every_region_is_probed_once_an_interval_give_or_take_the_jitter() {
    let router = router(3);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).jitter(0.2).seed(5).build().unwrap();
    let probes = prober.probes();
    let begun: Arc<Mutex<BTreeMap<RegionId, Vec<Instant>>>> = Arc::default();
    let ping = |region: RegionId| {
        begun.lock().unwrap().entry(region).or_default().push(Instant::now());
        async {
            sleep(ms(30)).await;
            Ok::<(), io::Error>(())
        }
    };
    assert!(timeout(ms(100_000), prober.run(ping)).await.is_err(), "it runs until it is dropped");
    let begun = begun.lock().unwrap();
    assert_eq!(begun.len(), 3);
    for (region, times) in begun.iter() {
        assert!((85..=120).contains(&times.len()), "{region}: {}", times.len());
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (ms(800)..=ms(1_202)).contains(gap)), "{region}: {gaps:?}");
        assert!(gaps.iter().any(|gap| *gap < ms(900)) && gaps.iter().any(|gap| *gap > ms(1_100)));
    }
    assert_eq!(probes.begun(), begun.values().map(|times| times.len() as u64).sum::<u64>());
    assert!(probes.succeeded() + 3 >= probes.begun());
    assert_eq!((probes.failed(), probes.timed_out(), probes.panicked(), probes.late()), (0, 0, 0, 0));
    let plan = router.plan(clock_now());
    assert!(plan.iter().all(|candidate| candidate.basis == Basis::Measured), "{plan}");
    assert!(plan.iter().all(|candidate| candidate.rtt.unwrap() < ms(35)), "{plan}");
}

#[tokio::test(start_paused = true)]
async fn a_region_that_dies_is_out_after_three_probes_and_back_after_two() {
    let router = router(2);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).jitter(0.0).build().unwrap();
    let probes = prober.probes();
    let dead = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&dead);
    let running = tokio::spawn(prober.run(move |region: RegionId| {
        let dead = answers.load(SeqCst) && region.as_str() == "r0";
        async move {
            sleep(ms(10)).await;
            if dead { Err(io::Error::other("dead")) } else { Ok(()) }
        }
    }));
    sleep(ms(2_500)).await;
    assert_eq!(health(&router, "r0"), Health::Healthy);
    dead.store(true, SeqCst);
    for _ in 0..2 {
        sleep(ms(1_000)).await;
        assert_eq!(health(&router, "r0"), Health::Healthy);
    }
    sleep(ms(1_000)).await;
    assert_eq!(health(&router, "r0"), Health::Unhealthy);
    sleep(ms(60_000)).await;
    assert_eq!(health(&router, "r0"), Health::Unhealthy);
    assert!(probes.failed() >= 60);
    dead.store(false, SeqCst);
    sleep(ms(1_000)).await;
    assert_eq!(health(&router, "r0"), Health::Probing);
    sleep(ms(1_000)).await;
    assert_eq!(health(&router, "r0"), Health::Healthy);
    assert_eq!(health(&router, "r1"), Health::Healthy);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_answers_times_out_and_holds_up_no_other_region() {
    let router = router(3);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).timeout(ms(500)).build().unwrap();
    let probes = prober.probes();
    let ping = |region: RegionId| async move {
        if region.as_str() == "r1" {
            std::future::pending::<()>().await;
        }
        Ok::<(), io::Error>(())
    };
    let _ = timeout(ms(10_000), prober.run(ping)).await;
    assert!(probes.timed_out() >= 7, "{}", probes.timed_out());
    assert!(probes.succeeded() >= 16, "{}", probes.succeeded());
    assert_eq!(health(&router, "r1"), Health::Unhealthy);
    assert_eq!(router.plan(clock_now()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_under_way_than_allowed_and_those_that_wait_are_counted_as_late() {
    let router = router(20);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).concurrency(3).build().unwrap();
    let probes = prober.probes();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let ping = move |_: RegionId| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(ms(400)).await;
            now.fetch_sub(1, SeqCst);
            Ok::<(), io::Error>(())
        }
    };
    let _ = timeout(ms(60_000), prober.run(ping)).await;
    assert_eq!(most.load(SeqCst), 3);
    assert!(probes.late() > 0);
    // However late: each region has its turn, since the longest waiting comes first.
    let explanation = router.explain(clock_now());
    assert!(explanation.regions.iter().all(|explained| explained.samples >= 10), "{explanation}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_a_failure_and_the_prober_lives_on() {
    let router = router(2);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).build().unwrap();
    let probes = prober.probes();
    let ping = |region: RegionId| async move {
        assert_ne!(region.as_str(), "r0", "this probe panics on purpose");
        Ok::<(), io::Error>(())
    };
    let _ = timeout(ms(10_000), prober.run(ping)).await;
    assert!(probes.panicked() >= 8 && probes.succeeded() >= 8);
    assert_eq!(health(&router, "r0"), Health::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn regions_that_are_added_are_probed_and_drained_ones_too() {
    let router = router(1);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).build().unwrap();
    let running = tokio::spawn(prober.run(|_| async { Ok::<(), io::Error>(()) }));
    sleep(ms(3_000)).await;
    router.add(id("later"), None).unwrap();
    router.drain(&id("r0"), true, clock_now()).unwrap();
    sleep(ms(10_000)).await;
    let explanation = router.explain(clock_now());
    assert_eq!(explanation.regions[0].region.as_str(), "later");
    assert!(explanation.regions.iter().all(|explained| explained.samples >= 8), "{explanation}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_is_dropped_ends_its_probes_as_cancelled() {
    let router = router(4);
    let prober = Prober::builder(router.clone()).interval(ms(1_000)).build().unwrap();
    let ping = |_: RegionId| std::future::pending::<Result<(), io::Error>>();
    let _ = timeout(ms(100), prober.run(ping)).await;
    for n in 0..4 {
        let region = id(&format!("r{n}"));
        assert_eq!(router.in_flight(&region).unwrap(), 0);
        assert_eq!(health(&router, region.as_str()), Health::Healthy);
    }
}
