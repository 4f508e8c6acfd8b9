//! What a mirrored client's calls and tasks share.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use resilience::Missed;
use tokio::sync::{Semaphore, broadcast, watch};

use super::{
    books::{Books, Owed},
    event::MirrorEvent,
    keys::KeyLocks,
    place::Place,
};
use crate::{
    client::{ClientError, EndpointError},
    error::Error,
    write::{Expect, TimeToLive},
};

/// The reserved key under which a side keeps how often the lead had changed when it began to lead.
pub(super) const EPOCH_KEY: &[u8] = b"geocache:mirror:epoch";

/// How many changes are under way at once; further ones wait.
pub(super) const CHANGES_MAX: usize = 4_096;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) default_ttl: Option<Duration>,
    pub(super) probe_every: Duration,
    pub(super) resync_concurrency: usize,
    pub(super) resync_keys_per_second: u32,
}

pub(super) struct Shared {
    pub(super) places: Vec<Place>,
    pub(super) keys: KeyLocks,
    pub(super) settings: Settings,
    pub(super) changes: Arc<Semaphore>,
    pub(super) events: broadcast::Sender<MirrorEvent>,
    books: Mutex<Books>,
    /// Changes whenever a look at the books is worth it.
    stirs: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        places: Vec<Place>,
        books: Books,
        settings: Settings,
        events: broadcast::Sender<MirrorEvent>,
    ) -> Self {
        Self {
            places,
            keys: KeyLocks::new(),
            settings,
            changes: Arc::new(Semaphore::new(CHANGES_MAX)),
            events,
            books: Mutex::new(books),
            stirs: watch::Sender::new(0),
        }
    }

    /// Looks into the books or changes them, at one moment. The lock is held for it, and never while a place is asked.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Books, Instant) -> T) -> T {
        let now = now();
        let mut books = self.books.lock();
        let outcome = act(&mut books, now);
        books.observe(now);
        outcome
    }

    /// Lets the tasks look again.
    pub(super) fn stir(&self) {
        self.stirs.send_modify(|stirs| *stirs = stirs.wrapping_add(1));
    }

    pub(super) fn stirs(&self) -> watch::Receiver<u64> {
        self.stirs.subscribe()
    }

    pub(super) fn open(&self) -> Result<(), ClientError> {
        if self.act(|books, _| books.closed) { Err(ClientError::Closed) } else { Ok(()) }
    }

    /// How long a value of this wish lives; the client's default is the same for all places.
    pub(super) fn life(&self, ttl: TimeToLive) -> Option<Duration> {
        match ttl {
            TimeToLive::For(life) => Some(life),
            TimeToLive::Never => None,
            TimeToLive::Default | TimeToLive::Keep => self.settings.default_ttl,
        }
    }

    /// Brings a change to a place whatever it holds. What the place does not take (a value larger than it allows) it must not keep
    /// an older value of either, so that is removed there.
    pub(super) async fn bring(&self, place: usize, key: &Bytes, owed: &Owed) -> Result<(), EndpointError> {
        let to = &self.places[place];
        let write = match owed {
            Missed::Write(parcel) => parcel.write(now()),
            Missed::Remove => None,
        };
        let Some(write) = write else { return to.remove(key, Expect::Any).await.map(drop) };
        match to.write(key, write, Expect::Any).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_fault() => Err(error),
            Err(error) => {
                self.act(|books, _| books.counters.copies_refused += 1);
                tracing::debug!(region = %to.region, %error, "a copy was not taken; the key is removed there");
                to.remove(key, Expect::Any).await.map(drop)
            }
        }
    }

    /// Brings what a place has missed of a key to it, if anything. To be called with the key's lock.
    pub(super) async fn replay(&self, place: usize, key: &Bytes) -> Result<(), EndpointError> {
        let Some(entry) = self.act(|books, _| books.standings[place].journal.entry(key)) else {
            return Ok(());
        };
        self.bring(place, key, &entry.missed).await?;
        self.act(|books, _| books.standings[place].journal.applied(entry.mark));
        Ok(())
    }
}

/// The time by tokio's clock, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Keys that are the client's own.
pub(super) fn check_key(key: &[u8]) -> Result<(), ClientError> {
    if key == EPOCH_KEY {
        // It has the right length; what is wrong with it is that it is taken.
        return Err(Error::Reserved { key: String::from_utf8_lossy(key).into_owned() }.into());
    }
    Ok(())
}
