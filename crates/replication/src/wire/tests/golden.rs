//! The bytes of every kind, pinned by files. `GOLDEN=write cargo test -p replication golden` writes them anew.

use std::{fs, path::PathBuf};

use super::*;

pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/golden").join(format!("{name}.hex"))
}

/// 32 bytes a line.
pub(super) fn hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// A frame has the bytes of its file, and the file is read as the frame.
fn is_golden(name: &str, sample: &Frame) {
    let path = path(name);
    if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(&path, hex(&encode(sample))).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(hex(&encode(sample)), golden, "{name}: other bytes than in {}", path.display());
    assert_eq!(decode(unhex(&golden).into()).unwrap(), *sample, "{name}: the golden bytes read otherwise");
}

#[test]
fn the_golden_bytes_of_every_kind_are_unchanged() {
    for (name, sample) in samples() {
        is_golden(name, &sample);
    }
}

/// Records behind which each hint's field stands, alone and together.
#[test]
fn the_golden_bytes_behind_each_hint_are_unchanged_and_an_older_reader_skips_them() {
    let records = |held_back, answers| {
        let own = node().origin().0;
        let records = vec![put(stamp(0, own), "greeting", "hello"), remove(stamp(2, own), "gone")];
        frame(Message::Records { first: 41, records, held_back, answers })
    };
    let (hlc, from) = (Some(Hlc::from_ms(MS + 5)), Some(39));
    let told = |sample: Frame| Frame { wants_receipt: true, ..sample };
    for (name, sample, hints) in [
        ("hints/receipt", told(records(None, None)), 0x10),
        ("hints/held_back", records(hlc, None), 0x20),
        ("hints/answers", records(None, from), 0x40),
        ("hints/all", told(records(hlc, from)), 0x70),
    ] {
        is_golden(name, &sample);
        let bytes = encode(&sample);
        assert_eq!(bytes[4], hints, "{name}");
        let ignored = decode(changed(&bytes, |bytes| bytes[4] = 0)).unwrap();
        assert_eq!(ignored, records(None, None), "{name}, to who knows no hint");
    }
}

#[test]
fn every_kind_has_a_golden_file() {
    let mut kinds: Vec<u8> = samples().iter().map(|(_, sample)| encode(sample)[3]).collect();
    kinds.dedup();
    assert_eq!(kinds, (1..=12).collect::<Vec<u8>>());
    let files = fs::read_dir(path("records").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .count();
    assert_eq!(files, kinds.len(), "a golden file without a sample, or the other way");
}
