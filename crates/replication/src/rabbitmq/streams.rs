//! The streams of [`Profile::Stream`]: which are read, from where, and what happens at their ends.
//!
//! Each region's frames for everyone are in one stream, which outlives the nodes. A node reads the streams of its own
//! region and of all it hears of ([`hello`](super::hello)), each by a consumer of its own, and keeps its place in each in
//! memory ([`Trail`]).
//!
//! **Where it begins.** At the end of a stream in a new life, since state transfer brings what was before, and since frames
//! of its former self would look like a second process of its name. Behind the last frame that it handled after a loss: it
//! asks for that very frame, whose arrival proves that the stream is still the one in which the place was taken. A stream
//! that was deleted and begun anew would otherwise stay silent until it had grown as long as the old one. A stream that it
//! hears of late is read from the time at which it last knew all regions, by the broker's clock; where the clocks of
//! broker and node differ by more than [`SKEW`], the replica protocol repairs what was missed.
//!
//! **Where it ends.** A stream that an operator deletes is declared again for as long as its region is heard of, and
//! forgotten after that.
//!
//! **What is sick alone stays alone.** Each stream is begun, proven and asserted beside the others ([`reading`](super::reading),
//! [`assertion`]), and what fails there fails that stream, which is tried again ([`Setbacks`]); the connection is lost only
//! when it is, or once when another broker may do better. The one exception is the permission to read the own region's
//! stream: without it this node is configured wrongly, and says so.
//!
//! **Ahead.** The frames that may wait here are shared over all streams and the queue. A consumer keeps the share with which
//! it began, until that is more than twice what it would get now.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use geo::RegionId;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, info, warn};

pub(super) use super::reading::{declare, offset};
use super::{
    Shared,
    acks::Acks,
    assertion,
    config::Profile,
    connection::{Blame, Failure, limited},
    consumer::acknowledge,
    feed::Feed,
    hello::{self, Hello},
    permission::Step,
    reading::{Begin, Begun, wall_secs},
    regions::{News, REGIONS_MAX, Regions},
    setback::{LASTED, Setbacks},
    topology::{HELLO_EVERYONE, short},
    trail::{Position, Trail},
    vigil::Vigil,
};

/// How far the clocks of broker and node may be apart where a stream is read by time.
const SKEW: Duration = Duration::from_secs(5);

/// Who listened for so long without a break has heard of every region that there is.
const HEARD_ALL: Duration = Duration::from_secs(2 * hello::EVERY.as_secs());

/// A consumer that ended, or whose frame was dropped unhandled, begins again at most this often.
const AGAIN: Duration = Duration::from_secs(1);

/// Of regions beyond the bound is told at most this often.
const TELL_TOO_MANY: Duration = Duration::from_secs(60);

/// How many hellos wait at the broker, and how many here.
const HELLOS_QUEUED_MAX: i64 = 1_000;
const HELLOS_PREFETCH: u16 = 64;

/// The streams that one node reads.
pub(super) struct Streams {
    shared: Arc<Shared>,
    regions: Regions,
    sources: BTreeMap<RegionId, Source>,
    /// Told of every change in the sources' acknowledgements.
    wake: Arc<Notify>,
    hellos: Option<Hellos>,
    /// What goes on at the broker on the present connection: for each stream at most one beginning and one assertion, and
    /// for the hellos one of either.
    tasks: FuturesUnordered<Task>,
    is_listening: bool,
    asserting: usize,
    attempts: u64,
    /// Until when this node knew of all regions, in seconds since 1970.
    known_to: u64,
    /// Somebody reads the streams, or read them before.
    is_read: bool,
    told_too_many: Option<Instant>,
}

type Task = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What a task ended with.
enum Done {
    Begun {
        region: RegionId,
        attempt: u64,
        outcome: Result<Option<Begun>, Failure>,
    },
    Listening(Result<Hellos, Failure>),
    /// The stream's consumer was told, where it failed.
    Asserted,
    AssertedHellos(Result<(), Failure>),
    Closed,
}

/// One region's stream.
struct Source {
    place: Place,
    attempt: Option<Attempt>,
    setbacks: Setbacks,
    vigil: Vigil,
}

