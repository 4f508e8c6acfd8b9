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

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, future::join_all};
use geo::RegionId;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Shared,
    acks::Acks,
    config::Profile,
    connection::{Blame, Failure, limited, text},
    consumer::acknowledge,
    feed::Feed,
    hello::{self, Hello},
    regions::{News, REGIONS_MAX, Regions},
    topology::{HELLO_EVERYONE, Topology, short},
    trail::{Position, Trail},
};
use crate::node::NodeId;

/// How far the clocks of broker and node may be apart where a stream is read by time.
const SKEW: Duration = Duration::from_secs(5);

/// Who listened for so long without a break has heard of every region that there is.
const HEARD_ALL: Duration = Duration::from_secs(2 * hello::EVERY.as_secs());

/// A consumer that ended, or whose frame was dropped unhandled, begins again at most this often.
const AGAIN: Duration = Duration::from_secs(1);

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
    /// Until when this node knew of all regions, in seconds since 1970.
    known_to: u64,
    /// Somebody reads the streams, or read them before.
    is_read: bool,
}

/// One region's stream.
struct Source {
    place: Place,
    /// The stream has other bounds than those configured.
    is_other: bool,
}

enum Place {
    /// Where to begin.
    At(Position),
    /// Where this consumer was, which is gone, though what it had handed out may still be handled.
    Behind(Arc<Acks>),
    Reading(Box<Active>),
}

struct Active {
    channel: Channel,
    feed: Feed,
    since: Instant,
}

/// The queue of hellos on the present connection.
struct Hellos {
    channel: Channel,
    queue: String,
    stream: lapin::Consumer,
    since: Instant,
}

impl Hellos {
    async fn bind(&self, topology: &Topology, node: &NodeId) -> lapin::Result<()> {
        for key in [HELLO_EVERYONE, &topology.hello_key(node)] {
            let (queue, exchange) = (short(&self.queue), short(&topology.exchange));
            let options = QueueBindOptions::default();
            self.channel.queue_bind(queue, exchange, short(key), options, FieldTable::default()).await?;
        }
        Ok(())
    }
}

/// What happened.
pub(super) enum Event {
    Heard(Hello),
    /// Acknowledgements are to be told.
    Settled,
}

impl Source {
    fn new(position: Position) -> Self {
        Self { place: Place::At(position), is_other: false }
    }

    fn position(&self) -> Position {
        let acks = match &self.place {
            Place::At(position) => return *position,
            Place::Behind(acks) => acks,
            Place::Reading(active) => &active.feed.acks,
        };
        acks.trail().map_or(Position::Next, Trail::position)
    }

    fn active(&self) -> Option<&Active> {
        if let Place::Reading(active) = &self.place { Some(active) } else { None }
    }

