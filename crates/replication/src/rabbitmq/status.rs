//! Whether the two connections work, as one health.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::transport::Health;

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publishing,
    Consuming,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publishing => "publishing",
            Self::Consuming => "consuming",
        }
    }
}

/// The state of both connections, and the health that follows from it.
#[derive(Debug)]
pub(super) struct Status {
    halves: Mutex<[Half; 2]>,
    health: watch::Sender<Health>,
}

#[derive(Debug, Clone)]
enum Half {
    Up,
    /// Connected, and the broker takes nothing.
    Blocked {
        since: Instant,
        reason: String,
    },
    Down {
        since: Instant,
        reason: Option<String>,
    },
    Closed,
}

impl Status {
    pub(super) fn new(now: Instant) -> Self {
        let down = Half::Down { since: now, reason: None };
        let (health, _) = watch::channel(Health::Connecting { since: now, last_error: None });
        Self { halves: Mutex::new([down.clone(), down]), health }
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn up(&self, role: Role) {
        self.set(role, |_| Half::Up);
    }

    /// The connection is down or cannot carry anything; the time of the first report of an outage stays.
    pub(super) fn down(&self, role: Role, now: Instant, reason: String) {
        self.set(role, |old| {
            let since = if let Half::Down { since, .. } = old { *since } else { now };
            Half::Down { since, reason: Some(reason) }
        });
    }

    /// The connection works, and the broker reads nothing from it for now.
    pub(super) fn blocked(&self, role: Role, now: Instant, reason: String) {
        self.set(role, |old| {
            let since = if let Half::Blocked { since, .. } = old { *since } else { now };
            Half::Blocked { since, reason }
        });
    }

    pub(super) fn closed(&self) {
        let mut halves = self.halves.lock();
        *halves = [Half::Closed, Half::Closed];
        self.health.send_replace(Health::Closed);
    }

    /// What a connection waits for, unless it works.
    pub(super) fn trouble(&self, role: Role) -> Option<String> {
        match &self.halves.lock()[role as usize] {
            Half::Up => None,
            Half::Blocked { reason, .. } => Some(format!("the broker accepts no publishes: {reason}")),
            Half::Down { reason, .. } => Some(
                reason.clone().unwrap_or_else(|| format!("the {} connection is being made", role.name())),
            ),
            Half::Closed => Some("closed".to_owned()),
        }
    }

    fn set(&self, role: Role, change: impl FnOnce(&Half) -> Half) {
        let mut halves = self.halves.lock();
        let half = &mut halves[role as usize];
        if !matches!(half, Half::Closed) {
            *half = change(half);
        }
        let health = joined(&halves);
        // Published under the lock, so that watchers see the changes in their order.
        self.health.send_if_modified(|old| {
            let changed = *old != health;
            *old = health;
            changed
        });
    }
}

fn joined(halves: &[Half; 2]) -> Health {
    let [publishing, consuming] = halves;
    match (publishing, outage(publishing), outage(consuming)) {
        (Half::Closed, ..) => Health::Closed,
        (_, None, None) => Health::Connected,
        (_, None, Some((since, last_error))) => Health::PublishOnly { since, last_error },
        (Half::Blocked { since, reason }, Some(_), None) => {
            Health::Blocked { since: *since, reason: reason.clone() }
        }
        (_, Some((since, last_error)), None) => Health::Connecting { since, last_error },
        // The older outage, and the reason of the one that stops publishing unless only the other has one.
        (_, Some((since, reason)), Some((other, other_reason))) => {
            Health::Connecting { since: since.min(other), last_error: reason.or(other_reason) }
        }
    }
}

/// Since when a connection carries nothing, and why, unless it does.
fn outage(half: &Half) -> Option<(Instant, Option<String>)> {
    match half {
        Half::Up | Half::Closed => None,
        Half::Blocked { since, reason } => Some((*since, Some(reason.clone()))),
        Half::Down { since, reason } => Some((*since, reason.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connected_only_while_both_connections_work() {
        let now = Instant::now();
        let status = Status::new(now);
        let health = status.health();
        assert_eq!(*health.borrow(), Health::Connecting { since: now, last_error: None });
        status.up(Role::Publishing);
        assert_eq!(*health.borrow(), Health::PublishOnly { since: now, last_error: None });
        assert!(health.borrow().can_publish());
        assert_eq!(status.trouble(Role::Publishing), None);
        status.up(Role::Consuming);
        assert_eq!(*health.borrow(), Health::Connected);
    }

    #[test]
    fn an_outage_keeps_the_time_it_began_and_tells_its_last_reason() {
        let start = Instant::now();
        let status = Status::new(start);
        status.up(Role::Publishing);
        status.up(Role::Consuming);
        let later = |seconds| start + Duration::from_secs(seconds);
        status.down(Role::Consuming, later(1), "reset".to_owned());
        status.down(Role::Consuming, later(2), "refused".to_owned());
        let expected = Health::PublishOnly { since: later(1), last_error: Some("refused".to_owned()) };
        assert_eq!(*status.health().borrow(), expected);
        assert_eq!(status.trouble(Role::Consuming).as_deref(), Some("refused"));
        status.up(Role::Consuming);
        status.down(Role::Publishing, later(9), "reset".to_owned());
        let expected = Health::Connecting { since: later(9), last_error: Some("reset".to_owned()) };
        assert_eq!(*status.health().borrow(), expected);
        assert!(!status.health().borrow().can_publish());
    }

    #[test]
    fn a_blocked_broker_is_told_apart_while_receiving_works() {
        let start = Instant::now();
        let status = Status::new(start);
        status.up(Role::Publishing);
        status.up(Role::Consuming);
        let later = |seconds| start + Duration::from_secs(seconds);
        status.blocked(Role::Publishing, later(1), "low on memory".to_owned());
        status.blocked(Role::Publishing, later(3), "low on disk".to_owned());
        let expected = Health::Blocked { since: later(1), reason: "low on disk".to_owned() };
        assert_eq!(*status.health().borrow(), expected);
        assert!(!status.health().borrow().can_publish());
        assert!(status.trouble(Role::Publishing).unwrap().contains("low on disk"));
        assert_eq!(status.trouble(Role::Consuming), None, "receiving goes on");
        status.down(Role::Consuming, later(4), "reset".to_owned());
        let expected = Health::Connecting { since: later(1), last_error: Some("low on disk".to_owned()) };
        assert_eq!(*status.health().borrow(), expected, "blocked says that receiving works");
        status.up(Role::Consuming);
        status.up(Role::Publishing);
        assert_eq!(*status.health().borrow(), Health::Connected);
    }

    #[test]
    fn closed_is_the_end() {
        let status = Status::new(Instant::now());
        status.closed();
        status.up(Role::Publishing);
        status.up(Role::Consuming);
        status.down(Role::Consuming, Instant::now(), "late".to_owned());
        assert_eq!(*status.health().borrow(), Health::Closed);
        assert_eq!(status.trouble(Role::Consuming).as_deref(), Some("closed"));
    }
}
