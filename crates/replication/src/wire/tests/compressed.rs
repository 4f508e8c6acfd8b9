//! Compressed bodies: the same message, never longer than a frame may be, and refused where they lie.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Records that compress well, as JSON does.
fn records() -> Frame {
    let own = node().origin().0;
    let record = |n: u64| {
        let mut record = put(stamp(n, own), "", "");
        record.key = Bytes::from(format!("customer:{n:08}"));
        let bytes = Bytes::from(format!("{{\"name\":\"customer {n}\",\"visits\":{n},\"active\":true}}"));
        record.op = Op::Put(Value { bytes, ..Value::default() });
        record
    };
    frame(Message::Records {
        first: 1,
        records: (0..200).map(record).collect(),
        held_back: None,
        answers: None,
    })
}

/// The compressed frame, its header's body length and its body changed, with a checksum that fits again.
fn lying(body_bytes: u32, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    changed(&compress(encode(&records()), 0), |bytes| {
        let body = usize::from(bytes[5]);
        bytes[body - 4..body].copy_from_slice(&body_bytes.to_le_bytes());
        change(bytes);
    })
}

fn body_bytes(frame: &Bytes) -> u32 {
    body_of(frame).len() as u32
}

#[test]
fn a_compressed_frame_is_the_same_message_and_says_its_sender_without_being_expanded() {
    let sample = records();
    let plain = encode(&sample);
    let compressed = compress(plain.clone(), 1_024);
    assert!(compressed.len() < plain.len() / 2, "{} of {} bytes", compressed.len(), plain.len());
    assert_eq!(decode(compressed.clone()).unwrap(), sample);
    assert!(SenderMark::new(&sample.from, sample.epoch, sample.cache).is_on(&compressed));
    assert_eq!(decompress(compressed.clone()).unwrap(), plain);
    assert_eq!(decompress(plain.clone()).unwrap(), plain);
    assert_eq!(compress(compressed.clone(), 0), compressed, "once is enough");
    let told = Frame { wants_receipt: true, ..sample };
    assert_eq!(decode(compress(encode(&told), 0)).unwrap(), told);
}

#[test]
fn what_is_short_or_gets_hardly_shorter_stays_as_it_is() {
    let plain = encode(&records());
    assert_eq!(compress(plain.clone(), body_bytes(&plain) as usize + 1), plain);
    let mut random = fastrand::Rng::with_seed(7);
    let value = Bytes::from_iter(std::iter::repeat_with(|| random.u8(..)).take(10_000));
    let mut record = put(stamp(0, node().origin().0), "noise", "");
    record.op = Op::Put(Value { bytes: value, ..Value::default() });
    let noise =
        encode(&frame(Message::Records { first: 1, records: vec![record], held_back: None, answers: None }));
    assert_eq!(compress(noise.clone(), 0), noise);
    for no_frame in [&b""[..], b"GC", b"not a frame at all", &[0xff; 200]] {
        let _ = compress(Bytes::copy_from_slice(no_frame), 0);
    }
}

/// The bytes of another version of the compressor may differ; what it wrote is read for ever.
#[test]
fn the_golden_bytes_of_a_compressed_frame_are_read() {
    let path = golden::path("compressed/records");
    if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, golden::hex(&compress(encode(&records()), 0))).unwrap();
    }
    let bytes = golden::unhex(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(bytes[4], 0x01, "compressed");
    assert_eq!(decode(bytes.into()).unwrap(), records());
}

#[test]
fn keys_and_values_are_slices_of_the_expanded_frame() {
    let Message::Records { records, .. } = decode(compress(encode(&records()), 0)).unwrap().message else {
        panic!("records")
    };
    let at = |record: &Record| record.key.as_ptr() as usize;
    assert!(at(&records[199]) - at(&records[0]) < 64 * 1024, "one buffer");
}

#[test]
fn a_length_over_the_limit_or_beyond_what_the_body_can_expand_to_is_refused_before_anything_is_allocated() {
    let error = decode(lying(u32::MAX, |_| {})).unwrap_err();
    assert!(matches!(error, DecodeError::TooLong { max: FRAME_BYTES_MAX, .. }), "{error}");
    let small = changed(&encode(&samples().remove(2).1), |bytes| {
        let body = usize::from(bytes[5]);
        bytes[4] = 0x01;
        bytes[body - 4..body].copy_from_slice(&8_000_000_u32.to_le_bytes());
    });
    let error = decode(small).unwrap_err();
    assert!(error.to_string().contains("too short for the length"), "{error}");
    let frame = compress(encode(&records()), 0);
    let plain_bytes = encode(&records()).len();
    assert!(decode_within(frame.clone(), plain_bytes).is_ok());
    let error = decode_within(frame, plain_bytes - 1).unwrap_err();
    assert_eq!(error, DecodeError::TooLong { bytes: plain_bytes, max: plain_bytes - 1 });
}

#[test]
fn a_body_that_expands_to_another_length_is_refused() {
    let right = body_bytes(&encode(&records()));
    assert!(decode(lying(right, |_| {})).is_ok());
    for wrong in [0, 1, right - 1, right + 1, 2 * right] {
        let error = decode(lying(wrong, |_| {})).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{wrong}: {error}");
    }
    let cut = decode(lying(right, |bytes| bytes.truncate(bytes.len() - 10))).unwrap_err();
    assert!(matches!(cut, DecodeError::Malformed { .. }), "{cut}");
}

proptest! {
    #[test]
    fn any_compressed_message_survives_the_round_trip(frame in property::any_frame()) {
        prop_assert_eq!(decode(compress(encode(&frame), 0)), Ok(frame));
    }

    #[test]
    fn a_damaged_body_with_a_fitting_checksum_never_panics(
        at in 0..2_000_usize,
        byte: u8,
        body_bytes in prop_oneof![Just(None), (0..100_000_u32).prop_map(Some)],
        tail in vec(any::<u8>(), 0..20),
    ) {
        let right = body_bytes.unwrap_or_else(|| super::compressed::body_bytes(&encode(&records())));
        let damaged = lying(right, |bytes| {
            let (body, len) = (usize::from(bytes[5]), bytes.len());
            bytes[body + at % (len - body)] = byte;
            bytes.extend(tail);
        });
        if let Ok(frame) = decode(damaged) {
            prop_assert_eq!(decode(encode(&frame)), Ok(frame));
        }
    }
}
