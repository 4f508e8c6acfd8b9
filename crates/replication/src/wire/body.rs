//! The body of each kind of frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    KEYS_MAX, STREAMS_MAX,
    compress::expand,
    error::DecodeError,
    header::{self, Open},
    lease,
    reader::Reader,
    record::{self, RecordsEncoder, Source, record_bytes_max},
    writer,
};
use crate::{
    message::{Bar, Beat, Echo, Frame, Grave, Message, StreamReport, SyncPage, SyncReq},
    node::{Origin, Stream},
    record::Record,
    stamp::{Hlc, Stamp},
};

pub(super) const KIND_RECORDS: u8 = 1;
const KIND_BEAT: u8 = 2;
const KIND_PULL: u8 = 3;
const KIND_GONE: u8 = 4;
const KIND_SYNC_REQ: u8 = 5;
const KIND_SYNC_PAGE: u8 = 6;
const KIND_PROBE: u8 = 7;
const KIND_STATE: u8 = 8;
const KIND_FETCH: u8 = 9;
const KIND_FETCHED: u8 = 10;
const KIND_LEASE: u8 = 11;
const KIND_GRANTED: u8 = 12;

const READY: u8 = 0x01;
const ALL_NUMBERED: u8 = 0x02;
const FULL: u8 = 0x01;
const HI: u8 = 0x02;
const MORE: u8 = 0x04;

// The least bytes of each list's item.
const STREAM_BYTES: usize = 16;
const REPORT_BYTES_MIN: usize = STREAM_BYTES + 1 + 8 + 1 + 1 + 1 + 1;
const ECHO_BYTES_MIN: usize = 16 + 1 + 1;
const SINCE_BYTES: usize = STREAM_BYTES + 8;
const STAMP_BYTES_MIN: usize = 8 + 1;
/// Of a sample as of a grave.
const POSITIONED_BYTES_MIN: usize = 8 + STAMP_BYTES_MIN;
const KEY_BYTES_MIN: usize = 1;

/// The distinct origins of a frame, sorted; a stamp names its own by index.
#[derive(Default)]
pub(super) struct Origins(Vec<Origin>);

impl Origins {
    fn of(stamps: impl Iterator<Item = Stamp>) -> Self {
        let mut origins = Self::default();
        let mut last = None;
        for Stamp { origin, .. } in stamps {
            if last == Some(origin) {
                continue;
            }
            last = Some(origin);
            if let Err(index) = origins.0.binary_search(&origin) {
                origins.0.insert(index, origin);
            }
        }
        origins
    }

    /// The origin's index; every origin of the frame was collected before.
    pub(super) fn index(&self, origin: Origin) -> u64 {
        match self.0.binary_search(&origin) {
            Ok(index) | Err(index) => index as u64,
        }
    }

    fn write(&self, buf: &mut BytesMut) {
        writer::list(buf, &self.0, |buf, origin| buf.put_u64_le(origin.0));
    }
}

