//! What a failover says of itself.

use std::{fmt, time::Duration};

use super::{FailoverState, Scope, Side, Why};

/// Something that the machine waits for before it goes on, most often before it goes back.
///
/// ```
/// use std::time::Duration;
/// use resilience::Waiting;
/// assert_eq!(Waiting::Dwell { left: Duration::from_secs(20) }.to_string(), "20s of dwell");
/// assert_eq!(Waiting::Probes { seen: 1, needed: 3 }.to_string(), "2 more successes of main in a row");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Waiting {
    /// For someone to release the hold.
    Held,
    /// For main to succeed more often in a row.
    Probes {
        /// Successes in a row so far.
        seen: u32,
        /// Successes in a row that are needed.
        needed: u32,
    },
    /// For the dwell to pass.
    Dwell {
        /// How much of it is left.
        left: Duration,
    },
    /// For what the fallback missed, while main led, to be applied to it.
    FallbackBehind,
    /// For the fallback to be refilled or emptied: main is down or the fallback leads, but what it holds may be old.
    FallbackStale,
    /// For the fallback to be up again: it failed as often in a row as takes main down.
    FallbackDown,
    /// For a side to answer a probe before all is copied.
    Answer {
        /// The side that was not heard of since the copy was due.
        side: Side,
    },
    /// For the source of a full resync to be worth copying, or the target to be empty.
    Source(Distrust),
    /// For the next try after failed resyncs.
    ResyncWait {
        /// How long until then.
        left: Duration,
        /// How many resyncs failed in a row.
        failures: u32,
    },
    /// For the caller to begin the resync.
    ResyncNotStarted {
        /// The side to be brought up to date.
        to: Side,
        /// What it must bring over.
        scope: Scope,
    },
    /// For the caller to end the resync.
    Resync {
        /// The side that is brought up to date.
        to: Side,
        /// What it brings over.
        scope: Scope,
        /// How long it has been running.
        running: Duration,
    },
    /// For the probation to pass.
    Probation {
        /// How much of it is left.
        left: Duration,
        /// Main's share of the reads now.
        share: f64,
    },
}

/// Why a side is not copied from.
///
/// ```
/// assert_eq!(resilience::Distrust::Empty.to_string(), "it is empty");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distrust {
    /// It is empty and the target is not: copying would erase the target.
    Empty,
    /// It restarted and was not filled since: it may lack what the target, which may hold old values, holds alone.
    Younger,
    /// It restarted with what it had before, so nobody knows what it has missed.
    Stale,
    /// It is down.
    Down,
}

/// What a failover is doing, why, what it waits for, and what it has counted.
///
/// ```
/// use std::time::{Duration, Instant};
/// use resilience::Failover;
///
/// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
/// failover.fail_over("maintenance", now)?;
/// assert_eq!(
///     failover.status(now + Duration::from_secs(10)).to_string(),
///     "on fallback in epoch 1 for 10s (asked: maintenance), waiting for 3 more successes of main in a row, 20s of dwell"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The state.
    pub state: FailoverState,
    /// The epoch.
    pub epoch: u64,
    /// How long it has been in this state; Suspect counts as on main.
    pub since: Duration,
    /// Whether it is held.
    pub held: bool,
    /// Why the fallback leads, or last went on leading.
    pub why: Option<Why>,
    /// All that it waits for; empty while main leads and all is well.
    pub waiting: Vec<Waiting>,
    /// How long the next stay on the fallback would be at least.
    pub next_dwell: Duration,
    /// Failures of the fallback in a row, as reported.
    pub fallback_failures: u32,
    /// How often the fallback began to lead.
    pub failovers: u64,
    /// How often main began to lead again.
    pub failbacks: u64,
    /// How often a resync of main or a probation was broken off.
    pub broken_off: u64,
    /// Resyncs of either side that were finished.
    pub resyncs: u64,
    /// Resyncs that failed, took too long, or were overtaken by events.
    pub resyncs_failed: u64,
    /// New lives of either side that were noticed.
    pub restarts: u64,
    /// Reports with an old fence; they changed nothing.
    pub late: u64,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Younger => "it is younger",
            Self::Stale => "it may hold old values",
            Self::Down => "it is down",
        })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("the hold to be released"),
            Self::Probes { seen, needed } => {
                write!(f, "{} more successes of main in a row", needed.saturating_sub(*seen))
            }
            Self::Dwell { left } => write!(f, "{left:?} of dwell"),
            Self::FallbackBehind => f.write_str("the fallback to be told what it missed"),
            Self::FallbackStale => f.write_str("the stale fallback to be refilled or emptied"),
            Self::FallbackDown => f.write_str("the fallback to be up again"),
            Self::Answer { side } => write!(f, "{side} to answer a probe"),
            Self::Source(why) => write!(f, "a source worth copying ({why}), or an empty target"),
            Self::ResyncWait { left, failures } => {
                write!(f, "{left:?} until the next resync, {failures} having failed")
            }
            Self::ResyncNotStarted { to, scope } => write!(f, "a resync of {to} ({scope}) to be started"),
            Self::Resync { to, scope, running } => {
                write!(f, "the resync of {to} ({scope}), running for {running:?}")
            }
            Self::Probation { left, share } => {
                write!(f, "{left:?} of probation, main reading {:.0} %", share * 100.0)
            }
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in epoch {} for {:?}", self.state, self.epoch, self.since)?;
        let back = matches!(self.state, FailoverState::OnMain | FailoverState::Suspect);
        if let Some(why) = self.why.as_ref().filter(|_| !back) {
            write!(f, " ({why})")?;
        }
        for (at, waiting) in self.waiting.iter().enumerate() {
            write!(f, "{}{waiting}", if at == 0 { ", waiting for " } else { ", " })?;
        }
        Ok(())
    }
}