enum Place {
    /// Where to begin.
    At(Position),
    /// Where this consumer was, which is gone, though what it had handed out may still be handled.
    Behind(Arc<Acks>),
    Reading(Box<Active>),
}

struct Active {
    begun: Begun,
    since: Instant,
}

/// A beginning that is under way.
struct Attempt {
    number: u64,
    /// When it began, in seconds since 1970.
    at: u64,
}

/// The queue of hellos on the present connection.
struct Hellos {
    channel: Channel,
    queue: String,
    stream: lapin::Consumer,
    since: Instant,
}

/// What happened.
pub(super) enum Event {
    Heard(Hello),
    /// Acknowledgements are to be told.
    Settled,
    /// A stream is read from now on.
    Begun,
    /// The connection is of no use.
    Failed(Failure),
}

impl Source {
    fn new(position: Position, shared: &Shared) -> Self {
        let (setbacks, vigil) = (Setbacks::new(shared.backoff()), Vigil::new(Instant::now().into_std()));
        Self { place: Place::At(position), attempt: None, setbacks, vigil }
    }

    fn position(&self) -> Position {
        let acks = match &self.place {
            Place::At(position) => return *position,
            Place::Behind(acks) => acks,
            Place::Reading(active) => &active.begun.feed.acks,
        };
        acks.trail().map_or(Position::Next, Trail::position)
    }

    fn active(&self) -> Option<&Active> {
        if let Place::Reading(active) = &self.place { Some(active) } else { None }
    }

    /// Ends the consumer, which its channel outlives, or what would become one.
    fn end(&mut self) -> Option<Channel> {
        if let Some(Attempt { at, .. }) = self.attempt.take()
            && matches!(self.place, Place::At(Position::Next))
        {
            // The end of the stream has moved on since then.
            self.place = Place::At(Position::Since(at));
        }
        let active = self.active()?;
        let (channel, acks) = (active.begun.channel.clone(), active.begun.feed.acks.clone());
        self.place = Place::Behind(acks);
        Some(channel)
    }

    /// It could not be read, and is tried again.
    fn failed(&mut self, region: &RegionId, reason: &str, shared: &Shared) {
        self.end();
        shared.counters.stream_failures.add(1);
        if self.setbacks.failed(reason, Instant::now().into_std()) {
            warn!(%region, reason, "a region's stream cannot be read, the others are");
        } else {
            debug!(%region, reason, "a region's stream still cannot be read");
        }
    }
}

