//! Leaves main when it is down, and goes back by itself when it may.
//!
//! Two places hold the same data: *main*, and a *fallback* that takes a copy of each write. A [`Failover`] says at each
//! moment which of them leads, where to read and where to write; when main is down the fallback leads, and when main
//! is up again it is brought up to date, tried, and leads again.
//!
//! The README of this crate draws the states and the moves between them.
//!
//! It decides and does nothing itself: it is pure, takes the time as an argument, and hears from its caller what the
//! two sides answered. The caller moves the data.
//!
//! # Why this way
//! - *Going back is the dangerous half.* A main that was cut off still has the old values, so it leads again only
//!   after a resync was reported as finished, and a probation in which it takes each write as well. No timer and no
//!   command leads around that.
//! - *Flapping costs more than staying.* A stay on the fallback lasts a dwell at least; each flap doubles the next one
//!   up to a cap, and good time undoes the doublings, one for each stretch as long as the dwell it had caused.
//! - *Late reports are dangerous.* A call may end after the sides have changed roles. Each route carries a [`Fence`];
//!   what is reported with an old one changes nothing, and a write that ends behind an old one is written again.
//! - *A restart looks like health.* Probe answers carry a [`Life`]. A main that began anew lost what it held, so the
//!   fallback leads and main is filled from it. A copy
//!   removes something only from a side that may hold old values, and never for one that is empty or may lack something
//!   itself. Then, and if the source may hold old values, the machine says so and waits for someone to empty the target.
//! - *What was seen is past.* An answer that said "empty" says nothing once something was written, and one from before a
//!   restart nothing at all. So a full copy begins only when its source has answered since it was due, and removes
//!   nothing before the source was seen to have lived through it.
//! - *A dead fallback is worse than a failing main.* Main is not left for one, and no dwell keeps the lead there.
//! - *A ring of "which server, which state" for many servers* was left out: two sides are what can be reasoned about. A
//!   chain of more is a [`Fallback`](crate::Fallback), for reads.
//!
//! What the caller owes for this to hold is said at [`Failover`].
//!
//! ```
//! use std::time::{Duration, Instant};
//! use resilience::{Failover, FailoverState, Life, Side};
//!
//! let mut failover = Failover::builder().down_after(2).up_after(1).dwell(Duration::from_secs(5)).build()?;
//! let mut now = Instant::now();
//! let route = failover.route_read(now);
//! failover.failed(route.side, route.fence, now);
//! failover.failed(route.side, route.fence, now);
//! assert_eq!((failover.state(), failover.route_read(now).side), (FailoverState::OnFallback, Side::Fallback));
//!
//! now += Duration::from_secs(5);
//! failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
//! let transfer = failover.transfer(now).expect("the dwell is over and main answers");
//! let resync = failover.resync_started(transfer, now).expect("nothing has changed since");
//! // … here the journal is applied to main …
//! failover.resync_finished(resync, now);
//! assert_eq!(failover.state(), FailoverState::Probation);
//!
//! now += Duration::from_secs(30);
//! failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
//! assert_eq!((failover.state(), failover.epoch()), (FailoverState::OnMain, 2));
//! # Ok::<(), resilience::ConfigError>(())
//! ```

mod config;
mod journal;
mod machine;
mod resync;
mod state;
mod status;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Instant};

pub use config::FailoverBuilder;
pub use journal::{Entry, Journal, Mark, Missed, Overflowed};
pub use state::{
    FailoverState, Fence, Life, OtherSide, ReadRoute, Refused, Resync, Scope, Side, Transfer, Why, WriteRoute,
};
pub use status::{Distrust, Status, Waiting};

use machine::{Machine, Phase};