pub(super) fn encode(frame: &Frame) -> Bytes {
    let Frame { from, epoch, cache, wants_receipt, message } = frame;
    let open = |kind, body_bytes| {
        let mut open = Open::new(kind, from, *epoch, *cache, body_bytes);
        if *wants_receipt {
            open.ask_receipt();
        }
        open
    };
    let with = |kind, body_bytes, write: &dyn Fn(&mut BytesMut)| {
        let mut open = open(kind, body_bytes);
        write(&mut open.buf);
        open.close()
    };
    match message {
        Message::Records { first, records, held_back, answers } => {
            let room = records_bytes(records);
            let mut encoder = RecordsEncoder::with_room(from, *epoch, *cache, room);
            records.iter().for_each(|record| encoder.push(record));
            if *wants_receipt {
                encoder.ask_receipt();
            }
            if let Some(hlc) = held_back {
                encoder.hold_back(*hlc);
            }
            if let Some(from) = answers {
                encoder.answer(*from);
            }
            encoder.into_frame(*first)
        }
        Message::Beat(beat) => with(KIND_BEAT, beat_bytes(beat), &|buf| write_beat(buf, beat)),
        Message::Pull { stream, from, to } => with(KIND_PULL, 36, &|buf| {
            write_stream(buf, stream);
            writer::varint(buf, *from);
            writer::varint(buf, *to);
        }),
        Message::Gone { stream, oldest } => with(KIND_GONE, 26, &|buf| {
            write_stream(buf, stream);
            writer::varint(buf, *oldest);
        }),
        Message::SyncReq(req) => with(KIND_SYNC_REQ, 64, &|buf| write_sync_req(buf, req)),
        Message::SyncPage(page) => with(KIND_SYNC_PAGE, page_bytes(page), &|buf| write_sync_page(buf, page)),
        Message::Probe { samples, cleared } => {
            with(KIND_PROBE, 32 + 18 * samples.len() + cleared_bytes(cleared), &|buf| {
                let sampled = samples.iter().map(|(_, stamp)| *stamp);
                let origins = Origins::of(sampled.chain(cleared.iter().map(|(_, stamp)| *stamp)));
                origins.write(buf);
                writer::list(buf, samples, |buf, (position, stamp)| {
                    buf.put_u64_le(*position);
                    write_stamp(buf, *stamp, &origins);
                });
                write_cleared(buf, cleared, &origins);
            })
        }
        Message::State { answers, records, graves } => {
            with(KIND_STATE, 8 + records_bytes(records) + 18 * graves.len(), &|buf| {
                buf.put_u64_le(*answers);
                let origins = Origins::of(stamps(records).chain(bars(graves)));
                origins.write(buf);
                record::write_all(buf, records, &origins);
                write_graves(buf, graves, &origins);
            })
        }
        Message::Fetch { id, keys, at_least } => {
            let keys_bytes = keys.iter().map(|key| key.len() + 2).sum::<usize>();
            with(KIND_FETCH, 20 + keys_bytes, &|buf| {
                buf.put_u64_le(*id);
                buf.put_u64_le(at_least.0);
                writer::list(buf, keys, |buf, key| writer::string(buf, key));
            })
        }
        Message::Fetched { id, ready, records } => with(KIND_FETCHED, records_bytes(records), &|buf| {
            let origins = Origins::of(stamps(records));
            origins.write(buf);
            buf.put_u64_le(*id);
            buf.put_u8(if *ready { READY } else { 0 });
            record::write_all(buf, records, &origins);
        }),
        Message::Lease { calls } => {
            let room = lease::CALL_BYTES_MAX * calls.len() + 10;
            with(KIND_LEASE, room, &|buf| lease::write_calls(buf, calls))
        }
        Message::Granted { answers } => {
            let room = lease::ANSWER_BYTES_MAX * answers.len() + 10;
            with(KIND_GRANTED, room, &|buf| lease::write_answers(buf, answers))
        }
    }
}

