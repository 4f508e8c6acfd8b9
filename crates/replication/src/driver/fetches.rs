//! Reads of the nearest region: many callers, few questions.
//!
//! A node that is warming is asked for the same hot keys by many at once. So a key is asked for once whoever wants it,
//! and at most [`QUESTIONS_MAX`] questions are unanswered at a time; keys that are wanted meanwhile go together in the
//! next one, as records gather in the outbox.
//!
//! An answer holds what fits a frame, in the order of the keys asked for, and at least one record where there is one. So
//! a key before the last record of an answer that has none is not there; one after it is asked for again.
//!
//! A question whose answer is late, after half of the time that its most patient caller had left but at most
//! [`LATE_AFTER`], is asked once more, of whoever is nearest then; whichever answer comes first counts. A late question
//! leaves its place to the next one, and one that nobody wants any more is forgotten: lost frames hold nobody up for
//! longer than that, however patient those are who wait for them.
//!
//! # Bounds
//! The caller counts [`Fetches::len`] against its own bound; all else here is in proportion to that. Of late questions
//! the newest [`LATE_MAX`] are remembered; the answer to an older one is not taken any more, but what it asked for was
//! asked for again when it was late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::concern::FetchError;
use crate::{record::Record, replica::Fetched, stamp::Hlc};

/// Questions whose answers are neither there nor late.
const QUESTIONS_MAX: usize = 4;
/// Those whose answers are late but would still be of use.
const LATE_MAX: usize = 16;
/// The longest until an answer is late: several times what the farthest regions take.
const LATE_AFTER: Duration = Duration::from_secs(1);
/// Keys of one question.
const KEYS_PER_QUESTION: usize = 256;
/// How often a key is asked for on behalf of those who want it.
const TRIES_MAX: u32 = 2;

/// A key and the lowest stamp wanted of it.
type Want = (Hlc, Bytes);
/// What a caller gets.
pub(super) type Reply = oneshot::Sender<Result<Vec<Record>, FetchError>>;

/// The reads under way.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    callers: BTreeMap<u64, Caller>,
    deadlines: BTreeSet<(Instant, u64)>,
    wanted: HashMap<Want, Wanted>,
    /// What is to be asked for, by place in the line.
    line: BTreeMap<i64, Want>,
    questions: BTreeMap<u64, Question>,
    numbers: u64,
    keys: usize,
}

#[derive(Debug)]
struct Caller {
    wants: Vec<Want>,
    /// How many of its keys have no answer.
    open: usize,
    found: Vec<Record>,
    asked: Instant,
    deadline: Instant,
    reply: Reply,
}

#[derive(Debug, Default)]
struct Wanted {
    callers: BTreeSet<u64>,
    state: Asking,
    tries: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Asking {
    /// Nobody is asked for it, nor will be on behalf of those who want it now.
    #[default]
    No,
    /// It stands here in the line.
    InLine(i64),
    /// It is part of a question.
    Asked,
}

#[derive(Debug)]
struct Question {
    wants: Vec<Want>,
    /// When its answer is late.
    due: Instant,
    is_late: bool,
}

impl Fetches {
    /// How many keys are waited for, each counted once a caller.
    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// Takes a caller in. Call [`Self::ask`] then.
    pub(super) fn add(
        &mut self,
        keys: Vec<Bytes>,
        at_least: Hlc,
        (asked, deadline): (Instant, Instant),
        reply: Reply,
    ) {
        let wants: BTreeSet<Want> = keys.into_iter().map(|key| (at_least, key)).collect();
        if wants.is_empty() {
            let _ = reply.send(Ok(Vec::new()));
            return;
        }
        self.numbers += 1;
        for want in &wants {
            let wanted = self.wanted.entry(want.clone()).or_default();
            wanted.callers.insert(self.numbers);
            if wanted.state == Asking::No {
                wanted.tries = 0;
                self.line_up(want.clone(), false);
            }
        }
        self.keys += wants.len();
        self.deadlines.insert((deadline, self.numbers));
        let wants = Vec::from_iter(wants);
        let caller = Caller { open: wants.len(), wants, found: Vec::new(), asked, deadline, reply };
        self.callers.insert(self.numbers, caller);
    }

