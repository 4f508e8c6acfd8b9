//! Publishing: one task, one channel, a bounded number of unconfirmed frames.
//!
//! The task hands frames to lapin in the order in which they came, each as soon as fewer than a window of them is
//! unconfirmed, and settles each with the broker's answer. While there is no connection it refuses frames at once, so
//! that the caller knows what to send again; it never queues them up itself.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use lapin::{BasicProperties, Channel, Event, options::BasicPublishOptions, types::ShortString};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{
    Shared, closed,
    config::Profile,
    connection::{Dialer, Line, text},
    flight::{Answer, Flight, Reply, Returns, Verdict, settled},
    hello::{self, Greeting, Hello},
    refusal::Refusals,
    topology::{HELLO_EVERYONE, short},
};
use crate::transport::{Destination, TransportError};

/// How many publishes may wait for a place in the window; further callers wait in their own call.
pub(super) const QUEUE: usize = 64;

/// How often a line is looked at for what makes no event.
const LOOK: Duration = Duration::from_millis(500);

/// One frame to publish.
pub(super) struct Command {
    pub(super) to: Destination,
    pub(super) frame: Bytes,
    pub(super) reply: Reply,
}

/// A message on its way to the broker.
struct Message {
    key: ShortString,
    properties: BasicProperties,
    to: Destination,
    frame: Bytes,
    reply: Reply,
}

pub(super) struct Publisher {
    shared: Arc<Shared>,
    dialer: Dialer,
    commands: mpsc::Receiver<Command>,
    closing: watch::Receiver<bool>,
    window: usize,
    flights: VecDeque<Flight>,
    number: u64,
    returns: Returns,
    refusals: Refusals,
    /// The broker takes nothing for now.
    blocked: bool,
    properties: BasicProperties,
    exchange: ShortString,
    everyone: ShortString,
}

impl Publisher {
    pub(super) fn new(
        shared: Arc<Shared>,
        dialer: Dialer,
        commands: mpsc::Receiver<Command>,
        closing: watch::Receiver<bool>,
        window: usize,
    ) -> Self {
        let properties = shared.topology.properties();
        let exchange = short(&shared.topology.exchange);
        let everyone = short(&shared.topology.routing_key(&Destination::Everyone));
        let flights = VecDeque::with_capacity(window);
        let (number, returns, refusals, blocked) = (0, Returns::default(), Refusals::default(), false);
        Self {
            shared,
            dialer,
            commands,
            closing,
            window,
            flights,
            number,
            returns,
            refusals,
            blocked,
            properties,
            exchange,
            everyone,
        }
    }

    /// Publishes until the transport is closed; from `line`, or from one that is yet to be made.
    pub(super) async fn run(mut self, mut line: Option<Line>) {
        let mut lost: Option<String> = None;
        loop {
            let mut up = match line.take() {
                Some(line) => line,
                None => match self.reconnect(lost.as_deref()).await {
                    Some(next) => next,
                    None => return,
                },
            };
            self.refusals.renewed();
            self.blocked = false;
            match up.blocked.take() {
                Some(reason) => self.block(reason),
                None => self.shared.status.up(self.dialer.role()),
            }
            let end = self.serve(&mut up).await;
            let Err(reason) = end else {
                self.finish(up).await;
                return;
            };
            let reason = format!("{reason} ({})", up.broker);
            // Health first: whoever is told that a frame was lost finds it there.
            self.shared.status.down(self.dialer.role(), Instant::now().into_std(), reason.clone());
            drop(up);
            self.lose_flights(&reason);
            lost = Some(reason);
        }
    }

    /// The broker reads nothing from this connection until it says otherwise.
    fn block(&mut self, reason: String) {
        warn!(reason, "the broker accepts no publishes");
        self.shared.counters.blocked.add(1);
        self.blocked = true;
        self.shared.status.blocked(self.dialer.role(), Instant::now().into_std(), reason);
    }

