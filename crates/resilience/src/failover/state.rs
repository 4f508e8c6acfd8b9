//! The words of a failover: sides, lives, routes and reports.

use std::{borrow::Cow, fmt};

/// One of the two places that hold the data.
///
/// ```
/// use resilience::Side;
/// assert_eq!(Side::Main.other(), Side::Fallback);
/// assert_eq!(Side::Fallback.to_string(), "fallback");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the data belongs while all is well.
    Main,
    /// Where it is kept meanwhile.
    Fallback,
}

impl Side {
    /// The one that this is not.
    pub const fn other(self) -> Self {
        match self {
            Self::Main => Self::Fallback,
            Self::Fallback => Self::Main,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Fallback => "fallback",
        })
    }
}

/// What a failover is doing.
///
/// ```
/// assert_eq!(resilience::FailoverState::OnFallback.to_string(), "on fallback");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailoverState {
    /// Main leads.
    OnMain,
    /// Main leads, and has failed of late.
    Suspect,
    /// The fallback leads; main is down, or has not proven itself yet.
    OnFallback,
    /// The fallback leads, and the caller brings main up to date.
    Resyncing,
    /// The fallback leads, main takes each write as well and a growing share of the reads.
    Probation,
}

impl fmt::Display for FailoverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnMain => "on main",
            Self::Suspect => "on main, suspect",
            Self::OnFallback => "on fallback",
            Self::Resyncing => "resyncing main",
            Self::Probation => "main on probation",
        })
    }
}

/// What a probe's answer says of a side's life.
///
/// ```
/// use resilience::Life;
/// // Of a memcached server: its pid and start time as one number, and `curr_items`.
/// let life = Life::new(4_711, 250_000).epoch(6);
/// assert_eq!(life.entries, 250_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Life {
    /// What changes when the side starts anew: a start time, a process number, a random one.
    pub incarnation: u64,
    /// How many entries it holds; only whether it is none matters.
    pub entries: u64,
    /// The newest epoch that was written down there, if the caller keeps one with the data.
    pub epoch: Option<u64>,
    /// Whether this life is known to have begun with nothing, whatever it holds by now.
    pub began_empty: bool,
}

impl Life {
    /// A life that remembers no epoch, and may have kept what it held before.
    pub const fn new(incarnation: u64, entries: u64) -> Self {
        Self { incarnation, entries, epoch: None, began_empty: false }
    }

    /// Says that the life began with nothing, as each does of a store that keeps nothing through a restart. Without it, a
    /// restart that is noticed when the side has been written to again looks like one with old content.
    ///
    /// ```
    /// assert!(resilience::Life::new(4_711, 3).began_empty().began_empty);
    /// ```
    #[must_use]
    pub const fn began_empty(mut self) -> Self {
        self.began_empty = true;
        self
    }

    /// Adds the newest epoch that was written down at the side.
    #[must_use]
    pub const fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }
}

/// The moment of the machine that a route was given in.
///
/// What is reported with the fence of an earlier moment changes nothing, and a write must only be answered while
/// its fence [holds](super::Failover::holds).
///
/// ```
/// use std::time::Instant;
/// use resilience::Failover;
///
/// let mut failover = Failover::builder().build()?;
/// let before = failover.fence();
/// failover.fail_over("maintenance", Instant::now())?;
/// assert!(!failover.holds(before) && failover.fence().epoch() == before.epoch() + 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    pub(super) epoch: u64,
    pub(super) step: u64,
}

impl Fence {
    /// The epoch: it grows each time that the other side begins to lead.
    pub const fn epoch(self) -> u64 {
        self.epoch
    }
}

/// Where to read.
///
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, Side};
/// let route = Failover::builder().build()?.route_read(Instant::now());
/// assert_eq!((route.side, route.or_else), (Side::Main, Some(Side::Fallback)));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadRoute {
    /// Whom to ask.
    pub side: Side,
    /// Who may be asked if that fails, for all keys that are not in that side's journal.
    pub or_else: Option<Side>,
    /// Whether to answer a miss and ask nobody: the side that leads restarted with what it had before, which may be old.
    pub miss: bool,
    /// To be handed back with the report.
    pub fence: Fence,
}

/// Where to write.
///
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, OtherSide, Side};
/// let route = Failover::builder().build()?.route_write(Instant::now());
/// assert_eq!((route.side, route.other), (Side::Main, OtherSide::Copy));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteRoute {
    /// Who must take the write, or it has failed.
    pub side: Side,
    /// What the other side is owed before the write is answered.
    pub other: OtherSide,
    /// To be handed back with the report, and to be checked before the write is answered.
    pub fence: Fence,
}

/// What the side that does not lead is owed of a write.
///
/// ```
/// assert_ne!(resilience::OtherSide::Copy, resilience::OtherSide::Journal);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherSide {
    /// Write there as well. If it fails, record the key in that side's journal and report
    /// [`missed_write`](super::Failover::missed_write).
    Copy,
    /// Do not write there; record the key in that side's journal.
    Journal,
}