pub(super) fn decode(frame: &Bytes, bytes_max: usize) -> Result<Frame, DecodeError> {
    let header = header::read(frame)?;
    let expanded = if header.is_compressed { Some(expand(frame, &header, bytes_max)?.into()) } else { None };
    let (frame, end) = expanded.as_ref().map_or((frame, header.end), |frame: &Bytes| (frame, frame.len()));
    let mut reader = Reader::new(frame, header.body, end);
    let r = &mut reader;
    let message = match header.kind {
        KIND_RECORDS => {
            let first = r.u64("the first number")?;
            let records = record::read_all(r, Source::Sender(header.from.origin()))?;
            let held_back = header.holds_back.then(|| r.u64("the clock held back")).transpose()?.map(Hlc);
            let answers = header.answers.then(|| r.u64("the pull that is answered")).transpose()?;
            Message::Records { first, records, held_back, answers }
        }
        KIND_BEAT => Message::Beat(read_beat(r)?),
        KIND_PULL => Message::Pull {
            stream: read_stream(r)?,
            from: r.varint("the first wanted")?,
            to: r.varint("the last wanted")?,
        },
        KIND_GONE => Message::Gone { stream: read_stream(r)?, oldest: r.varint("the oldest kept")? },
        KIND_SYNC_REQ => Message::SyncReq(read_sync_req(r)?),
        KIND_SYNC_PAGE => Message::SyncPage(read_sync_page(r)?),
        KIND_PROBE => {
            let origins = read_origins(r)?;
            let samples = r.list_in_frame::<_, POSITIONED_BYTES_MIN>("the samples", |r| {
                Ok((r.u64("a position")?, read_stamp(r, &origins)?))
            })?;
            Message::Probe { samples, cleared: read_cleared(r, &origins)? }
        }
        KIND_STATE => {
            let answers = r.u64("the epoch that is answered")?;
            let origins = read_origins(r)?;
            let records = record::read_all(r, Source::Table(&origins))?;
            Message::State { answers, records, graves: read_graves(r, &origins)? }
        }
        KIND_FETCH => {
            let id = r.u64("the fetch's id")?;
            let at_least = Hlc(r.u64("the least clock")?);
            let keys = r.list("the keys", KEY_BYTES_MIN, KEYS_MAX, |r| r.string("a key"))?;
            Message::Fetch { id, keys, at_least }
        }
        KIND_FETCHED => {
            let origins = read_origins(r)?;
            let id = r.u64("the fetch's id")?;
            let ready = r.u8("the answer's flags")? & READY != 0;
            Message::Fetched { id, ready, records: record::read_all(r, Source::Table(&origins))? }
        }
        KIND_LEASE => Message::Lease { calls: lease::read_calls(r)? },
        KIND_GRANTED => Message::Granted { answers: lease::read_answers(r)? },
        kind => return Err(DecodeError::UnknownKind { kind }),
    };
    let header::Header { from, epoch, cache, wants_receipt, .. } = header;
    Ok(Frame { from, epoch, cache, wants_receipt, message })
}

/// Room for a list of records and what is around it.
fn records_bytes(records: &[Record]) -> usize {
    64 + records.iter().map(record_bytes_max).sum::<usize>()
}

fn stamps(records: &[Record]) -> impl Iterator<Item = Stamp> {
    records.iter().map(|record| record.stamp)
}

fn bars(graves: &[Grave]) -> impl Iterator<Item = Stamp> {
    graves.iter().map(|grave| grave.bar.stamp)
}

fn read_origins(r: &mut Reader<'_>) -> Result<Vec<Origin>, DecodeError> {
    r.list_in_frame::<_, 8>("the table of origins", |r| r.u64("an origin").map(Origin))
}

pub(super) fn write_stream(buf: &mut BytesMut, stream: &Stream) {
    buf.put_u64_le(stream.origin.0);
    buf.put_u64_le(stream.epoch);
}

pub(super) fn read_stream(r: &mut Reader<'_>) -> Result<Stream, DecodeError> {
    Ok(Stream { origin: Origin(r.u64("a stream's origin")?), epoch: r.u64("a stream's epoch")? })
}

fn write_stamp(buf: &mut BytesMut, stamp: Stamp, origins: &Origins) {
    buf.put_u64_le(stamp.hlc.0);
    writer::varint(buf, origins.index(stamp.origin));
}

fn read_stamp(r: &mut Reader<'_>, origins: &[Origin]) -> Result<Stamp, DecodeError> {
    Ok(Stamp { hlc: Hlc(r.u64("a stamp")?), origin: record::read_origin(r, origins)? })
}

fn write_bar(buf: &mut BytesMut, bar: Bar, origins: &Origins) {
    buf.put_u64_le(bar.stamp.hlc.0);
    writer::varint(buf, origins.index(bar.stamp.origin) << 1 | u64::from(bar.strict));
}

fn read_bar(r: &mut Reader<'_>, origins: &[Origin]) -> Result<Bar, DecodeError> {
    let hlc = Hlc(r.u64("a bar")?);
    let offset = r.offset();
    let index = r.varint("a bar's origin")?;
    let stamp = Stamp { hlc, origin: record::origin_at(origins, index >> 1, offset)? };
    Ok(Bar { stamp, strict: index & 1 != 0 })
}

