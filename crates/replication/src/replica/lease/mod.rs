//! Who loads a key: one node asks the origin of the data for all regions, by a *lease*.
//!
//! A key that ends everywhere at once is missed everywhere at once, and each region's loader would ask the origin. So
//! whoever wants to load asks first. Each key has one *grantor*: of the nodes that are alive, ready and grant leases, as
//! the asker sees them, the one that weighs most for the key's position ([`wire::lease_weight`]); it may be the asker
//! itself. The grantor lets the first load, for a bounded time, and puts the others in a line. The holder says what came
//! of it, a write ([`Token`]) or nothing; the line hears of the write, or its first is granted the next lease.
//!
//! **Advice, never a lock.** No correctness rests on a lease: a value is written as any other, and the last writer wins.
//! All that a lost frame, a dead grantor, two views of who is alive, or a holder that takes too long can cost is one
//! more load. So nothing here is agreed upon, replicated or waited for without a bound.
//!
//! # Why this way
//! - *A grantor for each key rather than one for all*: the asking spreads over the nodes, and none is a point where all
//!   of it ends. Where the views of two nodes differ, each side of a cut has a grantor of its own and loads once.
//! - *Rejected: asking all* (a round trip to the farthest region for each load, and rules for two who ask at once);
//!   *a lease as a record in the cache* (it would need an answer of all regions to be worth more than a guess, and leaves
//!   graves); *renewals* (a holder that lives and takes longer than it asked for costs one more load: less than messages
//!   for every load).
//! - *What was loaded is remembered for as long again as the lease was granted for*: somebody may have missed the key
//!   before the value came, and ask after the lease had ended. It is told which write to wait for, rather than to load;
//!   unless it says that it has seen that write, or its beats do: then the value is gone again.
//! - *Whoever waits also watches*: a value that is merged here ends the wait, whatever became of the grantor.
//!
//! # Order at the end
//! The value first, the lease then: a load is told of by the write that published it, so whoever hears of it has the
//! value, or knows which write to wait for.
//!
//! # Faults
//! | what | what happens |
//! |---|---|
//! | no answer of the grantor within four round trips (250 ms to 2 s) | the node that weighs next is asked; after [`TRIES_MAX`], the asker loads without a lease |
//! | the grantor dies while others wait | they ask the next one; a holder loads on, and its value ends their wait |
//! | the holder's load fails | it says so, and the first in the line is granted the lease |
//! | the holder's node is closed | the same: it gives back its leases as it goes |
//! | the holder dies, or begins another life | the same once the grantor has not heard it for [`ReplicaConfig::alive_ms`], or at the end of the lease |
//! | the holder takes too long | the same at the end of the lease |
//! | what the holder says is lost | the line watches for the value; whoever misses it again waits to the end of the lease |
//! | a grant that nobody wants any more | is given back at once |
//! | an older node | is neither asked nor counted as a grantor |
//!
//! # Bounds
//! [`ReplicaConfig::leases_max`] leases granted, as many loads remembered (the oldest goes), and as many answers waiting
//! to leave for each node's questions; one place a node in a line; a lease of at most [`HOLD_MS_MAX`]. A lease that finds
//! no place is refused, and its asker loads without one ([`Counters::leases_refused`]). Questions are bounded by whoever
//! asks.
//!
//! [`Counters::leases_refused`]: super::Counters::leases_refused
//! [`ReplicaConfig::alive_ms`]: super::ReplicaConfig::alive_ms
//! [`ReplicaConfig::leases_max`]: super::ReplicaConfig::leases_max

mod grantor;
mod question;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::{
    grantor::{Asker, Grants, Told},
    question::{Question, Questions, State},
};
use super::{Now, Replica, Store, Token};
use crate::{
    message::{LeaseAnswer, LeaseCall, LeaseSay, Message, Verdict},
    node::{Origin, Stream},
    stamp::{Hlc, Stamp},
    transport::Destination,
    wire,
};

/// Grantors that a question is put to, one after the other, where none answers.
pub const TRIES_MAX: usize = 2;

/// The longest lease, in milliseconds; a longer one is cut to it.
pub const HOLD_MS_MAX: u64 = 600_000;

/// The least and the most that an answer is waited for.
const ANSWER_MS: std::ops::RangeInclusive<u64> = 250..=2_000;

/// How much later than the lease ends whoever waits asks again: by then the grantor has told its line who is next.
const ASK_AGAIN_MS: u64 = 100;

