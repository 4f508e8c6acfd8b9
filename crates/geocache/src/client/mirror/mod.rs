//! A client that keeps several servers alike by itself: main leads, the others take a copy of each write in real time.
//!
//! For servers that do not replicate, such as plain memcached. (Nodes that do are better reached by a client that just goes to the
//! closest.) When main is down the fallback leads; when main is back it is brought up to date, tried, and leads again.
//!
//! ```text
//!             ┌───────────── a write: first the side that leads …
//!   GeoClient ┤
//!             └─▶ … then, at once, all others ─▶ whoever does not take it: its journal ─▶ replayed when it is up again
//!
//!   reads:  the side that leads ─ fails ─▶ the other side ─ fails ─▶ each backup       (never what a journal says it has missed)
//! ```
//!
//! # Why this way
//! [`resilience::Failover`] decides which side leads and when; this module is the caller that its documentation asks for. It moves the
//! data, and it keeps one lock over what is known (`books.rs`), which is never held while a server is asked. Further backups never
//! lead; each is brought up to date by the same rules, and its breaker keeps a dead one from slowing writes.
//!
//! # What holds
//! A value that was overwritten or removed through the client is never read through it again, main down or back, as long as a side
//! that leads takes the writes. Changes of one key are made one after the other: a conditional change
//! ([`Expect`], [`update`](super::GeoClient::update)) is judged at the side that leads, in one step there, and its outcome
//! is copied to the others as it is. While the lead changes, it may be made twice, never judged twice: one whose answer is lost is not
//! tried again, for it would be judged by its own outcome; it fails, and the error says that it may be done. A copy's life ends when
//! the original's does, but for a server's own rounding.
//!
//! # What does not
//! - **Several clients** of the same servers do not know of each other's journals. One that fails over writes that down at the side that
//!   leads (the key `geocache:mirror:epoch`), and the others follow with their next probe; but a change that another client makes in
//!   between is not in any journal. For several writers use `geocached`, which replicates by itself.
//! - What *other programs* write to the servers is copied by resyncs alone, and may be overwritten by one.
//! - A **process that ends** takes its journals with it. [`close`](super::GeoClient::close) empties them first as far as the servers are
//!   up. The next process learns from the written-down epoch that the fallback led; and it takes copies for old until all was copied to
//!   them once, or they begin empty, unless told otherwise ([`copies_are_filled`](MirrorBuilder::copies_are_filled)).
//! - A change that was sent to a server which hangs, and was given up, may be done when the server goes on. One that hung as a whole does it
//!   before it answers the probes that its way back begins with, and the resync rights it. One that went on answering others, as where one
//!   thread of several hung, may do it after a newer change.
//! - What is written to a server by a change that fails in doubt is removed elsewhere, so a failed change may cost the key's value.
//!
//! # Bounds
//! | what | how many | past it |
//! |---|---|---|
//! | a call to a server | [`call_timeout`](MirrorBuilder::call_timeout) | it counts as failed |
//! | tries of a change | 4 while the same side leads, 6 changes of the lead | the change fails: [`ClientError::Unavailable`](super::ClientError) |
//! | changes under way, clears too | 4,096 | further ones wait |
//! | each journal | [`journal`](MirrorBuilder::journal): entries and bytes | it overflows: all is copied (`missed_lost`) |
//! | the record of written keys, for servers that cannot list theirs | [`record`](MirrorBuilder::record) | the oldest is dropped (`record_dropped`) |
//! | keys remembered by a resync | 1,048,576 | further ones are compared once more |
//! | a resync | [`resync`](MirrorBuilder::resync): keys at once and per second | it takes longer; see [`resilience::FailoverBuilder::resync_patience`] |
//! | events that wait for a watcher | 256 | the watcher is told how many it missed |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use geocache::{GeoCache, client::GeoClient};
//!
//! // Two caches that know nothing of each other; plain memcached servers as well as these.
//! let (main, fallback) = (GeoCache::builder().build().await?, GeoCache::builder().build().await?);
//! let client = GeoClient::mirrored().main("us-east", main.clone()).fallback("eu-central", fallback.clone()).build().await?;
//!
//! client.put("greeting", "hello").await?;
//! assert!(fallback.contains("greeting")?, "it was copied before the write was answered");
//!
//! let mirror = client.mirror().expect("it is a mirrored client");
//! mirror.fail_over("main moves to another rack")?;
//! let read = client.get_served::<String>("greeting").await?;
//! assert_eq!((read.value.as_deref(), read.region.as_str()), (Some("hello"), "eu-central"));
//! println!("{}", mirror.status()); // on fallback in epoch 1 for 0ns (asked: main moves to another rack), waiting for …
//! # Ok(())
//! # }
//! ```