fn write_graves(buf: &mut BytesMut, graves: &[Grave], origins: &Origins) {
    writer::list(buf, graves, |buf, grave| {
        buf.put_u64_le(grave.position);
        write_bar(buf, grave.bar, origins);
    });
}

fn read_graves(r: &mut Reader<'_>, origins: &[Origin]) -> Result<Vec<Grave>, DecodeError> {
    r.list_in_frame::<_, POSITIONED_BYTES_MIN>("the graves", |r| {
        Ok(Grave { position: r.u64("a position")?, bar: read_bar(r, origins)? })
    })
}

fn write_reports(buf: &mut BytesMut, reports: &[StreamReport]) {
    writer::list(buf, reports, |buf, report| {
        write_stream(buf, &report.stream);
        writer::varint(buf, report.watermark);
        buf.put_u64_le(report.watermark_hlc.0);
        writer::varint(buf, report.last_hlc.0.saturating_sub(report.watermark_hlc.0));
        writer::varint(buf, report.max);
        writer::varint(buf, report.generation);
        writer::varint(buf, report.age_ms);
    });
}

fn read_reports(r: &mut Reader<'_>) -> Result<Vec<StreamReport>, DecodeError> {
    r.list("the streams", REPORT_BYTES_MIN, STREAMS_MAX, |r| {
        let (stream, watermark) = (read_stream(r)?, r.varint("a watermark")?);
        let watermark_hlc = Hlc(r.u64("a watermark's clock")?);
        let last_hlc = Hlc(watermark_hlc.0.saturating_add(r.varint("a last clock")?));
        Ok(StreamReport {
            stream,
            watermark,
            watermark_hlc,
            last_hlc,
            max: r.varint("a highest number")?,
            generation: r.varint("a generation")?,
            age_ms: r.varint("a stream's age")?,
        })
    })
}

fn beat_bytes(beat: &Beat) -> usize {
    64 + 44 * beat.streams.len() + 28 * beat.echoes.len()
}

fn write_beat(buf: &mut BytesMut, beat: &Beat) {
    let all_numbered = if beat.all_numbered { ALL_NUMBERED } else { 0 };
    buf.put_u8(if beat.ready { READY } else { 0 } | all_numbered);
    buf.put_u32_le(beat.capabilities);
    buf.put_slice(&[beat.minor_min, beat.minor_max]);
    buf.put_u64_le(beat.hlc.0);
    buf.put_u64_le(beat.wall_ms);
    buf.put_u64_le(beat.mono_ms);
    write_reports(buf, &beat.streams);
    writer::list(buf, &beat.echoes, |buf, echo| {
        buf.put_u64_le(echo.peer.0);
        buf.put_u64_le(echo.epoch);
        writer::varint(buf, echo.mono_ms);
        writer::varint(buf, echo.held_ms);
    });
}

fn read_beat(r: &mut Reader<'_>) -> Result<Beat, DecodeError> {
    let flags = r.u8("the beat's flags")?;
    Ok(Beat {
        ready: flags & READY != 0,
        all_numbered: flags & ALL_NUMBERED != 0,
        capabilities: r.u32("the capabilities")?,
        minor_min: r.u8("the lowest minor version")?,
        minor_max: r.u8("the highest minor version")?,
        hlc: Hlc(r.u64("the clock")?),
        wall_ms: r.u64("the wall clock")?,
        mono_ms: r.u64("the monotonic clock")?,
        streams: read_reports(r)?,
        echoes: r.list("the echoes", ECHO_BYTES_MIN, STREAMS_MAX, |r| {
            Ok(Echo {
                peer: Origin(r.u64("an echo's peer")?),
                epoch: r.u64("an echo's epoch")?,
                mono_ms: r.varint("an echo's clock")?,
                held_ms: r.varint("an echo's delay")?,
            })
        })?,
    })
}

