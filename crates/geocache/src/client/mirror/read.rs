//! Reads: the side that the failover names, then the other, then the backups, each for what it has not missed.

use std::sync::Arc;

use bytes::Bytes;
use geo::RegionId;
use resilience::Missed;

use super::{
    books::{FALLBACK, Known, ReadFrom, index, side},
    shared::{Shared, now},
};
use crate::{
    client::{ClientError, Doubt, EndpointError, Served},
    read::Item,
};

/// How often a read that is to be judged by is tried anew.
const LEADING_TRIES_MAX: u32 = 4;

type Found = Served<Option<Item>>;

/// What came of the places that were asked so far.
#[derive(Debug, Default)]
struct Trail {
    failures: Vec<(RegionId, String)>,
    asked: u32,
}

impl Shared {
    pub(super) async fn read(&self, keys: &[Bytes]) -> Result<Vec<Found>, ClientError> {
        self.open()?;
        let mut trail = Trail::default();
        let mut asked = [false; 2];
        loop {
            match self.act(|books, now| books.read_from(&asked, now)) {
                ReadFrom::Nobody(place) => {
                    let region = &self.places[place].region;
                    let miss =
                        || Served { doubt: Some(Doubt::Copy), asked: 0, ..Served::new(None, region.clone()) };
                    return Ok(keys.iter().map(|_| miss()).collect());
                }
                ReadFrom::Backups => return self.read_backups(keys, trail).await,
                ReadFrom::Side { place, fence, leads } => {
                    asked[place] = true;
                    trail.asked += 1;
                    let answer = self.ask(place, keys).await;
                    if let (Some(side), failed) = (side(place), answer.as_ref().err()) {
                        self.act(|books, now| match failed {
                            None => books.failover.succeeded(side, fence, now),
                            Some(error) if error.is_fault() => books.failover.failed(side, fence, now),
                            Some(_) => {}
                        });
                    }
                    let region = &self.places[place].region;
                    match answer {
                        Ok(items) => {
                            let doubt = (!leads).then_some(Doubt::Copy);
                            let served = |value| Served {
                                doubt,
                                asked: trail.asked,
                                ..Served::new(value, region.clone())
                            };
                            let found = items.into_iter().map(served).collect();
                            return Ok(self.read_through(place, keys, found).await);
                        }
                        Err(error) if error.is_fault() => {
                            self.stir();
                            trail.failures.push((region.clone(), error.to_string()));
                        }
                        Err(error) => return Err(ClientError::of(region, error)),
                    }
                }
            }
        }
    }

    /// The values of keys at a place. What it has missed is told from its journal, for it does not know it yet.
    async fn ask(&self, place: usize, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        let (known, mask) = self.act(|books, _| {
            let known: Vec<_> = keys.iter().map(|key| books.known(place, key)).collect();
            (known, books.standings[place].mask)
        });
        let unknown: Vec<_> = keys
            .iter()
            .zip(&known)
            .filter(|(_, known)| matches!(known, Known::Nothing))
            .map(|(key, _)| key.clone())
            .collect();
        let items =
            if unknown.is_empty() { Vec::new() } else { self.places[place].get_many(&unknown).await? };
        let mut items = items.into_iter();
        let found = known.into_iter().map(|known| match known {
            Known::Nothing => items.next().flatten().map(|item| Item { cas: item.cas ^ mask, ..item }),
            // Without a number that would ever match: the place has to be told the value first.
            Known::Missed(Missed::Write(parcel)) => {
                parcel.item(now()).map(|item| Item { cas: fastrand::u64(1..), ..item })
            }
            Known::Missed(Missed::Remove) | Known::Unknown => None,
        });
        Ok(found.collect())
    }