    /// Ends the consumer, which its channel outlives.
    fn end(&mut self) -> Option<Channel> {
        let active = self.active()?;
        let (channel, acks) = (active.channel.clone(), active.feed.acks.clone());
        self.place = Place::Behind(acks);
        Some(channel)
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
            sources: BTreeMap::from([(own, Source::new(Position::Next))]),
            wake: Arc::default(),
            hellos: None,
            known_to: wall_secs(),
            is_read: false,
        })
    }

    /// Listens for the regions on this connection, and asks who is there.
    pub(super) async fn listen(&mut self, connection: &Connection) -> Result<(), Failure> {
        let topology = &self.shared.topology;
        // A name of its own for each connection: the broker may still hold the one before for alive.
        let queue = topology.hello_queue(&topology.queue(fastrand::u64(..)));
        let listen = async {
            let channel = connection.create_channel().await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
            arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(HELLOS_QUEUED_MAX));
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            channel.queue_declare(short(&queue), options, arguments).await?;
            channel.basic_qos(HELLOS_PREFETCH, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let stream =
                channel.basic_consume(short(&queue), short(""), options, FieldTable::default()).await?;
            let hellos = Hellos { channel, queue, stream, since: Instant::now() };
            hellos.bind(topology, &self.shared.config.node).await?;
            Ok(hellos)
        };
        self.hellos =
            Some(limited(self.shared.config.operation_timeout, "listen for regions", listen).await?);
        self.shared.greetings.announce(true);
        Ok(())
    }

    /// What happens next.
    ///
    /// # Cancel safety
    /// Safe but for a hello that is being acknowledged, which then comes again or is said again.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                () = self.wake.notified() => return Event::Settled,
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
                self.sources.insert(region.clone(), Source::new(position));
                true
            }
            News::TooMany => {
                self.shared.counters.regions_refused.add(1);
                warn!(%region, "the streams of {REGIONS_MAX} regions are read already, this one's is not");
                false
            }
        }
    }

    /// Begins to read every stream that is not read yet.
    pub(super) async fn begin(&mut self, connection: &Connection) -> Result<(), Failure> {
        if !self.is_read {
            self.is_read = true;
            self.known_to = wall_secs();
        }
        let now = Instant::now().into_std();
        let rest = self.sources.iter().filter(|(_, source)| source.active().is_none());
        let begins: Vec<_> = rest
            .map(|(region, source)| Begin {
                shared: &self.shared,
                connection,
                region: region.clone(),
                is_silent: self.regions.is_silent(region, now),
                otherwise: self.since_known(),
                wake: &self.wake,
                position: source.position(),
            })
            .collect();
        let begun = join_all(begins.iter().map(Begin::run)).await;
        let begun: Vec<_> = begins.into_iter().map(|begin| begin.region).zip(begun).collect();
        let mut failure = None;
        for (region, outcome) in begun {
            match outcome {
                Ok(Some((active, is_other))) => {
                    self.sources.insert(region, Source { place: Place::Reading(Box::new(active)), is_other });
                }
                Ok(None) => {
                    info!(%region, "the region is silent and its stream is gone: it was given up");
                    self.sources.remove(&region);
                    self.regions.forget(&region);
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The consumers of the streams that are read.
    pub(super) fn feeds(&self) -> impl Iterator<Item = Feed> {
        self.sources.values().filter_map(|source| source.active().map(|active| active.feed.clone()))
    }

    /// Tells the broker what was handled.
    pub(super) async fn tell(&self) -> Result<(), Failure> {
        for active in self.sources.values().filter_map(Source::active) {
            if active.feed.acks.ended().is_none() {
                let told = acknowledge(&active.channel, &active.feed.acks, &self.shared.counters);
                limited(self.shared.config.operation_timeout, "acknowledge", told).await?;
            }
        }
        Ok(())
    }

    /// Ends the consumers that the broker ended, or of which a frame was given back; `true` if there are any, which
    /// are to begin again. Listens for hellos again where their queue is gone.
    pub(super) async fn look(&mut self, connection: &Connection) -> Result<bool, Failure> {
        let mut ended = Vec::new();
        for (region, source) in &mut self.sources {
            let Some(active) = source.active() else { continue };
            let end = active.feed.acks.ended();
            let is_broken = active.feed.acks.trail().is_some_and(Trail::is_broken);
            if (end.is_none() && !is_broken) || active.since.elapsed() < AGAIN {
                continue;
            }
            if let Some(reason) = end {
                self.shared.counters.consumer_cancels.add(1);
                warn!(%region, reason, "the broker ended the consumer of a region's stream");
            }
            ended.extend(source.end());
        }
        let any = !ended.is_empty();
        self.close(ended).await;
        if self.hellos.is_none() {
            self.listen(connection).await?;
        }
        if self.hellos.as_ref().is_some_and(|hellos| hellos.since.elapsed() >= HEARD_ALL) {
            // As the clock says now: one that was ahead once does not keep it in the future.
            self.known_to = wall_secs();
        }
        Ok(any)
    }

    /// Declares streams and bindings again, as the queue's are: they vanish without a word with the exchange.
    pub(super) async fn assert(&self, channel: &Channel) -> Result<(), Failure> {
        let (topology, now) = (&self.shared.topology, Instant::now().into_std());
        let assert = async {
            for (region, source) in &self.sources {
                if self.regions.is_silent(region, now) || source.active().is_none() {
                    continue;
                }
                if source.is_other {
                    topology.find_stream(channel, region).await?;
                } else {
                    topology.declare_stream(channel, region).await?;
                }
                topology.bind_stream(channel, region).await?;
            }
            if let Some(hellos) = &self.hellos {
                hellos.bind(topology, &self.shared.config.node).await?;
            }
            Ok(())
        };
        limited(self.shared.config.operation_timeout, "declare the streams", assert).await
    }

    /// Ends all consumers, keeping the places.
    pub(super) async fn stop(&mut self) {
        let ended = self.sources.values_mut().filter_map(Source::end).collect();
        self.close(ended).await;
    }

    /// The connection is gone, and all channels with it.
    pub(super) fn lost(&mut self) {
        self.hellos = None;
        self.sources.values_mut().for_each(|source| drop(source.end()));
    }

    async fn close(&self, channels: Vec<Channel>) {
        let goodbyes = join_all(channels.iter().map(|channel| channel.close(200, short("OK"))));
        match timeout(self.shared.config.operation_timeout, goodbyes).await {
            Ok(closed) => closed.into_iter().filter_map(Result::err).for_each(|error| {
                debug!(%error, "closing a stream's channel");
            }),
            Err(_) => debug!("closing the streams' channels takes too long"),
        }
    }

    fn since_known(&self) -> Position {
        Position::Since(self.known_to.saturating_sub(SKEW.as_secs()))
    }
}

/// Resolves with the next message on the queue of hellos, or `None` when the queue is gone.
async fn heard(hellos: &mut Option<Hellos>) -> Option<Delivery> {
    match hellos {
        Some(hellos) => hellos.stream.next().await?.ok(),
        None => std::future::pending().await,
    }
}

/// A stream that was declared, and a channel to use it.
pub(super) struct Declared {
    channel: Channel,
    /// It has other bounds than those configured.
    is_other: bool,
}

/// Declares a region's stream and its binding. A stream that exists with other bounds is taken as it is. That of a region
/// that may have been given up is only looked for; `None` where it is not there.
pub(super) async fn declare(
    shared: &Shared,
    connection: &Connection,
    region: &RegionId,
    is_silent: bool,
) -> Result<Option<Declared>, Failure> {
    let (topology, limit) = (&shared.topology, shared.config.operation_timeout);
    let mut is_other = false;
    if !is_silent {
        let declare = async {
            let channel = connection.create_channel().await?;
            topology.declare_stream(&channel, region).await?;
            topology.bind_stream(&channel, region).await?;
            Ok(channel)
        };
        match limited(limit, "declare the stream", declare).await {
            Ok(channel) => return Ok(Some(Declared { channel, is_other })),
            Err(Failure { blame: Blame::Refused(AMQPSoftError::PRECONDITIONFAILED), reason, .. }) => {
                warn!(%region, reason, "the stream keeps the bounds that it was declared with first");
                is_other = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    let find = async {
        let channel = connection.create_channel().await?;
        topology.find_stream(&channel, region).await?;
        topology.bind_stream(&channel, region).await?;
        Ok(channel)
    };
    match limited(limit, "look for the stream", find).await {
        Ok(channel) => Ok(Some(Declared { channel, is_other })),
        Err(Failure { blame: Blame::Refused(AMQPSoftError::NOTFOUND), .. }) if is_silent => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// One stream that is to be read.
struct Begin<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    region: RegionId,
    is_silent: bool,
    position: Position,
    /// Where to begin in a stream that is not the one in which the position was taken.
    otherwise: Position,
    wake: &'a Arc<Notify>,
}

impl Begin<'_> {
    /// Reads the stream; `None` where the region was given up.
    async fn run(&self) -> Result<Option<(Active, bool)>, Failure> {
        let limit = self.shared.config.operation_timeout;
        let Some((channel, mut stream, is_other)) = self.consume(self.position).await? else {
            return Ok(None);
        };
        let Position::At(next) = self.position else {
            return Ok(Some((self.active(channel, stream, self.position, None), is_other)));
        };
        let first = match timeout(limit, stream.next()).await {
            Ok(Some(Ok(first))) => first,
            Ok(Some(Err(error))) => return Err(Failure::link(text(&error))),
            Ok(None) => return Err(Failure::link("the stream's consumer was cancelled".to_owned())),
            Err(_) => {
                self.shared.counters.stream_resets.add(1);
                warn!(region = %self.region, next, "the region's stream was begun anew; reading what it has");
                drop((stream, channel));
                let Some((channel, stream, is_other)) = self.consume(self.otherwise).await? else {
                    return Ok(None);
                };
                return Ok(Some((self.active(channel, stream, self.otherwise, None), is_other)));
            }
        };
        let is_proof = offset(&first).is_some_and(|offset| offset < next);
        if !is_proof {
            return Ok(Some((self.active(channel, stream, self.position, Some(first)), is_other)));
        }
        let active = self.active(channel, stream, self.position, None);
        active.feed.acks.hand_out(first.delivery_tag, None).handled();
        Ok(Some((active, is_other)))
    }

    async fn consume(&self, position: Position) -> Result<Option<(Channel, lapin::Consumer, bool)>, Failure> {
        let declared = declare(self.shared, self.connection, &self.region, self.is_silent).await?;
        let Some(Declared { channel, is_other }) = declared else { return Ok(None) };
        let begin = async {
            let prefetch = self.shared.config.frames_ahead();
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-stream-offset".into(), specification(position));
            let (name, options) =
                (short(&self.shared.topology.stream(&self.region)), BasicConsumeOptions::default());
            let stream = channel.basic_consume(name, short(""), options, arguments).await?;
            // The broker answers before it has found the place; what it answers on the same channel comes after.
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            Ok(stream)
        };
        let stream = limited(self.shared.config.operation_timeout, "read the stream", begin).await?;
        Ok(Some((channel, stream, is_other)))
    }

    fn active(
        &self,
        channel: Channel,
        stream: lapin::Consumer,
        position: Position,
        first: Option<Delivery>,
    ) -> Active {
        // Until something came, only the time tells where the end was.
        let start = if position == Position::Next { Position::Since(wall_secs()) } else { position };
        let acks = Arc::new(Acks::on_stream(Trail::new(start), self.wake.clone()));
        Active { channel, feed: Feed::new(stream, acks).with_first(first), since: Instant::now() }
    }
}

/// The place in a stream, in the broker's words.
fn specification(position: Position) -> AMQPValue {
    match position {
        Position::Next => AMQPValue::LongString("next".into()),
        Position::Since(secs) => AMQPValue::Timestamp(secs),
        // One before: see the module's documentation.
        Position::At(next) => {
            AMQPValue::LongLongInt(i64::try_from(next.saturating_sub(1)).unwrap_or(i64::MAX))
        }
    }
}

/// A frame's place in its stream.
pub(super) fn offset(delivery: &Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

fn wall_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    #[test]
    fn a_place_is_asked_for_from_the_frame_before_it() {
        assert_eq!(specification(Position::Next), AMQPValue::LongString("next".into()));
        assert_eq!(specification(Position::Since(77)), AMQPValue::Timestamp(77));
        assert_eq!(specification(Position::At(5)), AMQPValue::LongLongInt(4));
        assert_eq!(specification(Position::At(0)), AMQPValue::LongLongInt(0));
    }

    #[test]
    fn a_frames_place_is_read_from_its_header() {
        let at = |value: AMQPValue| {
            let mut headers = FieldTable::default();
            headers.insert("x-stream-offset".into(), value);
            let mut delivery = Delivery::mock(1, "".into(), "".into(), false, Vec::new());
            delivery.properties = BasicProperties::default().with_headers(headers);
            offset(&delivery)
        };
        assert_eq!(at(AMQPValue::LongLongInt(9)), Some(9));
        assert_eq!(at(AMQPValue::LongLongInt(-9)), None);
        assert_eq!(at(AMQPValue::LongString("9".into())), None);
        assert_eq!(offset(&Delivery::mock(1, "".into(), "".into(), false, Vec::new())), None);
    }
}
