//! Frames that were given to the broker and not answered yet, and what its answers mean.
//!
//! A frame that no queue takes comes back *before* its confirmation, and lapin attaches it to whichever confirmation
//! comes next, which may be another frame's. So each addressed frame carries a number, all waiting confirmations are
//! looked at together, and a returned frame is found by its number.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use lapin::Confirmation;
use tokio::{sync::oneshot, time::Instant};

use super::connection::text;
use crate::transport::{Destination, TransportError};

pub(super) type Reply = oneshot::Sender<Result<(), TransportError>>;
pub(super) type Answer = lapin::Result<Confirmation>;

/// A frame that was given to lapin.
pub(super) struct Flight {
    /// Where the frame is addressed, its number in the message's id.
    pub(super) number: u64,
    pub(super) to: Destination,
    pub(super) since: Instant,
    pub(super) answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    pub(super) reply: Reply,
}

/// All flights that have landed, once one has. Polled in order, which is also the order in which they start.
///
/// # Cancel safety
/// Safe: what has landed is taken out only when it is returned.
pub(super) async fn settled(flights: &mut VecDeque<Flight>) -> Vec<(Flight, Answer)> {
    poll_fn(|context| {
        let mut landed = Vec::new();
        take_landed(flights, context, &mut landed);
        if landed.is_empty() {
            return Poll::Pending;
        }
        // A flight found pending above may have landed since, and taken with it the returned frame of one found landed
        // later in the same look. Whatever took it landed first, so a second look finds it.
        take_landed(flights, context, &mut landed);
        Poll::Ready(landed)
    })
    .await
}

fn take_landed(
    flights: &mut VecDeque<Flight>,
    context: &mut Context<'_>,
    landed: &mut Vec<(Flight, Answer)>,
) {
    let mut place = 0;
    while let Some(flight) = flights.get_mut(place) {
        match flight.answer.as_mut().poll(context) {
            Poll::Pending => place += 1,
            Poll::Ready(answer) => {
                landed.extend(flights.remove(place).map(|flight| (flight, answer)));
            }
        }
    }
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Confirmed,
    /// No queue takes it.
    Returned,
    /// The broker did not accept it.
    Refused,
    /// Nobody knows: the channel ended.
    Lost(String),
}

/// The numbers of frames that came back and whose own confirmation is still awaited.
#[derive(Debug, Default)]
pub(super) struct Returns(Vec<u64>);

impl Returns {
    /// Notes the frames that came back with these answers, whomever they belong to.
    pub(super) fn note(&mut self, settled: &[(Flight, Answer)]) {
        for (_, answer) in settled {
            if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = answer {
                let id = message.properties.message_id().as_ref();
                self.0.extend(id.and_then(|id| id.as_str().parse::<u64>().ok()));
            }
        }
    }

    /// What the answer means for the frame of this number, given all that came back.
    pub(super) fn verdict(&mut self, number: u64, answer: &Answer) -> Verdict {
        let known = self.0.len();
        self.0.retain(|returned| *returned != number);
        match answer {
            Err(error) => Verdict::Lost(text(error)),
            Ok(_) if self.0.len() < known => Verdict::Returned,
            Ok(Confirmation::Nack(_)) => Verdict::Refused,
            Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Verdict::Confirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties, ErrorKind,
        message::{BasicReturnMessage, Delivery},
    };

    use super::*;

    /// The answer to some frame, with the frame of this number attached as returned.
    fn ack(returned: Option<u64>) -> Answer {
        Ok(Confirmation::Ack(returned.map(|number| {
            let mut delivery = Delivery::mock(0, "".into(), "".into(), false, Vec::new());
            delivery.properties = BasicProperties::default().with_message_id(number.to_string().into());
            BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
        })))
    }

    /// Lets the frames 1, 2, … land with these answers, one look for each batch; the verdicts by number.
    async fn verdicts(batches: Vec<Vec<(u64, Answer)>>) -> Vec<(u64, Verdict)> {
        let mut flights = VecDeque::new();
        let mut landings = std::collections::BTreeMap::new();
        for number in 1..=batches.iter().flatten().count() as u64 {
            let (landing, answer) = oneshot::channel();
            landings.insert(number, landing);
            let answer = Box::pin(async move { answer.await.unwrap() });
            let (reply, _) = oneshot::channel();
            flights.push_back(Flight {
                number,
                to: Destination::Everyone,
                since: Instant::now(),
                answer,
                reply,
            });
        }
        let (mut returns, mut verdicts) = (Returns::default(), Vec::new());
        for batch in batches {
            for (number, answer) in batch {
                landings.remove(&number).unwrap().send(answer).unwrap();
            }
            let settled = settled(&mut flights).await;
            returns.note(&settled);
            verdicts.extend(
                settled
                    .iter()
                    .map(|(flight, answer)| (flight.number, returns.verdict(flight.number, answer))),
            );
        }
        verdicts.sort_by_key(|(number, _)| *number);
        verdicts
    }

    #[tokio::test]
    async fn a_frame_returned_with_its_own_confirmation_is_returned() {
        let seen = verdicts(vec![vec![(1, ack(None))], vec![(2, ack(Some(2)))]]).await;
        assert_eq!(seen, [(1, Verdict::Confirmed), (2, Verdict::Returned)]);
    }

    #[tokio::test]
    async fn a_frame_returned_with_anothers_confirmation_is_still_found() {
        for batches in [
            vec![vec![(1, ack(Some(2))), (2, ack(None))]],
            vec![vec![(1, ack(Some(2)))], vec![(2, ack(None))]],
            vec![vec![(2, ack(None)), (1, ack(Some(2)))]],
        ] {
            assert_eq!(verdicts(batches).await, [(1, Verdict::Confirmed), (2, Verdict::Returned)]);
        }
    }

    #[tokio::test]
    async fn several_returned_frames_shifted_by_one_are_all_found() {
        let batches = vec![vec![(1, ack(Some(2)))], vec![(2, ack(Some(3)))], vec![(3, ack(None))]];
        let expected = [(1, Verdict::Confirmed), (2, Verdict::Returned), (3, Verdict::Returned)];
        assert_eq!(verdicts(batches).await, expected);
    }

    #[tokio::test]
    async fn a_nack_is_a_refusal_and_an_error_is_a_loss() {
        let lost: Answer = Err(ErrorKind::MissingHeartbeatError.into());
        let seen = verdicts(vec![vec![(1, Ok(Confirmation::Nack(None))), (2, lost)]]).await;
        assert_eq!(seen[0], (1, Verdict::Refused));
        assert!(matches!(&seen[1].1, Verdict::Lost(reason) if reason.contains("heartbeat")), "{seen:?}");
    }
}