/// Which of two sides leads; the [crate's documentation](crate) draws the states.
///
/// Every method takes the time; a time before an earlier one counts as no time passed.
///
/// # What the caller owes
/// One lock holds the `Failover` and a [`Journal`] for each side; it is never held while a side is asked. Then:
///
/// 1. **Reads** follow [`route_read`](Self::route_read); one that is to be a miss asks nobody. A key that is in the journal of the side to be asked is a
///    miss, for the side does not know it yet. Each end is [reported](Self::failed) with the route's fence.
/// 2. **Writes** and removes follow [`route_write`](Self::route_write): the side that leads first, then what the
///    other is owed. Before the write is answered, under the lock: if the fence [holds](Self::holds), take the key out
///    of the journal of each side that took the write ([`forget`](Journal::forget)), record it in the journal of one
///    that did not, and answer; if the fence has gone, write again by a new route. A write that failed may have been
///    applied all the same, so the other side must not keep the older value: while the fence holds, remove the key
///    there, or record the remove in its journal (and report [`missed_write`](Self::missed_write), if the route said to
///    copy).
/// 3. **Probes** of both sides begin before the first write and go on in every state, one at a time per side, and are
///    reported with [`answered`](Self::answered) or [`failed`](Self::failed).
/// 4. **Resyncs**: when [`transfer`](Self::transfer) asks for one, do it as its [`Scope`] says, as long as it
///    [holds](Self::resync_holds), and report the end under the lock, when the journal is empty. One thing at a time
///    per key: a write, from its route to its answer, and a resync's copy or replay of that key must not overlap.
/// 5. **A journal that overflows** is [reported](Self::journal_overflowed); the machine then asks for everything.
/// 6. Optionally, the [epoch](Self::epoch) is written down at the side that leads, and given back in its
///    [`Life`]: then a new process, which has lost the journals, learns that the fallback was leading.
///
/// What then holds: a value that was overwritten or removed is never read again, main down or back, as long as a side
/// that leads takes its writes; the fallback is left for main only with all that main missed; and no resync removes what
/// an empty, a younger or a restarted side lacks. What does not:
/// - While *both* sides fail, writes fail. If the fallback loses its life while it leads, what only it held is lost.
/// - A restart is seen with the next probe, so a side that begins anew with *old* content serves it until then. From
///   then on, reads of such a fallback are a miss until main leads again, for which no dwell is waited for, or someone
///   empties it; such a main is left, unless it is held, or the fallback is down, stale or empty: then it leads on with
///   what it has. A full copy that is under way from such a side may have overwritten newer values of the target, which
///   is not used before it was filled again or emptied.
/// - A leading fallback that is down while the journal of what main missed has overflowed: main must not lead with old
///   values, so the machine waits for the fallback, or for someone to empty main.
/// - What is written at the very moment of a probe is known one answer later; a write that is under way for longer than
///   two answers of its side may find that side taken for empty.
///
/// For a main client with backups that are written in real time, main and the first backup are the two sides; further
/// backups take copies as the fallback does, each with a journal, and join the reads as links of a
/// [`Fallback`](crate::Fallback).
///
/// # Example
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, Side};
///
/// let mut failover = Failover::builder().build()?;
/// let route = failover.route_read(Instant::now());
/// assert_eq!(route.side, Side::Main);
/// failover.succeeded(route.side, route.fence, Instant::now());
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Failover {
    machine: Machine,
}

impl Failover {
    /// Settings to change before building; the defaults leave main after 3 failures, for 30 s at least.
    ///
    /// ```
    /// let error = resilience::Failover::builder().first_share(2.0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "failover setting `first_share` is 2; use 0 to 1");
    /// ```
    pub fn builder() -> FailoverBuilder {
        FailoverBuilder::default()
    }

