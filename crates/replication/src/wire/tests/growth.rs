//! What a newer sender may add is skipped; what an older reader would misread is refused.

use super::*;

#[test]
fn fields_added_to_the_end_of_a_body_are_skipped() {
    for (name, sample) in samples() {
        let bytes = encode(&sample);
        let kind = bytes[3];
        let mut body = body_of(&bytes).to_vec();
        body.extend_from_slice(b"a field of a later version");
        let read = decode(framed(kind, &body)).unwrap();
        assert_eq!(read.message, sample.message, "{name}");
    }
}

/// The first version of a request had no preview, and the second no number of pages.
#[test]
fn a_request_of_an_earlier_version_asks_for_less() {
    let request = SyncReq { id: 9, budget_bytes: 65_536, preview_bytes: 7, pages: 8, ..SyncReq::default() };
    let bytes = encode(&frame(Message::SyncReq(request.clone())));
    let body = body_of(&bytes);
    let cut = |bytes_less| decode(framed(bytes[3], &body[..body.len() - bytes_less])).unwrap().message;
    let second = SyncReq { pages: 0, ..request };
    assert_eq!(cut(1), Message::SyncReq(second.clone()));
    assert_eq!(cut(5), Message::SyncReq(SyncReq { preview_bytes: 0, ..second }));
}

#[test]
fn fields_added_to_the_end_of_the_header_are_skipped() {
    for (name, sample) in samples() {
        let longer = changed(&encode(&sample), |bytes| {
            let body = usize::from(bytes[5]);
            bytes.splice(body..body, *b"later");
            bytes[5] += 5;
        });
        assert_eq!(decode(longer).unwrap(), sample, "{name}");
    }
}

#[test]
fn an_extension_of_a_record_is_skipped() {
    let own = node().origin().0;
    let records = vec![remove(stamp(0, own), "gone"), put(stamp(1, own), "next", "value")];
    let bytes = encode(&frame(Message::Records {
        first: 1,
        records: records.clone(),
        held_back: None,
        answers: None,
    }));
    let mut body = body_of(&bytes).to_vec();
    // The first record begins behind `first` and the count, and ends with its key.
    body[12] |= 0x80;
    let end = body.windows(4).position(|window| window == b"gone").unwrap() + 4;
    body.splice(end..end, *b"\x05later");
    let Message::Records { records: read, .. } = decode(framed(1, &body)).unwrap().message else {
        panic!("records")
    };
    assert_eq!(read, records);
}

#[test]
fn an_unknown_kind_says_so_and_an_unknown_hint_is_ignored() {
    let sample = samples().remove(0).1;
    let bytes = encode(&sample);
    let kind = |kind: u8| changed(&bytes, |bytes| bytes[3] = kind);
    for unknown in [0, 13, 255] {
        assert_eq!(decode(kind(unknown)), Err(DecodeError::UnknownKind { kind: unknown }));
    }
    assert_eq!(decode(changed(&bytes, |bytes| bytes[4] = 0x80)).unwrap(), sample);
}

/// As a node from before leases reads what is said of them.
#[test]
fn a_kind_of_a_later_version_is_told_from_bytes_that_are_none() {
    for (name, sample) in samples().into_iter().filter(|(name, _)| matches!(*name, "lease" | "granted")) {
        let later = changed(&encode(&sample), |bytes| bytes[3] += 2);
        let kind = later[3];
        assert_eq!(decode(later), Err(DecodeError::UnknownKind { kind }), "{name}");
    }
}

#[test]
fn what_is_said_of_a_lease_is_one_of_few_things() {
    for (name, unknown) in [("lease", 3_u8), ("granted", 4)] {
        let (_, sample) = samples().into_iter().find(|(sample, _)| *sample == name).unwrap();
        let (bytes, said_at) = (encode(&sample), 1 + 8 + 8);
        let mut body = body_of(&bytes).to_vec();
        body[said_at] = unknown;
        let error = decode(framed(bytes[3], &body)).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{name}: {error}");
    }
}

#[test]
fn another_major_version_is_refused_even_where_its_checksum_is_of_another_kind() {
    let bytes = encode(&samples().remove(0).1);
    for major in [0, 2, 255] {
        let mut other = bytes.to_vec();
        other[2] = major;
        assert_eq!(decode(other.into()), Err(DecodeError::Version { major }));
    }
}

#[test]
fn a_flag_that_changes_the_body_is_refused() {
    let bytes = encode(&samples().remove(0).1);
    for flags in [0x02, 0x03, 0x08, 0x82] {
        let flagged = changed(&bytes, |bytes| bytes[4] = flags);
        assert_eq!(decode(flagged), Err(DecodeError::Flags { flags }));
    }
}
