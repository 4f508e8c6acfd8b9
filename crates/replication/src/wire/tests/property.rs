//! Round trips of any message, and totality of decoding.

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

/// Clocks near each other, as they are, and any.
fn hlc() -> impl Strategy<Value = Hlc> {
    prop_oneof![
        (0..5_000_u64, 0..4_u64).prop_map(|(ms, n)| Hlc(Hlc::from_ms(MS + ms).0 + n)),
        any::<u64>().prop_map(Hlc)
    ]
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    let origin = prop_oneof![0..4_u64, any::<u64>()].prop_map(Origin);
    (hlc(), origin).prop_map(|(hlc, origin)| Stamp { hlc, origin })
}

fn value() -> impl Strategy<Value = Value> {
    let born = prop_oneof![MS - 1_000..MS + 1_000, any::<u64>()];
    let ttl = (any::<u64>(), born).prop_map(|(left_ms, born_ms)| Ttl { left_ms, born_ms });
    let flags = prop_oneof![Just(0), any::<u32>()];
    let codec = prop_oneof![Just(0), any::<u8>()];
    (bytes(300), flags, codec, option::of(any::<u64>()), option::of(ttl))
        .prop_map(|(bytes, flags, codec, cas, ttl)| Value { bytes, flags, codec, cas, ttl })
}

fn record() -> impl Strategy<Value = Record> {
    let op = prop_oneof![4 => value().prop_map(Op::Put), 1 => Just(Op::Remove), 1 => Just(Op::Clear)];
    (any_stamp(), bytes(40), op, option::of(any_stamp())).prop_map(|(stamp, key, op, previous)| Record {
        stamp,
        key,
        op,
        previous,
    })
}

fn stream() -> impl Strategy<Value = Stream> {
    (any::<u64>(), any::<u64>()).prop_map(|(origin, epoch)| Stream { origin: Origin(origin), epoch })
}

fn report() -> impl Strategy<Value = StreamReport> {
    (stream(), any::<u64>(), hlc(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(stream, watermark, watermark_hlc, max, generation, age_ms)| StreamReport {
            last_hlc: Hlc(watermark_hlc.0.saturating_add(generation % 1_000)),
            age_ms,
            stream,
            watermark,
            watermark_hlc,
            max,
            generation,
        },
    )
}

fn echo() -> impl Strategy<Value = Echo> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(peer, epoch, mono_ms, held_ms)| Echo { peer: Origin(peer), epoch, mono_ms, held_ms })
}

fn bar() -> impl Strategy<Value = Bar> {
    (any_stamp(), any::<bool>()).prop_map(|(stamp, strict)| Bar { stamp, strict })
}

fn grave() -> impl Strategy<Value = Grave> {
    (any::<u64>(), bar()).prop_map(|(position, bar)| Grave { position, bar })
}

fn own_records() -> impl Strategy<Value = Message> {
    (any::<u64>(), vec(record(), 0..20), proptest::option::of(hlc()), proptest::option::of(any::<u64>()))
        .prop_map(|(first, mut records, held_back, answers)| {
            for record in &mut records {
                record.stamp.origin = node().origin();
            }
            Message::Records { first, records, held_back, answers }
        })
}

fn beat() -> impl Strategy<Value = Message> {
    let numbers = (any::<u32>(), any::<u8>(), any::<u8>(), hlc(), any::<u64>(), any::<u64>());
    (any::<(bool, bool)>(), numbers, vec(report(), 0..6), vec(echo(), 0..6)).prop_map(
        |(
            (ready, all_numbered),
            (capabilities, minor_min, minor_max, hlc, wall_ms, mono_ms),
            streams,
            echoes,
        )| {
            Message::Beat(Beat {
                ready,
                all_numbered,
                capabilities,
                minor_min,
                minor_max,
                hlc,
                wall_ms,
                mono_ms,
                streams,
                echoes,
            })
        },
    )
}

fn sync_req() -> impl Strategy<Value = Message> {
    let since = vec((stream(), hlc()), 0..5);
    (any::<u64>(), any::<u64>(), vec(stream(), 0..5), since, any::<([u32; 2], u8)>()).prop_map(
        |(id, position, needed, since, ([budget_bytes, preview_bytes], pages))| {
            Message::SyncReq(SyncReq { id, position, needed, since, budget_bytes, preview_bytes, pages })
        },
    )
}

fn sync_page() -> impl Strategy<Value = Message> {
    let range = (any::<u64>(), any::<u64>(), option::of(any::<u64>()), any::<[bool; 2]>());
    let lists = (vec(report(), 0..4), vec(record(), 0..12), vec(grave(), 0..12), vec(any::<u64>(), 0..12));
    (range, lists, bar(), vec((bytes(20), any_stamp()), 0..4)).prop_map(
        |((id, lo, hi, [full, more]), (streams, records, graves, keep), floor, cleared)| {
            let page = SyncPage { id, lo, hi, full, more, streams, records, graves, keep, floor, cleared };
            Message::SyncPage(page)
        },
    )
}

