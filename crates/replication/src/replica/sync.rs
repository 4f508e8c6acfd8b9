//! State transfer: how a starting node gets everything, and a gap that no ring covers is closed.
//!
//! The requester pulls some pages at a time: rate, resumption and restart are its own, and the responder keeps no memory
//! of it. A page that is lost makes those after it useless; then the requester asks anew from where it stands.
//! Pages go by position, live records and graves side by side, so that a key cannot move behind the cursor. A *full*
//! page lists all that is live in its range; what the requester holds there below the peer's floor, and the peer does
//! not list, the peer may have seen removed and forgotten, so the requester forgets it too. A page is full if the
//! requester gave nothing to compare with, or if the responder has forgotten something that the requester may lack.

use std::collections::{HashMap, HashSet};

use super::{Now, Outgoing, Replica, Store, StorePage};
use crate::{
    message::{Bar, Grave, Message, StreamReport, SyncPage, SyncReq},
    node::{Origin, Stream},
    record::{Op, Record},
    stamp::{Hlc, Stamp},
    wire,
};

/// How far a transfer may be ahead of its rate, in milliseconds of it.
const SYNC_BURST_MS: u64 = 100;

/// The most pages that one question is answered with, so that a long way costs a round trip for each of that many.
const PAGES_MAX: usize = 8;

/// The most pages of the store that are read for one question, joined or not: some milliseconds of work.
const READS_MAX: usize = 32;

/// A transfer under way, on the side that asked for it.
#[derive(Debug)]
pub(super) struct Job {
    id: u64,
    peer: Origin,
    epoch: u64,
    /// The streams to complete; empty for a starting node, which adopts all.
    needed: Vec<Stream>,
    since: Vec<(Stream, Hlc)>,
    position: u64,
    /// What the peer had when it made the page that it made first: what the transfer is good for. Pages may come out of
    /// the order in which they were made, where one of an earlier question comes late.
    promised: Option<Vec<StreamReport>>,
    /// The peer's floor, where a page was full.
    floor: Option<Bar>,
    asked_ms: u64,
    tries: u32,
    /// Whether the page at `position` was asked for, rather than put off to keep to the rate.
    is_asked: bool,
    begun_ms: u64,
    /// The bytes of the pages that came.
    bytes: u64,
}

impl<S: Store> Replica<S> {
    /// A warming node asks the nearest ready peer for everything; where nobody is ready for long enough, the lowest
    /// epoch among the live becomes ready by itself. A node that hears a ready one and only nodes too far ahead of
    /// its clock goes on warming: its own clock may be the wrong one, and what it would serve by itself is nothing.
    pub(super) fn warm(&mut self, now: Now) {
        if self.job.is_some() {
            return;
        }
        let ready = self.peers.iter().filter(|(_, peer)| self.has_state(peer, now));
        let answering = ready.clone().filter(|(_, peer)| self.hears_us(peer, now));
        let nearest = answering.filter_map(|(&origin, peer)| Some((peer.clock?.rtt_ms, origin))).min();
        if let Some((_, peer)) = nearest {
            self.begin_sync(now, peer, Vec::new());
        } else if ready.count() == 0 && self.is_first_of_the_live(now) {
            let waited_ms = now.mono_ms.saturating_sub(self.started_ms);
            if waited_ms >= self.config.bootstrap_wait_ms {
                tracing::info!(node = %self.config.node, "ready: no ready node was heard, and this one is first");
                self.become_ready(now);
            }
        }
    }

    fn is_first_of_the_live(&self, now: Now) -> bool {
        let live = self.peers.iter().filter(|(_, peer)| self.is_alive(peer, now));
        let (ahead, near): (Vec<_>, Vec<_>) = live.partition(|(_, peer)| peer.drifts);
        let all_ready_are_ahead = near.is_empty() && ahead.iter().any(|(_, peer)| peer.ready);
        !all_ready_are_ahead
            && near.iter().all(|(origin, peer)| (self.epoch, self.origin) < (peer.epoch, **origin))
    }

    fn become_ready(&mut self, now: Now) {
        self.ready = true;
        self.beat_soon(now);
    }

    /// Asks for a page again that did not come; gives the transfer up when its peer is gone or silent.
    pub(super) fn drive_sync(&mut self, now: Now) {
        let Some(job) = &self.job else { return };
        let peer_is_there = self.peers.get(&job.peer).is_some_and(|peer| peer.epoch == job.epoch);
        if !peer_is_there {
            self.abort_sync();
        } else if !job.is_asked {
            self.ask_page_in_time(now);
        } else if now.mono_ms.saturating_sub(job.asked_ms) >= self.config.page_wait_ms {
            if job.tries >= self.config.page_tries_max {
                self.abort_sync();
            } else {
                self.ask_page(now);
            }
        }
    }

