//! What a mirrored client does by itself: probes, resyncs, filling. The tasks end with the last handle.

use std::{future::Future, sync::Arc, time::Instant};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{books::FALLBACK, shared::Shared};

/// Starts the tasks: for each place one that probes it, and as many that bring places up to date.
pub(super) fn start(shared: &Arc<Shared>, ended: &watch::Receiver<()>) {
    for place in 0..shared.places.len() {
        spawn(ended, probes(Arc::clone(shared), place));
        if place > FALLBACK {
            spawn(ended, backup(Arc::clone(shared), place));
        }
    }
    spawn(ended, sides(Arc::clone(shared)));
    spawn(ended, fills(Arc::clone(shared)));
}

fn spawn(ended: &watch::Receiver<()>, task: impl Future<Output = ()> + Send + 'static) {
    let mut ended = ended.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            // Nothing is ever sent: it resolves when the last handle is gone.
            _ = ended.changed() => {}
        }
    });
}

/// Probes a place, one question at a time.
async fn probes(shared: Arc<Shared>, place: usize) {
    loop {
        sleep(shared.settings.probe_every).await;
        shared.probe(place).await;
    }
}

/// Brings the sides up to date, as the failover asks for it.
async fn sides(shared: Arc<Shared>) {
    let mut stirs = shared.stirs();
    loop {
        stirs.mark_unchanged();
        if let Some(job) = shared.act(|books, now| books.begin_side(now)) {
            shared.resync(job).await;
            continue;
        }
        let wake = shared.act(|books, now| books.failover.wake_at(now));
        wait(&mut stirs, wake).await;
    }
}

/// Brings a backup up to date.
async fn backup(shared: Arc<Shared>, place: usize) {
    let mut stirs = shared.stirs();
    loop {
        stirs.mark_unchanged();
        if let Some(job) = shared.act(|books, now| books.begin_backup(place, now)) {
            shared.resync(job).await;
            continue;
        }
        let wake = shared.act(|books, now| books.retry_at(place).filter(|at| *at > now));
        wait(&mut stirs, wake).await;
    }
}

/// Fills the leader where it lacks something.
async fn fills(shared: Arc<Shared>) {
    let mut stirs = shared.stirs();
    loop {
        stirs.mark_unchanged();
        if let Some(fill) = shared.act(|books, now| books.begin_fill(now)) {
            shared.fill(fill).await;
            continue;
        }
        let wake = shared.act(|books, now| books.fill_retry_at().filter(|at| *at > now));
        wait(&mut stirs, wake).await;
    }
}

async fn wait(stirs: &mut watch::Receiver<u64>, wake: Option<Instant>) {
    let timer = async {
        match wake {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stirs.changed() => {}
        () = timer => {}
    }
}
