//! Clauses about whom a frame reaches, and how.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::end::{Listener, check, close, ends, fail, frames, node};
use crate::{
    node::NodeId,
    transport::{Destination, Transport, TransportError},
    wire::FRAME_BYTES_MAX,
};

pub(super) async fn a_broadcast_reaches_every_other_node<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "a broadcast reaches every other node";
    let nodes = [node("us-east", "a"), node("us-east", "b"), node("ap-south", "a")];
    let all = ends(fresh, clause, nodes).await;
    let mut listeners = Vec::new();
    for end in &all {
        listeners.push(end.subscribe().await);
    }
    let sent: Vec<_> = (0..all.len()).map(|i| frames(&format!("broadcast by {i}"), 5)).collect();
    for (end, sent) in all.iter().zip(&sent) {
        end.broadcast(sent).await;
    }
    for (i, listener) in listeners.iter_mut().enumerate() {
        let others: Vec<_> = sent
            .iter()
            .enumerate()
            .filter(|(from, _)| *from != i)
            .flat_map(|(_, sent)| sent.clone())
            .collect();
        listener.expect(&others).await;
    }
    close(&all).await;
}

/// The marker came, the frames did not, neither before the marker nor for a while after.
async fn got_only(listener: &mut Listener, marker: &Bytes, foreign: &[Bytes]) {
    for frame in listener.expect(std::slice::from_ref(marker)).await {
        listener.refuse(foreign, &frame);
    }
    listener.expect_none_of(foreign).await;
}

pub(super) async fn a_frame_to_a_node_reaches_it_alone<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "a frame to a node reaches it alone";
    // The bystanders share the region, or the name, with the node that is meant.
    let nodes = [node("us-east", "a"), node("ap-south", "b"), node("ap-south", "c"), node("us-east", "b")];
    let all = ends(fresh, clause, nodes).await;
    let [from, to, bystanders @ ..] = &all;
    let mut listener = to.subscribe().await;
    let mut others = Vec::new();
    for end in bystanders {
        others.push(end.subscribe().await);
    }
    let addressed = frames("for one node", 5);
    for frame in &addressed {
        from.publish(Destination::Node(to.node.clone()), frame).await;
    }
    let marker = Bytes::from_static(b"for everyone");
    from.publish(Destination::Everyone, &marker).await;
    listener.expect(&addressed).await;
    for other in &mut others {
        got_only(other, &marker, &addressed).await;
    }
    close(&all).await;
}

pub(super) async fn a_frame_to_a_region_reaches_its_nodes_alone<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "a frame to a region reaches its nodes alone";
    let nodes = [node("us-east", "a"), node("ap-south", "a"), node("ap-south", "b"), node("us-east", "b")];
    let all = ends(fresh, clause, nodes).await;
    let [from, one, two, bystander] = &all;
    let mut inside = [one.subscribe().await, two.subscribe().await];
    let mut outside = bystander.subscribe().await;
    let addressed = frames("for one region", 5);
    for frame in &addressed {
        from.publish(Destination::Region(one.node.region().clone()), frame).await;
    }
    let marker = Bytes::from_static(b"for everyone");
    from.publish(Destination::Everyone, &marker).await;
    for listener in &mut inside {
        listener.expect(&addressed).await;
    }
    got_only(&mut outside, &marker, &addressed).await;
    close(&all).await;
}

pub(super) async fn frames_of_every_size_arrive_whole<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "frames of every size arrive whole";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut listener = to.subscribe().await;
    // Around the sizes at which transports cut messages into pieces of their own.
    for len in [1, 100, 4_088, 65_535, 131_072, 131_073, 1 << 20, FRAME_BYTES_MAX] {
        let frame: Vec<u8> = (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
        let frame = Bytes::from(frame);
        from.publish(Destination::Everyone, &frame).await;
        listener.expect(&[frame]).await;
    }
    close(&all).await;
}

pub(super) async fn concurrent_publishes_within_the_window_all_arrive<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "concurrent publishes within the window all arrive";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut listener = to.subscribe().await;
    let window = from.transport.window();
    check(clause, window > 0, || "a window of no publishes carries nothing".to_owned());
    let sent = frames("concurrent", 500);
    let publishing = async {
        let mut rest = sent.iter();
        let mut unresolved = JoinSet::new();
        loop {
            for frame in rest.by_ref().take(window - unresolved.len()) {
                let (transport, frame) = (Arc::clone(&from.transport), frame.clone());
                unresolved.spawn(async move { transport.publish(Destination::Everyone, frame).await });
            }
            match from.bounded("a publish", unresolved.join_next()).await {
                Some(Ok(Ok(()))) => {}
                Some(outcome) => fail(clause, &format!("a publish failed: {outcome:?}")),
                None => break,
            }
        }
    };
    tokio::join!(publishing, listener.expect(&sent));
    close(&all).await;
}

pub(super) async fn what_is_published_after_subscribing_arrives<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "what is published after subscribing arrives";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    // Nothing is received until the last round: each subscription takes over what the one before left.
    let mut sent = Vec::new();
    for round in 0..5 {
        let listener = to.subscribe().await;
        let frames = frames(&format!("round {round}"), 3);
        from.broadcast(&frames).await;
        sent.extend(frames);
        drop(listener);
    }
    to.subscribe().await.expect(&sent).await;
    close(&all).await;
}

pub(super) async fn frames_to_nobody_are_unroutable<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "frames to nobody are unroutable";
    let all = ends(fresh, clause, [node("us-east", "a"), node("ap-south", "a")]).await;
    let [from, to] = &all;
    let mut listener = to.subscribe().await;
    let absent = node("eu-central", "absent");
    let frame = Bytes::from_static(b"for nobody");
    for nobody in [Destination::Region(absent.region().clone()), Destination::Node(absent)] {
        let outcome = from.try_publish(nobody.clone(), &frame).await;
        let said = matches!(&outcome, Err(TransportError::Unroutable { to }) if *to == nobody);
        check(clause, said, || format!("publishing to {nobody:?} gave {outcome:?}"));
    }
    // The refusal harmed nothing else.
    let next = Bytes::from_static(b"for somebody");
    from.publish(Destination::Node(to.node.clone()), &next).await;
    listener.expect(&[next]).await;
    close(&all).await;
}

pub(super) async fn caches_do_not_hear_each_other<F>(fresh: &F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let clause = "caches do not hear each other";
    // The same nodes twice: the caches alone differ.
    let nodes = || [node("us-east", "a"), node("ap-south", "a")];
    let (one, other) = (ends(fresh, clause, nodes()).await, ends(fresh, clause, nodes()).await);
    let mut foreign = other[1].subscribe().await;
    let mut own = one[1].subscribe().await;
    let sent = frames("within one cache", 3);
    one[0].broadcast(&sent).await;
    one[0].publish(Destination::Node(one[1].node.clone()), &sent[0]).await;
    own.expect(&sent).await;
    let marker = Bytes::from_static(b"within the other cache");
    other[0].publish(Destination::Everyone, &marker).await;
    got_only(&mut foreign, &marker, &sent).await;
    own.expect_none_of(&[marker]).await;
    close(&one).await;
    close(&other).await;
}
