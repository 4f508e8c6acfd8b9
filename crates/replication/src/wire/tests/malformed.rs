//! Bytes that are no frame: each kind of damage has its error.

use super::*;

/// The error of a body under a kind.
fn refusal(kind: u8, body: &[u8]) -> DecodeError {
    decode(framed(kind, body)).expect_err("a malformed body was read")
}

#[test]
fn a_frame_cut_at_any_byte_is_refused() {
    for (name, sample) in samples() {
        let bytes = encode(&sample);
        for len in 0..bytes.len() {
            assert!(decode(bytes.slice(..len)).is_err(), "{name} cut to {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_body_cut_at_any_byte_is_refused_as_truncated() {
    for (name, sample) in samples() {
        let bytes = encode(&sample);
        let body = body_of(&bytes);
        for len in 0..body.len() {
            if name == "sync_req" && [5, 1].contains(&(body.len() - len)) {
                continue; // The whole of it in earlier versions.
            }
            let error = refusal(bytes[3], &body[..len]);
            assert!(matches!(error, DecodeError::Truncated { .. }), "{name} cut to {len}: {error}");
        }
    }
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    for (name, sample) in samples() {
        let bytes = encode(&sample);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert!(decode(damaged.into()).is_err(), "{name} changed at {at}");
        }
    }
}

#[test]
fn other_applications_messages_and_damage_have_their_errors() {
    let bytes = encode(&samples().remove(0).1);
    assert_eq!(decode(Bytes::from_static(b"{\"json\": 1}")), Err(DecodeError::Magic { found: *b"{\"" }));
    assert!(matches!(decode(Bytes::new()), Err(DecodeError::Truncated { offset: 0, left: 0, .. })));
    let mut damaged = bytes.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(decode(damaged.into()), Err(DecodeError::Checksum { .. })));
    let error = decode_within(bytes.clone(), bytes.len() - 1);
    assert_eq!(error, Err(DecodeError::TooLong { bytes: bytes.len(), max: bytes.len() - 1 }));
    assert!(
        decode(vec![0; FRAME_BYTES_MAX + 1].into()).is_err_and(|e| matches!(e, DecodeError::TooLong { .. }))
    );
}

#[test]
fn a_name_that_breaks_the_rule_is_refused_with_its_place() {
    let bytes = encode(&samples().remove(0).1);
    let upper = changed(&bytes, |bytes| bytes[7] = b'E');
    let error = decode(upper).unwrap_err();
    assert!(matches!(error, DecodeError::Name { offset: 6, what: "the region's name", .. }), "{error}");
    let no_text = changed(&bytes, |bytes| bytes[18] = 0xff);
    let error = decode(no_text).unwrap_err();
    assert_eq!(error, DecodeError::Malformed { offset: 17, what: "a name is not UTF-8" });
}

#[test]
fn a_header_length_that_lies_is_refused() {
    let bytes = encode(&samples().remove(2).1);
    for len in 0..=255 {
        let lying = changed(&bytes, |bytes| bytes[5] = len);
        assert_eq!(decode(lying).is_ok(), len == bytes[5], "header length {len}");
    }
}

#[test]
fn a_length_or_a_count_over_what_remains_is_refused_before_anything_is_allocated() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    // Probe: a table of 2^64 − 1 origins; Fetch: 2^64 − 1 keys; Records: 2^32 − 1 records.
    assert!(matches!(refusal(7, &huge), DecodeError::Truncated { needed: u64::MAX, .. }));
    let fetch = [&[0; 16][..], &huge].concat();
    assert!(matches!(refusal(9, &fetch), DecodeError::Truncated { needed: u64::MAX, .. }));
    let records = [&[0; 8][..], &[0xff; 4]].concat();
    assert!(matches!(refusal(1, &records), DecodeError::Truncated { what: "the records", .. }));
    // A key of 2^64 − 1 bytes.
    let key = [&[0; 8][..], &[1, 0, 0, 0, 1, 0], &huge].concat();
    assert!(matches!(refusal(1, &key), DecodeError::Truncated { what: "a key", needed: u64::MAX, .. }));
}

#[test]
fn lists_over_their_bound_are_refused() {
    let count = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let records = |n: usize| [&[0; 8][..], &count(n), &[1, 0, 0].repeat(n)].concat();
    assert!(decode(framed(1, &records(RECORDS_MAX))).is_ok());
    assert!(matches!(refusal(1, &records(RECORDS_MAX + 1)), DecodeError::Malformed { .. }));
    let keys = |n: usize| {
        let mut body = BytesMut::from(&[0; 16][..]);
        writer::list(&mut body, &vec![(); n], |body, ()| writer::string(body, b"k"));
        body
    };
    assert!(decode(framed(9, &keys(KEYS_MAX))).is_ok());
    assert!(matches!(refusal(9, &keys(KEYS_MAX + 1)), DecodeError::Malformed { .. }));
}

#[test]
fn a_record_of_an_unknown_operation_or_with_fields_it_cannot_have_is_refused() {
    let record = |kind: u8| [&[0; 8][..], &[1, 0, 0, 0, kind], &[1; 32]].concat();
    for kind in [0x03, 0x01 | 0x04, 0x02 | 0x10, 0x01 | 0x20, 0x01 | 0x40] {
        let error = refusal(1, &record(kind));
        assert!(matches!(error, DecodeError::Malformed { .. }), "{kind:#04x}: {error}");
    }
}

#[test]
fn an_origin_outside_the_table_is_refused() {
    // Probe with one origin, whose sample names the second.
    let mut probe = BytesMut::new();
    writer::list(&mut probe, &[9_u64], |buf, origin| buf.put_u64_le(*origin));
    writer::varint(&mut probe, 1);
    probe.put_u64_le(1);
    probe.put_u64_le(2);
    writer::varint(&mut probe, 1);
    let error = refusal(7, &probe);
    assert!(matches!(error, DecodeError::Malformed { what: "an origin's index is outside the table", .. }));
}

#[test]
fn a_varint_of_more_than_64_bits_is_refused() {
    for long in [[0xff; 11], [0x80; 11]] {
        let pull = [&[0; 16][..], &long].concat();
        let error = refusal(3, &pull);
        assert_eq!(error, DecodeError::Malformed { offset: 40 + 16, what: "a varint has more than 64 bits" });
    }
}
