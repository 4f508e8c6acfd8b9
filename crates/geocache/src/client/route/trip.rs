//! One call on its way from region to region.
//!
//! The order is the router's plan, then the regions that look unhealthy, for a breaker whose wait is over lets a call pass. If none
//! answers, the best of those that were refused by their breakers may be asked against its word, as the last resort. Each region is
//! asked at most once. It gets a share of the time that is left, so that one that hangs leaves time for those behind it.
//!
//! Invariants: it ends by its deadline; each region in the order is asked, or its reason for not being asked is in the error; a
//! conditional change that may have been made is not made again elsewhere.

use std::{
    future::Future,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use geo::{Outcome, RegionId, Standing};
use resilience::Deadline;
use smallvec::SmallVec;
use tokio::time::sleep;

use super::{
    Table,
    hedge::Hedging,
    now,
    region::{Passes, Refusal, Region},
};
use crate::client::{ClientError, Doubt, Endpoint, EndpointError, Served};

/// A question on its way to one endpoint.
pub(super) type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, EndpointError>> + Send + 'a>>;

/// A region that has no more than this left is not asked, and so not blamed.
const TIME_MIN: Duration = Duration::from_millis(1);

/// A region's share of the time that is left is not less than this part of it, however many follow.
const SHARES_MAX: usize = 4;

const BUDGET_GONE: &str = "not asked: the client's budget of further tries is used up";

/// Where a call may go, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Whether it changes anything.
    pub(super) changes: bool,
    /// Whether it may be made again elsewhere though it may have been done.
    pub(super) repeatable: bool,
    /// Whether regions that are not in doubt come before all that are.
    pub(super) fresh_first: bool,
    /// Whether a second region may be asked while the first is slow.
    pub(super) hedged: bool,
    /// The only region to ask.
    pub(super) only: Option<&'a RegionId>,
    /// A region not to ask.
    pub(super) without: Option<&'a RegionId>,
    /// How many regions were asked for the same call before.
    pub(super) asked: u32,
}

pub(super) struct Trip<'a> {
    table: &'a Table,
    terms: Terms<'a>,
    deadline: Deadline,
    steps: SmallVec<[Step<'a>; 8]>,
    /// The step that comes next.
    at: usize,
    asked: u32,
    failures: Vec<(RegionId, String)>,
    /// The first region that was refused by its breaker.
    refused: Option<&'a Region>,
    retry_after: Option<Duration>,
    may_be_done: bool,
}

struct Step<'a> {
    region: &'a Region,
    /// `None` of one that looks unhealthy while others do not.
    standing: Option<Standing>,
    /// Whether a hedge went there out of turn.
    taken: bool,
}

/// What is said of a region without an answer.
struct Fault {
    reason: String,
    may_be_done: bool,
}

enum Failure {
    /// It speaks against the region: ask the next.
    Region(Fault),
    /// Asking another would not help.
    Caller(ClientError),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Region(fault) => fault,
            Failure::Caller(error) => Self { reason: error.to_string(), may_be_done: false },
        }
    }
}

impl<'a> Trip<'a> {
    pub(super) fn new(table: &'a Table, terms: Terms<'a>, deadline: Deadline) -> Result<Self, ClientError> {
        let steps = match terms.only {
            Some(only) => SmallVec::from_iter([Step {
                region: table.known(only)?,
                standing: Some(Standing::Healthy),
                taken: false,
            }]),
            None => steps(table, terms),
        };
        let asked = terms.asked;
        Ok(Self {
            table,
            terms,
            deadline,
            steps,
            at: 0,
            asked,
            failures: Vec::new(),
            refused: None,
            retry_after: None,
            may_be_done: false,
        })
    }

