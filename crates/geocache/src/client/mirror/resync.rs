//! Bringing a place up to date: what it missed, or all that another place holds; and filling a leader that lacks what others have.
//!
//! Keys are gone through in the background, a bounded number at once and per second, each under its lock. What is remembered of them is
//! bounded as well: a key that is not remembered as copied is compared with the source before anything is removed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use resilience::{Fence, Life, Missed, Scope};
use tokio::time::{sleep, sleep_until};

use super::{
    books::{Fill, Job, MAIN, side},
    change::Change,
    parcel::Parcel,
    shared::{EPOCH_KEY, Shared, now},
};
use crate::{
    client::{EndpointError, Keys},
    write::{Expect, TimeToLive, Write},
};

/// How many entries of a journal are looked at at once, and keys of a record.
const PAGE: usize = 256;

/// Why a resync has ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("overtaken by events")]
    Overtaken,
    #[error(transparent)]
    Failed(#[from] EndpointError),
}

/// The keys of a place, as it lists them, or as they were recorded.
enum Listing {
    Told(Keys),
    Recorded { next: Option<u64> },
}

/// Spreads work over time.
struct Pace {
    per_second: u32,
    next: Instant,
}

impl Pace {
    async fn take(&mut self, keys: usize) {
        sleep_until(self.next.into()).await;
        let spent = Duration::from_secs_f64(keys as f64 / f64::from(self.per_second));
        self.next = self.next.max(now()) + spent;
    }
}

impl Shared {
    fn pace(&self) -> Pace {
        Pace { per_second: self.settings.resync_keys_per_second, next: now() }
    }

    /// Does a resync, to its end.
    pub(super) async fn resync(&self, job: Job) {
        if let Err(ended) = self.bring_up_to_date(&job).await {
            let to = &self.places[job.to].region;
            tracing::info!(region = %to, reason = %ended, "a resync has ended early");
            self.act(|books, now| books.give_up(&job, ended.to_string(), now));
        } else {
            // What is written from here on may go there at once.
            self.places[job.to].breaker.reset();
        }
        self.stir();
    }

    async fn bring_up_to_date(&self, job: &Job) -> Result<(), Ended> {
        let mut pace = self.pace();
        if job.scope != Scope::Missed {
            self.copy_all(job, &mut pace).await?;
            self.wait_until_copied(job).await?;
            if job.scope == Scope::Everything {
                self.remove_the_rest(job, &mut pace).await?;
            }
        }
        loop {
            self.replay_all(job, &mut pace).await?;
            if self.act(|books, now| books.finish(job, now)) {
                return Ok(());
            }
            self.still(job)?;
        }
    }

    fn still(&self, job: &Job) -> Result<(), Ended> {
        if self.act(|books, now| books.job_holds(job, now)) { Ok(()) } else { Err(Ended::Overtaken) }
    }