    /// Where a leader that is being filled has nothing, others may.
    async fn read_through(&self, place: usize, keys: &[Bytes], mut found: Vec<Found>) -> Vec<Found> {
        let missing = |found: &[Found]| -> Vec<usize> {
            (0..found.len()).filter(|at| found[*at].value.is_none()).collect()
        };
        if missing(&found).is_empty() {
            return found;
        }
        let sources = self.act(|books, _| {
            let lacking = books.leader() == place && books.standings[place].lacking;
            lacking.then(|| books.sources(place))
        });
        for from in sources.into_iter().flatten() {
            let slots = missing(&found);
            // What the leader was told itself it does not lack.
            let wanted: Vec<usize> = self.act(|books, _| {
                let lacks = |at: &usize| matches!(books.known(place, &keys[*at]), Known::Nothing);
                slots.into_iter().filter(lacks).collect()
            });
            if wanted.is_empty() {
                break;
            }
            let Ok(permit) = self.places[from].breaker.try_acquire() else { continue };
            let asked: Vec<_> = wanted.iter().map(|at| keys[*at].clone()).collect();
            match self.ask(from, &asked).await {
                Ok(items) => {
                    permit.success();
                    for (at, item) in wanted.into_iter().zip(items) {
                        found[at].asked += 1;
                        let Some(item) = item else { continue };
                        self.act(|books, _| books.counters.read_through += 1);
                        found[at] = Served {
                            value: Some(item),
                            region: self.places[from].region.clone(),
                            doubt: Some(Doubt::Copy),
                            asked: found[at].asked,
                        };
                    }
                }
                Err(_) => permit.failure(),
            }
        }
        found
    }

    /// Both sides have failed: further backups are the last links.
    async fn read_backups(&self, keys: &[Bytes], mut trail: Trail) -> Result<Vec<Found>, ClientError> {
        let mut retry_after = None;
        for (place, to) in self.places.iter().enumerate().skip(FALLBACK + 1) {
            if self.act(|books, _| books.standings[place].stale) {
                trail.failures.push((
                    to.region.clone(),
                    "it may hold old values; it is being brought up to date".into(),
                ));
                continue;
            }
            let permit = match to.breaker.try_acquire() {
                Ok(permit) => permit,
                Err(open) => {
                    retry_after = retry_after.max(Some(open.retry_after));
                    trail.failures.push((to.region.clone(), open.to_string()));
                    continue;
                }
            };
            trail.asked += 1;
            match self.ask(place, keys).await {
                Ok(items) => {
                    permit.success();
                    let served = |value| Served {
                        doubt: Some(Doubt::Copy),
                        asked: trail.asked,
                        ..Served::new(value, to.region.clone())
                    };
                    return Ok(items.into_iter().map(served).collect());
                }
                Err(error) if error.is_fault() => {
                    permit.failure();
                    trail.failures.push((to.region.clone(), error.to_string()));
                }
                Err(error) => return Err(ClientError::of(&to.region, error)),
            }
        }
        let Trail { failures, .. } = trail;
        Err(ClientError::Unavailable { failures, retry_after, may_be_done: false })
    }

    /// The value of a key at the side that leads, for a change that is to be judged by it.
    pub(super) async fn read_leading(self: &Arc<Self>, key: &Bytes) -> Result<Found, ClientError> {
        let mut failures = Vec::new();
        for asked in 1..=LEADING_TRIES_MAX {
            self.open()?;
            let (side, fence, mask, clean) = self.act(|books, now| {
                let place = books.leader();
                let fit = !books.leader_is_stale(now) && !books.standings[place].lacking;
                let clean = fit && matches!(books.known(place, key), Known::Nothing);
                (books.failover.leader(), books.failover.fence(), books.standings[place].mask, clean)
            });
            let place = index(side);
            let answer = async {
                if !clean {
                    let _lock = self.keys.lock(key).await;
                    self.prepare(place, key).await?;
                }
                self.places[place].get(key).await
            };
            let answer = answer.await;
            let region = &self.places[place].region;
            let holds = self.act(|books, now| {
                match &answer {
                    Ok(_) => books.failover.succeeded(side, fence, now),
                    Err(error) if error.is_fault() => books.failover.failed(side, fence, now),
                    Err(_) => {}
                }
                books.failover.holds(fence)
            });
            match answer {
                Ok(item) if holds => {
                    let item = item.map(|item| Item { cas: item.cas ^ mask, ..item });
                    return Ok(Served { asked, ..Served::new(item, region.clone()) });
                }
                Ok(_) => {}
                Err(error) if error.is_fault() => {
                    self.stir();
                    failures.push((region.clone(), error.to_string()));
                }
                Err(error) => return Err(ClientError::of(region, error)),
            }
        }
        Err(ClientError::Unavailable { failures, retry_after: None, may_be_done: false })
    }
}