/// What became of a question for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The question's number, as [`Replica::lease`] gave it.
    pub id: u64,
    /// What became of it.
    pub news: LeaseNews,
}

/// What a node hears that wants to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseNews {
    /// It is to load. Say what came of it ([`Replica::release`]). All else ends the question.
    Granted,
    /// Another node loaded; its write is this one.
    Loaded(Token),
    /// A value of the key came while it waited.
    Arrived,
    /// The grantor holds as many leases as it may.
    Refused,
    /// Nobody can be asked, or nobody answered.
    NoGrantor,
}

/// The leases that this node grants, and those that it asks for.
#[derive(Debug, Default)]
pub(super) struct Leases {
    grants: Grants,
    questions: Questions,
    /// How many questions were asked.
    asked: u64,
    /// What waits to leave, by receiver.
    calls: BTreeMap<Origin, Vec<LeaseCall>>,
    answers: BTreeMap<Origin, Vec<LeaseAnswer>>,
    unsent: usize,
    /// What the askers of this node are told; not more than they asked.
    told: VecDeque<Leased>,
}

impl Leases {
    /// Whether nothing waits to leave.
    pub(super) fn are_sent(&self) -> bool {
        self.unsent == 0
    }

    fn tell(&mut self, id: u64, news: LeaseNews) {
        self.told.push_back(Leased { id, news });
    }
}

impl<S: Store> Replica<S> {
    /// Asks whether this node is to load a key, for `hold_ms` at most; `seen` is what is known to have been loaded, of
    /// which the key is missed again. Returns the question's number, by which what becomes of it is known
    /// ([`Self::take_leased`]). End it with [`Self::release`].
    pub fn lease(&mut self, now: Now, key: &[u8], hold_ms: u64, seen: Option<Token>) -> u64 {
        self.leases.asked += 1;
        let id = self.ids + self.leases.asked;
        let hold_ms = hold_ms.clamp(1, HOLD_MS_MAX);
        let seen = seen.map_or(Hlc::default(), |token| token.hlc);
        let position = self.positions.position(key);
        self.put_question(
            now,
            id,
            Question { position, hold_ms, seen, passed: Vec::new(), state: State::Unasked },
        );
        id
    }

    /// Ends a question. Its holder says with which stamp the value was stored that it loaded; `None` where there is none
    /// to share, or where the answer is not wanted any more.
    pub fn release(&mut self, now: Now, id: u64, loaded: Option<Stamp>) {
        let Some(Question { position, state, .. }) = self.leases.questions.remove(id) else { return };
        // Of one that was not granted yet nothing is said: the grant, should it come, is given back.
        let State::Held { grantor } = state else { return };
        let say = loaded.and_then(|stamp| self.token_of(stamp)).map_or(LeaseSay::Failed, LeaseSay::Loaded);
        self.say(now, grantor, LeaseCall { id, position, say });
    }

    /// Ends all questions, as this node ends: its leases go to the next ones at once.
    pub fn release_all(&mut self, now: Now) {
        for id in self.leases.questions.ids() {
            self.release(now, id, None);
        }
    }