    /// Whether there is something to ask for, and no bound keeps it waiting.
    pub(super) fn has_to_ask(&self) -> bool {
        let timely = self.questions.values().filter(|question| !question.is_late).count();
        !self.line.is_empty() && timely < QUESTIONS_MAX
    }

    /// Asks for what is wanted, while questions may be asked. `ask` gives the question's number, or `None` where there
    /// is nobody to ask.
    pub(super) fn ask(&mut self, now: Instant, mut ask: impl FnMut(Vec<Bytes>, Hlc) -> Option<u64>) {
        while self.has_to_ask() {
            let wants = self.next_question();
            let Some(&(at_least, _)) = wants.first() else { return };
            let keys = wants.iter().map(|(_, key)| key.clone()).collect();
            match ask(keys, at_least) {
                Some(id) => {
                    let due = now + LATE_AFTER.min((self.patience(now, &wants) - now) / 2);
                    self.questions.insert(id, Question { wants, due, is_late: false });
                }
                None => wants.iter().for_each(|want| self.give_up(want)),
            }
        }
    }

    /// Takes an answer to one of the questions; any other one changes nothing here.
    pub(super) fn answered(&mut self, answer: &Fetched) {
        let Some(question) = self.questions.remove(&answer.id) else { return };
        let records = answer.records.iter().map(|record| (&record.key, record));
        let found: HashMap<&Bytes, &Record> = records.collect();
        let last = question.wants.iter().rposition(|(_, key)| found.contains_key(key));
        let mut cut = Vec::new();
        for (at, want) in question.wants.into_iter().enumerate() {
            match found.get(&want.1) {
                Some(record) => self.decide(&want, Some(record)),
                // What a late question wanted was asked for again when it was late.
                None if question.is_late && (!answer.ready || last.is_some_and(|last| at > last)) => {}
                None if !answer.ready => self.ask_again(want),
                None if last.is_some_and(|last| at > last) => cut.push(want),
                None => self.decide(&want, None),
            }
        }
        // They go first, in their order: others came later.
        for want in cut.into_iter().rev().filter(|want| self.wanted.contains_key(want)).collect::<Vec<_>>() {
            self.line_up(want, true);
        }
        self.forget_unwanted();
    }

    /// When something is due that no answer brings.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let callers = self.deadlines.first().map(|(deadline, _)| *deadline);
        let timely = self.questions.values().filter(|question| !question.is_late);
        timely.map(|question| question.due).chain(callers).min()
    }

