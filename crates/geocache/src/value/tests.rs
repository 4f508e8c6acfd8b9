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

#[test]
fn another_type_is_an_error_that_names_both() {
    let held = stored(Codec::MessagePack, Codec::MessagePack.encode(&ada()).expect("encodes"));
    let error = held.decode::<u64>().expect_err("a struct is no number");
    assert_eq!(error.to_string(), "the stored MessagePack value cannot be read as u64; it is left as it is");
    assert_eq!(*held.decode::<User>().expect("still readable as what it is"), ada());
}

#[test]
fn a_value_with_bytes_left_over_is_not_what_was_asked_for() {
    let mut bytes = Codec::MessagePack.encode(&1_u8).expect("encodes");
    bytes.push(2);
    assert!(Codec::MessagePack.decode::<u8>(&bytes).is_err());
}

#[test]
fn an_unknown_codec_is_kept_but_not_read() {
    let held = stored(Codec::Unknown(9), b"\x01\x02".to_vec());
    assert_eq!(held.codec.number(), 9);
    let error = held.decode::<Vec<u8>>().expect_err("unreadable");
    assert!(matches!(error, Error::Decode { codec: Codec::Unknown(9), .. }), "{error:?}");
}

#[test]
fn a_value_is_decoded_once() {
    let held = stored(Codec::Json, br#"{"name":"Ada","age":36}"#.to_vec());
    let first = held.decode::<User>().expect("decodes");
    let second = held.decode::<User>().expect("decodes");
    assert!(Arc::ptr_eq(&first, &second));
    // Another type that fits is decoded afresh and does not drive the first one out.
    assert_eq!(held.decode::<BTreeMap<String, serde_json::Value>>().expect("decodes").len(), 2);
    assert!(Arc::ptr_eq(&first, &held.decoded::<User>().expect("kept")));
}

#[test]
fn a_touched_value_keeps_what_was_decoded() {
    let held = stored(Codec::Json, br#"{"name":"Ada","age":36}"#.to_vec());
    let first = held.decode::<User>().expect("decodes");
    let value = Value { bytes: held.bytes.clone(), codec: held.codec.number(), ..Value::default() };
    let touched = Stored::restamped(&held, value, stamp(8, 1));
    assert!(Arc::ptr_eq(&first, &touched.decoded::<User>().expect("kept")));
    assert_eq!(touched.stamp, stamp(8, 1));
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
