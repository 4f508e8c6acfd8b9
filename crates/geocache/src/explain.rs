//! Why a key is as it is on this node: what is held or remembered of it, and what happened to it lately.
//!
//! The present state is always told. The past is kept only where it is asked for when the node is built
//! ([`Builder::explain_history`](crate::Builder::explain_history)), in a ring of a bounded length for all keys together,
//! split over the shards; a key is known in it by its 64-bit hash, so that an outcome takes 40 bytes whatever the key is.
//! Without a ring each change costs one comparison more, under a lock that is held anyway. Rejected: a ring for each key,
//! which has no bound; and events (`events.rs`), which tell what was changed and not what was refused.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use replication::{NodeId, Origin, Stamp};

use crate::{
    error::Error,
    node::GeoCache,
    store::{Outcome, Trace},
    value::Codec,
};

/// What a node knows of a key, for people: its `Display` is a few lines of text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The key as the node has it: that of a namespace has its name before it.
    pub key: Bytes,
    /// What is held or remembered of it.
    pub present: Present,
    /// The newest clear over the key: writes stamped up to it are refused.
    pub cleared: Option<Stamp>,
    /// What happened to it lately, oldest first; `None` where no history is kept.
    pub past: Option<Vec<Past>>,
}

/// What a node holds or remembers of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Present {
    /// A value.
    Held {
        /// When and where it was written.
        stamp: Stamp,
        /// The node that wrote it; `None` of one that this node does not know any more.
        writer: Option<NodeId>,
        /// What is left of its life; `None` where it does not expire.
        left: Option<Duration>,
        /// How it is encoded.
        codec: Codec,
        /// Its encoded length, in bytes.
        bytes: usize,
        /// What it counts against a capacity in bytes, key and tables aside.
        weight: u64,
        /// Whether a typed read has left its decoded form beside it.
        is_decoded: bool,
    },
    /// A value that is behind a clear, hence invisible, and whose memory is yet to be given back.
    Cleared {
        /// When and where it was written.
        stamp: Stamp,
    },
    /// That it was removed, or that its life ended: writes stamped up to this are refused.
    Gone {
        /// The stamp of the remove, or of the value that expired.
        stamp: Stamp,
    },
    /// That it was evicted: older writes are refused, the value itself may come back.
    Evicted {
        /// The stamp of the value.
        stamp: Stamp,
    },
    /// Nothing. A write stamped below the floor is refused, since what was remembered up to there was given up for room.
    Unknown {
        /// The floor; `None` where nothing was forgotten yet.
        floor: Option<Stamp>,
    },
}

/// Something that happened to a key on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Past {
    /// When, by this node's wall clock.
    pub at: SystemTime,
    /// How long ago that was when it was asked for.
    pub ago: Duration,
    /// What.
    pub what: What,
    /// The stamp of the record that it happened to.
    pub stamp: Stamp,
    /// The node that wrote that record; `None` of one that this node does not know any more.
    pub writer: Option<NodeId>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A value was stored through this node.
    Put,
    /// A value was stored through this node that a loader had given.
    Loaded,
    /// A value was given a new life through this node.
    Touched,
    /// The key was removed through this node.
    Removed,
    /// A value of an earlier life of this node was stamped anew, its machine's clock having gone back.
    Reissued,
    /// A change through this node was not made, since what it expected was not so. The stamp is that of the value held then,
    /// [`Stamp::ZERO`] of none.
    Refused(Outcome),
    /// A value that another node wrote became what is held.
    Applied,
    /// A remove that another node made was applied.
    RemovedElsewhere,
    /// A record was ignored, since a newer value is held.
    Older,
    /// A record was ignored, since it is known: it came twice, or by two ways.
    Duplicate,
    /// A record was refused, since the key was removed, expired or was evicted with a newer stamp.
    Buried,
    /// A record was refused, since nothing is known of the key, and what was up to its stamp was forgotten.
    BelowFloor,
    /// A record was refused, since a clear is newer.
    BeneathClear,
    /// A record was refused, since its node's clock is further ahead than is allowed.
    Drift,
    /// The value's life ended.
    Expired,
    /// The value was given up for room.
    Evicted,
    /// The value was dropped by a state transfer, since the other node did not confirm it and may have forgotten why.
    Swept,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put here",
            Self::Loaded => "loaded here",
            Self::Touched => "touched here",
            Self::Removed => "removed here",
            Self::Reissued => "stamped anew, the clock having gone back",
            Self::Refused(Outcome::Present) => "not written here: a value is there",
            Self::Refused(Outcome::Missing) => "not written here: no value is there",
            Self::Refused(_) => "not written here: another value is there",
            Self::Applied => "applied",
            Self::RemovedElsewhere => "applied, a remove",
            Self::Older => "ignored: a newer value is held",
            Self::Duplicate => "ignored: it came before",
            Self::Buried => "refused: the key is gone with a newer stamp",
            Self::BelowFloor => "refused: below the floor of what is remembered",
            Self::BeneathClear => "refused: a clear is newer",
            Self::Drift => "refused: its clock is too far ahead",
            Self::Expired => "expired",
            Self::Evicted => "evicted for room",
            Self::Swept => "dropped by a state transfer that did not confirm it",
        })
    }
}

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { stamp, writer, left, codec, bytes, weight, is_decoded } => {
                write!(f, "held: {bytes} bytes of {codec}")?;
                if *weight != *bytes as u64 {
                    write!(f, ", counted as {weight}")?;
                }
                f.write_str(if *is_decoded { ", decoded" } else { "" })?;
                match left {
                    Some(left) => write!(f, ", {left:.1?} of its life left")?,
                    None => f.write_str(", until evicted or removed")?,
                }
                write!(f, ", written by {} at {stamp}", Writer(writer.as_ref()))
            }
            Self::Cleared { stamp } => write!(f, "not held: cleared, a value of {stamp}"),
            Self::Gone { stamp } => {
                write!(f, "not held: removed or expired, nothing up to {stamp} comes back")
            }
            Self::Evicted { stamp } => write!(f, "not held: evicted, nothing older than {stamp} comes back"),
            Self::Unknown { floor: None } => f.write_str("not held: nothing is known of it"),
            Self::Unknown { floor: Some(floor) } => {
                write!(f, "not held: nothing is known of it, and nothing below the floor {floor} is taken")
            }
        }
    }
}

