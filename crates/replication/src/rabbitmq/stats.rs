//! Counts of what happened at the broker.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::Count;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the transport was connected.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Stats {
            /// All of them, by name.
            pub fn counts(&self) -> Vec<Count> {
                vec![$(Count::new(stringify!($name), concat!($($doc),*).trim_ascii(), self.$name)),*]
            }
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.count(),)* }
            }
        }
    };
}

counters! {
    /// Frames given to the broker, with the profile `Stream` its hellos too.
    published,
    /// Published frames that the broker confirmed.
    confirmed,
    /// Frames that the broker refused (negatively acknowledged).
    nacked,
    /// Addressed frames that came back because no queue takes them.
    returned,
    /// Frames refused here because they were longer than `frame_bytes_max`.
    oversized,
    /// Frames refused here because the publishing connection was down or blocked, or was lost before the confirm.
    unavailable,
    /// Frames received.
    received,
    /// Of the received ones, those longer than the 128 KiB at which frames are closed, by which
    /// [`Config::waiting_bytes_max`](super::Config::waiting_bytes_max) reckons.
    received_long,
    /// Of the received ones, those that the broker had delivered before.
    redelivered,
    /// Received frames that were acknowledged.
    acknowledged,
    /// Received frames that were dropped unhandled and given back.
    requeued,
    /// Received frames that could not be read; each is also dead-lettered, lost or skipped.
    rejected,
    /// Of the rejected ones, those that the broker keeps in the dead-letter queue.
    dead_lettered,
    /// Of the rejected ones, those that the broker did not take in time, or of which too many waited for it.
    dead_letters_lost,
    /// Of the rejected ones, those over the rate of dead letters, or for which these are switched off.
    dead_letters_skipped,
    /// Connections that were lost and made again, of either kind.
    reconnects,
    /// Attempts to connect that failed.
    connect_failures,
    /// Times that the broker ended the consumer, as when the queue was deleted; it was declared again.
    consumer_cancels,
    /// Times that the node's queue was left for another, since its host was down or it had no leader.
    queues_replaced,
    /// Times that a stream did not hold the next frame any more, which it had kept for as long as it was told.
    stream_gaps,
    /// Times that a stream had been deleted and begun anew, so that the place in it was of no use.
    stream_resets,
    /// Times that a region's stream could not be read, as where its broker has no replica of it, or that its consumer ended;
    /// it is tried again, and the others are read meanwhile.
    stream_failures,
    /// Times that a region said hello but its stream gave no frame for 90 s, so that it was read again from its place.
    stream_silences,
    /// Hellos from regions beyond the number of those whose streams are read; their frames do not arrive.
    regions_refused,
    /// Times that the broker stopped accepting publishes for lack of memory or disk.
    blocked,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
