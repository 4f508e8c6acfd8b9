//! What a node holds: in short to compare regions often, and whole to judge them.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use geocache::{GeoCache, sim::records};
use replication::{Op, Record};
use serde::{Deserialize, Serialize};

/// What a node holds, by range of keys: how many keys, and a sum over each key, value and stamp in which their order
/// does not count. Two equal ones mean equal contents.
pub type Digest = BTreeMap<String, RangeDigest>;

/// What a node holds in one range of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeDigest {
    /// How many keys.
    pub keys: u64,
    /// The sum.
    pub sum: u64,
}

/// What a node holds, by key.
pub type Contents = BTreeMap<String, Held>;

/// What a node holds of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The value, its padding left out.
    pub value: String,
    /// The stamp, as text.
    pub stamp: String,
}

/// The range that holds what expires.
pub(super) const BRIEF: &str = "brief";

/// What the node holds now, in short.
pub(super) fn digest(node: &GeoCache) -> Digest {
    let mut digest = Digest::new();
    for record in records(node) {
        let key = String::from_utf8_lossy(&record.key);
        let range = key.split('/').next().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (&key, bytes(&record), record.stamp.to_string()).hash(&mut hasher);
        let of_range = digest.entry(range.to_owned()).or_default();
        of_range.keys += 1;
        of_range.sum = of_range.sum.wrapping_add(hasher.finish());
    }
    digest
}

/// Writes what the node holds now into a file, a line for each key.
pub(super) fn dump(node: &GeoCache, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for record in records(node) {
        let (key, value) = (String::from_utf8_lossy(&record.key), String::from_utf8_lossy(bytes(&record)));
        writeln!(file, "{key}\t{}\t{}", record.stamp, value.trim_end())?;
    }
    Ok(file.flush()?)
}

/// Reads what [`dump`] wrote.
pub(super) fn read(path: &Path) -> Result<Contents> {
    parse(&fs::read_to_string(path).with_context(|| format!("no dump at {}", path.display()))?)
}

fn parse(text: &str) -> Result<Contents> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let (key, stamp, value) = (parts.next()?, parts.next()?, parts.next()?);
        Some((key, Held { value, stamp }))
    };
    text.lines().map(|text| line(text).with_context(|| format!("no line of a dump: {text:?}"))).collect()
}

/// What stays of a digest: everything but the values that expire.
pub fn lasting(digest: &Digest) -> Digest {
    let mut lasting = digest.clone();
    lasting.remove(BRIEF);
    lasting
}

fn bytes(record: &Record) -> &[u8] {
    if let Op::Put(value) = &record.op { &value.bytes } else { &[] }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use geocache::{Expect, Write};

    use super::*;

    async fn node(region: &str, keys: &[&str]) -> GeoCache {
        let node = GeoCache::builder().region(region).build().await.unwrap();
        for key in keys {
            let write = Write { bytes: Bytes::from_static(b"us-east.1#1   "), ..Write::default() };
            node.write(key.as_bytes(), write, Expect::Any).unwrap();
        }
        node
    }

    #[tokio::test]
    async fn a_dump_is_read_as_it_was_written() {
        let node = node("us-east", &["own/a", "all/1"]).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        dump(&node, &path).unwrap();
        let contents = read(&path).unwrap();
        assert_eq!(contents.keys().collect::<Vec<_>>(), ["all/1", "own/a"]);
        assert_eq!(contents["own/a"].value, "us-east.1#1");
        assert!(parse("no tabs").is_err());
    }

    #[tokio::test]
    async fn digests_differ_by_stamp_alone() {
        let (here, there) = (node("us-east", &["own/a"]).await, node("ap-south", &["own/a"]).await);
        let (here, there) = (digest(&here), digest(&there));
        assert_eq!(here["own"].keys, there["own"].keys);
        assert_ne!(here, there, "each wrote it itself");
        assert_eq!(lasting(&here).len(), 1);
    }
}