    /// Answers the callers whose time is over, and puts what was asked for and not answered in time back in the line.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(_, number)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            if let Some(Caller { asked, reply, .. }) = self.remove(number) {
                let _ = reply.send(Err(FetchError::NoAnswer { waited: now - asked }));
            }
        }
        self.forget_unwanted();
        let late = self.questions.values_mut().filter(|question| !question.is_late && question.due <= now);
        let mut again = Vec::new();
        for question in late {
            question.is_late = true;
            again.append(&mut question.wants.clone());
        }
        again.into_iter().for_each(|want| self.ask_again(want));
        self.forget_oldest_late();
    }

    /// Answers everyone that there will be no answer.
    pub(super) fn end(&mut self) {
        for caller in std::mem::take(self).callers.into_values() {
            let _ = caller.reply.send(Err(FetchError::Ended));
        }
    }

    /// Lets go of callers who wait no longer.
    pub(super) fn forget_abandoned(&mut self) {
        let gone = self.callers.iter().filter(|(_, caller)| caller.reply.is_closed());
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.remove(number);
        }
        self.forget_unwanted();
    }

    /// Lets go of questions of whose keys nobody wants any.
    fn forget_unwanted(&mut self) {
        let wanted = &self.wanted;
        self.questions.retain(|_, question| question.wants.iter().any(|want| wanted.contains_key(want)));
    }

    fn forget_oldest_late(&mut self) {
        let late = self.questions.iter().filter(|(_, question)| question.is_late);
        let mut late: Vec<(Instant, u64)> = late.map(|(id, question)| (question.due, *id)).collect();
        late.sort_unstable();
        for (_, id) in late.iter().rev().skip(LATE_MAX) {
            self.questions.remove(id);
        }
    }

    /// Takes the first keys of the line that may go together.
    fn next_question(&mut self) -> Vec<Want> {
        let mut wants: Vec<Want> = Vec::new();
        while let Some(entry) = self.line.first_entry() {
            let differs = wants.first().is_some_and(|(at_least, _)| *at_least != entry.get().0);
            if differs || wants.len() >= KEYS_PER_QUESTION {
                break;
            }
            let want = entry.remove();
            if let Some(wanted) = self.wanted.get_mut(&want) {
                wanted.state = Asking::Asked;
                wanted.tries += 1;
            }
            wants.push(want);
        }
        wants
    }

    /// Until when the most patient of those who want one of these waits.
    fn patience(&self, now: Instant, wants: &[Want]) -> Instant {
        let wanted = wants.iter().filter_map(|want| self.wanted.get(want));
        let callers = wanted.flat_map(|wanted| &wanted.callers).filter_map(|number| self.callers.get(number));
        callers.map(|caller| caller.deadline).fold(now, Instant::max)
    }

    /// A place in the line: at its head, or at its end.
    fn line_up(&mut self, want: Want, ahead: bool) {
        let place = match (self.line.first_key_value(), self.line.last_key_value()) {
            (Some((first, _)), _) if ahead => first - 1,
            (_, Some((last, _))) => last + 1,
            _ => 0,
        };
        if let Some(wanted) = self.wanted.get_mut(&want) {
            wanted.state = Asking::InLine(place);
            self.line.insert(place, want);
        }
    }

    /// A ready node said what it has of a key, or that it has nothing.
    fn decide(&mut self, want: &Want, record: Option<&Record>) {
        let Some(wanted) = self.wanted.remove(want) else { return };
        if let Asking::InLine(place) = wanted.state {
            self.line.remove(&place);
        }
        for number in wanted.callers {
            let Some(caller) = self.callers.get_mut(&number) else { continue };
            caller.found.extend(record.cloned());
            caller.open -= 1;
            if caller.open == 0
                && let Some(Caller { found, reply, .. }) = self.remove(number)
            {
                let _ = reply.send(Ok(found));
            }
        }
    }

    fn ask_again(&mut self, want: Want) {
        let Some(wanted) = self.wanted.get_mut(&want) else { return };
        if wanted.tries < TRIES_MAX {
            self.line_up(want, false);
        } else {
            // Those who want it now wait on: a late answer may still bring it.
            wanted.state = Asking::No;
        }
    }

    /// There is nobody to ask for this.
    fn give_up(&mut self, want: &Want) {
        let callers = self.wanted.get(want).map(|wanted| wanted.callers.clone()).unwrap_or_default();
        for caller in callers.into_iter().filter_map(|number| self.remove(number)) {
            let _ = caller.reply.send(Err(FetchError::NobodyReady));
        }
    }

    /// Takes a caller out; what nobody else wants is not asked for any more.
    fn remove(&mut self, number: u64) -> Option<Caller> {
        let caller = self.callers.remove(&number)?;
        self.deadlines.remove(&(caller.deadline, number));
        self.keys -= caller.wants.len();
        for want in &caller.wants {
            let Some(wanted) = self.wanted.get_mut(want) else { continue };
            wanted.callers.remove(&number);
            if wanted.callers.is_empty() {
                if let Asking::InLine(place) = wanted.state {
                    self.line.remove(&place);
                }
                self.wanted.remove(want);
            }
        }
        Some(caller)
    }
}

#[cfg(test)]
mod tests;