    pub(super) fn begin_sync(&mut self, now: Now, peer: Origin, needed: Vec<Stream>) {
        let Some(epoch) = self.peers.get(&peer).map(|peer| peer.epoch).filter(|_| self.job.is_none()) else {
            return;
        };
        let since = if needed.is_empty() {
            Vec::new()
        } else {
            let own = (self.stream(), self.numbered);
            self.streams.iter().map(|(&stream, state)| (stream, state.hlc)).chain([own]).collect()
        };
        self.jobs += 1;
        self.counters.syncs_started += 1;
        let (id, position, promised, floor) = (self.ids + self.jobs, 0, None, None);
        self.job = Some(Job {
            id,
            peer,
            epoch,
            needed,
            since,
            position,
            promised,
            floor,
            asked_ms: 0,
            tries: 0,
            is_asked: false,
            begun_ms: now.mono_ms,
            bytes: 0,
        });
        self.ask_page(now);
    }

    fn ask_page(&mut self, now: Now) {
        let Some(job) = &mut self.job else { return };
        job.asked_ms = now.mono_ms;
        job.tries += 1;
        job.is_asked = true;
        // A preview is asked for once: what of it is lost comes with the pages.
        let is_first = job.position == 0 && job.tries == 1;
        let preview_bytes = u32::try_from(self.config.preview_bytes).unwrap_or(u32::MAX);
        let burst_bytes = match self.config.sync_bytes_per_s {
            0 => u64::MAX,
            rate => rate * SYNC_BURST_MS / 1_000,
        };
        let pages = (burst_bytes / self.config.page_bytes.max(1) as u64).clamp(1, PAGES_MAX as u64);
        let request = SyncReq {
            id: job.id,
            position: job.position,
            needed: job.needed.clone(),
            since: job.since.clone(),
            budget_bytes: u32::try_from(self.config.page_bytes).unwrap_or(u32::MAX),
            preview_bytes: if is_first { preview_bytes } else { 0 },
            pages: pages as u8,
        };
        let peer = job.peer;
        self.send(peer, Outgoing::Message(Message::SyncReq(request)));
    }

    /// Asks for the next page unless the transfer is ahead of its rate; then a later tick does.
    fn ask_page_in_time(&mut self, now: Now) {
        let rate = self.config.sync_bytes_per_s;
        let ahead = self.job.as_ref().is_some_and(|job| {
            let since_ms = now.mono_ms.saturating_sub(job.begun_ms);
            rate > 0 && job.bytes > rate.saturating_mul(since_ms + SYNC_BURST_MS) / 1_000
        });
        if !ahead {
            self.ask_page(now);
        }
    }

    /// Gives a transfer up. What it swept stays forgotten, so the floor must rise as if it had ended.
    fn abort_sync(&mut self) {
        let Some(job) = self.job.take() else { return };
        self.counters.syncs_aborted += 1;
        if let Some(floor) = job.floor.filter(|_| self.config.rules.floor_after_abort) {
            self.store.raise_floor(floor);
        }
    }

    pub(super) fn on_sync_request(&mut self, now: Now, asker: Origin, request: &SyncReq) {
        if !self.ready {
            return;
        }
        if request.position == 0 && request.since.is_empty() && request.preview_bytes > 0 {
            self.send_preview(now, asker, request.preview_bytes as usize);
        }
        let since = Since::new(&request.since, self.lives());
        let pages = usize::from(request.pages).clamp(1, PAGES_MAX);
        let mut reads = 0;
        let mut page = self.next_page(now, request, &since, request.position, &mut reads);
        for _ in 1..pages {
            let Some(position) = page.hi.filter(|_| reads < READS_MAX) else { break };
            let next = self.next_page(now, request, &since, position, &mut reads);
            // What is ahead of its turn leaves half of the room to others, and must not push out the page before it.
            let room = self.config.control_room();
            let bytes = self.control.bytes() + page.bytes() + next.bytes();
            page.more = 2 * (self.control.len() + 2) <= room.items && 2 * bytes <= room.bytes;
            if !page.more {
                break;
            }
            self.send_page(asker, std::mem::replace(&mut page, next));
        }
        self.send_page(asker, page);
    }

    fn send_page(&mut self, asker: Origin, page: SyncPage) {
        self.counters.pages_sent += 1;
        self.send(asker, Outgoing::Message(Message::SyncPage(page)));
    }

