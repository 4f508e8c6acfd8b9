//! The node's task: one loop that wakes for what arrived, what was answered, what was asked, and time.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use resilience::Backoff;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    Close, Closed, SUBSCRIBE_WAIT,
    client::Request,
    leases::Release,
    now,
    waits::Waits,
    window::{Answered, Kind, Window},
};
use crate::{
    replica::{Claim, Failure, Outbox, Replica, Status, Store},
    stamp::Hlc,
    transport::{Delivery, Destination, Health, Subscription, Transport, TransportError},
};

/// How often time passes for the replica.
const TICK: Duration = Duration::from_millis(25);
/// The first and the longest wait before a subscription that ended is opened again.
const REOPEN_WAIT: Duration = Duration::from_millis(50);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long closing the transport may take after the drain.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Requests that are looked at in one turn.
const REQUESTS_PER_TURN: usize = 64;

pub(super) struct Driver<S> {
    pub(super) replica: Replica<S>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) window: Window,
    /// The replica's claim after the last frame.
    pub(super) claim: Claim,
    pub(super) waits: Waits,
    /// The epochs of this process, the present one last.
    pub(super) lives: Vec<u64>,
    pub(super) status: watch::Sender<Status>,
}

/// Resolves when the caller of a close that is under way went away.
async fn given_up(closing: &mut Option<Close>) {
    match closing {
        Some(close) => close.done.closed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The receiving side: open, or being opened again.
enum Receiving {
    Open(Box<dyn Subscription>),
    Opening(BoxFuture<'static, Result<Box<dyn Subscription>, TransportError>>),
}

/// What woke the task.
enum Event {
    Delivered(Option<Delivery>),
    Opened(Result<Box<dyn Subscription>, TransportError>),
    Answered(Answered),
    Asked,
    Released(Release),
    Written,
    HealthChanged,
    Ticked,
    Due,
    Close(Option<Close>),
}

impl<S: Store> Driver<S> {
    pub(super) async fn run(
        mut self,
        subscription: Option<Box<dyn Subscription>>,
        mut commands: mpsc::Receiver<Close>,
        mut requests: mpsc::Receiver<Request>,
        mut releases: mpsc::UnboundedReceiver<Release>,
    ) {
        let mut backoff = Backoff::new(REOPEN_WAIT, REOPEN_WAIT_MAX);
        let mut receiving = match subscription {
            Some(subscription) => Receiving::Open(subscription),
            None => self.reopen(&mut backoff),
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<Close> = None;
        let mut asked = Vec::with_capacity(REQUESTS_PER_TURN);
        loop {
            let connected = self.note_health();
            if connected {
                self.fill_window();
            }
            if let Some(close) =
                closing.take_if(|close| self.is_drained() || Instant::now() >= close.deadline)
            {
                return self.end(close).await;
            }
            let instant = Instant::now();
            let has_room = connected && self.window.has_room(instant);
            let due = [self.waits.deadline(), self.window.pause(instant).filter(|_| connected)];
            let event = tokio::select! {
                event = receiving.next() => event,
                answered = self.window.next() => Event::Answered(answered),
                1.. = requests.recv_many(&mut asked, REQUESTS_PER_TURN) => Event::Asked,
                Some(release) = releases.recv() => Event::Released(release),
                () = self.outbox.filled(), if has_room => Event::Written,
                Ok(()) = self.health.changed() => Event::HealthChanged,
                _ = ticks.tick() => Event::Ticked,
                () = sleep_until(due.into_iter().flatten().min()) => Event::Due,
                close = commands.recv(), if closing.is_none() => Event::Close(close),
                // Whoever closed the node does not wait for it any more.
                () = given_up(&mut closing) => Event::Close(None),
            };
            match event {
                Event::Delivered(Some(delivery)) => {
                    backoff.reset();
                    match self.replica.handle(now(), delivery.frame) {
                        None => delivery.ack.done(),
                        Some(fault) => delivery.ack.reject(fault.to_string()),
                    }
                    self.note_life();
                    self.note_fetched();
                    self.note_leased();
                    self.answer_waiters();
                }
                Event::Delivered(None) => receiving = self.reopen(&mut backoff),
                Event::Opened(Ok(subscription)) => receiving = Receiving::Open(subscription),
                Event::Opened(Err(error)) => {
                    self.note_end(&error);
                    receiving = self.reopen(&mut backoff);
                }
                Event::Answered(answered) => {
                    if let Err(error) = self.window.settle(answered) {
                        self.note_end(&error);
                    }
                    self.answer_waiters();
                }
                Event::Asked => asked.drain(..).for_each(|request| self.take_in(request)),
                Event::Released(release) => self.note_release(release),
                Event::Ticked => {
                    self.replica.tick(now());
                    self.note_life();
                    self.note_leased();
                    self.forget_abandoned();
                    self.answer_waiters();
                    self.show_status();
                }
                Event::Due => self.answer_late(),
                Event::Written | Event::HealthChanged => {}
                Event::Close(Some(close)) => {
                    // What holders said before is said of their leases.
                    while let Ok(release) = releases.try_recv() {
                        self.note_release(release);
                    }
                    self.end_leases();
                    closing = Some(close);
                }
                Event::Close(None) => {
                    let (done, _) = oneshot::channel();
                    return self.end(Close { deadline: Instant::now(), done }).await;
                }
            }
            self.ask_peers();
        }
    }

    /// Whether something may be published. A transport that somebody else closed carries nothing again.
    fn note_health(&mut self) -> bool {
        let health = self.health.borrow_and_update();
        let (is_closed, connected) = (*health == Health::Closed, health.can_publish());
        drop(health);
        if is_closed {
            self.note_end(&TransportError::Closed);
        }
        connected && self.replica.failure().is_none()
    }

    fn is_drained(&self) -> bool {
        if self.replica.failure().is_some() {
            return self.window.flying() == 0; // Nothing more is sent.
        }
        self.window.unconfirmed() == 0 && !self.replica.has_unsent()
    }

    /// Publishes while there is room: first what has to go again, then what the replica has.
    fn fill_window(&mut self) {
        while self.window.has_room(Instant::now()) {
            if self.window.publish_again() {
                continue;
            }
            let Some((to, frame)) = self.replica.poll(now()) else { return };
            // A poll may begin another life, whose claim is not news of records.
            self.note_life();
            let claim = self.replica.claim();
            let kind = match to {
                Destination::Everyone if self.claim != claim => Kind::Records(claim),
                Destination::Everyone => Kind::Beat,
                _ => Kind::Message,
            };
            self.claim = claim;
            self.window.publish(kind, to, frame);
        }
    }

    /// Opens the subscription again after a wait, which grows until a frame is delivered.
    fn reopen(&self, backoff: &mut Backoff) -> Receiving {
        let wait = backoff.next().unwrap_or(REOPEN_WAIT_MAX);
        let transport = Arc::clone(&self.transport);
        Receiving::Opening(Box::pin(async move {
            tokio::time::sleep(wait).await;
            let subscribing = tokio::time::timeout(SUBSCRIBE_WAIT, transport.subscribe()).await;
            subscribing.unwrap_or_else(|_| {
                Err(TransportError::Unavailable {
                    reason: format!("no answer to a subscribe within {SUBSCRIBE_WAIT:?}"),
                })
            })
        }))
    }

    /// Call it after whatever may begin another life. One that was overtaken sends nothing more; what it had not sent yet
    /// is not published.
    fn note_life(&mut self) {
        let epoch = self.replica.stream().epoch;
        if self.lives.last() != Some(&epoch) {
            self.lives.push(epoch);
            self.claim = self.replica.claim();
            self.window.confirms.begin_life(Hlc(epoch));
        }
    }

    fn note_end(&mut self, error: &TransportError) {
        match error {
            TransportError::Fatal { reason } => {
                self.replica.fail(Failure::Transport { reason: reason.clone() });
            }
            TransportError::Closed => {
                let reason = "the transport was closed while the node was running; start the node anew";
                self.replica.fail(Failure::Transport { reason: reason.to_owned() });
            }
            _ => {}
        }
    }

    fn show_status(&self) {
        let mut status = self.replica.status(now());
        let counters = &mut status.counters;
        counters.publishes_refused = self.window.refused;
        counters.publishes_retried = self.window.retried;
        counters.beats_dropped = self.window.beats_dropped;
        counters.waits_refused = self.waits.refused;
        self.status.send_replace(status);
    }

    async fn end(mut self, close: Close) {
        for (token, question) in self.waits.waiters.take_all() {
            self.answer(token, question);
        }
        self.waits.fetches.end();
        self.waits.leases.end();
        let unconfirmed_frames = self.window.unconfirmed();
        let unsent_records = self.outbox.stats().records;
        match tokio::time::timeout(CLOSE_WAIT, self.transport.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the transport did not end cleanly"),
            Err(_) => tracing::warn!("the transport did not end within {CLOSE_WAIT:?}"),
        }
        self.show_status();
        // Nobody listens where the handle was dropped.
        let _ = close.done.send(Closed { unsent_records, unconfirmed_frames });
    }
}

impl Receiving {
    async fn next(&mut self) -> Event {
        match self {
            Self::Open(subscription) => Event::Delivered(subscription.next().await),
            Self::Opening(opening) => Event::Opened(opening.await),
        }
    }
}
