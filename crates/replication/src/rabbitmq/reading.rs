//! Beginning to read one stream: it is declared, consumed from a place, and the place is proven.
//!
//! All of it happens beside everything else, however long it takes. Whether the stream is the one in which the place was
//! taken shows by the frame before that place, which is asked for too. Where it does not come, the broker is asked for
//! something else on the same channel: its answer comes behind all that it had sent there, so a link that is merely slow
//! is not mistaken for a stream that was begun anew.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, StreamExt};
use geo::RegionId;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::Notify, time::timeout};
use tracing::warn;

use super::{
    Shared,
    acks::Acks,
    connection::{Blame, Failure, limited, text},
    feed::Feed,
    patience::{PATIENCE_MAX, patient},
    permission::Step,
    topology::short,
    trail::{Position, Trail},
};

/// How long the broker may take to find the frame that proves a place.
const PROOF: Duration = Duration::from_secs(5);

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
    let channel = limited(limit, "open a channel", connection.create_channel()).await?;
    let mut is_other = false;
    let channel = if is_silent {
        channel
    } else {
        match patient(shared, "declare the stream", topology.declare_stream(&channel, region)).await {
            Ok(()) => {
                bind(shared, &channel, region).await?;
                return Ok(Some(Declared { channel, is_other }));
            }
            Err(failure) if is_of_bounds(&failure) => {
                let reason = &failure.reason;
                warn!(%region, reason, "the stream keeps the bounds that it was declared with first");
                is_other = true;
                // The refusal ended the channel.
                limited(limit, "open a channel", connection.create_channel()).await?
            }
            Err(failure) => return Err(failure.at(Step::Declare)),
        }
    };
    match patient(shared, "look for the stream", topology.find_stream(&channel, region)).await {
        Ok(()) => {
            bind(shared, &channel, region).await?;
            Ok(Some(Declared { channel, is_other }))
        }
        Err(Failure { blame: Blame::Refused(AMQPSoftError::NOTFOUND), .. }) if is_silent => Ok(None),
        Err(failure) => Err(failure.at(Step::Declare)),
    }
}

async fn bind(shared: &Shared, channel: &Channel, region: &RegionId) -> Result<(), Failure> {
    let bound = patient(shared, "bind the stream", shared.topology.bind_stream(channel, region)).await;
    bound.map_err(|failure| failure.at(Step::Bind))
}

/// Whether a stream was refused for other bounds, and not for another type or a limit of the virtual host.
fn is_of_bounds(failure: &Failure) -> bool {
    let bounds = ["x-max-length-bytes", "x-max-age", "x-stream-max-segment-size-bytes"];
    matches!(failure.blame, Blame::Refused(AMQPSoftError::PRECONDITIONFAILED))
        && bounds.iter().any(|bound| failure.reason.contains(&format!("inequivalent arg '{bound}'")))
}

/// One stream that is to be read.
pub(super) struct Begin {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Arc<Connection>,
    pub(super) region: RegionId,
    pub(super) is_silent: bool,
    pub(super) position: Position,
    /// Where to begin in a stream that is not the one in which the position was taken.
    pub(super) otherwise: Position,
    /// How many frames are delivered ahead.
    pub(super) ahead: u16,
    pub(super) wake: Arc<Notify>,
}

/// A stream that is read.
pub(super) struct Begun {
    pub(super) channel: Channel,
    pub(super) feed: Feed,
    /// It has other bounds than those configured.
    pub(super) is_other: bool,
    pub(super) ahead: u16,
}

impl Begin {
    /// Reads the stream; `None` where the region was given up.
    pub(super) async fn run(self) -> Result<Option<Begun>, Failure> {
        let Some((declared, mut stream)) = self.consume(self.position).await? else { return Ok(None) };
        let Position::At(next) = self.position else {
            return Ok(Some(self.begun(declared, stream, self.position, None)));
        };
        let Some(first) = self.first(&declared.channel, &mut stream).await? else {
            self.shared.counters.stream_resets.add(1);
            warn!(region = %self.region, next, "the region's stream was begun anew; reading what it has");
            drop((stream, declared));
            let again = self.consume(self.otherwise).await?;
            return Ok(again.map(|(declared, stream)| self.begun(declared, stream, self.otherwise, None)));
        };
        if offset(&first).is_none_or(|offset| offset >= next) {
            return Ok(Some(self.begun(declared, stream, self.position, Some(first))));
        }
        let begun = self.begun(declared, stream, self.position, None);
        begun.feed.acks.hand_out(first.delivery_tag, None).handled();
        Ok(Some(begun))
    }

