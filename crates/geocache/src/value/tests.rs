mod schema;

use std::collections::BTreeMap;

use proptest::prelude::*;
use replication::{Hlc, Origin};
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserOfNextYear {
    #[serde(default = "nowhere")]
    city: String,
    name: String,
    age: u8,
    #[serde(default)]
    tags: Vec<String>,
}

fn nowhere() -> String {
    "nowhere".to_owned()
}

fn ada() -> User {
    User { name: "Ada".to_owned(), age: 36 }
}

fn stored(codec: Codec, bytes: Vec<u8>) -> Stored {
    let value = Value { bytes: bytes.into(), codec: codec.number(), ..Value::default() };
    Stored::new(value, stamp(7, 1), None)
}

fn stamp(hlc: u64, origin: u64) -> Stamp {
    Stamp { hlc: Hlc(hlc), origin: Origin(origin) }
}

#[test]
fn typed_values_survive_each_self_describing_codec() {
    for codec in [Codec::MessagePack, Codec::Json] {
        let bytes = codec.encode(&ada()).expect("encodes");
        assert_eq!(codec.decode::<User>(&bytes).expect("decodes"), ada(), "{codec}");
        let map = BTreeMap::from([("a".to_owned(), vec![1_u64, u64::MAX]), ("b".to_owned(), vec![])]);
        let bytes = codec.encode(&map).expect("encodes");
        assert_eq!(codec.decode::<BTreeMap<String, Vec<u64>>>(&bytes).expect("decodes"), map, "{codec}");
    }
}

#[test]
fn a_new_program_reads_old_data_and_an_old_program_new_data() {
    for codec in [Codec::MessagePack, Codec::Json] {
        let old = codec.encode(&ada()).expect("encodes");
        let read: UserOfNextYear = codec.decode(&old).expect("a missing field takes its default");
        assert_eq!(
            read,
            UserOfNextYear { city: nowhere(), name: "Ada".into(), age: 36, tags: vec![] },
            "{codec}"
        );

        let new =
            UserOfNextYear { city: "London".into(), name: "Ada".into(), age: 36, tags: vec!["x".into()] };
        let new = codec.encode(&new).expect("encodes");
        assert_eq!(codec.decode::<User>(&new).expect("an unknown field is passed over"), ada(), "{codec}");
    }
}

#[test]
fn raw_keeps_text_and_bytes_as_they_are() {
    assert_eq!(Codec::Raw.encode("plain").expect("encodes"), b"plain");
    assert_eq!(Codec::Raw.encode(&vec![0_u8, 255]).expect("encodes"), [0, 255]);
    assert_eq!(Codec::Raw.encode(&[1_u8, 2]).expect("encodes"), [1, 2]);
    assert_eq!(Codec::Raw.decode::<String>(b"plain").expect("decodes"), "plain");
    assert_eq!(Codec::Raw.decode::<Vec<u8>>(&[0, 255]).expect("decodes"), [0, 255]);
    assert_eq!(Codec::Raw.decode::<[u8; 2]>(&[1, 2]).expect("decodes"), [1, 2]);
    assert_eq!(Codec::Raw.decode::<Option<String>>(b"x").expect("decodes"), Some("x".to_owned()));
}

#[test]
fn raw_refuses_what_is_neither_text_nor_bytes() {
    let refusals = [
        Codec::Raw.encode(&5_u8).expect_err("a number"),
        Codec::Raw.encode(&ada()).expect_err("a struct"),
        Codec::Raw.encode(&["a", "b"]).expect_err("a sequence of texts"),
        Codec::Raw.encode(&[[1_u8]]).expect_err("a sequence of sequences"),
        Codec::Raw.encode(&Some("a")).expect_err("an option"),
    ];
    for refusal in refusals {
        let Error::Encode { codec: Codec::Raw, source, .. } = &refusal else { panic!("{refusal:?}") };
        assert!(source.to_string().starts_with("the raw codec takes text and bytes, not"), "{source}");
    }
    assert!(Codec::Raw.decode::<u64>(b"12").is_err());
    assert!(Codec::Raw.decode::<String>(&[0xff]).is_err());
    assert!(Codec::Raw.decode::<[u8; 2]>(&[1, 2, 3]).is_err(), "a byte too many is an error");
}

/// As a typed read does it: decoded, and kept.
fn decode<T: DeserializeOwned + Send + Sync + 'static>(held: &mut Stored) -> Result<Arc<T>, Error> {
    let value = held.seen::<T>().decode()?;
    held.keep_decoded(held.stamp, Arc::<T>::clone(&value));
    Ok(value)
}

fn kept<T: Send + Sync + 'static>(held: &Stored) -> Option<Arc<T>> {
    match held.seen::<T>() {
        Seen::Decoded(value) => Some(value),
        Seen::Encoded(_) => None,
    }
}

#[test]
fn another_type_is_an_error_that_names_both() {
    let mut held = stored(Codec::MessagePack, Codec::MessagePack.encode(&ada()).expect("encodes"));
    let error = decode::<u64>(&mut held).expect_err("a struct is no number");
    assert_eq!(error.to_string(), "the stored MessagePack value cannot be read as u64; it is left as it is");
    assert_eq!(*decode::<User>(&mut held).expect("still readable as what it is"), ada());
}

#[test]
fn a_value_with_bytes_left_over_is_not_what_was_asked_for() {
    let mut bytes = Codec::MessagePack.encode(&1_u8).expect("encodes");
    bytes.push(2);
    assert!(Codec::MessagePack.decode::<u8>(&bytes).is_err());
}

