use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cache_core::ManualClock;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};

use super::*;
use crate::{Expect, Write};

const SECOND: Duration = Duration::from_secs(1);

async fn cache() -> GeoCache {
    GeoCache::builder().build().await.expect("the defaults are valid")
}

async fn timed() -> (GeoCache, ManualClock) {
    let clock = ManualClock::new();
    let builder = GeoCache::builder().default_ttl(10 * SECOND).clock(clock.clone().into());
    (builder.build().await.expect("a valid configuration"), clock)
}

/// What the origin is asked, and what it answers.
#[derive(Debug, Clone, Default)]
struct Origin {
    asked: Arc<AtomicUsize>,
    gate: Arc<Notify>,
}

impl Origin {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn gives(
        &self,
        value: &'static str,
    ) -> impl FnOnce() -> std::future::Ready<Result<String, &'static str>> + Send + use<> {
        let asked = Arc::clone(&self.asked);
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(value.to_owned()))
        }
    }

    fn fails(&self) -> impl FnOnce() -> std::future::Ready<Result<String, &'static str>> + Send + use<> {
        let asked = Arc::clone(&self.asked);
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err("the origin is down"))
        }
    }

    /// Gives the value once the gate is opened.
    fn waits(
        &self,
        value: &'static str,
    ) -> impl FnOnce() -> futures::Waiting<Result<String, &'static str>> + Send + use<> {
        let Self { asked, gate } = self.clone();
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                gate.notified().await;
                Ok(value.to_owned())
            })
        }
    }
}

mod futures {
    use std::{future::Future, pin::Pin};

    pub(super) type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_secs(20), reached).await.is_ok(), "{what} did not come");
}

#[tokio::test]
async fn a_missing_value_is_loaded_once_and_then_read() {
    let (cache, origin) = (cache().await, Origin::default());
    for _ in 0..3 {
        assert_eq!(*cache.get_or_load("k", origin.gives("v")).await.unwrap(), "v");
    }
    assert_eq!(origin.asked(), 1);
    assert_eq!(*cache.get::<String>("k").unwrap().unwrap(), "v");
    let stats = cache.stats().loads;
    assert_eq!((stats.loads, stats.failures, stats.flying), (1, 0, 0));
}