    /// The page from a position on. One that leaves out what the requester has goes on until it is full, so that a
    /// transfer takes as many pages as it has news, not as many as there are entries.
    fn next_page(
        &self,
        now: Now,
        request: &SyncReq,
        since: &Since,
        position: u64,
        reads: &mut usize,
    ) -> SyncPage {
        let budget = (request.budget_bytes as usize).clamp(1, self.config.page_bytes);
        let mut page = self.read_page(now, request, since, position, budget);
        *reads += 1;
        while let Some(next) = page.hi.filter(|_| !page.full && *reads < READS_MAX) {
            let taken = page.records.iter().map(wire::record_bytes_max).sum::<usize>()
                + page.graves.len() * StorePage::GRAVE_BYTES;
            if taken >= budget {
                break;
            }
            let further = self.read_page(now, request, since, next, budget - taken);
            *reads += 1;
            if further.full {
                // Its floor is of its own range alone.
                break;
            }
            page.hi = further.hi;
            page.records.extend(further.records);
            page.graves.extend(further.graves);
            page.floor = page.floor.max(further.floor);
        }
        page
    }

    fn read_page(
        &self,
        now: Now,
        request: &SyncReq,
        since: &Since,
        position: u64,
        budget: usize,
    ) -> SyncPage {
        let page = self.store.page(position, budget, now.mono_ms);
        let forgot = |stream: &Stream| since.at(*stream).is_none_or(|hlc| page.floor.stamp.hlc > hlc);
        let has_forgotten = self.config.rules.full_past_floor && request.needed.iter().any(forgot);
        let full = request.since.is_empty() || has_forgotten;
        let (mut records, mut graves, mut keep) = (page.records, page.graves, Vec::new());
        if !request.since.is_empty() {
            let mut positions = page.positions.iter();
            records.retain(|record| {
                let position = positions.next();
                let is_sent = since.may_lack(record.stamp);
                keep.extend(position.filter(|_| !is_sent && full));
                is_sent
            });
            graves.retain(|grave| since.may_lack(grave.bar.stamp));
        }
        SyncPage {
            id: request.id,
            lo: position,
            hi: page.hi,
            full,
            more: false,
            streams: self.reports(now),
            records,
            graves,
            keep,
            floor: page.floor,
            cleared: self.store.cleared(),
        }
    }

    /// The lives that this node knows, and up to which clock each may reach: that of the last record here, or without
    /// end where more of it may exist.
    fn lives(&self) -> Vec<(Stream, Hlc)> {
        let own = (self.stream(), Hlc(u64::MAX));
        let newest = |stream: &Stream| {
            let later = Stream { epoch: stream.epoch.saturating_add(1), ..*stream };
            self.streams.range(later..=Stream { epoch: u64::MAX, ..later }).next().is_none()
        };
        let others = self.streams.iter().map(|(&stream, state)| {
            let is_whole = state.hole().is_none() && (stream.origin == self.origin || !newest(&stream));
            (stream, if is_whole { state.last } else { Hlc(u64::MAX) })
        });
        others.chain([own]).collect()
    }

    pub(super) fn on_sync_page(&mut self, now: Now, sender: Origin, page: SyncPage, bytes: usize) {
        let Some(job) = &self.job else { return };
        let is_expected = job.peer == sender && job.id == page.id && job.position == page.lo;
        // A range must move on, or the transfer would never end.
        if !is_expected || page.hi.is_some_and(|hi| hi <= page.lo) {
            return;
        }
        if self.peers.get(&sender).is_none_or(|peer| peer.epoch != job.epoch || peer.clock.is_none()) {
            return self.abort_sync();
        }
        if self.is_beyond_drift(now, newest_hlc(&page)) {
            self.counters.frames_drifting += 1;
            return self.abort_sync();
        }
        self.outbox.clock().observe(newest_hlc(&page));
        self.merge_page(now, sender, &page);
        self.counters.pages_taken += 1;
        let Some(job) = &mut self.job else { return };
        job.tries = 0;
        job.bytes += bytes as u64;
        let promised = match job.promised.take() {
            None => page.streams,
            Some(promised) => lower(promised, &page.streams),
        };
        match page.hi {
            Some(hi) => {
                job.promised = Some(promised);
                job.position = hi;
                job.asked_ms = now.mono_ms;
                if !page.more {
                    job.is_asked = false;
                    self.ask_page_in_time(now);
                }
            }
            None => self.finish_sync(now, &promised),
        }
    }

    fn merge_page(&mut self, now: Now, sender: Origin, page: &SyncPage) {
        for (namespace, stamp) in &page.cleared {
            self.store.clear(namespace, *stamp);
        }
        self.store.look_ahead(&page.records);
        for record in &page.records {
            if !matches!(record.op, Op::Clear) {
                self.merge(now, sender, record);
            }
        }
        for &grave in &page.graves {
            self.store.bury(grave);
        }
        if page.full && self.config.rules.sweep_unlisted {
            self.forget_unlisted(page);
        }
    }