mod books;
mod builder;
mod change;
mod event;
mod keys;
mod parcel;
mod place;
mod read;
mod record;
mod resync;
mod shared;
mod status;
mod task;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use geo::RegionId;
use parking_lot::Mutex;
use resilience::Refused;
use tokio::sync::watch;

pub use builder::MirrorBuilder;
pub use event::{MirrorEvent, MirrorEvents};
pub use status::{MirrorPlace, MirrorRole, MirrorStatus};

use self::{
    books::{FALLBACK, MAIN},
    change::{Answer, Change},
    shared::{Shared, check_key},
};
use super::{ClientError, Engine, Served};
use crate::{
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// The operator's side of a mirrored client: what it is doing and why, and commands. A cheap handle; it keeps the client's tasks going.
///
/// See [`GeoClient::mirrored`](super::GeoClient::mirrored).
#[derive(Debug, Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
    /// The tasks end when it is dropped, with the last handle or by a close.
    tasks: Arc<Mutex<Option<watch::Sender<()>>>>,
}

impl Mirror {
    /// What it is doing, why it has not gone back to main yet, and how each region stands; printed, it is for an operator.
    pub fn status(&self) -> MirrorStatus {
        self.shared.act(|books, now| {
            let failover = books.failover.status(now);
            let leader = books.leader();
            let place = |(index, place): (usize, &place::Place)| {
                let standing = &books.standings[index];
                MirrorPlace {
                    region: place.region.clone(),
                    address: place.address(),
                    role: match index {
                        MAIN => MirrorRole::Main,
                        FALLBACK => MirrorRole::Fallback,
                        _ => MirrorRole::Backup,
                    },
                    leads: index == leader,
                    up: standing.up == Some(true),
                    missed: standing.journal.len(),
                    missed_bytes: standing.journal.bytes(),
                    missed_lost: standing.journal.lost(),
                    stale: standing.stale,
                    lacking: standing.lacking,
                    breaker: place.breaker.state(),
                    waiting: if index > FALLBACK { books.backup_needs(index, now).err() } else { None },
                }
            };
            let places = self.shared.places.iter().enumerate().map(place).collect();
            let counters = books.counters;
            MirrorStatus {
                failover,
                places,
                writes: counters.writes,
                rewritten: counters.rewritten,
                copies_taken: counters.copies_taken,
                copies_missed: counters.copies_missed,
                copies_refused: counters.copies_refused,
                read_through: counters.read_through,
                filled: counters.filled,
                recorded: books.record.len(),
                record_dropped: books.record.dropped(),
            }
        })
    }

    /// Makes the fallback lead, or go on leading, for a dwell at least.
    ///
    /// # Errors
    /// [`Refused`] where it is held, or the fallback is down or may hold old values.
    pub fn fail_over(&self, why: impl Into<Cow<'static, str>>) -> Result<(), Refused> {
        let asked = self.shared.act(|books, now| books.failover.fail_over(why, now));
        self.shared.stir();
        asked
    }

    /// Waives the dwell: main leads again as soon as it has proven itself, caught up and passed its probation.
    ///
    /// # Errors
    /// [`Refused`] where it is held.
    pub fn fail_back(&self) -> Result<(), Refused> {
        let asked = self.shared.act(|books, now| books.failover.fail_back(now));
        self.shared.stir();
        asked
    }

