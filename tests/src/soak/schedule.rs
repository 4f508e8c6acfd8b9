//! Which fault comes when: pure, endless, and the same for the same seed.
//!
//! Kinds are dealt like cards: each comes once before any comes again, so that a run that is long enough has met them
//! all, in an order that no two seeds share. Those that end the broker are last in each round, so that it lives long
//! enough before for its memory to be judged. What a fault does, to whom and for how long is drawn when it is dealt. A
//! link's or a node's fault may fall together with another one elsewhere; a node's death may not, and comes when every
//! region has everything: in the fast profile, a write is rightly gone when its node and the broker's memory of it die
//! together.
//!
//! One region, drawn from the seed, is the survivor: its node is struck as the others are, but never killed, so that one
//! process lives through the whole run and a slow leak has time to show.

use std::{fmt, ops::RangeInclusive, time::Duration};

use fastrand::Rng;

use crate::proxy::{Death, Direction, DyingHandshake, End};

/// A region of the fleet, by name.
pub type Region = &'static str;

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The broker dies by SIGKILL and is started again at the end.
    BrokerKilled,
    /// The broker is ended in good order and started again at the end.
    BrokerStopped,
    /// The broker is ended in good order and started again at once.
    BrokerRestarted,
    /// The broker is frozen.
    BrokerFrozen,
    /// The broker has too little memory, so it blocks whoever publishes.
    MemoryAlarm,
    /// An operator closes every connection at the broker.
    ConnectionsClosed,
    /// An operator deletes the cache's exchange.
    ExchangeDeleted,
    /// An operator deletes the queue of a region's node.
    QueueDeleted(Region),
    /// A region's node is frozen.
    NodeFrozen(Region),
    /// A region's node dies by SIGKILL, and a new process takes its place at the end.
    NodeKilled(Region),
    /// A region's link to the broker falls silent.
    LinkHeld(Region),
    /// A region's link is cut.
    LinkCut(Region),
    /// A region's link is cut and mended again and again, with this time between.
    LinkFlaps(Region, Duration),
    /// A region's link is this much slower, each way.
    LinkSlow(Region, Duration),
    /// A region's link passes one direction alone; the bytes of the other are held, or swallowed where this says so.
    LinkOneWay(Region, Direction, bool),
    /// A region's link no longer tells that an end is gone; where one is named, everyone but it goes at once.
    LinkHalfOpen(Region, Option<End>),
    /// A region's link passes so many bytes a second each way.
    LinkNarrow(Region, u64),
    /// A region's connections are reset, and the handshake of new ones dies.
    HandshakesDie(Region, DyingHandshake),
}

/// A kind of fault: what is dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Fault::BrokerKilled`]
    BrokerKilled,
    /// [`Fault::BrokerStopped`]
    BrokerStopped,
    /// [`Fault::BrokerRestarted`]
    BrokerRestarted,
    /// [`Fault::BrokerFrozen`]
    BrokerFrozen,
    /// [`Fault::MemoryAlarm`]
    MemoryAlarm,
    /// [`Fault::ConnectionsClosed`]
    ConnectionsClosed,
    /// [`Fault::ExchangeDeleted`]
    ExchangeDeleted,
    /// [`Fault::QueueDeleted`]
    QueueDeleted,
    /// [`Fault::NodeFrozen`]
    NodeFrozen,
    /// [`Fault::NodeKilled`]
    NodeKilled,
    /// [`Fault::LinkHeld`]
    LinkHeld,
    /// [`Fault::LinkCut`]
    LinkCut,
    /// [`Fault::LinkFlaps`]
    LinkFlaps,
    /// [`Fault::LinkSlow`]
    LinkSlow,
    /// [`Fault::LinkOneWay`]
    LinkOneWay,
    /// [`Fault::LinkHalfOpen`]
    LinkHalfOpen,
    /// [`Fault::LinkNarrow`]
    LinkNarrow,
    /// [`Fault::HandshakesDie`]
    HandshakesDie,
}

/// One or two faults that begin and end together, after a calm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// How long all is well before it.
    pub calm: Duration,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// For how long.
    pub lasts: Duration,
}

/// The episodes of a seed, without end.
#[derive(Debug, Clone)]
pub struct Schedule {
    random: Rng,
    regions: Vec<Region>,
    survivor: Option<Region>,
    deck: Vec<Kind>,
}

const CALM_MS: RangeInclusive<u64> = 2_000..=6_000;
/// A broker's silence is noticed after twice the heartbeat, 10 s: some faults are over before, some are not.
const LASTS_MS: RangeInclusive<u64> = 3_000..=16_000;
/// One in so many episodes has two faults.
const TOGETHER_ONE_IN: u8 = 4;