#[test]
fn an_unknown_codec_is_kept_but_not_read() {
    let mut held = stored(Codec::Unknown(9), b"\x01\x02".to_vec());
    assert_eq!(held.codec.number(), 9);
    let error = decode::<Vec<u8>>(&mut held).expect_err("unreadable");
    assert!(matches!(error, Error::Decode { codec: Codec::Unknown(9), .. }), "{error:?}");
}

#[test]
fn a_value_is_decoded_once() {
    let mut held = stored(Codec::Json, br#"{"name":"Ada","age":36}"#.to_vec());
    let first = decode::<User>(&mut held).expect("decodes");
    let second = decode::<User>(&mut held).expect("decodes");
    assert!(Arc::ptr_eq(&first, &second));
    // Another type that fits is decoded afresh and does not drive the first one out.
    assert_eq!(decode::<BTreeMap<String, serde_json::Value>>(&mut held).expect("decodes").len(), 2);
    assert!(Arc::ptr_eq(&first, &kept::<User>(&held).expect("kept")));
}

#[test]
fn what_was_decoded_of_another_value_is_not_kept() {
    let mut held = stored(Codec::Json, b"1".to_vec());
    assert!(held.keep_decoded(stamp(6, 1), Arc::new(5_u64)).is_some());
    assert!(kept::<u64>(&held).is_none());
}

#[test]
fn a_touched_value_keeps_what_was_decoded() {
    let mut held = stored(Codec::Json, br#"{"name":"Ada","age":36}"#.to_vec());
    let first = decode::<User>(&mut held).expect("decodes");
    let value = Value { bytes: held.bytes.clone(), codec: held.codec.number(), ..Value::default() };
    assert!(held.renew(&value, stamp(8, 1)));
    assert!(Arc::ptr_eq(&first, &kept::<User>(&held).expect("kept")));
    assert_eq!((held.stamp, held.cas), (stamp(8, 1), 8));
}

fn raw(bytes: &[u8]) -> Value {
    Value { bytes: Bytes::copy_from_slice(bytes), flags: 3, ..Value::default() }
}

#[test]
fn a_value_of_the_same_length_takes_over_the_buffer() {
    let mut held = stored(Codec::MessagePack, b"old".to_vec());
    let buffer = held.bytes.as_ptr();
    assert!(held.renew(&raw(b"new"), stamp(8, 1)));
    assert_eq!((&held.bytes[..], held.bytes.as_ptr()), (&b"new"[..], buffer));
    assert_eq!((held.flags, held.codec, held.cas, held.stamp), (3, Codec::Raw, 8, stamp(8, 1)));
    let given = Value { cas: Some(99), ..raw(b"cas") };
    assert!(held.renew(&given, stamp(9, 1)) && held.cas == 99);
    assert!(held.renew(&raw(b"tie"), Stamp { hlc: Hlc(99), origin: Origin(2) }) && held.cas == 100);
}

#[test]
fn what_a_reader_holds_is_never_written_over() {
    let mut held = stored(Codec::Raw, b"old".to_vec());
    let reader = held.bytes.clone();
    assert!(!held.renew(&raw(b"new"), stamp(8, 1)));
    assert_eq!((&held.bytes[..], &reader[..], held.stamp), (&b"old"[..], &b"old"[..], stamp(7, 1)));
    drop(reader);
    assert!(held.renew(&raw(b"new"), stamp(8, 1)), "the reader is gone");
    assert_eq!(held.bytes, "new");
}

#[test]
fn a_value_of_another_length_a_long_one_and_a_decoded_one_are_not_changed_in_place() {
    let mut held = stored(Codec::Raw, b"old".to_vec());
    assert!(!held.renew(&raw(b"longer"), stamp(8, 1)));
    let mut long = stored(Codec::Raw, vec![1; RENEWED_BYTES_MAX + 1]);
    assert!(!long.renew(&raw(&[2; RENEWED_BYTES_MAX + 1]), stamp(8, 1)));
    let mut read = stored(Codec::Json, b"1".to_vec());
    decode::<u8>(&mut read).expect("decodes");
    assert!(!read.renew(&raw(b"2"), stamp(8, 1)), "the decoded one would be dropped under the lock");
    for held in [held, long, read] {
        assert_eq!(held.stamp, stamp(7, 1));
    }
}

#[test]
fn the_number_is_the_given_one_else_the_clock_and_a_tie_bumps_it() {
    let first = Stored::new(Value::default(), stamp(7, 1), None);
    assert_eq!(first.cas, 7);
    let tied = Stored::new(Value::default(), stamp(7, 2), Some(&first));
    assert_eq!(tied.cas, 8, "two origins, one clock reading");
    let next = Stored::new(Value::default(), stamp(8, 1), Some(&tied));
    assert_eq!(next.cas, 9, "the bumped number is not given out twice either");
    let given = Stored::new(Value { cas: Some(99), ..Value::default() }, stamp(9, 1), Some(&next));
    assert_eq!(given.cas, 99);
}

proptest! {
    #[test]
    fn decoding_any_bytes_gives_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for codec in [Codec::Raw, Codec::MessagePack, Codec::Json, Codec::Unknown(7)] {
            let _ = codec.decode::<User>(&bytes);
            let _ = codec.decode::<Vec<Option<String>>>(&bytes);
            let _ = codec.decode::<serde_json::Value>(&bytes);
        }
    }

    #[test]
    fn raw_round_trips_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let encoded = Codec::Raw.encode(&bytes).expect("bytes encode");
        prop_assert_eq!(&encoded, &bytes);
        prop_assert_eq!(Codec::Raw.decode::<Vec<u8>>(&encoded).expect("bytes decode"), bytes);
    }
}
