use proptest::prelude::*;

use super::*;

#[test]
fn names_of_the_allowed_characters_are_regions() {
    let longest = "x".repeat(NAME_BYTES_MAX);
    for name in ["us-east", "eu-central-1", "a", "7", "-", longest.as_str()] {
        assert_eq!(RegionId::new(name).unwrap().as_str(), name);
    }
}

#[test]
fn each_broken_rule_is_told_apart() {
    assert_eq!(RegionId::new(""), Err(NameError::Empty));
    assert_eq!(RegionId::new("x".repeat(64)), Err(NameError::TooLong { bytes: 64 }));
    for (name, found) in
        [("US-east", 'U'), ("us_east", '_'), ("us east", ' '), ("münchen", 'ü'), ("a.b", '.')]
    {
        assert_eq!(RegionId::new(name), Err(NameError::Character { name: name.to_owned(), found }));
    }
}

#[test]
fn the_messages_say_what_is_allowed() {
    for (name, message) in [
        ("", "a name must not be empty; use 1 to 63 bytes of a-z, 0-9 and '-'"),
        ("EU", "the name \"EU\" holds 'E'; only a-z, 0-9 and '-' are allowed"),
    ] {
        assert_eq!(RegionId::new(name).unwrap_err().to_string(), message);
    }
}

#[test]
fn serde_writes_plain_text_and_checks_what_it_reads() {
    let region: RegionId = "ap-south".parse().unwrap();
    assert_eq!(serde_json::to_string(&region).unwrap(), r#""ap-south""#);
    assert_eq!(serde_json::from_str::<RegionId>(r#""ap-south""#).unwrap(), region);
    let error = serde_json::from_str::<RegionId>(r#""AP South""#).unwrap_err();
    assert!(error.to_string().contains("only a-z, 0-9 and '-' are allowed"), "{error}");
}

#[test]
fn regions_are_ordered_and_printed_as_text() {
    let mut regions = ["us-east", "ap-south", "eu-central"].map(|name| RegionId::new(name).unwrap());
    regions.sort();
    assert_eq!(format!("{:<12}|{:?}", regions[0], regions[2]), "ap-south    |RegionId(us-east)");
}

proptest! {
    #[test]
    fn any_text_is_a_region_or_a_typed_error(name in ".{0,80}") {
        let allowed = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        prop_assert_eq!(RegionId::new(&name).is_ok(), allowed);
        prop_assert_eq!(check_name(&name).is_ok(), allowed);
    }
}