impl Kind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::BrokerKilled,
        Self::BrokerStopped,
        Self::BrokerRestarted,
        Self::BrokerFrozen,
        Self::MemoryAlarm,
        Self::ConnectionsClosed,
        Self::ExchangeDeleted,
        Self::QueueDeleted,
        Self::NodeFrozen,
        Self::NodeKilled,
        Self::LinkHeld,
        Self::LinkCut,
        Self::LinkFlaps,
        Self::LinkSlow,
        Self::LinkOneWay,
        Self::LinkHalfOpen,
        Self::LinkNarrow,
        Self::HandshakesDie,
    ];

    /// Those that may fall together with another one elsewhere.
    const BESIDE: [Self; 9] = [
        Self::NodeFrozen,
        Self::LinkHeld,
        Self::LinkCut,
        Self::LinkFlaps,
        Self::LinkSlow,
        Self::LinkOneWay,
        Self::LinkHalfOpen,
        Self::LinkNarrow,
        Self::HandshakesDie,
    ];

    fn ends_the_broker(&self) -> bool {
        matches!(self, Self::BrokerKilled | Self::BrokerStopped | Self::BrokerRestarted)
    }
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BrokerKilled => Kind::BrokerKilled,
            Self::BrokerStopped => Kind::BrokerStopped,
            Self::BrokerRestarted => Kind::BrokerRestarted,
            Self::BrokerFrozen => Kind::BrokerFrozen,
            Self::MemoryAlarm => Kind::MemoryAlarm,
            Self::ConnectionsClosed => Kind::ConnectionsClosed,
            Self::ExchangeDeleted => Kind::ExchangeDeleted,
            Self::QueueDeleted(_) => Kind::QueueDeleted,
            Self::NodeFrozen(_) => Kind::NodeFrozen,
            Self::NodeKilled(_) => Kind::NodeKilled,
            Self::LinkHeld(_) => Kind::LinkHeld,
            Self::LinkCut(_) => Kind::LinkCut,
            Self::LinkFlaps(..) => Kind::LinkFlaps,
            Self::LinkSlow(..) => Kind::LinkSlow,
            Self::LinkOneWay(..) => Kind::LinkOneWay,
            Self::LinkHalfOpen(..) => Kind::LinkHalfOpen,
            Self::LinkNarrow(..) => Kind::LinkNarrow,
            Self::HandshakesDie(..) => Kind::HandshakesDie,
        }
    }

    /// The region that it strikes alone; `None` where it strikes the broker.
    pub fn region(&self) -> Option<Region> {
        match *self {
            Self::BrokerKilled
            | Self::BrokerStopped
            | Self::BrokerRestarted
            | Self::BrokerFrozen
            | Self::MemoryAlarm
            | Self::ConnectionsClosed
            | Self::ExchangeDeleted => None,
            Self::QueueDeleted(region)
            | Self::NodeFrozen(region)
            | Self::NodeKilled(region)
            | Self::LinkHeld(region)
            | Self::LinkCut(region)
            | Self::LinkFlaps(region, _)
            | Self::LinkSlow(region, _)
            | Self::LinkOneWay(region, ..)
            | Self::LinkHalfOpen(region, _)
            | Self::LinkNarrow(region, _)
            | Self::HandshakesDie(region, _) => Some(region),
        }
    }
}

impl Episode {
    /// Whether a life of the broker ends in it.
    pub fn ends_the_broker(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind().ends_the_broker())
    }
}

impl Schedule {
    /// The episodes of `seed`, for these regions.
    ///
    /// # Panics
    /// When there are none.
    pub fn new(seed: u64, regions: &[Region]) -> Self {
        assert!(!regions.is_empty(), "a schedule needs regions");
        let mut random = Rng::with_seed(seed);
        let survivor = (regions.len() > 1).then(|| regions[random.usize(..regions.len())]);
        Self { random, regions: regions.to_vec(), survivor, deck: Vec::new() }
    }

    /// The region whose node is never killed; `None` where there is one region alone.
    pub fn survivor(&self) -> Option<Region> {
        self.survivor
    }