#[tokio::test]
async fn a_hundred_callers_at_once_are_one_load() {
    let (cache, origin) = (cache().await, Origin::default());
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let (cache, loader) = (cache.clone(), origin.waits("v"));
        callers.spawn(async move { cache.get_or_load("k", loader).await.unwrap() });
    }
    until("99 who wait", || cache.stats().loads.shared == 99 && origin.asked() == 1).await;
    origin.gate.notify_one();
    while let Some(value) = callers.join_next().await {
        assert_eq!(*value.unwrap(), "v");
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn a_failed_load_is_told_to_all_who_waited_and_kept_for_nobody() {
    let (cache, origin) = (cache().await, Origin::default());
    let error = cache.get_or_load("k", origin.fails()).await.unwrap_err();
    assert!(matches!(&error, LoadError::Failed(told) if **told == "the origin is down"), "{error}");
    assert_eq!(*cache.get_or_load("k", origin.gives("v")).await.unwrap(), "v");
    assert_eq!(cache.stats().loads.failures, 1);
}

#[tokio::test]
async fn a_panic_of_a_loader_is_an_error_of_its_callers_alone() {
    let cache = cache().await;
    let panics = || async { panic!("{}", "no such table") };
    let error = cache.get_or_load::<String, Infallible, _, _>("k", panics).await.unwrap_err();
    assert!(matches!(&error, LoadError::Panicked { message } if message == "no such table"), "{error}");
    assert_eq!(*cache.get_or_load("k", Origin::default().gives("v")).await.unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_hangs_is_dropped_at_its_limit() {
    struct Dropped(Option<oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().map(|told| told.send(()));
        }
    }
    let cache = cache().await;
    let (told, dropped) = oneshot::channel();
    let guard = Dropped(Some(told));
    let hangs = move || async move {
        let _guard = guard;
        std::future::pending::<Result<String, Infallible>>().await
    };
    let options = LoadOptions::new().time_limit(5 * SECOND);
    let error = cache.get_or_load_with("k", options, hangs).await.unwrap_err();
    assert!(matches!(error, LoadError::TimedOut { limit } if limit == 5 * SECOND), "{error}");
    dropped.await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_load() {
    let (cache, origin) = (cache().await, Origin::default());
    let (first, loader) = (cache.clone(), origin.waits("v"));
    let caller = tokio::spawn(async move { first.get_or_load("k", loader).await });
    until("the load", || origin.asked() == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    origin.gate.notify_one();
    until("the value", || cache.contains("k").unwrap()).await;
    assert_eq!(*cache.get_or_load("k", origin.fails()).await.unwrap(), "v");
}

#[tokio::test]
async fn what_was_written_while_loading_stays() {
    let (cache, origin) = (cache().await, Origin::default());
    let (other, loader) = (cache.clone(), origin.waits("loaded"));
    let caller = tokio::spawn(async move { other.get_or_load("k", loader).await.unwrap() });
    until("the load", || origin.asked() == 1).await;
    cache.put("k", "written").unwrap();
    origin.gate.notify_one();
    assert_eq!(*caller.await.unwrap(), "written");
    assert_eq!(*cache.get::<String>("k").unwrap().unwrap(), "written");
    assert_eq!(cache.stats().loads.overtaken, 1);
}

/// The one that is not there leaves no stamp behind but its grave.
#[tokio::test]
async fn what_was_removed_or_cleared_while_loading_is_not_stored() {
    for clears in [false, true] {
        let (cache, origin) = (cache().await, Origin::default());
        let (other, loader) = (cache.clone(), origin.waits("loaded"));
        let caller = tokio::spawn(async move { other.get_or_load("k", loader).await.unwrap() });
        until("the load", || origin.asked() == 1).await;
        if clears {
            cache.clear().unwrap();
        } else {
            cache.remove("k").unwrap();
        }
        origin.gate.notify_one();
        assert_eq!(*caller.await.unwrap(), "loaded");
        assert!(!cache.contains("k").unwrap(), "clears: {clears}");
    }
}

/// Evictions leave graves, and graves that are dropped raise a floor: neither says anything of the key.
#[tokio::test]
async fn a_full_cache_stores_what_it_loads() {
    let cache = GeoCache::builder().capacity(64).graves_max(64).build().await.unwrap();
    for n in 0..1_000 {
        let loaded = cache.get_or_load(format!("k{n}"), Origin::default().gives("v")).await.unwrap();
        assert_eq!(*loaded, "v");
    }
    let stats = cache.stats();
    assert!(stats.graves_dropped > 0, "the test meets the bound");
    assert_eq!((stats.loads.loads, stats.loads.overtaken), (1_000, 0));
}

#[tokio::test]
async fn a_stale_value_is_served_when_the_loader_fails() {
    let ((cache, clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new().stale_for(60 * SECOND);
    let load = async |loader| cache.get_or_load_with("k", options, loader).await;
    assert_eq!(load(origin.gives("old")).await.unwrap().source, Source::Loader);
    clock.advance(9 * SECOND);
    assert_eq!(load(origin.gives("new")).await.unwrap().source, Source::Cache);
    clock.advance(2 * SECOND);
    let served = cache.get_or_load_with("k", options, origin.fails()).await.unwrap();
    assert_eq!((served.value.as_str(), served.source), ("old", Source::Stale));
    let fresh = load(origin.gives("new")).await.unwrap();
    assert_eq!((fresh.value.as_str(), fresh.source), ("new", Source::Loader));
    clock.advance(80 * SECOND);
    let error = cache.get_or_load_with("k", options, origin.fails()).await.unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)), "nothing is left to serve");
    assert_eq!(cache.stats().loads.stale_served, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_loader_costs_no_more_than_the_soft_limit_while_a_stale_value_is_there() {
    let ((cache, clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new().stale_for(60 * SECOND).soft_limit(SECOND);
    cache.get_or_load_with("k", options, origin.gives("old")).await.unwrap();
    clock.advance(11 * SECOND);
    let served = cache.get_or_load_with("k", options, origin.waits("new")).await.unwrap();
    assert_eq!((served.value.as_str(), served.source), ("old", Source::Stale));
    origin.gate.notify_one();
    until("the new value", || cache.get::<String>("k").unwrap().unwrap().as_str() == "new").await;
}

#[tokio::test]
async fn a_value_about_to_end_is_loaded_anew_behind_its_reader() {
    let ((cache, clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new().refresh_ahead(0.2);
    cache.get_or_load_with("k", options, origin.gives("old")).await.unwrap();
    clock.advance(7 * SECOND);
    cache.get_or_load_with("k", options, origin.gives("early")).await.unwrap();
    assert_eq!(origin.asked(), 1, "more than a fifth of its time is left");
    clock.advance(2 * SECOND);
    for _ in 0..3 {
        let read = cache.get_or_load_with("k", options, origin.waits("new")).await.unwrap();
        assert_eq!((read.value.as_str(), read.source), ("old", Source::Cache));
    }
    until("the refresh", || origin.asked() == 2).await;
    origin.gate.notify_one();
    until("the new value", || cache.get::<String>("k").unwrap().unwrap().as_str() == "new").await;
    assert_eq!(cache.stats().loads.refreshes, 1);
}

#[tokio::test]
async fn jitter_spreads_the_ends_of_values_loaded_together() {
    let ((cache, _clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new().ttl(100 * SECOND).ttl_jitter(0.5);
    let mut lives = Vec::new();
    for n in 0..100 {
        let key = format!("k{n}");
        cache.get_or_load_with(&key, options, origin.gives("v")).await.unwrap();
        lives.push(cache.peek_item(key.as_bytes()).unwrap().left.unwrap());
    }
    let (shortest, longest) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
    assert!(shortest >= 49 * SECOND && longest <= 100 * SECOND, "{shortest:?} to {longest:?}");
    assert!(longest - shortest > 20 * SECOND, "{shortest:?} to {longest:?}");
}

#[tokio::test]
async fn a_loader_may_load_other_keys_but_not_its_own() {
    let cache = cache().await;
    let inner = cache.clone();
    let nested = move || async move {
        inner.get_or_load("b", Origin::default().gives("v")).await.map(|v| (*v).clone())
    };
    assert_eq!(*cache.get_or_load("a", nested).await.unwrap(), "v");
    let inner = cache.clone();
    let circle = move || async move {
        let own = inner.get_or_load::<String, _, _, _>("c", Origin::default().gives("v")).await;
        match own {
            Err(LoadError::Circle) => Ok("noticed".to_owned()),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(*cache.get_or_load("c", circle).await.unwrap(), "noticed");
}

#[tokio::test]
async fn two_loaders_that_would_wait_for_each_other_are_told() {
    let cache = cache().await;
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let loader = |other: &'static str| {
        let (cache, both) = (cache.clone(), Arc::clone(&both));
        move || async move {
            both.wait().await;
            let loaded = cache.get_or_load::<String, _, _, _>(other, Origin::default().gives("inner")).await;
            match loaded {
                Ok(value) => Ok((*value).clone()),
                Err(LoadError::Circle) => Ok("circle".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        }
    };
    let (a, b) = tokio::join!(cache.get_or_load("a", loader("b")), cache.get_or_load("b", loader("a")));
    let told = [a.unwrap(), b.unwrap()];
    assert!(
        told.iter().all(|value| value.as_str() == "circle"),
        "one was told, the other read that: {told:?}"
    );
}

/// The load of `a` began that of `b`, which waits for `c`, whose loader asks for `a`.
#[tokio::test]
async fn a_circle_through_a_load_that_a_loader_began_is_told() {
    let (cache, waits) = (cache().await, Arc::new(Notify::new()));
    let asks = |key: &'static str, cache: &GeoCache, ready: Option<Arc<Notify>>| {
        let cache = cache.clone();
        move || async move {
            if let Some(ready) = ready {
                ready.notified().await;
            }
            match cache.get_or_load::<String, _, _, _>(key, Origin::default().gives("inner")).await {
                Ok(value) => Ok((*value).clone()),
                Err(LoadError::Circle) => Ok("circle".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        }
    };
    let (last, first) = (cache.clone(), cache.clone());
    let loader = asks("a", &cache, Some(Arc::clone(&waits)));
    let last = tokio::spawn(async move { last.get_or_load("c", loader).await.unwrap() });
    until("the load of c", || cache.stats().loads.loads == 1).await;
    let (inner, middle) = (cache.clone(), asks("c", &cache, None));
    let outer = move || async move {
        let loaded = inner.get_or_load("b", middle).await;
        loaded.map(|value| (*value).clone()).map_err(|error| error.to_string())
    };
    let first = tokio::spawn(async move { first.get_or_load("a", outer).await.unwrap() });
    until("b waits for c", || cache.stats().loads.shared == 1).await;
    waits.notify_one();
    assert_eq!((&**last.await.unwrap(), &**first.await.unwrap()), ("circle", "circle"));
}

/// Nobody waits for a refresh: that a loader's read began it is no reason not to ask for what that loader brings.
#[tokio::test]
async fn a_refresh_that_a_loader_began_may_wait_for_that_loader() {
    let ((cache, clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new().refresh_ahead(0.5);
    cache.get_or_load_with("inner", options, origin.gives("old")).await.unwrap();
    clock.advance(9 * SECOND);
    let (outer, refresh) = (cache.clone(), cache.clone());
    let refreshes = move || async move {
        let outer = refresh.get_or_load::<String, _, _, _>("outer", Origin::default().gives("again")).await;
        outer.map(|value| (*value).clone()).map_err(|error| error.to_string())
    };
    let gate = Arc::clone(&origin.gate);
    let loader = move || async move {
        let read =
            outer.get_or_load_with("inner", options, refreshes).await.map_err(|error| error.to_string())?;
        gate.notified().await;
        Ok::<_, String>((*read.value).clone())
    };
    let (other, caller) = (cache.clone(), cache.clone());
    let caller = tokio::spawn(async move { caller.get_or_load("outer", loader).await.unwrap() });
    until("the refresh waits for the loader", || other.stats().loads.shared == 1).await;
    origin.gate.notify_one();
    assert_eq!(*caller.await.unwrap(), "old");
    until("the refresh", || cache.stats().loads.flying == 0).await;
    assert_eq!(cache.stats().loads.failures, 0);
}

#[tokio::test]
async fn options_of_any_length_are_taken() {
    let ((cache, clock), origin) = (timed().await, Origin::default());
    let options = LoadOptions::new()
        .stale_for(Duration::MAX)
        .soft_limit(Duration::MAX)
        .time_limit(Duration::MAX)
        .region_limit(Duration::MAX);
    cache.get_or_load_with("k", options, origin.gives("old")).await.unwrap();
    assert_eq!(
        cache.get_or_load_with("k", options, origin.gives("new")).await.unwrap().source,
        Source::Cache
    );
    clock.advance(11 * SECOND);
    let served = cache.get_or_load_with("k", options, origin.fails()).await.unwrap();
    assert_eq!((served.value.as_str(), served.source), ("old", Source::Stale));
    let options = options.ttl(Duration::MAX);
    cache.get_or_load_with("l", options, origin.gives("old")).await.unwrap();
    assert_eq!(
        cache.get_or_load_with("l", options, origin.gives("new")).await.unwrap().source,
        Source::Cache
    );
}

/// Two loaders ran for one key: the second caller had missed it before the first one's flight landed, and boarded after.
#[tokio::test]
async fn a_flight_begun_on_an_old_look_takes_what_the_one_before_it_brought() {
    let (cache, origin) = (cache().await, Origin::default());
    cache.get_or_load("k", origin.gives("first")).await.unwrap();
    let options = LoadOptions::new();
    let flown = cache.board::<String, _, _, _>(b"k", options, None, None, origin.gives("second")).unwrap();
    let landing = flown.landed().await.unwrap();
    assert_eq!((landing.source, origin.asked()), (Source::Cache, 1));
    assert_eq!(*cache.take::<String, Infallible>(b"k", landing).unwrap().value, "first");
}

#[tokio::test]
async fn callers_of_other_types_read_what_the_load_stored() {
    let (cache, origin) = (cache().await, Origin::default());
    let (first, loader) = (cache.clone(), origin.waits("42"));
    let text = tokio::spawn(async move { first.get_or_load("k", loader).await.unwrap() });
    until("the load", || origin.asked() == 1).await;
    let other = cache.clone();
    let boxed = tokio::spawn(async move {
        let loader = || async { Ok::<Box<str>, Infallible>("never".into()) };
        other.get_or_load("k", loader).await
    });
    until("the one who waits", || cache.stats().loads.shared == 1).await;
    origin.gate.notify_one();
    assert_eq!(*text.await.unwrap(), "42");
    assert_eq!(&**boxed.await.unwrap().unwrap(), "42");
    cache.put("number", &7_u64).unwrap();
    let error = cache.get_or_load("number", origin.gives("x")).await.unwrap_err();
    assert!(matches!(error, LoadError::Cache(Error::Decode { .. })), "{error}");
    assert_eq!(*cache.get::<u64>("number").unwrap().unwrap(), 7, "it stays stored");
}

#[tokio::test]
async fn what_cannot_be_stored_is_returned_and_counted() {
    let cache = GeoCache::builder().value_bytes_max(8).build().await.unwrap();
    let loaded = cache.get_or_load("k", Origin::default().gives("longer than eight bytes")).await.unwrap();
    assert_eq!(*loaded, "longer than eight bytes");
    assert!(!cache.contains("k").unwrap());
    assert_eq!(cache.stats().loads.unpublished, 1);
}

#[tokio::test]
async fn at_the_bound_a_further_load_is_refused() {
    let cache = GeoCache::builder().loads_max(1).build().await.unwrap();
    let origin = Origin::default();
    let (first, loader) = (cache.clone(), origin.waits("v"));
    let caller = tokio::spawn(async move { first.get_or_load("a", loader).await.unwrap() });
    until("the load", || origin.asked() == 1).await;
    let error = cache.get_or_load("b", origin.gives("v")).await.unwrap_err();
    assert!(matches!(error, LoadError::Busy { max: 1 }), "{error}");
    origin.gate.notify_one();
    caller.await.unwrap();
    cache.get_or_load("b", origin.gives("v")).await.unwrap();
    assert_eq!(cache.stats().loads.refused, 1);
}

#[tokio::test]
async fn a_load_ends_with_its_node() {
    let (cache, origin) = (cache().await, Origin::default());
    let (dropped, told) = oneshot::channel::<()>();
    let loader = move || async move {
        let _held = dropped;
        std::future::pending::<Result<String, Infallible>>().await
    };
    let options = LoadOptions::new().refresh_ahead(1.0).ttl(SECOND);
    cache.get_or_load_with("k", options, origin.gives("v")).await.unwrap();
    cache.get_or_load_with("k", options, loader).await.unwrap();
    drop(cache);
    assert!(timeout(20 * SECOND, told).await.unwrap().is_err(), "the loader was dropped");
}

#[test]
fn without_a_runtime_a_load_is_an_error_and_a_hit_is_not() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cache = runtime().block_on(cache());
    let mut future = Box::pin(cache.get_or_load("k", Origin::default().gives("v")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = future.as_mut().poll(&mut context) else { panic!("not ready") };
    assert!(matches!(error, LoadError::NoRuntime), "{error}");
    cache.put("k", "here").unwrap();
    let mut future = Box::pin(cache.get_or_load("k", Origin::default().gives("v")));
    assert!(matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn the_closest_region_is_asked_before_the_origin() {
    let hub = crate::memory::Hub::default();
    let node = |region: &str| crate::NodeId::new(region.parse().unwrap(), "n").unwrap();
    let build = async |region, capacity| {
        let builder =
            GeoCache::builder().capacity(capacity).bootstrap(true).transport(hub.join(node(region)));
        builder.build().await.unwrap()
    };
    let (here, there) = (build("us-east", 100).await, build("eu-central", 1).await);
    let concern = crate::PutOptions::new().concern(crate::WriteConcern::Regions(2)).timeout(20 * SECOND);
    assert!(here.put_with("k", "from us-east", concern).await.unwrap().reached);
    let is_met = || there.stats().regions.iter().any(|region| region.is_ready() && region.rtt_ms().is_some());
    until("a region to ask", is_met).await;
    there.put("in its place", "x").unwrap();
    assert!(!there.contains("k").unwrap(), "it holds one value");
    let (origin, options) =
        (Origin::default(), LoadOptions::new().ask_region(AskRegion::Always).region_limit(20 * SECOND));
    let read = there.get_or_load_with("k", options, origin.gives("from the origin")).await.unwrap();
    assert_eq!((read.value.as_str(), read.source), ("from us-east", Source::Region));
    assert_eq!(origin.asked(), 0);
    let read = there.get_or_load_with("other", options, origin.gives("from the origin")).await.unwrap();
    assert_eq!((read.value.as_str(), read.source), ("from the origin", Source::Loader));
    let stats = there.stats().loads;
    assert_eq!((stats.from_regions, stats.loads), (1, 1));
}

#[tokio::test]
async fn a_loaded_value_reaches_the_other_regions() {
    let cluster = crate::GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let loaded = cluster.region("us-east").unwrap();
    loaded.get_or_load("k", Origin::default().gives("v")).await.unwrap();
    cluster.settled(20 * SECOND).await.unwrap();
    assert_eq!(*cluster.get::<String>("k", "eu-central").unwrap().unwrap(), "v");
}

#[tokio::test]
async fn a_raw_write_overtakes_a_load_too() {
    let (cache, origin) = (cache().await, Origin::default());
    let (other, loader) = (cache.clone(), origin.waits("loaded"));
    let caller = tokio::spawn(async move { other.get_or_load("k", loader).await.unwrap() });
    until("the load", || origin.asked() == 1).await;
    cache.write(b"k", Write { bytes: "raw".into(), ..Write::default() }, Expect::Absent).unwrap();
    origin.gate.notify_one();
    assert_eq!(*caller.await.unwrap(), "raw");
}