/// What a resync must bring over.
///
/// ```
/// assert_eq!(resilience::Scope::Missed.to_string(), "what it missed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// What is in the journal of the target. If that overflowed, the target was emptied since: restart the journal.
    Missed,
    /// All: restart the target's journal if it overflowed, copy what the other side holds, say so
    /// ([`resync_copied`](super::Failover::resync_copied)), then remove from the target what was neither copied nor
    /// written since, and apply the journal.
    Everything,
    /// All that the target may lack: as everything, but nothing is removed, for the target holds nothing old.
    Lacking,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missed => "what it missed",
            Self::Everything => "everything",
            Self::Lacking => "what it lacks",
        })
    }
}

/// A resync that the machine wants; the caller does it, between
/// [`resync_started`](super::Failover::resync_started) and [`resync_finished`](super::Failover::resync_finished).
///
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, Life, Side};
///
/// let (mut failover, now) = (Failover::builder().fallback_filled(false).build()?, Instant::now());
/// assert_eq!(failover.transfer(now), None, "nobody knows yet what the two hold");
/// for side in [Side::Fallback, Side::Main] {
///     failover.answered(side, failover.fence(), Life::new(1, 10), now);
/// }
/// let transfer = failover.transfer(now).expect("the fallback is to be filled");
/// assert_eq!((transfer.from(), transfer.to), (Side::Main, Side::Fallback));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// The side that is brought up to date.
    pub to: Side,
    /// What must be brought over.
    pub scope: Scope,
    pub(super) fence: Fence,
}

impl Transfer {
    /// The side that is copied from, unless the scope is what was missed.
    pub const fn from(self) -> Side {
        self.to.other()
    }
}

/// A resync under way; handed back with its end. That of an earlier moment changes nothing.
///
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, Life, Scope, Side};
///
/// let (mut failover, now) = (Failover::builder().fallback_filled(false).build()?, Instant::now());
/// for side in [Side::Fallback, Side::Main] {
///     failover.answered(side, failover.fence(), Life::new(1, 10), now);
/// }
/// let transfer = failover.transfer(now).unwrap();
/// let resync = failover.resync_started(transfer, now).unwrap();
/// assert_eq!(resync.scope, Scope::Everything);
/// // … here all is copied; then two answers show that main has lived through it …
/// assert!(!failover.resync_copied(resync, now));
/// for _ in 0..2 {
///     failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
/// }
/// assert!(failover.resync_copied(resync, now));
/// // … here the fallback loses what main did not hold …
/// assert!(failover.resync_finished(resync, now));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resync {
    /// The side that is brought up to date.
    pub to: Side,
    /// What is brought over.
    pub scope: Scope,
    pub(super) number: u64,
}

/// Why the fallback leads, or went on leading.
///
/// ```
/// assert_eq!(resilience::Why::Failures(3).to_string(), "3 failures of main");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Main failed so often.
    Failures(u32),
    /// Main began a new life, and what it held is held by the fallback.
    MainRestarted,
    /// The fallback began a new life while main was copied from it.
    FallbackRestarted,
    /// The fallback is up again, or was emptied, while main was tried without what it holds.
    FallbackReturned,
    /// Main missed a write while it was on probation.
    MissedWrite,
    /// The resync failed, or took too long.
    ResyncFailed,
    /// The journal of what main missed overflowed while main was brought up to date.
    JournalOverflowed,
    /// The fallback remembers a newer epoch than this machine had: an earlier process had failed over.
    NewerEpoch,
    /// Someone asked for it, with these words.
    Asked(Cow<'static, str>),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(failures) => write!(f, "{failures} failures of main"),
            Self::MainRestarted => f.write_str("main restarted"),
            Self::FallbackRestarted => f.write_str("the fallback restarted during the resync"),
            Self::FallbackReturned => f.write_str("the fallback is up again, with what main lacks"),
            Self::MissedWrite => f.write_str("main missed a write"),
            Self::ResyncFailed => f.write_str("the resync failed"),
            Self::JournalOverflowed => f.write_str("the journal overflowed during the resync"),
            Self::NewerEpoch => f.write_str("the fallback remembers a newer epoch"),
            Self::Asked(why) => write!(f, "asked: {why}"),
        }
    }
}

/// A command that was not followed.
///
/// ```
/// use std::time::Instant;
/// use resilience::{Failover, Refused};
///
/// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
/// failover.hold(true, now);
/// assert_eq!(failover.fail_over("maintenance", now), Err(Refused::Held));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Release the hold first.
    #[error("held; release the hold first")]
    Held,
    /// Refill the fallback from main, or empty it.
    #[error("the fallback holds stale values; refill or empty it first")]
    FallbackStale,
    /// Wait until it is up, and was reported to be.
    #[error("the fallback is down; wait until it answers a probe")]
    FallbackDown,
}