    fn deal(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = Kind::ALL.to_vec();
            self.random.shuffle(&mut self.deck);
            // It is dealt from its end.
            self.deck.sort_by_key(|kind| !kind.ends_the_broker());
        }
        self.deck.pop().unwrap_or(Kind::LinkCut)
    }

    fn fault(&mut self, kind: Kind, spared: Option<Region>) -> Fault {
        let random = &mut self.random;
        let spared = if kind == Kind::NodeKilled { self.survivor } else { spared };
        let regions: Vec<Region> =
            self.regions.iter().copied().filter(|&region| Some(region) != spared).collect();
        let region = random.choice(regions).or(spared).unwrap_or_default();
        match kind {
            Kind::BrokerKilled => Fault::BrokerKilled,
            Kind::BrokerStopped => Fault::BrokerStopped,
            Kind::BrokerRestarted => Fault::BrokerRestarted,
            Kind::BrokerFrozen => Fault::BrokerFrozen,
            Kind::MemoryAlarm => Fault::MemoryAlarm,
            Kind::ConnectionsClosed => Fault::ConnectionsClosed,
            Kind::ExchangeDeleted => Fault::ExchangeDeleted,
            Kind::QueueDeleted => Fault::QueueDeleted(region),
            Kind::NodeFrozen => Fault::NodeFrozen(region),
            Kind::NodeKilled => Fault::NodeKilled(region),
            Kind::LinkHeld => Fault::LinkHeld(region),
            Kind::LinkCut => Fault::LinkCut(region),
            Kind::LinkFlaps => Fault::LinkFlaps(region, Duration::from_millis(random.u64(500..=3_000))),
            Kind::LinkSlow => Fault::LinkSlow(region, Duration::from_millis(random.u64(20..=400))),
            Kind::LinkOneWay => Fault::LinkOneWay(region, direction(random), random.bool()),
            Kind::LinkHalfOpen => {
                let left = [None, Some(End::Client), Some(End::Upstream)][random.usize(..3)];
                Fault::LinkHalfOpen(region, left)
            }
            Kind::LinkNarrow => Fault::LinkNarrow(region, random.u64(32..=512) * 1_024),
            Kind::HandshakesDie => {
                let then = [Death::Close, Death::Reset, Death::Mute][random.usize(..3)];
                // Nothing, part of AMQP's 8-byte header, all of it, and some of what follows.
                let client_bytes = [0, 3, 8, 100][random.usize(..4)];
                Fault::HandshakesDie(region, DyingHandshake { client_bytes, passed: random.bool(), then })
            }
        }
    }
}

fn direction(random: &mut Rng) -> Direction {
    Direction::BOTH[random.usize(..2)]
}

impl Iterator for Schedule {
    type Item = Episode;