fn token() -> impl Strategy<Value = Token> {
    (stream(), hlc()).prop_map(|(stream, hlc)| Token { stream, hlc })
}

fn lease() -> impl Strategy<Value = Message> {
    let ask = (any::<u64>(), hlc()).prop_map(|(hold_ms, seen)| LeaseSay::Ask { hold_ms, seen });
    let say = prop_oneof![ask, token().prop_map(LeaseSay::Loaded), Just(LeaseSay::Failed)];
    let call =
        (any::<u64>(), any::<u64>(), say).prop_map(|(id, position, say)| LeaseCall { id, position, say });
    vec(call, 0..12).prop_map(|calls| Message::Lease { calls })
}

fn granted() -> impl Strategy<Value = Message> {
    let verdict = prop_oneof![
        any::<u64>().prop_map(|hold_ms| Verdict::Granted { hold_ms }),
        any::<u64>().prop_map(|left_ms| Verdict::Held { left_ms }),
        token().prop_map(Verdict::Loaded),
        Just(Verdict::Refused),
    ];
    let answer = (any::<u64>(), any::<u64>(), verdict).prop_map(|(id, position, verdict)| LeaseAnswer {
        id,
        position,
        verdict,
    });
    vec(answer, 0..12).prop_map(|answers| Message::Granted { answers })
}

fn message() -> impl Strategy<Value = Message> {
    let fetched = (any::<u64>(), any::<bool>(), vec(record(), 0..12))
        .prop_map(|(id, ready, records)| Message::Fetched { id, ready, records });
    prop_oneof![
        own_records(),
        beat(),
        (stream(), any::<u64>(), any::<u64>()).prop_map(|(stream, from, to)| Message::Pull {
            stream,
            from,
            to
        }),
        (stream(), any::<u64>()).prop_map(|(stream, oldest)| Message::Gone { stream, oldest }),
        sync_req(),
        sync_page(),
        (vec((any::<u64>(), any_stamp()), 0..20), vec((bytes(12), any_stamp()), 0..4))
            .prop_map(|(samples, cleared)| Message::Probe { samples, cleared }),
        (any::<u64>(), vec(record(), 0..12), vec(grave(), 0..12))
            .prop_map(|(answers, records, graves)| Message::State { answers, records, graves }),
        (any::<u64>(), vec(bytes(30), 0..12), hlc()).prop_map(|(id, keys, at_least)| Message::Fetch {
            id,
            keys,
            at_least
        }),
        fetched,
        lease(),
        granted(),
    ]
}

pub(super) fn any_frame() -> impl Strategy<Value = Frame> {
    (any::<u64>(), any::<u32>(), any::<bool>(), message()).prop_map(
        |(epoch, cache, wants_receipt, message)| Frame { wants_receipt, from: node(), epoch, cache, message },
    )
}

