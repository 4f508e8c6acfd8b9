//! What a link does at present, and to which of its connections; no I/O.

use std::{
    num::NonZeroU64,
    ops::{Bound, RangeBounds},
    time::Duration,
};

/// The way that bytes take through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From who dialled the link to who is behind it: what a node tells its broker.
    ToUpstream,
    /// From who is behind the link to who dialled it: what a broker tells its node.
    ToClient,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToUpstream, Self::ToClient];

    /// The other one.
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::ToUpstream => Self::ToClient,
            Self::ToClient => Self::ToUpstream,
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Who dialled the link.
    Client,
    /// Who is behind it.
    Upstream,
}

/// What the link does to the bytes and to the ends of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fault {
    /// Everything passes.
    #[default]
    None,
    /// Nothing passes, not even an end.
    Hold,
    /// One direction is held, the other passes.
    HoldOneWay(Direction),
    /// The bytes of one direction are lost, the other passes.
    SwallowOneWay(Direction),
    /// Bytes pass, but no end hears that the other is gone; new connections lead nowhere.
    HalfOpen,
    /// Connections are reset, new ones as they come.
    Cut,
}

/// A handshake that dies: TCP is accepted, and what is spoken on it breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DyingHandshake {
    /// It dies as soon as the client has sent this many bytes; 0: at once. AMQP's protocol header is 8 bytes.
    pub client_bytes: u64,
    /// Whether those bytes, and the answers to them, pass.
    pub passed: bool,
    /// How it dies.
    pub then: Death,
}

/// How a handshake dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Death {
    /// Both ends are closed (FIN; the kernel makes it a reset when the end had sent more than was read).
    Close,
    /// Both ends are reset (RST).
    Reset,
    /// Both ends stay open, nothing passes; they are reset when the link heals.
    Mute,
}

/// A range of connections, by the number of their acceptance, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection(Bound<u64>, Bound<u64>);

impl Selection {
    pub(super) const ALL: Self = Self(Bound::Unbounded, Bound::Unbounded);

    pub(super) fn of(connections: &impl RangeBounds<u64>) -> Self {
        Self(connections.start_bound().cloned(), connections.end_bound().cloned())
    }

    fn holds(self, connection: u64) -> bool {
        (self.0, self.1).contains(&connection)
    }
}

/// What happens once to the connections that there are at that moment. It stays written here when the link has healed,
/// so that a connection's task which looks only then still obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    up_to: u64,
    on: Selection,
}

impl Loss {
    fn holds(self, connection: u64) -> bool {
        connection <= self.up_to && self.on.holds(connection)
    }
}

/// Everything that is in force on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) on: Selection,
    pub(super) fault: Fault,
    pub(super) delay: Duration,
    /// By [`Direction::index`], bytes per second.
    pub(super) rates: [Option<NonZeroU64>; 2],
    pub(super) dying: Option<DyingHandshake>,
    resets: Option<Loss>,
    strands: Option<(Loss, End)>,
}

impl Link {
    pub(super) const PASSING: Self = Self {
        on: Selection::ALL,
        fault: Fault::None,
        delay: Duration::ZERO,
        rates: [None; 2],
        dying: None,
        resets: None,
        strands: None,
    };

    /// Ends every fault; what happened once has happened.
    pub(super) fn heal(&mut self) {
        *self = Self { resets: self.resets, strands: self.strands, ..Self::PASSING };
    }

    pub(super) fn cut(&mut self, accepted: u64) {
        self.fault = Fault::Cut;
        self.resets = Some(Loss { up_to: accepted, on: self.on });
    }

    pub(super) fn strand(&mut self, left: End, accepted: u64) {
        self.fault = Fault::HalfOpen;
        self.strands = Some((Loss { up_to: accepted, on: self.on }, left));
    }

    fn fault(&self, connection: u64) -> Fault {
        if self.on.holds(connection) { self.fault } else { Fault::None }
    }

    pub(super) fn resets(&self, connection: u64) -> bool {
        self.fault(connection) == Fault::Cut || self.resets.is_some_and(|loss| loss.holds(connection))
    }

    /// The end that is left alone when the other was just lost.
    pub(super) fn strands(&self, connection: u64) -> Option<End> {
        self.strands.filter(|(loss, _)| loss.holds(connection)).map(|(_, left)| left)
    }

    pub(super) fn blocks(&self, connection: u64, direction: Direction) -> bool {
        match self.fault(connection) {
            Fault::Hold => true,
            Fault::HoldOneWay(held) => held == direction,
            _ => false,
        }
    }

    pub(super) fn swallows(&self, connection: u64, direction: Direction) -> bool {
        self.fault(connection) == Fault::SwallowOneWay(direction)
    }

    pub(super) fn is_half_open(&self, connection: u64) -> bool {
        self.fault(connection) == Fault::HalfOpen
    }

    pub(super) fn delay(&self, connection: u64) -> Duration {
        if self.on.holds(connection) { self.delay } else { Duration::ZERO }
    }

    pub(super) fn rate(&self, connection: u64, direction: Direction) -> Option<NonZeroU64> {
        self.rates[direction.index()].filter(|_| self.on.holds(connection))
    }

    pub(super) fn dying(&self, connection: u64) -> Option<DyingHandshake> {
        self.dying.filter(|_| self.on.holds(connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_that_of_the_selected_connections_alone() {
        let mut link = Link::PASSING;
        link.on = Selection::of(&(3..));
        link.fault = Fault::HoldOneWay(Direction::ToClient);
        link.delay = Duration::from_secs(1);
        link.rates = [NonZeroU64::new(9); 2];
        assert!(link.blocks(3, Direction::ToClient) && !link.blocks(3, Direction::ToUpstream));
        assert!(!link.blocks(2, Direction::ToClient));
        assert_eq!((link.delay(3), link.delay(2)), (Duration::from_secs(1), Duration::ZERO));
        assert_eq!(link.rate(2, Direction::ToClient), None);
    }

    #[test]
    fn a_cut_that_healed_at_once_still_resets_who_was_there_and_nobody_else() {
        let mut link = Link::PASSING;
        link.on = Selection::of(&(2..=3));
        link.cut(4);
        link.heal();
        assert_eq!([1, 2, 3, 4].map(|connection| link.resets(connection)), [false, true, true, false]);
        link.cut(5);
        link.heal();
        assert_eq!([5, 6].map(|connection| link.resets(connection)), [true, false]);
    }

    #[test]
    fn who_comes_after_a_loss_is_not_stranded() {
        let mut link = Link::PASSING;
        link.strand(End::Client, 2);
        assert_eq!([2, 3].map(|connection| link.strands(connection)), [Some(End::Client), None]);
        assert!(link.is_half_open(3));
        link.heal();
        assert!(!link.is_half_open(3));
    }
}
