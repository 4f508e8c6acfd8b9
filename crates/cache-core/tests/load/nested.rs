//! Loaders that load other keys: one that would wait for itself, however indirectly, is told so.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
    thread,
};

use cache_core::LoadError;
use futures_lite::future::{block_on, yield_now, zip};

use crate::cache;

#[test]
fn a_loader_that_asks_for_its_own_key_is_told_so() {
    let cache = cache();
    let loaded = cache.try_get_or_insert_with(1, || cache.try_get_or_insert_with(1, || Ok::<_, ()>(1)));
    assert_eq!(loaded, Err(LoadError::Failed(LoadError::Reentered)));
    let through_another = cache.try_get_or_insert_with(1, || {
        Ok::<_, ()>(cache.get_or_insert_with(2, || {
            assert_eq!(cache.try_get_or_insert_with(1, || Err(())), Err(LoadError::Reentered));
            2
        }))
    });
    assert_eq!(through_another, Ok(2));
    let after_removing_it = cache.try_get_or_insert_with(3, || {
        cache.remove(&3);
        cache.try_get_or_insert_with(3, || Ok::<_, ()>(1))
    });
    assert_eq!(after_removing_it, Err(LoadError::Failed(LoadError::Reentered)));
}

#[test]
fn an_asynchronous_loader_that_asks_for_its_own_key_is_told_so() {
    let cache = cache();
    let inner = async {
        yield_now().await;
        let synchronous = cache.try_get_or_insert_with(1, || Ok::<_, ()>(1));
        assert_eq!(synchronous, Err(LoadError::Reentered));
        cache.try_get_or_insert_async(1, async { Ok::<_, ()>(1) }).await
    };
    let loaded = block_on(cache.try_get_or_insert_async(1, inner));
    assert_eq!(loaded, Err(LoadError::Failed(LoadError::Reentered)));
    assert_eq!(cache.get_or_insert_with(1, || 10), 10);
}

#[test]
fn an_infallible_loader_that_asks_for_its_own_key_panics() {
    let cache = cache();
    let panic =
        catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(1, || cache.get_or_insert_with(1, || 1))));
    let panic = panic.expect_err("it cannot have a value");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("a loader asked for the key that it loads"), "{message}");
    assert_eq!(cache.get_or_insert_with(1, || 10), 10);
}

#[test]
fn loaders_that_wait_for_each_other_are_told_so() {
    let (cache, both) = (cache(), Barrier::new(2));
    let load = |own: u32, other: u32| {
        cache.try_get_or_insert_with(own, || {
            both.wait();
            let inner = cache.try_get_or_insert_with(other, || Ok::<_, ()>(7));
            inner.map(|value| value + 1)
        })
    };
    let outcomes = thread::scope(|scope| {
        let one = scope.spawn(|| load(1, 2));
        [load(2, 1), one.join().expect("it does not panic")]
    });
    // The second to wait is told and fails; the first, who waited for it, loads that key itself.
    assert!(outcomes.contains(&Err(LoadError::Failed(LoadError::Reentered))), "{outcomes:?}");
    assert!(outcomes.contains(&Ok(8)), "{outcomes:?}");
    cache.clear();
    assert_eq!(
        cache.get_or_insert_with(1, || cache.get_or_insert_with(2, || 20) + 1),
        21,
        "without the circle it is right"
    );
}

#[test]
fn tasks_that_wait_for_each_other_across_caches_are_told_so() {
    let caches = [cache(), cache()];
    let load = |own: usize, other: usize| {
        let caches = &caches;
        caches[own].try_get_or_insert_async(1, async move {
            yield_now().await;
            caches[other].try_get_or_insert_async(1, async { Ok::<_, ()>(7) }).await
        })
    };
    let (one, two) = block_on(zip(load(0, 1), load(1, 0)));
    // The second to wait is told and fails; the first, who waited for it, loads that key itself.
    assert_eq!((one, two), (Ok(7), Err(LoadError::Failed(LoadError::Reentered))));
}