/// Decodes within the stated memory; whether it reads is the caller's to judge.
fn decode_in_bounds(bytes: Bytes) -> Result<(), TestCaseError> {
    let len = bytes.len();
    if let Ok(frame) = decode(bytes) {
        let held = held_bytes(&frame);
        prop_assert!(held <= 2 * len + DECODE_BYTES_CONSTANT, "{held} bytes held for a frame of {len}");
        // What was read can be written and read again.
        prop_assert_eq!(decode(encode(&frame)), Ok(frame));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_message_survives_the_round_trip(frame in any_frame()) {
        prop_assert_eq!(decode(encode(&frame)), Ok(frame));
    }

    #[test]
    fn a_record_never_takes_more_than_its_stated_length(record in record()) {
        let mut encoder = RecordsEncoder::new(&node(), 1, 2);
        let before = encoder.len();
        encoder.push(&record);
        prop_assert!(encoder.len() - before <= record_bytes_max(&record));
    }

    #[test]
    fn records_laid_down_ahead_make_the_bytes_of_records_pushed(records in vec(record(), 0..20)) {
        let (mut pushed, mut laid) = (RecordsEncoder::new(&node(), 1, 2), RecordsEncoder::new(&node(), 1, 2));
        for record in &records {
            pushed.push(record);
            let mut bytes = Vec::new();
            let key_at = lay(&mut bytes, record.stamp.hlc, &record.key, record.op.change(), record.previous);
            prop_assert!(bytes[key_at..].starts_with(&record.key));
            let value = match &record.op {
                Op::Put(value) => &value.bytes[..],
                _ => &[],
            };
            laid.push_laid(record.stamp.hlc, &bytes, value);
        }
        prop_assert_eq!(laid.finish(3), pushed.finish(3));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode_in_bounds(bytes.into())?;
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_stay_within_memory(kind in 0..14_u8, body in vec(any::<u8>(), 0..400)) {
        decode_in_bounds(framed(kind, &body))?;
    }

    #[test]
    fn bodies_of_small_numbers_never_panic_and_stay_within_memory(kind in 0..14_u8, body in vec(0..6_u8, 0..2_000)) {
        // Small numbers make plausible counts and lengths, so these reach deeper.
        decode_in_bounds(framed(kind, &body))?;
    }

    #[test]
    fn mutated_frames_with_a_fitting_checksum_never_panic(
        frame in any_frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mutated = changed(&encode(&frame), |bytes| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        });
        decode_in_bounds(mutated)?;
    }
}

/// Decodes a frame within the stated memory; it has to read.
fn read_in_bounds(message: Message) -> Bytes {
    let bytes = encode(&frame(message));
    let held = held_bytes(&decode(bytes.clone()).unwrap());
    assert!(
        held <= 2 * bytes.len() + DECODE_BYTES_CONSTANT,
        "{held} bytes held for a frame of {}",
        bytes.len()
    );
    bytes
}

/// A message with one list of so many items, each as small on the wire as it can be.
type Dense = fn(usize) -> Message;

fn dense_page(change: impl FnOnce(&mut SyncPage)) -> Message {
    let mut page = SyncPage::default();
    change(&mut page);
    Message::SyncPage(page)
}

fn dense_reports(count: usize) -> Message {
    Message::Beat(Beat { streams: vec![StreamReport::default(); count], ..Beat::default() })
}

fn dense_records(count: usize) -> Vec<Record> {
    vec![remove(Stamp { hlc: Hlc(0), origin: node().origin() }, ""); count]
}

const GRAVE: Grave = Grave { position: 1, bar: Bar::NONE };

#[test]
fn a_list_that_fills_the_longest_frame_stays_within_the_stated_memory() {
    let lists: [Dense; 4] = [
        |count| Message::Probe { samples: vec![(1, Stamp::ZERO); count], cleared: Vec::new() },
        |count| Message::State { answers: 1, records: Vec::new(), graves: vec![GRAVE; count] },
        |count| dense_page(|page| page.graves = vec![GRAVE; count]),
        |count| dense_page(|page| page.keep = vec![1; count]),
    ];
    for list in lists {
        let len = |count| encode(&frame(list(count))).len();
        // The count itself takes a few bytes more than that of one item.
        let count = (FRAME_BYTES_MAX - 8 - len(1)) / (len(2) - len(1));
        let bytes = read_in_bounds(list(count));
        assert!(bytes.len() > FRAME_BYTES_MAX - 64, "{} bytes are not the longest frame", bytes.len());
    }
}

#[test]
fn a_list_at_its_bound_stays_within_the_stated_memory_and_one_over_it_is_refused() {
    let lists: [(usize, Dense); 11] = [
        (RECORDS_MAX, |count| Message::Records {
            first: 1,
            records: dense_records(count),
            held_back: None,
            answers: None,
        }),
        (RECORDS_MAX, |count| dense_page(|page| page.records = dense_records(count))),
        (KEYS_MAX, |count| Message::Fetch { id: 1, keys: vec![Bytes::new(); count], at_least: Hlc(0) }),
        (KEYS_MAX, |count| Message::Lease {
            calls: vec![LeaseCall { id: 1, position: 2, say: LeaseSay::Failed }; count],
        }),
        (KEYS_MAX, |count| Message::Granted {
            answers: vec![LeaseAnswer { id: 1, position: 2, verdict: Verdict::Refused }; count],
        }),
        (KEYS_MAX, |count| dense_page(|page| page.cleared = vec![(Bytes::new(), Stamp::ZERO); count])),
        (STREAMS_MAX, dense_reports),
        (STREAMS_MAX, |count| dense_page(|page| page.streams = vec![StreamReport::default(); count])),
        (STREAMS_MAX, |count| {
            Message::Beat(Beat { echoes: vec![Echo::default(); count], ..Beat::default() })
        }),
        (STREAMS_MAX, |count| {
            Message::SyncReq(SyncReq { needed: vec![Stream::default(); count], ..SyncReq::default() })
        }),
        (STREAMS_MAX, |count| {
            Message::SyncReq(SyncReq {
                since: vec![(Stream::default(), Hlc(0)); count],
                ..SyncReq::default()
            })
        }),
    ];
    for (max, list) in lists {
        read_in_bounds(list(max));
        let len = |count| encode(&frame(list(count))).len();
        // Of streams and peers that is all that the longest frame has room for; more records take too much memory here.
        let many = ((FRAME_BYTES_MAX - 8 - len(1)) / (len(2) - len(1))).min(550_000);
        for count in [max + 1, many] {
            let bytes = encode(&frame(list(count)));
            assert!(bytes.len() <= FRAME_BYTES_MAX);
            let error = decode(bytes).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed { .. }), "{count} items: {error}");
        }
    }
}

#[test]
fn the_densest_lists_together_stay_within_the_stated_memory() {
    let (streams, count) = (vec![StreamReport::default(); STREAMS_MAX], 300_000);
    read_in_bounds(Message::Beat(Beat {
        streams: streams.clone(),
        echoes: vec![Echo::default(); STREAMS_MAX],
        ..Beat::default()
    }));
    read_in_bounds(dense_page(|page| {
        page.streams = streams;
        page.records = dense_records(RECORDS_MAX);
        page.graves = vec![GRAVE; count];
        page.keep = vec![1; count];
        page.cleared = vec![(Bytes::new(), Stamp::ZERO); KEYS_MAX];
    }));
}