impl Streams {
    /// The streams of the configured profile, if it has any.
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        if shared.topology.profile() != Profile::Stream {
            return None;
        }
        let own = shared.config.node.region().clone();
        Some(Self {
            shared: shared.clone(),
            regions: Regions::new(own.clone(), Instant::now().into_std()),
            sources: BTreeMap::from([(own, Source::new(Position::Next, shared))]),
            wake: Arc::default(),
            hellos: None,
            tasks: FuturesUnordered::new(),
            is_listening: false,
            asserting: 0,
            attempts: 0,
            known_to: wall_secs(),
            is_read: false,
            told_too_many: None,
        })
    }

    /// Listens for the regions on this connection, and asks who is there.
    pub(super) fn listen(&mut self, connection: &Arc<Connection>) {
        self.is_listening = true;
        let (shared, connection) = (self.shared.clone(), connection.clone());
        self.tasks.push(Box::pin(async move { Done::Listening(listen(&shared, &connection).await) }));
    }

    /// How many consumers share the frames that may wait here: the streams' and the queue's.
    pub(super) fn consumers(&self) -> usize {
        self.sources.len() + 1
    }

    /// What happens next.
    ///
    /// # Cancel safety
    /// Safe but for a hello that is being acknowledged, which then comes again or is said again.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.tasks.next() => match self.done(done) {
                    Ok(true) => return Event::Begun,
                    Ok(false) => {}
                    Err(failure) => return Event::Failed(failure),
                },
                heard = heard(&mut self.hellos) => match heard {
                    Some(delivery) => {
                        let hello = Hello::read(&delivery.properties);
                        if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
                            debug!(%error, "acknowledging a hello");
                        }
                        if let Some(hello) = hello {
                            return Event::Heard(hello);
                        }
                    }
                    // Listened for again at the next look.
                    None => self.hellos = None,
                },
                // Last, so that a steady flow of frames cannot hide the rest.
                () = self.wake.notified() => return Event::Settled,
            }
        }
    }

    /// Takes in what a task ended with; `true` if a stream is read from now on.
    fn done(&mut self, done: Done) -> Result<bool, Failure> {
        match done {
            Done::Closed => {}
            Done::Asserted => self.asserting -= 1,
            Done::AssertedHellos(outcome) => {
                self.asserting -= 1;
                if let Err(failure) = outcome {
                    debug!(reason = failure.reason, "binding the queue of hellos again");
                    self.hellos = None;
                }
            }
            Done::Listening(outcome) => {
                self.is_listening = false;
                self.hellos = Some(outcome?);
                self.shared.greetings.announce(true);
            }
            Done::Begun { region, attempt, outcome } => return self.begun(&region, attempt, outcome),
        }
        Ok(false)
    }

    fn begun(
        &mut self,
        region: &RegionId,
        attempt: u64,
        outcome: Result<Option<Begun>, Failure>,
    ) -> Result<bool, Failure> {
        let Some(source) = self.sources.get_mut(region) else { return Ok(false) };
        if source.attempt.as_ref().is_none_or(|current| current.number != attempt) {
            // It was given up meanwhile; its channel closes here.
            return Ok(false);
        }
        match outcome {
            Ok(Some(begun)) => {
                source.attempt = None;
                source.vigil = Vigil::new(Instant::now().into_std());
                source.place = Place::Reading(Box::new(Active { begun, since: Instant::now() }));
                Ok(true)
            }
            Ok(None) => {
                info!(%region, "the region is silent and its stream is gone: it was given up");
                self.sources.remove(region);
                self.regions.forget(region);
                Ok(false)
            }
            Err(failure) => {
                let is_forbidden = matches!(failure.blame, Blame::Refused(AMQPSoftError::ACCESSREFUSED));
                source.failed(region, &failure.reason, &self.shared);
                if is_forbidden && region == self.shared.config.node.region() {
                    Err(failure)
                } else {
                    Ok(false)
                }
            }
        }
    }

    /// Takes a hello in; `true` if a stream is to be read from now on, or no more.
    pub(super) fn hear(&mut self, hello: &Hello) -> bool {
        if hello.node == self.shared.config.node {
            return false;
        }
        if hello.ask && !self.shared.greetings.answer(hello.node.clone()) {
            debug!(node = %hello.node, "too many ask at once, this one hears of the region later");
        }
        let region = hello.node.region();
        match self.regions.hear(region, Instant::now().into_std()) {
            News::Known => false,
            News::New { gives_way } => {
                if let Some(silent) = gives_way {
                    info!(region = %silent, "the region is silent, its stream gives way to another");
                    self.sources.remove(&silent);
                }
                info!(%region, "heard of a region");
                let position = if self.is_read { self.since_known() } else { Position::Next };
                self.sources.insert(region.clone(), Source::new(position, &self.shared));
                true
            }
            News::TooMany => {
                self.shared.counters.regions_refused.add(1);
                if self.told_too_many.is_none_or(|told| told.elapsed() >= TELL_TOO_MANY) {
                    self.told_too_many = Some(Instant::now());
                    warn!(%region, "the streams of {REGIONS_MAX} regions are read already, this one's is not");
                }
                false
            }
        }
    }

    /// Begins to read every stream that is not read yet and may be tried.
    pub(super) fn begin(&mut self, connection: &Arc<Connection>) {
        if !self.is_read {
            self.is_read = true;
            self.known_to = wall_secs();
        }
        let now = Instant::now().into_std();
        let ahead = self.shared.config.frames_ahead_each(self.consumers());
        let otherwise = self.since_known();
        for (region, source) in &mut self.sources {
            if source.active().is_some() || source.attempt.is_some() || !source.setbacks.is_due(now) {
                continue;
            }
            self.attempts += 1;
            let attempt = self.attempts;
            source.attempt = Some(Attempt { number: attempt, at: wall_secs() });
            let begin = Begin {
                shared: self.shared.clone(),
                connection: connection.clone(),
                region: region.clone(),
                is_silent: self.regions.is_silent(region, now),
                otherwise,
                wake: self.wake.clone(),
                position: source.position(),
                ahead,
            };
            let region = region.clone();
            self.tasks
                .push(Box::pin(async move { Done::Begun { region, attempt, outcome: begin.run().await } }));
        }
    }

    /// Waits for what was begun, so that a frame published from now on is received: to a limit, after which the streams that
    /// are still missing are read from now on as soon as they can be.
    pub(super) async fn first_begun(&mut self) -> Result<(), Failure> {
        let limit = self.shared.config.operation_timeout;
        let deadline = Instant::now() + limit;
        while self.sources.values().any(|source| source.attempt.is_some()) {
            match timeout_at(deadline, self.tasks.next()).await {
                Ok(Some(done)) => {
                    self.done(done)?;
                }
                Ok(None) => break,
                Err(_) => {
                    let reason = format!("not read within {limit:?}");
                    let late = self.sources.iter_mut().filter(|(_, source)| {
                        source.attempt.is_some() && matches!(source.place, Place::At(Position::Next))
                    });
                    late.for_each(|(region, source)| source.failed(region, &reason, &self.shared));
                    break;
                }
            }
        }
        Ok(())
    }

    /// The consumers of the streams that are read.
    pub(super) fn feeds(&self) -> impl Iterator<Item = Feed> {
        self.sources.values().filter_map(|source| source.active().map(|active| active.begun.feed.clone()))
    }

    /// Tells the broker what was handled. A channel that does not take it any more ends its own consumer alone.
    pub(super) async fn tell(&mut self) {
        for active in self.sources.values().filter_map(Source::active) {
            let Begun { channel, feed, .. } = &active.begun;
            if feed.acks.ended().is_none() {
                let told = acknowledge(channel, &feed.acks, &self.shared.counters);
                let told = limited(self.shared.config.operation_timeout, "acknowledge", told).await;
                told.unwrap_or_else(|failure| feed.acks.end(failure.reason));
            }
        }
    }

    /// Ends the consumers that the broker ended, that fell silent, that have too large a share or of which a frame was given
    /// back, to begin again. Listens for hellos again where their queue is gone.
    ///
    /// # Errors
    /// A stream has failed for so long that another connection is to be tried.
    pub(super) fn look(&mut self, connection: &Arc<Connection>) -> Result<(), Failure> {
        let now = Instant::now().into_std();
        let share = self.shared.config.frames_ahead_each(self.consumers());
        let mut ended = Vec::new();
        for (region, source) in &mut self.sources {
            let is_out = source.active().is_none() && source.attempt.is_none();
            if is_out && let Some(reason) = source.setbacks.goes_elsewhere(now) {
                let reason = format!("the stream of {region} cannot be read there: {reason}");
                return Err(Failure { blame: Blame::Stuck, step: None, reason });
            }
            let Some(active) = source.active() else { continue };
            let (lasted, acks) = (active.since.elapsed(), active.begun.feed.acks.clone());
            let is_large = active.begun.ahead > share.saturating_mul(2);
            if lasted < AGAIN {
                continue;
            }
            if let Some(reason) = acks.ended() {
                self.shared.counters.consumer_cancels.add(1);
                ended.extend(source.end());
                source.failed(region, &format!("its consumer ended: {reason}"), &self.shared);
                continue;
            }
            if lasted >= LASTED {
                source.setbacks.lasted();
            }
            let is_heard = !self.regions.is_silent(region, now);
            let is_dead = source.vigil.is_dead(acks.trail().and_then(Trail::next), is_heard, now);
            if is_dead {
                self.shared.counters.stream_silences.add(1);
                debug!(%region, "no frame of a region that is there, its stream is read again");
            }
            if is_dead || is_large || acks.trail().is_some_and(Trail::is_broken) {
                ended.extend(source.end());
            }
        }
        if !ended.is_empty() {
            let goodbye = goodbye(ended, self.shared.config.operation_timeout);
            self.tasks.push(Box::pin(async move {
                goodbye.await;
                Done::Closed
            }));
        }
        if self.hellos.is_none() && !self.is_listening {
            self.listen(connection);
        }
        if self.hellos.as_ref().is_some_and(|hellos| hellos.since.elapsed() >= HEARD_ALL) {
            // As the clock says now: one that was ahead once does not keep it in the future.
            self.known_to = wall_secs();
        }
        Ok(())
    }

    /// Declares streams and bindings again, as the queue's are: they vanish without a word with the exchange. Each on its own
    /// consumer's channel, so that a refusal ends that one alone; unless the last time is still under way.
    pub(super) fn assert(&mut self) {
        if self.asserting > 0 {
            return;
        }
        let now = Instant::now().into_std();
        for (region, source) in &self.sources {
            let Some(active) = source.active() else { continue };
            if self.regions.is_silent(region, now) {
                continue;
            }
            let Begun { channel, feed, is_other, .. } = &active.begun;
            let asserted = assertion::of_stream(&self.shared, channel, region, *is_other);
            let acks = feed.acks.clone();
            self.asserting += 1;
            self.tasks.push(Box::pin(async move {
                asserted.await.unwrap_or_else(|failure| acks.end(failure.reason));
                Done::Asserted
            }));
        }
        if let Some(hellos) = &self.hellos {
            let keys = hello_keys(&self.shared);
            let asserted = assertion::of_bindings(&self.shared, &hellos.channel, &hellos.queue, keys);
            self.asserting += 1;
            self.tasks.push(Box::pin(async move { Done::AssertedHellos(asserted.await) }));
        }
    }

    /// Ends all consumers, keeping the places.
    pub(super) async fn stop(&mut self) {
        let ended = self.sources.values_mut().filter_map(Source::end).collect();
        goodbye(ended, self.shared.config.operation_timeout).await;
    }

    /// The connection is gone, and all channels with it.
    pub(super) fn lost(&mut self) {
        self.hellos = None;
        self.tasks = FuturesUnordered::new();
        (self.is_listening, self.asserting) = (false, 0);
        for source in self.sources.values_mut() {
            drop(source.end());
            source.setbacks.renewed();
        }
    }

    fn since_known(&self) -> Position {
        Position::Since(self.known_to.saturating_sub(SKEW.as_secs()))
    }
}