    /// Works on one connection. `Ok` when the transport closes, else why the connection is of no use any more.
    async fn serve(&mut self, line: &mut Line) -> Result<(), String> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hello = interval(hello::EVERY);
        hello.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let greets = self.shared.topology.profile() == Profile::Stream;
        loop {
            tokio::select! {
                biased;
                // What is rarely ready comes first, so that a steady flow of frames cannot hide it.
                () = closed(&mut self.closing) => return Ok(()),
                // At once on each connection, before any frame.
                _ = hello.tick(), if greets => self.shared.greetings.announce(false),
                event = line.event() => self.heard(event)?,
                _ = look.tick() => self.look(line)?,
                greeting = self.shared.greetings.next(), if greets && !self.blocked && self.has_place() => {
                    self.greet(&line.channel, greeting);
                }
                settled = settled(&mut self.flights), if !self.flights.is_empty() => self.settle(settled)?,
                Some(command) = self.commands.recv(), if self.has_place() => {
                    self.start(&line.channel, command);
                }
            }
        }
    }

    /// Gives one frame to lapin.
    fn start(&mut self, channel: &Channel, command: Command) {
        let Command { to, frame, reply } = command;
        if self.blocked {
            self.refuse(reply, "the broker accepts no publishes for lack of memory or disk");
            return;
        }
        let addressed = to != Destination::Everyone;
        let (key, properties) = if addressed {
            let number = ShortString::from((self.number + 1).to_string());
            (short(&self.shared.topology.routing_key(&to)), self.properties.clone().with_message_id(number))
        } else {
            (self.everyone.clone(), self.properties.clone())
        };
        self.launch(channel, Message { key, properties, to, frame, reply });
    }

    /// Says that this node is there. Not while the broker is blocked: the hello waits then, and goes before the first frame.
    fn greet(&mut self, channel: &Channel, greeting: Greeting) {
        let topology = &self.shared.topology;
        let (ask, key) = match greeting {
            Greeting::Everyone { ask } => (ask, short(HELLO_EVERYONE)),
            Greeting::Node(node) => (false, short(&topology.hello_key(&node))),
        };
        let properties = Hello { node: self.shared.config.node.clone(), ask }.properties();
        // Nobody waits for the answer; the flight is settled as any other.
        let (reply, _) = oneshot::channel();
        self.launch(
            channel,
            Message { key, properties, to: Destination::Everyone, frame: Bytes::new(), reply },
        );
    }

    fn has_place(&self) -> bool {
        self.flights.len() < self.window
    }

    fn launch(&mut self, channel: &Channel, message: Message) {
        let Message { key, properties, to, frame, reply } = message;
        self.number += 1;
        let addressed = to != Destination::Everyone;
        let (channel, exchange) = (channel.clone(), self.exchange.clone());
        let options = BasicPublishOptions { mandatory: addressed, immediate: false };
        let answer = Box::pin(async move {
            channel.basic_publish(exchange, key, options, &frame, properties).await?.await
        });
        self.shared.counters.published.add(1);
        // Polled by `settled` before any later flight is, so frames reach lapin in this order.
        self.flights.push_back(Flight { number: self.number, to, since: Instant::now(), answer, reply });
    }

    /// Answers the callers whose frames the broker answered.
    fn settle(&mut self, settled: Vec<(Flight, Answer)>) -> Result<(), String> {
        let counters = &self.shared.counters;
        self.returns.note(&settled);
        let mut lost: Option<String> = None;
        for (flight, answer) in settled {
            let result = match self.returns.verdict(flight.number, &answer) {
                Verdict::Confirmed => {
                    counters.confirmed.add(1);
                    self.refusals.confirmed();
                    Ok(())
                }
                Verdict::Returned => {
                    counters.returned.add(1);
                    Err(TransportError::Unroutable { to: flight.to })
                }
                Verdict::Refused => {
                    counters.nacked.add(1);
                    self.refusals.refused(Instant::now().into_std());
                    Err(TransportError::Refused { reason: "the broker did not accept the frame".to_owned() })
                }
                Verdict::Lost(reason) => {
                    // It ends with the others on this channel: they are answered once health says so.
                    lost.get_or_insert(reason);
                    self.flights.push_back(Flight { answer: Box::pin(std::future::ready(answer)), ..flight });
                    continue;
                }
            };
            // A caller that went away has given up the wait, not the frame.
            let _ = flight.reply.send(result);
        }
        lost.map_or(Ok(()), Err)
    }

    fn heard(&mut self, event: Option<Event>) -> Result<(), String> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => self.block(reason),
            Some(Event::ConnectionUnblocked) => {
                info!("the broker accepts publishes again");
                self.blocked = false;
                // The time while blocked does not count.
                self.flights.iter_mut().for_each(|flight| flight.since = Instant::now());
                self.shared.status.up(self.dialer.role());
            }
            Some(Event::Error(error)) => return Err(text(&error)),
            Some(_) => {}
            None => return Err("the connection ended".to_owned()),
        }
        Ok(())
    }

    /// Notices what makes no event.
    fn look(&self, line: &Line) -> Result<(), String> {
        if let Some(reason) = line.broken() {
            return Err(reason);
        }
        if let Some(lasted) = self.refusals.too_long(Instant::now().into_std()) {
            return Err(format!("the broker has refused every frame for {lasted:?}"));
        }
        let limit = self.shared.config.confirm_timeout;
        match self.flights.front() {
            Some(oldest) if !self.blocked && oldest.since.elapsed() >= limit => {
                Err(format!("no confirmation within {limit:?}"))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, reply: Reply, reason: &str) {
        self.shared.counters.unavailable.add(1);
        let _ = reply.send(Err(TransportError::Unavailable { reason: reason.to_owned() }));
    }

    fn lose_flights(&mut self, reason: &str) {
        self.returns = Returns::default();
        while let Some(flight) = self.flights.pop_front() {
            self.refuse(flight.reply, reason);
        }
    }

    /// The next connection, refusing frames meanwhile; `None` when the transport closes.
    async fn reconnect(&mut self, lost: Option<&str>) -> Option<Line> {
        let Self { dialer, closing, commands, shared, .. } = self;
        let role = dialer.role();
        {
            let again = dialer.again(lost);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    biased;
                    () = closed(closing) => break,
                    line = &mut again => return Some(line),
                    Some(command) = commands.recv() => {
                        shared.counters.unavailable.add(1);
                        let _ = command.reply.send(Err(shared.unavailable(role)));
                    }
                }
            }
        }
        self.turn_away();
        None
    }

    /// The end: waits for the frames that lapin has, to the bound, and answers everyone.
    async fn finish(mut self, line: Line) {
        self.turn_away();
        let limit = self.shared.config.close_timeout;
        let drain = async {
            while !self.flights.is_empty() {
                let settled = settled(&mut self.flights).await;
                if self.settle(settled).is_err() {
                    break;
                }
            }
        };
        if timeout(limit, drain).await.is_err() {
            warn!(frames = self.flights.len(), "closing with unconfirmed frames");
        }
        self.lose_flights("the transport was closed before the broker confirmed");
        line.close(self.shared.config.operation_timeout.min(limit)).await;
    }

    /// Answers the callers whose frames were not begun.
    fn turn_away(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            let _ = command.reply.send(Err(TransportError::Closed));
        }
    }
}
