//! Loopback ports for one broker, kept for its whole life.
//!
//! A broker that was killed must come back on the same port, so a port found free is not enough: a block of 16 is kept
//! by a file lock that every other supervisor on the machine respects, and that the system lifts when the holder dies.
//! Blocks lie in 20000–31999, below the range from which systems give ports to outgoing connections.

use std::{
    fs::{self, File},
    net::TcpListener,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 20_000;
const BLOCK: u16 = 16;
const BLOCKS: u16 = 750;
const TRIES_MAX: usize = 200;

/// A block of ports that is this broker's alone.
#[derive(Debug)]
pub(super) struct Ports {
    base: u16,
    _lock: File,
}

impl Ports {
    /// Keeps a block whose ports are free now.
    pub(super) fn keep() -> Result<Self> {
        let folder = std::env::temp_dir().join("geocache-test-ports");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        for _ in 0..TRIES_MAX {
            let base = FIRST + fastrand::u16(..BLOCKS) * BLOCK;
            // A lock file that cannot be opened is another user's: as good as taken.
            let Ok(lock) = File::options().create(true).append(true).open(folder.join(base.to_string()))
            else {
                continue;
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && free(base) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no block of {BLOCK} free loopback ports found in {TRIES_MAX} tries from {FIRST} on")
    }

    pub(super) fn amqp(&self) -> u16 {
        self.base
    }

    /// The Erlang port mapper.
    pub(super) fn epmd(&self) -> u16 {
        self.base + 1
    }

    /// Where the command-line tools reach the broker.
    pub(super) fn distribution(&self) -> u16 {
        self.base + 2
    }

    /// Where the command-line tools listen themselves.
    pub(super) fn tools(&self) -> (u16, u16) {
        (self.base + 3, self.base + BLOCK - 1)
    }
}

fn free(base: u16) -> bool {
    (base..base + BLOCK).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn blocks_held_at_once_never_overlap() {
        let held: Vec<Ports> = (0..20).map(|_| Ports::keep().unwrap()).collect();
        let bases: HashSet<u16> = held.iter().map(Ports::amqp).collect();
        assert_eq!(bases.len(), held.len());
        assert!(bases.iter().all(|base| (base - FIRST).is_multiple_of(BLOCK)));
    }

    #[test]
    fn a_block_with_one_port_in_use_is_not_free() {
        let ports = Ports::keep().unwrap();
        assert!(free(ports.amqp()));
        let _user = TcpListener::bind(("127.0.0.1", ports.tools().1)).unwrap();
        assert!(!free(ports.amqp()));
    }
}