    /// What became of questions since the last call, oldest first.
    pub fn take_leased(&mut self) -> impl Iterator<Item = Leased> + '_ {
        self.leases.told.drain(..)
    }

    /// Lets time pass: passes on leases that ended, and asks again where no answer came.
    pub(super) fn drive_leases(&mut self, now: Now) {
        let mut told = Told::new();
        let mut grants = std::mem::take(&mut self.leases.grants);
        grants.pass_time(now.mono_ms, |asker| self.is_there(now, asker), &mut told);
        self.leases.grants = grants;
        self.deliver(now, told);
        for id in self.leases.questions.due(now.mono_ms, |node| self.answers(now, node)) {
            let Some(mut question) = self.leases.questions.remove(id) else { continue };
            match question.state {
                State::Asked { grantor, .. } => question.passed.push(grantor),
                _ => question.passed.clear(),
            }
            self.put_question(now, id, question);
        }
    }

    /// A value of a key was merged: whoever waits for it need not wait longer.
    pub(super) fn notice_arrival(&mut self, key: &Bytes) {
        if self.leases.questions.are_none_waiting() {
            return;
        }
        let position = self.positions.position(key);
        for id in self.leases.questions.take_waiting(position) {
            self.leases.tell(id, LeaseNews::Arrived);
        }
    }

    pub(super) fn on_lease(&mut self, now: Now, sender: Origin, calls: &[LeaseCall]) {
        for call in calls {
            self.take_call(now, sender, *call);
        }
    }

    pub(super) fn on_granted(&mut self, now: Now, sender: Origin, answers: &[LeaseAnswer]) {
        for answer in answers {
            self.take_answer(now, sender, *answer);
        }
    }

    /// The next frame of what is said of leases.
    pub(super) fn next_lease(&mut self) -> Option<(Destination, Bytes)> {
        while self.leases.unsent > 0 {
            let leases = &mut self.leases;
            // The answers first: somebody waits for each of them.
            let (to, message) = match take_some(&mut leases.answers) {
                Some((to, answers)) => {
                    leases.unsent -= answers.len();
                    (to, Message::Granted { answers })
                }
                None => {
                    let (to, calls) = take_some(&mut leases.calls)?;
                    leases.unsent -= calls.len();
                    (to, Message::Lease { calls })
                }
            };
            if let Some(peer) = self.peers.get(&to) {
                let to = Destination::Node(peer.node.clone());
                let frame = self.encode(message);
                return Some((to, self.packed(frame)));
            }
        }
        None
    }

    /// Puts a question to the node that is to answer it.
    fn put_question(&mut self, now: Now, id: u64, mut question: Question) {
        let is_mute = self.failure.is_some() || self.is_listening(now);
        let has_tries = question.passed.len() < TRIES_MAX;
        let grantor = self.grantor(now, &question).filter(|_| has_tries && !is_mute);
        let Some(grantor) = grantor else { return self.leases.tell(id, LeaseNews::NoGrantor) };
        let Question { position, hold_ms, seen, .. } = question;
        question.state = State::Asked { grantor, due_ms: now.mono_ms + self.answer_ms(grantor) };
        self.leases.questions.insert(id, question);
        self.say(now, grantor, LeaseCall { id, position, say: LeaseSay::Ask { hold_ms, seen } });
    }

    /// Of the nodes that can grant leases, the one that weighs most for the key and was not passed over.
    fn grantor(&self, now: Now, question: &Question) -> Option<Origin> {
        let own = self.ready.then_some(self.origin);
        let grants =
            |peer: &super::Peer| peer.capabilities & wire::GRANTS_LEASES != 0 && self.can_give(peer, now);
        let others = self.peers.iter().filter(|(_, peer)| grants(peer)).map(|(&origin, _)| origin);
        let nodes = own.into_iter().chain(others).filter(|node| !question.passed.contains(node));
        nodes.max_by_key(|&node| (wire::lease_weight(question.position, node), node))
    }

    fn answer_ms(&self, grantor: Origin) -> u64 {
        let rtt_ms = self.peers.get(&grantor).and_then(|peer| peer.clock).map_or(0, |clock| clock.rtt_ms);
        rtt_ms.saturating_mul(4).clamp(*ANSWER_MS.start(), *ANSWER_MS.end())
    }

    /// Whether a grantor may still answer.
    fn answers(&self, now: Now, grantor: Origin) -> bool {
        grantor == self.origin || self.peers.get(&grantor).is_some_and(|peer| self.is_alive(peer, now))
    }

    /// Whether whoever asked is still heard, in that life.
    fn is_there(&self, now: Now, asker: &Asker) -> bool {
        let is_alive = |peer: &super::Peer| peer.epoch == asker.epoch && self.is_alive(peer, now);
        asker.origin == self.origin || self.peers.get(&asker.origin).is_some_and(is_alive)
    }

    /// Says something to a grantor, which may be this node.
    fn say(&mut self, now: Now, grantor: Origin, call: LeaseCall) {
        if grantor == self.origin {
            return self.take_call(now, grantor, call);
        }
        if self.has_room_to_send() {
            self.leases.calls.entry(grantor).or_default().push(call);
        }
    }

    /// The grantor's part: an asker, or a holder, said something.
    fn take_call(&mut self, now: Now, sender: Origin, LeaseCall { id, position, say }: LeaseCall) {
        let epoch = self.peers.get(&sender).map_or(self.epoch, |peer| peer.epoch);
        let mut told = Told::new();
        let mut grants = std::mem::take(&mut self.leases.grants);
        let is_there = |asker: &Asker| self.is_there(now, asker);
        match say {
            LeaseSay::Ask { hold_ms, seen } => {
                let hold_ms = hold_ms.clamp(1, HOLD_MS_MAX);
                let asker = Asker { origin: sender, epoch, id, hold_ms };
                let knows = |token: Token| token.hlc <= seen || self.is_known_to(sender, token);
                let max = self.config.leases_max;
                grants.ask(now.mono_ms, position, asker, max, knows, is_there, &mut told);
            }
            LeaseSay::Loaded(token) => {
                let max = self.config.leases_max;
                grants.loaded(now.mono_ms, position, (sender, id), token, max, &mut told);
            }
            LeaseSay::Failed => grants.failed(now.mono_ms, position, (sender, id), is_there, &mut told),
        }
        self.leases.grants = grants;
        self.deliver(now, told);
    }

    /// Whether a node has a write, as far as its beats tell.
    fn is_known_to(&self, node: Origin, token: Token) -> bool {
        if node == self.origin {
            return self.has(token);
        }
        let report = self.peers.get(&node).and_then(|peer| peer.reports.get(&token.stream));
        node == token.stream.origin || report.is_some_and(|report| report.watermark_hlc >= token.hlc)
    }

    /// Tells askers, of this node and of others.
    fn deliver(&mut self, now: Now, told: Told) {
        self.counters.leases_granted += told.granted;
        self.counters.leases_passed_on += told.passed_on;
        self.counters.leases_refused += told.refused;
        for (to, answer) in told.answers {
            if to == self.origin {
                self.take_answer(now, to, answer);
            } else if self.has_room_to_send() {
                self.leases.answers.entry(to).or_default().push(answer);
            }
        }
    }

    /// The asker's part: a grantor said something.
    fn take_answer(&mut self, now: Now, sender: Origin, LeaseAnswer { id, position, verdict }: LeaseAnswer) {
        let asked = self.leases.questions.get(id).map(|question| question.state);
        match (asked, verdict) {
            // It was granted by this one before: the frame came twice, or an older one late.
            (Some(State::Held { grantor }), _) if grantor == sender => {}
            (Some(State::Asked { grantor, .. } | State::InLine { grantor, .. }), verdict)
                if grantor == sender =>
            {
                self.hear_verdict(now, sender, id, verdict);
            }
            // Nobody waits for it here, or somebody else was asked since.
            (_, Verdict::Granted { .. }) => {
                self.say(now, sender, LeaseCall { id, position, say: LeaseSay::Failed });
            }
            _ => {}
        }
    }

    fn hear_verdict(&mut self, now: Now, grantor: Origin, id: u64, verdict: Verdict) {
        let news = match verdict {
            Verdict::Granted { .. } => {
                self.leases.questions.set(id, State::Held { grantor });
                return self.leases.tell(id, LeaseNews::Granted);
            }
            Verdict::Held { left_ms } => {
                let until_ms = now.mono_ms + left_ms.min(HOLD_MS_MAX) + ASK_AGAIN_MS;
                return self.leases.questions.set(id, State::InLine { grantor, until_ms });
            }
            Verdict::Loaded(token) => LeaseNews::Loaded(token),
            Verdict::Refused => LeaseNews::Refused,
        };
        self.leases.questions.remove(id);
        self.leases.tell(id, news);
    }

    /// Whether one more may wait to leave; counted where not. What is not said is asked for again, or ends by time.
    fn has_room_to_send(&mut self) -> bool {
        let has_room = self.leases.unsent < 2 * self.config.leases_max.max(1);
        self.leases.unsent += usize::from(has_room);
        self.counters.control_dropped += u64::from(!has_room);
        has_room
    }

    /// Names the write of a stamp: by the latest known life of its node that began before it.
    fn token_of(&self, stamp: Stamp) -> Option<Token> {
        if stamp.origin == self.origin {
            return Some(self.outbox.token(stamp));
        }
        let until = Stream { origin: stamp.origin, epoch: stamp.hlc.0 };
        let lives = self.streams.range(Stream { epoch: 0, ..until }..=until);
        lives.last().map(|(&stream, _)| Token { stream, hlc: stamp.hlc })
    }
}

/// Takes what one frame may carry to a receiver.
fn take_some<T>(waiting: &mut BTreeMap<Origin, Vec<T>>) -> Option<(Origin, Vec<T>)> {
    let mut entry = waiting.first_entry()?;
    let to = *entry.key();
    if entry.get().len() <= wire::KEYS_MAX {
        return Some((to, entry.remove()));
    }
    let rest = entry.get_mut().split_off(wire::KEYS_MAX);
    Some((to, std::mem::replace(entry.get_mut(), rest)))
}