    /// The first frame; `None` where the stream has none there.
    async fn first(
        &self,
        channel: &Channel,
        stream: &mut lapin::Consumer,
    ) -> Result<Option<Delivery>, Failure> {
        let mut first = timeout(PROOF, stream.next()).await.ok();
        if first.is_none() {
            let fence = channel.basic_qos(self.ahead, BasicQosOptions::default());
            let fence = limited(PATIENCE_MAX, "give a frame of the stream", fence);
            first = tokio::select! {
                biased;
                first = stream.next() => Some(first),
                answered = fence => {
                    answered?;
                    stream.next().now_or_never()
                }
            };
        }
        match first {
            None => Ok(None),
            Some(Some(Ok(first))) => Ok(Some(first)),
            Some(Some(Err(error))) => Err(Failure::link(text(&error))),
            Some(None) => Err(Failure::link("the stream's consumer was cancelled".to_owned())),
        }
    }

    async fn consume(&self, position: Position) -> Result<Option<(Declared, lapin::Consumer)>, Failure> {
        let declared = declare(&self.shared, &self.connection, &self.region, self.is_silent).await?;
        let Some(declared) = declared else { return Ok(None) };
        let channel = &declared.channel;
        let begin = async {
            channel.basic_qos(self.ahead, BasicQosOptions::default()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-stream-offset".into(), specification(position));
            let (name, options) =
                (short(&self.shared.topology.stream(&self.region)), BasicConsumeOptions::default());
            let stream = channel.basic_consume(name, short(""), options, arguments).await?;
            if position == Position::Next {
                // The broker answers before it has found the end; what it answers on the same channel comes after.
                channel.basic_qos(self.ahead, BasicQosOptions::default()).await?;
            }
            Ok(stream)
        };
        let stream = patient(&self.shared, "read the stream", begin).await;
        let stream = stream.map_err(|failure| failure.at(Step::Consume))?;
        Ok(Some((declared, stream)))
    }

    fn begun(
        &self,
        declared: Declared,
        stream: lapin::Consumer,
        position: Position,
        first: Option<Delivery>,
    ) -> Begun {
        // Until something came, only the time tells where the end was.
        let start = if position == Position::Next { Position::Since(wall_secs()) } else { position };
        let acks = Arc::new(Acks::on_stream(Trail::new(start), self.wake.clone()));
        let Declared { channel, is_other } = declared;
        Begun { channel, feed: Feed::new(stream, acks).with_first(first), is_other, ahead: self.ahead }
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

/// The time, in seconds since 1970.
pub(super) fn wall_secs() -> u64 {
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

    #[test]
    fn only_a_refusal_of_the_bounds_is_taken_for_one() {
        let refused = |soft, reason: &str| {
            is_of_bounds(&Failure { blame: Blame::Refused(soft), step: None, reason: reason.to_owned() })
        };
        let of = |argument: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'geocache.shop.stream.eu' in vhost '/': \
                 received '2' but current is '1'"
            )
        };
        for argument in ["x-max-length-bytes", "x-max-age", "x-stream-max-segment-size-bytes"] {
            assert!(refused(AMQPSoftError::PRECONDITIONFAILED, &of(argument)), "{argument}");
        }
        assert!(!refused(AMQPSoftError::PRECONDITIONFAILED, &of("x-queue-type")));
        assert!(!refused(
            AMQPSoftError::PRECONDITIONFAILED,
            "PRECONDITION_FAILED - queue limit in vhost '/' (10) is reached"
        ));
        assert!(!refused(AMQPSoftError::ACCESSREFUSED, &of("x-max-age")));
    }
}