    /// Keeps the lead where it is, or releases it.
    pub fn hold(&self, held: bool) {
        self.shared.act(|books, now| books.failover.hold(held, now));
        self.shared.stir();
    }

    /// Empties a server, as someone must where nobody knows whether its values or another's are the newer ones; the status says when that
    /// is waited for. Of the one that leads, what only it held is lost. It is done to its end whether it is waited for or not.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`], [`ClientError::Rejected`] where the server did not do it; [`Error::UnknownRegion`] within [`ClientError::Input`].
    pub async fn empty(&self, region: &str) -> Result<(), ClientError> {
        self.shared.empty(self.named(region)?).await
    }

    fn named(&self, region: &str) -> Result<usize, ClientError> {
        let places = &self.shared.places;
        let place = places.iter().position(|place| place.region.as_str() == region).ok_or_else(|| {
            let known = places.iter().map(|place| place.region.clone()).collect();
            Error::UnknownRegion { region: region.to_owned(), known }
        });
        Ok(place?)
    }

    fn place(&self, at: Option<&RegionId>) -> Result<Option<usize>, ClientError> {
        at.map(|region| self.named(region.as_str())).transpose()
    }

    /// What happens from now on: the lead changes, a region is brought up to date, goes down, comes up.
    pub fn watch(&self) -> MirrorEvents {
        MirrorEvents { events: self.shared.events.subscribe() }
    }
}

#[async_trait]
impl Engine for Mirror {
    async fn get(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        let mut found = self.get_many(&[Bytes::copy_from_slice(key)]).await?;
        Ok(found.swap_remove(0))
    }

    async fn get_leading(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        check_key(key)?;
        self.shared.read_leading(&Bytes::copy_from_slice(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Served<Option<Item>>>, ClientError> {
        for key in keys {
            check_key(key)?;
        }
        self.shared.read(keys).await
    }

    async fn write(
        &self,
        key: &[u8],
        write: Write,
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError> {
        let at = self.place(at)?;
        self.change(key, Change::Put { write, expect, at }).await
    }

    async fn remove(
        &self,
        key: &[u8],
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError> {
        let at = self.place(at)?;
        self.change(key, Change::Remove { expect, at }).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<Served<bool>, ClientError> {
        check_key(key)?;
        let served = self.shared.change(Bytes::copy_from_slice(key), Change::Touch { ttl }).await?;
        Ok(served.map(|answer| answer == Answer::Touched(true)))
    }

    async fn clear(&self) -> Result<Served<()>, ClientError> {
        self.shared.clear_all().await
    }

    /// Changes that are under way end before the journals are drained.
    async fn close(&self, deadline: Duration) {
        self.shared.act(|books, _| books.closed = true);
        // Done by each call: one before may have been cancelled, and where nothing is owed this is nothing.
        let drained = async {
            drop(self.shared.keys.lock_all().await);
            self.shared.drain().await;
        };
        let is_late = tokio::time::timeout(deadline, drained).await.is_err();
        let behind = self
            .shared
            .act(|books, _| books.standings.iter().filter(|standing| !standing.journal.is_empty()).count());
        if is_late || behind > 0 {
            tracing::warn!(behind, "the client was closed before every region had what it missed");
        }
        self.tasks.lock().take();
    }

    fn mirror(&self) -> Option<Mirror> {
        Some(self.clone())
    }
}

impl Mirror {
    async fn change(&self, key: &[u8], change: Change) -> Result<Served<Outcome>, ClientError> {
        check_key(key)?;
        let served = self.shared.change(Bytes::copy_from_slice(key), change).await?;
        Ok(served.map(|answer| match answer {
            Answer::Outcome(outcome) => outcome,
            Answer::Touched(_) => Outcome::Done { cas: 0 },
        }))
    }
}