/// Makes the queue of hellos and listens on it.
async fn listen(shared: &Arc<Shared>, connection: &Connection) -> Result<Hellos, Failure> {
    let limit = shared.config.operation_timeout;
    // A name of its own for each connection: the broker may still hold the one before for alive.
    let queue = shared.topology.hello_queue(&shared.topology.queue(fastrand::u64(..)));
    let declare = async {
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(HELLOS_QUEUED_MAX));
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        channel.queue_declare(short(&queue), options, arguments).await?;
        Ok(channel)
    };
    let declared = limited(limit, "declare the queue of hellos", declare).await;
    let channel = declared.map_err(|failure| failure.at(Step::Declare))?;
    let consume = async {
        channel.basic_qos(HELLOS_PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(short(&queue), short(""), options, FieldTable::default()).await
    };
    let consumed = limited(limit, "listen for regions", consume).await;
    let stream = consumed.map_err(|failure| failure.at(Step::Consume))?;
    assertion::of_bindings(shared, &channel, &queue, hello_keys(shared)).await?;
    Ok(Hellos { channel, queue, stream, since: Instant::now() })
}

fn hello_keys(shared: &Shared) -> Vec<String> {
    vec![HELLO_EVERYONE.to_owned(), shared.topology.hello_key(&shared.config.node)]
}

async fn goodbye(channels: Vec<Channel>, limit: Duration) {
    let goodbyes = join_all(channels.iter().map(|channel| channel.close(200, short("OK"))));
    match timeout(limit, goodbyes).await {
        Ok(closed) => closed.into_iter().filter_map(Result::err).for_each(|error| {
            debug!(%error, "closing a stream's channel");
        }),
        Err(_) => debug!("closing the streams' channels takes too long"),
    }
}

/// Resolves with the next message on the queue of hellos, or `None` when the queue is gone.
async fn heard(hellos: &mut Option<Hellos>) -> Option<Delivery> {
    match hellos {
        Some(hellos) => hellos.stream.next().await?.ok(),
        None => std::future::pending().await,
    }
}
