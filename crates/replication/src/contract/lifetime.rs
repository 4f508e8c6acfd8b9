//! Clauses about subscriptions, acknowledgements and the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    PATIENCE,
    end::{check, close, ends, frames, node},
};
use crate::{
    node::NodeId,
    transport::{Destination, Health, Transport, TransportError},
};

pub(super) async fn unacknowledged_frames_come_again<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "unacknowledged frames come again";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let sent = frames("not acknowledged", 5);
    let mut first = to.subscribe().await;
    from.broadcast(&sent).await;
    // The acknowledgements are dropped without `done`.
    first.expect_by(&sent, drop).await;
    let mut second = to.subscribe().await;
    second.expect(&sent).await;
    // The same for a subscription that was dropped before the next one began.
    let sent = frames("not acknowledged either", 5);
    from.broadcast(&sent).await;
    second.expect_by(&sent, drop).await;
    drop(second);
    to.subscribe().await.expect(&sent).await;
    close(&all).await;
}

pub(super) async fn rejected_frames_stop_nothing<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "rejected frames stop nothing";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut listener = to.subscribe().await;
    let mut rejected = Vec::new();
    // Many more than may stay unacknowledged: those that are rejected must not keep their places.
    for round in 0..5 {
        let frames = frames(&format!("unreadable, round {round}"), 100);
        from.broadcast(&frames).await;
        listener.expect_by(&frames, |delivery| delivery.ack.reject("it cannot be read")).await;
        rejected.extend(frames);
    }
    let sent = frames("readable", 5);
    from.broadcast(&sent).await;
    listener.expect(&sent).await;
    // A copy of one may have been under way; from here on none comes again.
    listener.expect_none_of(&rejected).await;
    close(&all).await;
}

pub(super) async fn a_second_subscription_ends_the_first<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "a second subscription ends the first";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut first = to.subscribe().await;
    // The first is waiting while the second begins.
    let ((), mut second) = tokio::join!(first.expect_end(), to.subscribe());
    let sent = frames("for the second", 5);
    from.broadcast(&sent).await;
    second.expect(&sent).await;
    close(&all).await;
}

pub(super) async fn dropping_next_loses_nothing<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "dropping a `next` future loses nothing";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut listener = to.subscribe().await;
    let sent = frames("while futures are dropped", 200);
    let mut missing: BTreeSet<_> = sent.iter().collect();
    let receiving = async {
        let until = Instant::now() + PATIENCE;
        let mut dropped = 0_u64;
        // From a single poll up to a wait that most frames end.
        let patience = [0, 0, 1, 2, 5].map(Duration::from_millis);
        for patience in patience.into_iter().cycle() {
            match listener.glance(patience).await {
                Some(delivery) => {
                    missing.remove(&delivery.frame);
                    delivery.ack.done();
                }
                None => dropped += 1,
            }
            if missing.is_empty() {
                break;
            }
            let late = Instant::now() >= until;
            check(clause, !late, || {
                format!("{} of 200 frames lost, {dropped} futures dropped", missing.len())
            });
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(from.broadcast(&sent), receiving);
    close(&all).await;
}

pub(super) async fn closing_ends_everything_once_and_for_all<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "closing ends everything, once and for all";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [end, other] = &all;
    let mut others = other.subscribe().await;
    let mut listener = end.subscribe().await;
    let last = Bytes::from_static(b"the last before closing");
    end.publish(Destination::Everyone, &last).await;
    // The subscription is waiting while the transport closes.
    tokio::join!(end.close(), listener.expect_end());
    end.close().await;
    end.health(|health| *health == Health::Closed, "closed").await;
    let published = end.try_publish(Destination::Everyone, &last).await;
    check(clause, published == Err(TransportError::Closed), || {
        format!("publishing after it gave {published:?}")
    });
    let subscribed = end.bounded("a subscribe", end.transport.subscribe()).await.err();
    check(clause, subscribed == Some(TransportError::Closed), || {
        format!("subscribing after it gave {subscribed:?}")
    });
    // What was accepted before it arrives.
    others.expect(&[last]).await;
    other.close().await;
}