/// A node's name in a sentence.
struct Writer<'a>(Option<&'a NodeId>);

impl fmt::Display for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(node) => node.fmt(f),
            None => f.write_str("a node that is not known here any more"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.key.escape_ascii(), self.present)?;
        if let Some(stamp) = self.cleared {
            write!(f, "\n  cleared at {stamp}")?;
        }
        let Some(past) = &self.past else {
            return f.write_str("\n  no history is kept (explain_history)");
        };
        if past.is_empty() {
            f.write_str("\n  no outcome is remembered")?;
        }
        for Past { ago, what, stamp, writer, .. } in past {
            write!(f, "\n  {ago:.1?} ago: {what}")?;
            if *stamp != Stamp::ZERO {
                write!(f, ", {stamp} of {}", Writer(writer.as_ref()))?;
            }
        }
        Ok(())
    }
}

impl GeoCache {
    /// Why a key is as it is on this node: what is held or remembered of it, and, where a history is kept
    /// ([`Builder::explain_history`](crate::Builder::explain_history)), the last outcomes for it. Counts neither as a read
    /// nor as a use.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{GeoCache, Present, What};
    ///
    /// let cache = GeoCache::builder().explain_history(1_000).build().await?;
    /// cache.put("greeting", "hello")?;
    /// cache.remove("greeting")?;
    /// let told = cache.explain("greeting")?;
    /// assert!(matches!(told.present, Present::Gone { .. }));
    /// let past: Vec<What> = told.past.iter().flatten().map(|past| past.what).collect();
    /// assert_eq!(past, [What::Put, What::Removed]);
    /// println!("{told}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn explain(&self, key: impl AsRef<[u8]>) -> Result<Explanation, Error> {
        let key = self.full(key.as_ref())?;
        let (present, cleared, past) = self.store().explain(&key, present);
        let past = past.map(|past| {
            let now_ms = self.store().wall_ms();
            let told = past.into_iter().map(|past| Past {
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(past.at_ms),
                ago: Duration::from_millis(now_ms.saturating_sub(past.at_ms)),
                what: past.what,
                stamp: past.stamp,
                writer: self.writer(past.stamp.origin),
            });
            told.collect()
        });
        Ok(Explanation { key: Bytes::copy_from_slice(&key), present: self.named(present), cleared, past })
    }

    fn named(&self, present: Present) -> Present {
        match present {
            Present::Held { stamp, left, codec, bytes, weight, is_decoded, .. } => {
                let writer = self.writer(stamp.origin);
                Present::Held { stamp, writer, left, codec, bytes, weight, is_decoded }
            }
            other => other,
        }
    }

    /// The node that writes under this compact form.
    fn writer(&self, origin: Origin) -> Option<NodeId> {
        if origin == self.node().origin() {
            return Some(self.node().clone());
        }
        let status = self.replication()?.status.borrow();
        status.peers.iter().find(|peer| peer.origin == origin).map(|peer| peer.node.clone())
    }
}

/// What is there, under the lock of its shard: nothing is looked up.
fn present(trace: Trace<'_>) -> Present {
    match trace {
        Trace::Held(stored, left) => Present::Held {
            stamp: stored.stamp,
            writer: None,
            left,
            codec: stored.codec,
            bytes: stored.bytes.len(),
            weight: stored.weight,
            is_decoded: stored.is_decoded(),
        },
        Trace::Hidden(stored) => Present::Cleared { stamp: stored.stamp },
        Trace::Grave(bar) if bar.strict => Present::Gone { stamp: bar.stamp },
        Trace::Grave(bar) => Present::Evicted { stamp: bar.stamp },
        Trace::Nothing(floor) => {
            Present::Unknown { floor: Some(floor.stamp).filter(|stamp| *stamp != Stamp::ZERO) }
        }
    }
}

#[cfg(test)]
mod tests;