    /// Asks one region after the other until one answers.
    pub(super) async fn run<T>(
        mut self,
        ask: impl Fn(&'a dyn Endpoint) -> Asking<'a, T> + Sync,
    ) -> Result<Served<T>, ClientError> {
        let table = self.table;
        let first = self.steps.first().map(|step| &step.region.id);
        while let Some((region, passes)) = self.next() {
            let (region, answer) = match &table.hedging {
                Some(hedging) if self.terms.hedged && self.asked == 1 => {
                    self.race(hedging, region, passes, &ask).await
                }
                _ => (region, table.ask(region, passes, self.limit(), &ask).await),
            };
            match answer {
                Ok(value) => {
                    region.counts.served.add();
                    if first != Some(&region.id) {
                        table.counts.fallbacks.add();
                    }
                    let doubt = region.doubt();
                    return Ok(Served { value, region: region.id.clone(), doubt, asked: self.asked });
                }
                Err(Failure::Caller(error)) => return Err(error),
                Err(Failure::Region(fault)) => self.failed(region, fault),
            }
            let is_over = self.at == self.steps.len() && self.refused.is_none();
            if self.may_be_done && !self.terms.repeatable && !is_over {
                table.counts.not_repeated.add();
                self.skip_rest("not asked: the change has a condition, and may have been made already");
            }
        }
        // Asked on, it has the first region's answer.
        if self.terms.asked == 0 {
            table.counts.unavailable.add();
        }
        let Self { failures, retry_after, may_be_done, .. } = self;
        Err(ClientError::Unavailable { failures, retry_after, may_be_done })
    }

    /// The next region to ask, and the right to.
    fn next(&mut self) -> Option<(&'a Region, Passes<'a>)> {
        while let Some(step) = self.steps.get(self.at) {
            if step.taken {
                self.at += 1;
                continue;
            }
            let (region, now) = (step.region, now());
            if !self.deadline.allows_at(now, TIME_MIN) {
                self.skip_rest("not asked: the call's time was over");
                return None;
            }
            let admitted = region.admit(now);
            // The breaker may have turned half-open by being asked.
            region.settle(&self.table.router, &self.table.bell);
            match admitted {
                Err(refusal) => {
                    self.at += 1;
                    self.refuse(region, refusal);
                }
                Ok(_) if !self.may_ask(now) => {
                    self.skip_rest(BUDGET_GONE);
                    return None;
                }
                Ok(passes) => {
                    self.at += 1;
                    self.asked += 1;
                    return Some((region, passes));
                }
            }
        }
        self.last_resort()
    }

    /// The best of the regions that were refused by their breakers, if its turn is free.
    fn last_resort(&mut self) -> Option<(&'a Region, Passes<'a>)> {
        // Once for each call, and not for one that ended early.
        let (region, now) = (self.refused.take()?, now());
        if !self.deadline.allows_at(now, TIME_MIN) {
            return None;
        }
        let turn = self.table.last_resort.enter(now)?;
        let passes = region.admit_last_resort(turn).ok().filter(|_| self.may_ask(now))?;
        self.table.counts.last_resorts.add();
        self.failures.retain(|(other, _)| *other != region.id);
        self.asked += 1;
        Some((region, passes))
    }

    /// Whether the budget allows one more question; the first costs nothing.
    fn may_ask(&self, now: Instant) -> bool {
        let may = self.asked == 0 || self.table.budget.try_retry_at(now);
        if !may {
            self.table.counts.fallbacks_refused.add();
        }
        may
    }

    /// How long the region whose turn it is may take.
    fn limit(&self) -> Deadline {
        let now = now();
        let shares = (1 + self.steps.len() - self.at).min(SHARES_MAX) as u32;
        self.deadline.shared_at(now, shares).capped_at(now, self.table.limits.attempt)
    }

    fn refuse(&mut self, region: &'a Region, refusal: Refusal) {
        if let Refusal::Open(open) = refusal {
            self.refused.get_or_insert(region);
            self.retry_after =
                Some(self.retry_after.map_or(open.retry_after, |before| before.min(open.retry_after)));
        } else {
            self.table.counts.full.add();
        }
        self.failures.push((region.id.clone(), refusal.to_string()));
    }

    fn failed(&mut self, region: &Region, fault: Fault) {
        self.may_be_done |= self.terms.changes && fault.may_be_done;
        self.failures.push((region.id.clone(), fault.reason));
    }

    /// Gives up on the regions that were not asked.
    fn skip_rest(&mut self, reason: &str) {
        self.refused = None;
        let rest = self.steps.drain(self.at..).filter(|step| !step.taken);
        self.failures.extend(rest.map(|step| (step.region.id.clone(), reason.to_owned())));
    }

    /// Asks a region, and another one as well if it takes long; the one whose answer was not needed is cancelled.
    async fn race<T>(
        &mut self,
        hedging: &'a Hedging,
        region: &'a Region,
        passes: Passes<'a>,
        ask: &(impl Fn(&'a dyn Endpoint) -> Asking<'a, T> + Sync),
    ) -> (&'a Region, Result<T, Failure>) {
        let (table, begun) = (self.table, now());
        let timed = async |region: &'a Region, passes, limit| {
            let answer = table.ask(region, passes, limit, ask).await;
            if answer.is_ok() {
                region.latencies.took(now().saturating_duration_since(begun));
            }
            answer
        };
        let Some(delay) = hedging.begin(&region.latencies, begun) else {
            return (region, timed(region, passes, self.limit()).await);
        };
        let mut first = pin!(timed(region, passes, self.limit()));
        tokio::select! {
            biased;
            answer = &mut first => return (region, answer),
            () = sleep(delay) => {}
        }
        let Some((other, passes)) = self.hedge(hedging) else { return (region, first.await) };
        let mut second = pin!(table.ask(other, passes, self.limit(), ask));
        tokio::select! {
            biased;
            answer = &mut first => match answer {
                Err(Failure::Region(fault)) => {
                    self.failed(region, fault);
                    (other, second.await)
                }
                answer => (region, answer),
            },
            answer = &mut second => match answer {
                Ok(value) => {
                    table.counts.hedge_wins.add();
                    // It would have taken longer still; without it the percentile would forget the slow ones.
                    region.latencies.took(now().saturating_duration_since(begun));
                    (other, Ok(value))
                }
                // What the second does not take, the first may, which would have been asked alone.
                Err(failure) => {
                    self.failed(other, failure.into());
                    (region, first.await)
                }
            },
        }
    }

    /// The region to ask as well: a healthy one, those not in doubt first, if the budget allows. The region that keeps this read
    /// waiting is most often the one that the others do not hear, which puts them in doubt: so doubt keeps none from being asked,
    /// unless none in doubt is wanted. A warming one is not asked: it would be the first to answer, and has nothing.
    fn hedge(&mut self, hedging: &Hedging) -> Option<(&'a Region, Passes<'a>)> {
        let now = now();
        let healthy = |step: &Step<'_>| !step.taken && step.standing == Some(Standing::Healthy);
        let certain = |step: &Step<'_>| healthy(step) && step.region.doubt().is_none();
        let takes_doubt = !self.terms.fresh_first;
        let suits = |step: &Step<'_>| healthy(step) && step.region.doubt() != Some(Doubt::Warming);
        let rest = self.steps.get(self.at..)?;
        let doubtful = || rest.iter().position(suits).filter(|_| takes_doubt);
        let at = self.at + rest.iter().position(certain).or_else(doubtful)?;
        let region = self.steps[at].region;
        if !hedging.allows(now) {
            self.table.counts.hedges_refused.add();
            return None;
        }
        let admitted = region.admit(now);
        region.settle(&self.table.router, &self.table.bell);
        let passes = admitted.ok()?;
        self.table.counts.hedges.add();
        self.steps[at].taken = true;
        self.asked += 1;
        Some((region, passes))
    }
}

fn steps<'a>(table: &'a Table, terms: Terms<'_>) -> SmallVec<[Step<'a>; 8]> {
    let plan = table.router.plan(now());
    let planned = plan.iter().map(|candidate| (&candidate.region, Some(candidate.standing)));
    let out = plan.left_out().iter().map(|region| (region, None));
    let steps = planned.chain(out).filter(|(region, _)| terms.without != Some(*region));
    let steps = steps.filter_map(|(id, standing)| {
        let region = table.region(id)?;
        Some(Step { region, standing, taken: false })
    });
    let mut steps: SmallVec<_> = steps.collect();
    if terms.fresh_first {
        let class = |standing| match standing {
            Some(Standing::Healthy | Standing::Probing) => 0,
            Some(Standing::Drained) => 1,
            _ => 2,
        };
        steps.sort_by_key(|step: &Step<'_>| (class(step.standing), step.region.doubt().is_some()));
    }
    steps
}

impl Table {
    /// Asks one region, once, and tells the router and the breaker how that ended; dropped, it is cancelled.
    async fn ask<'a, T>(
        &'a self,
        region: &'a Region,
        passes: Passes<'a>,
        limit: Deadline,
        ask: &(impl Fn(&'a dyn Endpoint) -> Asking<'a, T> + Sync),
    ) -> Result<T, Failure> {
        let begun = now();
        let end = |outcome| region.end(passes, outcome, &self.router, &self.bell);
        let fault = |reason, may_be_done| Err(Failure::Region(Fault { reason, may_be_done }));
        let call = match self.router.begin_with(&region.id, begun, end) {
            Ok(call) => call,
            Err(unknown) => return fault(unknown.to_string(), false),
        };
        region.counts.asked.add();
        let answer = limit.wait_for("an answer", ask(&*region.endpoint)).await;
        let ended = now();
        match answer {
            Ok(Ok(value)) => {
                call.success(ended);
                Ok(value)
            }
            Ok(Err(error)) if error.is_fault() => {
                let reason = error.to_string();
                region.counts.failed.add();
                region.note_error(&reason, ended);
                call.failure(ended);
                fault(reason, error.may_be_done())
            }
            Ok(Err(error)) => {
                call.end(Outcome::Ignored, ended);
                Err(Failure::Caller(ClientError::of(&region.id, error)))
            }
            Err(over) if over.waited.is_zero() => {
                call.end(Outcome::Ignored, ended);
                fault(over.to_string(), false)
            }
            Err(over) => {
                let reason = format!("no answer within {:?}", over.waited);
                region.counts.failed.add();
                region.note_error(&reason, ended);
                call.failure(ended);
                fault(reason, true)
            }
        }
    }
}
