//! Bringing a side up to date: when it is due, whether it still holds, and how it ended.

use std::time::Instant;

use super::{Failover, Resync, Side, Transfer};

impl Failover {
    /// A side was brought what it may have lacked from somewhere that is neither of the two, such as a further backup that has missed
    /// nothing. Whether it may hold old values is another matter.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, FailoverState, Life, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.answered(Side::Main, failover.fence(), Life::new(1, 1_000), now);
    /// failover.answered(Side::Main, failover.fence(), Life::new(2, 0), now);
    /// failover.filled(Side::Main, now);
    /// failover.answered(Side::Fallback, failover.fence(), Life::new(1, 1_000), now);
    /// assert_eq!(failover.state(), FailoverState::OnMain, "there is nothing to be rescued");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn filled(&mut self, side: Side, now: Instant) {
        self.machine.filled(side);
        self.machine.advance(now);
    }

    /// Whether a side may lack what the other holds, or may hold old values, apart from what its journal names: a copy of more than that
    /// is due, under way, or waited for.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Failover, Life, Side};
    ///
    /// let (mut failover, now) = (Failover::builder().build()?, Instant::now());
    /// failover.answered(Side::Main, failover.fence(), Life::new(1, 1_000), now);
    /// assert!(!failover.lacks(Side::Fallback));
    /// failover.answered(Side::Fallback, failover.fence(), Life::new(1, 0), now);
    /// assert!(failover.lacks(Side::Fallback), "it is empty, and main is not");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn lacks(&self, side: Side) -> bool {
        self.machine.lacks(side)
    }

    /// The resync that is to be started now, if one is.
    ///
    /// ```
    /// let mut failover = resilience::Failover::builder().build()?;
    /// assert_eq!(failover.transfer(std::time::Instant::now()), None);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn transfer(&mut self, now: Instant) -> Option<Transfer> {
        self.machine.advance(now);
        self.machine.transfer(now)
    }

    /// The caller begins a resync; `None` if it is not wanted any more. If the target's journal overflowed, restart it
    /// under the same lock.
    ///
    /// ```
    /// use std::time::Instant;
    /// let (mut failover, now) = (resilience::Failover::builder().fallback_filled(false).build()?, Instant::now());
    /// # use resilience::{Life, Side};
    /// for side in [Side::Fallback, Side::Main] {
    ///     failover.answered(side, failover.fence(), Life::new(1, 10), now);
    /// }
    /// let transfer = failover.transfer(now).unwrap();
    /// assert!(failover.resync_started(transfer, now).is_some());
    /// assert!(failover.resync_started(transfer, now).is_none(), "one at a time");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn resync_started(&mut self, transfer: Transfer, now: Instant) -> Option<Resync> {
        self.machine.advance(now);
        self.machine.resync_started(transfer, now)
    }

    /// Whether a resync is still wanted: to be asked, under the lock, before each part of it. One that was overtaken by
    /// events must stop, for its target may lead by now.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let (mut failover, now) = (resilience::Failover::builder().fallback_filled(false).build()?, Instant::now());
    /// # use resilience::{Life, Side};
    /// # for side in [Side::Fallback, Side::Main] {
    /// #     failover.answered(side, failover.fence(), Life::new(1, 10), now);
    /// # }
    /// # let transfer = failover.transfer(now).unwrap();
    /// let resync = failover.resync_started(transfer, now).unwrap();
    /// assert!(failover.resync_holds(resync, now));
    /// assert!(!failover.resync_holds(resync, now + std::time::Duration::from_secs(601)), "it took too long");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    #[must_use = "a resync that does not hold must stop"]
    pub fn resync_holds(&mut self, resync: Resync, now: Instant) -> bool {
        self.machine.advance(now);
        self.machine.running.is_some_and(|running| running.resync == resync)
    }

    /// All that the source of a resync of more than what was missed holds was copied; says whether the rest may be done. Asked again
    /// until it says yes: first the source must answer two probes, the second of which was surely sent after the copy,
    /// in the life that it had at its beginning. A source that restarted meanwhile is thus found out before anything is
    /// removed for its sake. A resync of what was missed has nothing to wait for.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let (mut failover, now) = (resilience::Failover::builder().fallback_filled(false).build()?, Instant::now());
    /// # use resilience::{Life, Side};
    /// # for side in [Side::Fallback, Side::Main] {
    /// #     failover.answered(side, failover.fence(), Life::new(1, 10), now);
    /// # }
    /// # let transfer = failover.transfer(now).unwrap();
    /// let resync = failover.resync_started(transfer, now).unwrap();
    /// assert!(!failover.resync_copied(resync, now));
    /// for _ in 0..2 {
    ///     failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
    /// }
    /// assert!(failover.resync_copied(resync, now));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    #[must_use = "nothing may be removed before it says yes"]
    pub fn resync_copied(&mut self, resync: Resync, now: Instant) -> bool {
        self.machine.advance(now);
        self.machine.resync_copied(resync)
    }

    /// A resync is done, and the target's journal empty; says whether it counted. One that was overtaken by events
    /// does not, nor does one of more than what was missed before [`resync_copied`](Self::resync_copied) has said yes.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let (mut failover, now) = (resilience::Failover::builder().fallback_filled(false).build()?, Instant::now());
    /// # use resilience::{Life, Side};
    /// # for side in [Side::Fallback, Side::Main] {
    /// #     failover.answered(side, failover.fence(), Life::new(1, 10), now);
    /// # }
    /// # let transfer = failover.transfer(now).unwrap();
    /// let resync = failover.resync_started(transfer, now).unwrap();
    /// assert!(!failover.resync_finished(resync, now), "main might have restarted while it was copied");
    /// assert!(!failover.resync_copied(resync, now));
    /// for _ in 0..2 {
    ///     failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
    /// }
    /// assert!(failover.resync_finished(resync, now) && !failover.resync_finished(resync, now));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn resync_finished(&mut self, resync: Resync, now: Instant) -> bool {
        self.machine.advance(now);
        self.machine.resync_finished(resync, now)
    }

    /// A resync failed; it is wanted again after a wait. Says whether it counted.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let (mut failover, now) = (resilience::Failover::builder().fallback_filled(false).build()?, Instant::now());
    /// # use resilience::{Life, Side};
    /// # for side in [Side::Fallback, Side::Main] {
    /// #     failover.answered(side, failover.fence(), Life::new(1, 10), now);
    /// # }
    /// # let transfer = failover.transfer(now).unwrap();
    /// let resync = failover.resync_started(transfer, now).unwrap();
    /// assert!(failover.resync_failed(resync, now));
    /// assert_eq!(failover.transfer(now), None, "not at once");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn resync_failed(&mut self, resync: Resync, now: Instant) -> bool {
        self.machine.advance(now);
        self.machine.resync_failed(resync, now)
    }
}
