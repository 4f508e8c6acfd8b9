//! Loopback ports for one broker, kept for its whole life.
//!
//! A broker that was killed must come back on the same port, so a port found free is not enough: a block of 16 is kept
//! by a file lock that every other supervisor of this user respects, and that the system lifts when the holder dies.
//! The locks are per user, for no user can open another's files; between users only the look whether a port is free
//! keeps brokers apart, and the broker that comes second starts again on another block.
//! Blocks lie in 20000–31999, below the range from which systems give ports to outgoing connections.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

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
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        for _ in 0..TRIES_MAX {
            let base = FIRST + fastrand::u16(..BLOCKS) * BLOCK;
            if let Some(ports) = Self::keep_block(&folder, base)? {
                return Ok(ports);
            }
        }
        bail!(
            "no block of {BLOCK} free loopback ports found in {TRIES_MAX} tries from {FIRST} on: each was locked by \
             another broker or had a port in use"
        )
    }

    /// `None` if it is taken: locked by another supervisor, or one of its ports is in use.
    fn keep_block(folder: &Path, base: u16) -> Result<Option<Self>> {
        let path = folder.join(base.to_string());
        let lock = File::options().create(true).append(true).open(&path).with_context(|| {
            format!("could not open the lock file {} of a block of ports", path.display())
        })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(free(base).then_some(Self { base, _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not lock {}", path.display())),
        }
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

/// Named after the user, in a folder that all share.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("geocache-test-ports-{}", rustix::process::geteuid()))
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

    /// Once root had run the tests, every other user was told that all blocks were taken.
    #[test]
    fn a_lock_file_that_cannot_be_opened_is_an_error_and_a_taken_block_is_none() {
        let folder = std::env::temp_dir().join(crate::unique_name("ports"));
        let base = Ports::keep().unwrap().amqp();
        // A folder where the file should be stops root too.
        fs::create_dir_all(folder.join(base.to_string())).unwrap();
        let error = format!("{:#}", Ports::keep_block(&folder, base).unwrap_err());
        assert!(error.contains(&folder.join(base.to_string()).display().to_string()), "{error}");
        assert!(error.contains("irectory"), "the system's reason: {error}");
        fs::remove_dir_all(&folder).unwrap();

        let held = Ports::keep().unwrap();
        assert!(Ports::keep_block(&super::folder(), held.amqp()).unwrap().is_none());
    }

    #[test]
    fn the_lock_files_are_in_a_folder_of_this_user() {
        let uid = rustix::process::geteuid().as_raw().to_string();
        assert!(folder().to_str().unwrap().ends_with(&format!("-{uid}")), "{}", folder().display());
    }

    #[test]
    fn a_block_with_one_port_in_use_is_not_free() {
        let ports = Ports::keep().unwrap();
        assert!(free(ports.amqp()));
        let _user = TcpListener::bind(("127.0.0.1", ports.tools().1)).unwrap();
        assert!(!free(ports.amqp()));
    }
}