    /// What is held here below the peer's floor and not listed there was forgotten by the peer, perhaps after a remove.
    fn forget_unlisted(&mut self, page: &SyncPage) {
        let listed = page.records.iter().map(|record| self.positions.position(&record.key));
        let keep: HashSet<u64> = listed.chain(page.keep.iter().copied()).collect();
        let swept = self.store.sweep(page.lo, page.hi, page.floor, &|position| keep.contains(&position));
        self.counters.records_swept += swept as u64;
        let Some(job) = &mut self.job else { return };
        let floor = job.floor.unwrap_or(Bar::NONE).max(page.floor);
        job.floor = Some(floor);
        self.store.cover(page.hi.unwrap_or(u64::MAX), floor);
    }

    fn finish_sync(&mut self, now: Now, promised: &[StreamReport]) {
        let Some(job) = self.job.take() else { return };
        self.counters.syncs_finished += 1;
        if let Some(floor) = job.floor {
            self.store.raise_floor(floor);
        }
        for report in promised {
            let is_covered = job.needed.is_empty() || job.needed.contains(&report.stream);
            if !is_covered {
                continue;
            }
            let Some(state) = self.reported_stream_mut(now, report) else { continue };
            state.adopt(report.watermark, report.watermark_hlc, report.last_hlc);
            state.covered.insert(job.peer, report.generation);
            state.gone = false;
        }
        if !self.ready {
            tracing::info!(node = %self.config.node, "ready: the state of a ready node was received");
            self.become_ready(now);
        }
    }
}

fn newest_hlc(page: &SyncPage) -> Hlc {
    let records = page.records.iter().map(|record: &Record| record.stamp.hlc);
    let graves = page.graves.iter().map(|grave: &Grave| grave.bar.stamp.hlc);
    let cleared = page.cleared.iter().map(|(_, stamp)| stamp.hlc);
    records.chain(graves).chain(cleared).max().unwrap_or_default().max(page.floor.stamp.hlc)
}

/// What both reports of one node say that it has.
fn lower(one: Vec<StreamReport>, other: &[StreamReport]) -> Vec<StreamReport> {
    let other: HashMap<Stream, &StreamReport> = other.iter().map(|report| (report.stream, report)).collect();
    let both = one.into_iter().filter_map(|one| {
        let other = other.get(&one.stream)?;
        Some(StreamReport {
            watermark: one.watermark.min(other.watermark),
            watermark_hlc: one.watermark_hlc.min(other.watermark_hlc),
            generation: one.generation.min(other.generation),
            last_hlc: one.last_hlc.max(other.last_hlc),
            max: one.max.max(other.max),
            ..one
        })
    });
    both.collect()
}

/// What a requester has: per stream, the clock at its watermark. Judged with the lives that the two know.
struct Since {
    streams: Vec<(Stream, Hlc)>,
    /// Each life, and up to which clock it may reach.
    lives: Vec<(Stream, Hlc)>,
}

impl Since {
    /// `lives` are those that the responder knows. Of one that only the requester knows, nothing is known of its end.
    fn new(streams: &[(Stream, Hlc)], mut lives: Vec<(Stream, Hlc)>) -> Self {
        let mut streams = streams.to_vec();
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        lives.sort_unstable_by_key(|(stream, _)| *stream);
        let is_known = |stream: Stream| lives.binary_search_by_key(&stream, |(known, _)| *known).is_ok();
        let theirs = streams.iter().map(|(stream, _)| *stream).filter(|stream| !is_known(*stream));
        let theirs: Vec<_> = theirs.map(|stream| (stream, Hlc(u64::MAX))).collect();
        lives.extend(theirs);
        lives.sort_unstable_by_key(|(stream, _)| *stream);
        Self { streams, lives }
    }

    fn at(&self, stream: Stream) -> Option<Hlc> {
        let index = self.streams.binary_search_by_key(&stream, |(stream, _)| *stream).ok()?;
        Some(self.streams[index].1)
    }

    /// Whether the requester may lack what has this stamp. A stamp does not name its life, and lives may overlap: one
    /// whose clock was lifted by others stamps above the epoch of the next. So it may be of every life of its origin
    /// that began before it and reaches up to it, and is left out only if the requester has each of them up to it. What
    /// is left out wrongly may have superseded what a watermark promises.
    fn may_lack(&self, stamp: Stamp) -> bool {
        let first = self.lives.partition_point(|(stream, _)| stream.origin < stamp.origin);
        let of_origin = self.lives[first..].iter().take_while(|(stream, _)| stream.origin == stamp.origin);
        let mut possible = of_origin
            .filter(|(stream, last)| stream.epoch <= stamp.hlc.0 && stamp.hlc <= *last)
            .map(|(stream, _)| self.at(*stream))
            .peekable();
        possible.peek().is_none() || possible.any(|has| has.is_none_or(|has| has < stamp.hlc))
    }
}

#[cfg(test)]
mod tests;