fn write_sync_req(buf: &mut BytesMut, req: &SyncReq) {
    buf.put_u64_le(req.id);
    buf.put_u64_le(req.position);
    writer::list(buf, &req.needed, write_stream);
    writer::list(buf, &req.since, |buf, (stream, hlc)| {
        write_stream(buf, stream);
        buf.put_u64_le(hlc.0);
    });
    buf.put_u32_le(req.budget_bytes);
    buf.put_u32_le(req.preview_bytes);
    buf.put_u8(req.pages);
}

fn read_sync_req(r: &mut Reader<'_>) -> Result<SyncReq, DecodeError> {
    Ok(SyncReq {
        id: r.u64("the sync's id")?,
        position: r.u64("the position")?,
        needed: r.list("the streams needed", STREAM_BYTES, STREAMS_MAX, read_stream)?,
        since: r.list("the clocks since", SINCE_BYTES, STREAMS_MAX, |r| {
            Ok((read_stream(r)?, Hlc(r.u64("a clock since")?)))
        })?,
        budget_bytes: r.u32("the budget")?,
        // Earlier versions of this frame ended here, or one field later.
        preview_bytes: if r.is_at_end() { 0 } else { r.u32("the preview")? },
        pages: if r.is_at_end() { 0 } else { r.u8("the number of pages")? },
    })
}

fn page_bytes(page: &SyncPage) -> usize {
    let cleared = cleared_bytes(&page.cleared);
    let lists = 44 * page.streams.len() + 18 * page.graves.len() + 8 * page.keep.len();
    records_bytes(&page.records) + lists + cleared + 64
}

fn write_sync_page(buf: &mut BytesMut, page: &SyncPage) {
    let cleared = page.cleared.iter().map(|(_, stamp)| *stamp);
    let floor = std::iter::once(page.floor.stamp);
    let origins = Origins::of(stamps(&page.records).chain(bars(&page.graves)).chain(cleared).chain(floor));
    origins.write(buf);
    buf.put_u64_le(page.id);
    buf.put_u64_le(page.lo);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    buf.put_u8(flag(page.full, FULL) | flag(page.hi.is_some(), HI) | flag(page.more, MORE));
    if let Some(hi) = page.hi {
        buf.put_u64_le(hi);
    }
    write_reports(buf, &page.streams);
    write_bar(buf, page.floor, &origins);
    record::write_all(buf, &page.records, &origins);
    write_graves(buf, &page.graves, &origins);
    writer::list(buf, &page.keep, |buf, position| buf.put_u64_le(*position));
    write_cleared(buf, &page.cleared, &origins);
}

fn cleared_bytes(cleared: &[(Bytes, Stamp)]) -> usize {
    cleared.iter().map(|(namespace, _)| namespace.len() + 16).sum()
}

fn write_cleared(buf: &mut BytesMut, cleared: &[(Bytes, Stamp)], origins: &Origins) {
    writer::list(buf, cleared, |buf, (namespace, stamp)| {
        writer::string(buf, namespace);
        write_stamp(buf, *stamp, origins);
    });
}

fn read_cleared(r: &mut Reader<'_>, origins: &[Origin]) -> Result<Vec<(Bytes, Stamp)>, DecodeError> {
    r.list("the clear barriers", KEY_BYTES_MIN + STAMP_BYTES_MIN, KEYS_MAX, |r| {
        Ok((r.string("a namespace")?, read_stamp(r, origins)?))
    })
}

fn read_sync_page(r: &mut Reader<'_>) -> Result<SyncPage, DecodeError> {
    let origins = read_origins(r)?;
    let (id, lo) = (r.u64("the sync's id")?, r.u64("the range's start")?);
    let flags = r.u8("the page's flags")?;
    Ok(SyncPage {
        id,
        lo,
        hi: if flags & HI != 0 { Some(r.u64("the range's end")?) } else { None },
        full: flags & FULL != 0,
        more: flags & MORE != 0,
        streams: read_reports(r)?,
        floor: read_bar(r, &origins)?,
        records: record::read_all(r, Source::Table(&origins))?,
        graves: read_graves(r, &origins)?,
        keep: r.list_in_frame::<_, 8>("the kept positions", |r| r.u64("a kept position"))?,
        cleared: read_cleared(r, &origins)?,
    })
}