    async fn copy_all(&self, job: &Job, pace: &mut Pace) -> Result<(), Ended> {
        let mut listing = self.list(job.from).await?;
        while let Some(keys) = self.page(job.from, &mut listing).await? {
            pace.take(keys.len()).await;
            let copies = join_all(keys.into_iter().map(|key| self.copy_one(job, key))).await;
            copies.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn copy_one(&self, job: &Job, key: Bytes) -> Result<(), Ended> {
        let _lock = self.keys.lock(&key).await;
        self.still(job)?;
        // What the source does not hold any more may be lost and not removed: that is seen later.
        if let Some(item) = self.places[job.from].get(&key).await? {
            self.still(job)?;
            let owed = Missed::Write(Parcel::of_item(&item, now()));
            self.bring(job.to, &key, &owed).await?;
            let hash = self.keys.hash(&key);
            self.act(|books, _| books.keep(job.to, hash));
        }
        Ok(())
    }

    /// Waits until the source is known to have lived through the copy.
    async fn wait_until_copied(&self, job: &Job) -> Result<(), Ended> {
        let mut stirs = self.stirs();
        let answers = self.act(|books, _| books.source_answers(job));
        loop {
            self.still(job)?;
            if self.act(|books, now| books.all_copied(job, answers, now)) {
                return Ok(());
            }
            // Each answer to a probe stirs; the time alone may end the resync as well.
            tokio::select! {
                _ = stirs.changed() => {}
                () = sleep(self.settings.probe_every) => {}
            }
        }
    }

    /// Removes from the target what was neither copied nor written since.
    async fn remove_the_rest(&self, job: &Job, pace: &mut Pace) -> Result<(), Ended> {
        let mut listing = match self.places[job.to].keys().await {
            Ok(keys) => Listing::Told(keys),
            Err(EndpointError::Unsupported { .. }) => {
                // Nobody knows what it holds. So all of it goes, and is copied once more.
                let lock = self.keys.lock_all().await;
                self.still(job)?;
                self.places[job.to].clear().await?;
                drop(lock);
                return self.copy_all(job, pace).await;
            }
            Err(error) => return Err(error.into()),
        };
        while let Some(keys) = self.page(job.to, &mut listing).await? {
            let unsure: Vec<_> = self.act(|books, _| {
                keys.into_iter().filter(|key| !books.keeps(job.to, self.keys.hash(key))).collect()
            });
            pace.take(unsure.len()).await;
            let settled = join_all(unsure.into_iter().map(|key| self.copy_or_remove(job, key))).await;
            settled.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn copy_or_remove(&self, job: &Job, key: Bytes) -> Result<(), Ended> {
        let _lock = self.keys.lock(&key).await;
        self.still(job)?;
        let hash = self.keys.hash(&key);
        if self.act(|books, _| books.keeps(job.to, hash)) {
            return Ok(());
        }
        let owed = match self.places[job.from].get(&key).await? {
            Some(item) => Missed::Write(Parcel::of_item(&item, now())),
            None => Missed::Remove,
        };
        self.still(job)?;
        Ok(self.bring(job.to, &key, &owed).await?)
    }

    async fn replay_all(&self, job: &Job, pace: &mut Pace) -> Result<(), Ended> {
        loop {
            let entries = self.act(|books, _| {
                let entries = books.standings[job.to].journal.first(self.settings.resync_concurrency);
                entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
            });
            if entries.is_empty() {
                return Ok(());
            }
            pace.take(entries.len()).await;
            let replays = join_all(entries.into_iter().map(|key| async move {
                let _lock = self.keys.lock(&key).await;
                self.still(job)?;
                Ok(self.replay(job.to, &key).await?)
            }));
            replays.await.into_iter().collect::<Result<(), Ended>>()?;
        }
    }

    /// Brings what all places have missed to those that are up, whatever the failover waits for: the newest value of a key is right
    /// anywhere. It ends when nothing more can be brought.
    pub(super) async fn drain(&self) {
        join_all((0..self.places.len()).map(|place| async move {
            let up = self.act(|books, _| {
                let standing = &books.standings[place];
                standing.up == Some(true) && !standing.journal.overflowed()
            });
            if !up {
                return;
            }
            let mut pace = self.pace();
            loop {
                let page = self
                    .act(|books, _| books.standings[place].journal.first(self.settings.resync_concurrency));
                if page.is_empty() {
                    return;
                }
                pace.take(page.len()).await;
                let replays = join_all(page.into_iter().map(|entry| async move {
                    let _lock = self.keys.lock(&entry.key).await;
                    self.replay(place, &entry.key).await
                }));
                if replays.await.iter().any(Result::is_err) {
                    return;
                }
            }
        }))
        .await;
    }

    /// Brings what others hold to the leader that lacks it.
    pub(super) async fn fill(self: &Arc<Self>, fill: Fill) {
        let mut done = true;
        for from in &fill.sources {
            if let Err(ended) = self.fill_from(&fill, *from).await {
                tracing::info!(region = %self.places[*from].region, reason = %ended, "filling has ended early");
                done = false;
            }
        }
        self.act(|books, now| books.end_fill(&fill, done, now));
        self.stir();
    }

    async fn fill_from(self: &Arc<Self>, fill: &Fill, from: usize) -> Result<(), Ended> {
        let mut pace = self.pace();
        // What it has missed it will not list.
        let missed = self.act(|books, _| {
            let entries = books.standings[from].journal.first(usize::MAX);
            entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        });
        for keys in missed.chunks(self.settings.resync_concurrency) {
            self.fill_keys(fill, from, keys.to_vec(), &mut pace).await?;
        }
        let mut listing = self.list(from).await?;
        while let Some(keys) = self.page(from, &mut listing).await? {
            self.fill_keys(fill, from, keys, &mut pace).await?;
        }
        Ok(())
    }

    async fn fill_keys(
        self: &Arc<Self>,
        fill: &Fill,
        from: usize,
        keys: Vec<Bytes>,
        pace: &mut Pace,
    ) -> Result<(), Ended> {
        if !self.act(|books, _| books.fill_holds(fill)) {
            return Err(Ended::Overtaken);
        }
        pace.take(keys.len()).await;
        let fills = keys.into_iter().map(|key| self.change(key, Change::Fill { from }));
        match join_all(fills).await.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(error) => {
                let address = self.places[fill.leader].address();
                Err(EndpointError::Refused { address, reason: error.to_string() }.into())
            }
        }
    }

    // Lists.

    async fn list(&self, place: usize) -> Result<Listing, EndpointError> {
        match self.places[place].keys().await {
            Ok(keys) => Ok(Listing::Told(keys)),
            Err(EndpointError::Unsupported { .. }) => Ok(Listing::Recorded { next: Some(0) }),
            Err(error) => Err(error),
        }
    }

    /// Some more keys, as many as are gone through at once; `None` at the end.
    async fn page(&self, place: usize, listing: &mut Listing) -> Result<Option<Vec<Bytes>>, EndpointError> {
        let keys_max = self.settings.resync_concurrency;
        let keys = match listing {
            Listing::Told(keys) => {
                let mut page = Vec::with_capacity(keys_max);
                while page.len() < keys_max {
                    match self.places[place].next_key(keys).await? {
                        Some(key) if key == EPOCH_KEY => {}
                        Some(key) => page.push(key),
                        None => break,
                    }
                }
                page
            }
            Listing::Recorded { next } => {
                let Some(from) = *next else { return Ok(None) };
                let (page, after) = self.act(|books, _| books.record.page(from, keys_max.min(PAGE)));
                *next = after;
                page
            }
        };
        Ok((!keys.is_empty()).then_some(keys))
    }

    // Probes.

    /// Asks a place whether it is up and which life it lives, and keeps the epoch there.
    pub(super) async fn probe(&self, place: usize) {
        let (fence, pulse) = self.ask_pulse(place).await;
        self.heard(place, fence, pulse).await;
    }

    /// One question; with the fence of before.
    pub(super) async fn ask_pulse(&self, place: usize) -> (Fence, Result<Life, EndpointError>) {
        let fence = self.act(|books, _| books.failover.fence());
        let to = &self.places[place];
        let life = async {
            let is_side = side(place).is_some();
            let epoch = if is_side { to.get(EPOCH_KEY).await? } else { None };
            let mut life = to.probe().await?.life;
            if let Some(item) = &epoch {
                // It is the client's own, and no content.
                life.entries = life.entries.saturating_sub(1);
                let number = std::str::from_utf8(&item.bytes).ok().and_then(|text| text.parse().ok());
                life.epoch = number;
            }
            Ok(life)
        };
        (fence, life.await)
    }

    /// Takes in what a probe has shown.
    pub(super) async fn heard(&self, place: usize, fence: Fence, pulse: Result<Life, EndpointError>) {
        let Ok(life) = pulse else {
            let reason = pulse.map_or_else(|error| error.to_string(), |_| String::new());
            self.act(|books, now| books.silent(place, fence, reason, now));
            return self.stir();
        };
        let (leads, main_leads, epoch) = self.act(|books, now| {
            books.answered(place, fence, life, now);
            let leader = books.leader();
            (leader == place, leader == MAIN, books.failover.epoch())
        });
        self.stir();
        let to = &self.places[place];
        let written = if leads && epoch > 0 && life.epoch != Some(epoch) {
            let bytes = epoch.to_string().into();
            let write = Write { bytes, ttl: TimeToLive::Never, ..Write::default() };
            to.write(EPOCH_KEY, write, Expect::Any).await.map(drop)
        } else if !leads && main_leads && life.epoch.is_some_and(|told| told <= epoch) {
            // A new process must not take it for a fallback that leads.
            to.remove(EPOCH_KEY, Expect::Any).await.map(drop)
        } else {
            Ok(())
        };
        if let Err(error) = written {
            // The next probe tries again.
            tracing::debug!(region = %to.region, %error, "the epoch could not be written down");
        }
    }
}