    /// What it is doing.
    ///
    /// ```
    /// use resilience::{Failover, FailoverState};
    /// assert_eq!(Failover::builder().build()?.state(), FailoverState::OnMain);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn state(&self) -> FailoverState {
        self.machine.state()
    }

    /// How often the lead has changed; it never falls.
    ///
    /// ```
    /// assert_eq!(resilience::Failover::builder().epoch(6).build()?.epoch(), 6);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn epoch(&self) -> u64 {
        self.machine.epoch
    }

    /// The side that leads: the one whose word on a write counts.
    ///
    /// ```
    /// use resilience::{Failover, Side};
    /// assert_eq!(Failover::builder().build()?.leader(), Side::Main);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn leader(&self) -> Side {
        if self.machine.main_leads() { Side::Main } else { Side::Fallback }
    }

    /// The fence of this moment, for reports of what has no route, such as a probe: take it before the probe is sent.
    ///
    /// ```
    /// let failover = resilience::Failover::builder().build()?;
    /// assert_eq!(failover.fence(), failover.fence());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn fence(&self) -> Fence {
        self.machine.fence()
    }

    /// Whether a route that was given with `fence` is still the right one. A write whose fence does not hold any more
    /// must be written again, by a new route, before it is answered.
    ///
    /// ```
    /// use std::time::Instant;
    /// let (mut failover, now) = (resilience::Failover::builder().build()?, Instant::now());
    /// let route = failover.route_write(now);
    /// assert!(failover.holds(route.fence));
    /// failover.fail_over("maintenance", now).unwrap();
    /// assert!(!failover.holds(route.fence));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    #[must_use = "a write whose fence does not hold must be written again"]
    pub fn holds(&self, fence: Fence) -> bool {
        fence == self.machine.fence()
    }

    /// Where to read, now. On probation, main gets its share of the reads, evenly spread.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Side};
    /// assert_eq!(Failover::builder().build()?.route_read(Instant::now()).side, Side::Main);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn route_read(&mut self, now: Instant) -> ReadRoute {
        self.machine.advance(now);
        let fence = self.fence();
        if let Phase::Probation { begun, .. } = self.machine.phase {
            let share = self.machine.share(begun, now);
            let side = if self.machine.takes_turn(share) { Side::Main } else { Side::Fallback };
            let stale = self.machine.fallback.stale;
            let or_else = (side == Side::Fallback || !stale).then_some(side.other());
            return ReadRoute { side, or_else, miss: stale && side == Side::Fallback, fence };
        }
        if self.machine.main_leads() {
            let or_else = (!self.machine.fallback.stale).then_some(Side::Fallback);
            return ReadRoute { side: Side::Main, or_else, miss: false, fence };
        }
        ReadRoute { side: Side::Fallback, or_else: None, miss: self.machine.fallback.stale, fence }
    }

    /// Where to write or remove, now.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, OtherSide, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.fail_over("maintenance", now).unwrap();
    /// let route = failover.route_write(now);
    /// assert_eq!((route.side, route.other), (Side::Fallback, OtherSide::Journal));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn route_write(&mut self, now: Instant) -> WriteRoute {
        self.machine.advance(now);
        let (side, other) = match self.machine.phase {
            Phase::OnMain { .. } => (Side::Main, OtherSide::Copy),
            Phase::OnFallback | Phase::Resyncing { .. } => (Side::Fallback, OtherSide::Journal),
            Phase::Probation { .. } => (Side::Fallback, OtherSide::Copy),
        };
        self.machine.write_sent();
        WriteRoute { side, other, fence: self.fence() }
    }

    /// A call to a side succeeded.
    ///
    /// ```
    /// use std::time::Instant;
    /// let (mut failover, now) = (resilience::Failover::builder().build()?, Instant::now());
    /// let route = failover.route_read(now);
    /// failover.succeeded(route.side, route.fence, now);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn succeeded(&mut self, side: Side, fence: Fence, now: Instant) {
        self.machine.advance(now);
        if !self.machine.timely(fence) {
            return;
        }
        match side {
            Side::Main => self.machine.main_succeeded(now),
            Side::Fallback => self.machine.fallback_failures = 0,
        }
        self.machine.advance(now);
    }

    /// A call to a side, or a probe of it, failed in a way that speaks against the side.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, FailoverState};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// let route = failover.route_read(now);
    /// failover.failed(route.side, route.fence, now);
    /// assert_eq!(failover.state(), FailoverState::Suspect);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn failed(&mut self, side: Side, fence: Fence, now: Instant) {
        self.machine.advance(now);
        if !self.machine.timely(fence) {
            return;
        }
        match side {
            Side::Main => self.machine.main_failed(now),
            Side::Fallback => self.machine.fallback_failed(),
        }
        self.machine.advance(now);
    }

    /// A probe of a side was answered: it is up, and lives this life.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, FailoverState, Life, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.answered(Side::Fallback, failover.fence(), Life::new(1, 1_000), now);
    /// failover.answered(Side::Main, failover.fence(), Life::new(1, 1_000), now);
    /// failover.answered(Side::Main, failover.fence(), Life::new(2, 0), now);
    /// assert_eq!(failover.state(), FailoverState::OnFallback, "main restarted empty: the fallback has it all");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn answered(&mut self, side: Side, fence: Fence, life: Life, now: Instant) {
        self.machine.advance(now);
        if !self.machine.timely(fence) {
            return;
        }
        self.machine.learn(side, life, now);
        self.machine.advance(now);
        if !self.holds(fence) {
            // What it showed has changed the state; that it is up counts from the next answer on.
            return;
        }
        self.succeeded(side, fence, now);
    }

    /// A side did not take a write that the other took: the copy to it failed. Main on probation loses its probation.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Scope, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// let route = failover.route_write(now);
    /// failover.missed_write(Side::Fallback, route.fence, now);
    /// assert_eq!(failover.transfer(now).map(|transfer| transfer.scope), Some(Scope::Missed));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn missed_write(&mut self, side: Side, fence: Fence, now: Instant) {
        self.machine.advance(now);
        if self.machine.timely(fence) {
            self.machine.missed_write(side, now);
        }
    }

    /// The journal of what `side` missed overflowed: only a resync of everything mends that.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Refused, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.journal_overflowed(Side::Fallback, now);
    /// assert_eq!(failover.fail_over("maintenance", now), Err(Refused::FallbackStale));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn journal_overflowed(&mut self, side: Side, now: Instant) {
        self.machine.advance(now);
        self.machine.journal_overflowed(side, now);
        self.machine.advance(now);
    }

    /// Makes the fallback lead, or go on leading, for a dwell at least. To stay longer, [`hold`](Self::hold) as well.
    ///
    /// # Errors
    /// [`Refused`] if it is held, or main leads and the fallback holds stale values or is down.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.fail_over("the main server moves", now).unwrap();
    /// assert_eq!(failover.leader(), Side::Fallback);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn fail_over(&mut self, why: impl Into<Cow<'static, str>>, now: Instant) -> Result<(), Refused> {
        self.machine.advance(now);
        if self.machine.held {
            return Err(Refused::Held);
        }
        let why = Why::Asked(why.into());
        match self.machine.phase {
            Phase::OnMain { .. } if self.machine.fallback.stale => return Err(Refused::FallbackStale),
            Phase::OnMain { .. } if self.machine.fallback_down() => return Err(Refused::FallbackDown),
            Phase::OnMain { .. } => self.machine.leave_main(why, now),
            Phase::OnFallback => self.machine.stay(why, now),
            Phase::Resyncing { .. } | Phase::Probation { .. } => self.machine.break_off(why, false, now),
        }
        Ok(())
    }

    /// Waives the dwell, and nothing else: main must still prove itself, be brought up to date and pass its probation.
    ///
    /// # Errors
    /// [`Refused`] if it is held.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Life, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().up_after(1).build()?, Instant::now());
    /// failover.fail_over("maintenance", now).unwrap();
    /// failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
    /// assert_eq!(failover.transfer(now), None);
    /// failover.fail_back(now).unwrap();
    /// assert!(failover.transfer(now).is_some());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn fail_back(&mut self, now: Instant) -> Result<(), Refused> {
        self.machine.advance(now);
        if self.machine.held {
            return Err(Refused::Held);
        }
        if let Some(away) = &mut self.machine.away {
            away.asked_back = true;
        }
        Ok(())
    }

    /// Holds the lead where it is, or releases it. While held, neither a failure nor a command changes the leader; a
    /// main on probation may still lose its probation, for it must not serve old values.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().down_after(1).build()?, Instant::now());
    /// failover.hold(true, now);
    /// failover.failed(Side::Main, failover.fence(), now);
    /// assert_eq!(failover.leader(), Side::Main);
    /// failover.hold(false, now);
    /// assert_eq!(failover.leader(), Side::Fallback);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn hold(&mut self, held: bool, now: Instant) {
        self.machine.advance(now);
        self.machine.held = held;
        self.machine.advance(now);
    }

    /// What it is doing, why, and what it waits for; printed, it is a sentence for an operator.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Side, Waiting};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.fail_over("maintenance", now).unwrap();
    /// assert!(failover.status(now).waiting.contains(&Waiting::Probes { seen: 0, needed: 3 }));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn status(&mut self, now: Instant) -> Status {
        self.machine.advance(now);
        self.machine.status(now)
    }

    /// When time alone may change something next, for a caller that sleeps until then. Probes are the caller's own
    /// to time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Failover;
    ///
    /// let (mut failover, now) = (Failover::builder().dwell(Duration::from_secs(9)).build()?, Instant::now());
    /// assert_eq!(failover.wake_at(now), None);
    /// failover.fail_over("maintenance", now).unwrap();
    /// assert_eq!(failover.wake_at(now), Some(now + Duration::from_secs(9)));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn wake_at(&mut self, now: Instant) -> Option<Instant> {
        self.machine.advance(now);
        self.machine.wake_at(now)
    }
}
