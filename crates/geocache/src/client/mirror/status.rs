//! What a mirrored client says of itself.

use std::fmt;

use geo::RegionId;
use resilience::{State, Status};

/// A server's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MirrorRole {
    /// Leads while all is well.
    Main,
    /// Takes each write, and leads while main is down.
    Fallback,
    /// Takes each write, and answers reads when neither of the two does.
    Backup,
}

impl fmt::Display for MirrorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Fallback => "fallback",
            Self::Backup => "backup",
        })
    }
}

/// One region of a mirrored client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MirrorPlace {
    /// The region.
    pub region: RegionId,
    /// Where its server is.
    pub address: String,
    /// Its part.
    pub role: MirrorRole,
    /// Whether its word on a write counts now.
    pub leads: bool,
    /// Whether it answered its last probe.
    pub up: bool,
    /// How many keys it has missed the newest change of.
    pub missed: usize,
    /// What they take in memory here, in bytes.
    pub missed_bytes: usize,
    /// How many changes it has missed that its journal could not keep.
    pub missed_lost: u64,
    /// Whether it may hold old values of keys that nobody can name; it is read by nobody then.
    pub stale: bool,
    /// Whether it may lack what others hold.
    pub lacking: bool,
    /// The breaker of its copies.
    pub breaker: State,
    /// What a backup waits for before it is brought up to date.
    pub waiting: Option<&'static str>,
}

/// What a mirrored client is doing, why, and what it waits for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// Which side leads, why, and why it has not gone back yet.
    pub failover: Status,
    /// Main, the fallback, and the backups.
    pub places: Vec<MirrorPlace>,
    /// Changes that were made.
    pub writes: u64,
    /// Changes that were made anew because the lead had changed meanwhile.
    pub rewritten: u64,
    /// Copies of changes that were taken.
    pub copies_taken: u64,
    /// Copies of changes that were not, and went into a journal.
    pub copies_missed: u64,
    /// Copies that a server did not take for a limit of its own; the key is removed there.
    pub copies_refused: u64,
    /// Values that were read elsewhere because the side that leads was still being filled.
    pub read_through: u64,
    /// Values that the side that leads was filled with.
    pub filled: u64,
    /// Keys in the record of what was written.
    pub recorded: usize,
    /// Keys that had to be dropped from it.
    pub record_dropped: u64,
}

impl fmt::Display for MirrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failover)?;
        for place in &self.places {
            let MirrorPlace { region, address, role, missed, .. } = place;
            write!(f, "\n{role} {region} at {address}: {}", if place.up { "up" } else { "down" })?;
            if place.leads {
                f.write_str(", leads")?;
            }
            if *missed > 0 {
                write!(f, ", has missed {missed} keys")?;
            }
            if place.stale {
                f.write_str(", may hold old values and is not read")?;
            }
            if place.lacking {
                f.write_str(", is to be filled")?;
            }
            if let Some(waiting) = place.waiting {
                write!(f, ", waits for {waiting}")?;
            }
        }
        Ok(())
    }
}