    fn next(&mut self) -> Option<Episode> {
        let kind = self.deal();
        let first = self.fault(kind, None);
        let mut faults = vec![first];
        let alone = kind == Kind::NodeKilled || (first.region().is_some() && self.regions.len() < 2);
        if !alone && self.random.u8(..TOGETHER_ONE_IN) == 0 {
            let beside = Kind::BESIDE[self.random.usize(..Kind::BESIDE.len())];
            faults.push(self.fault(beside, first.region()));
        }
        let calm = Duration::from_millis(self.random.u64(CALM_MS));
        let lasts = Duration::from_millis(self.random.u64(LASTS_MS));
        Some(Episode { calm, faults, lasts })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrokerKilled => "broker killed",
            Self::BrokerStopped => "broker stopped",
            Self::BrokerRestarted => "broker restarted",
            Self::BrokerFrozen => "broker frozen",
            Self::MemoryAlarm => "memory alarm",
            Self::ConnectionsClosed => "connections closed",
            Self::ExchangeDeleted => "exchange deleted",
            Self::QueueDeleted => "queue deleted",
            Self::NodeFrozen => "node frozen",
            Self::NodeKilled => "node killed",
            Self::LinkHeld => "link held",
            Self::LinkCut => "link cut",
            Self::LinkFlaps => "link flaps",
            Self::LinkSlow => "link slow",
            Self::LinkOneWay => "link one way",
            Self::LinkHalfOpen => "link half-open",
            Self::LinkNarrow => "link narrow",
            Self::HandshakesDie => "handshakes die",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        if let Some(region) = self.region() {
            write!(f, " ({region}")?;
            match self {
                Self::LinkFlaps(_, between) => write!(f, ", every {} ms", between.as_millis())?,
                Self::LinkSlow(_, delay) => write!(f, ", {} ms each way", delay.as_millis())?,
                Self::LinkOneWay(_, lost, swallowed) => {
                    let to = if *lost == Direction::ToUpstream { "to" } else { "from" };
                    let fate = if *swallowed { "swallowed" } else { "held" };
                    write!(f, ", what goes {to} the broker is {fate}")?;
                }
                Self::LinkHalfOpen(_, left) => match left {
                    Some(End::Client) => f.write_str(", the node is left alone")?,
                    Some(End::Upstream) => f.write_str(", the broker is left alone")?,
                    None => {}
                },
                Self::LinkNarrow(_, bytes_per_s) => write!(f, ", {} KiB/s each way", bytes_per_s / 1_024)?,
                Self::HandshakesDie(_, how) => {
                    let passed = if how.passed { "passed" } else { "swallowed" };
                    write!(f, ", {} bytes {passed}, then {:?}", how.client_bytes, how.then)?;
                }
                _ => {}
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        write!(f, "{} for {:.1} s", faults.join(" and "), self.lasts.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const REGIONS: [Region; 3] = ["ap-south", "eu-central", "us-east"];

    fn episodes(seed: u64, count: usize) -> Vec<Episode> {
        Schedule::new(seed, &REGIONS).take(count).collect()
    }

    #[test]
    fn a_seed_gives_the_same_episodes_each_time_and_another_seed_others() {
        assert_eq!(episodes(7, 200), episodes(7, 200));
        assert_ne!(episodes(7, 20), episodes(8, 20));
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        for seed in 0..50 {
            for round in episodes(seed, 3 * Kind::ALL.len()).chunks(Kind::ALL.len()) {
                let dealt: BTreeSet<Kind> = round.iter().map(|episode| episode.faults[0].kind()).collect();
                assert_eq!(dealt.len(), Kind::ALL.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn until_the_last_three_of_a_round_the_broker_lives_on() {
        for episode in
            episodes(5, 10 * Kind::ALL.len()).chunks(Kind::ALL.len()).flat_map(|round| &round[..15])
        {
            assert!(!episode.ends_the_broker(), "{episode}");
        }
    }

    #[test]
    fn two_faults_strike_different_places_and_a_killed_node_is_alone() {
        let mut together = 0;
        for seed in 0..50 {
            for episode in episodes(seed, 100) {
                let regions: Vec<_> = episode.faults.iter().map(Fault::region).collect();
                if let [first, second] = regions[..] {
                    together += 1;
                    assert_ne!(first, second, "{episode}");
                    let killed = |fault: &Fault| fault.kind() == Kind::NodeKilled;
                    assert!(!episode.faults.iter().any(killed), "{episode}");
                }
            }
        }
        assert!((800..1_600).contains(&together), "{together} of 5,000");
    }

    #[test]
    fn times_keep_to_their_bounds() {
        for episode in episodes(3, 1_000) {
            assert!(CALM_MS.contains(&u64::try_from(episode.calm.as_millis()).unwrap()));
            assert!(LASTS_MS.contains(&u64::try_from(episode.lasts.as_millis()).unwrap()));
        }
    }

    #[test]
    fn every_region_is_struck_in_every_way() {
        let mut struck: BTreeSet<(Kind, Option<Region>)> = BTreeSet::new();
        for seed in 0..50 {
            let faults = episodes(seed, 100).into_iter().flat_map(|episode| episode.faults);
            struck.extend(faults.map(|fault| (fault.kind(), fault.region())));
        }
        let of_regions = Kind::ALL.len() - 7;
        assert_eq!(struck.len(), 7 + of_regions * REGIONS.len());
    }

    #[test]
    fn one_region_is_never_killed_and_the_others_are() {
        let mut survivors = BTreeSet::new();
        for seed in 0..50 {
            let schedule = Schedule::new(seed, &REGIONS);
            let survivor = schedule.survivor().unwrap();
            let faults = schedule.take(40 * Kind::ALL.len()).flat_map(|episode| episode.faults);
            let killed: BTreeSet<Region> = faults
                .filter(|fault| fault.kind() == Kind::NodeKilled)
                .filter_map(|fault| fault.region())
                .collect();
            let others: BTreeSet<Region> = REGIONS.into_iter().filter(|&region| region != survivor).collect();
            assert_eq!(killed, others, "seed {seed}");
            survivors.insert(survivor);
        }
        assert_eq!(survivors.len(), REGIONS.len());
    }

    #[test]
    fn an_episode_is_told_in_words() {
        let episode = Episode {
            calm: Duration::ZERO,
            faults: vec![Fault::BrokerFrozen, Fault::LinkOneWay("us-east", Direction::ToUpstream, true)],
            lasts: Duration::from_millis(4_500),
        };
        let told = "broker frozen and link one way (us-east, what goes to the broker is swallowed) for 4.5 s";
        assert_eq!(episode.to_string(), told);
    }
}
