//! What the server counts, under the names that memcached gives it.
//!
//! A connection counts into its own [`Tally`] and adds it to the shared [`Counters`] once per batch, so that
//! connections on different threads do not fight over a cache line for each command.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// One thing that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Counter {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Counter {
            /// Every counter, in the order in which `stats` shows them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in `stats`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        const COUNT: usize = [$($name),*].len();
    };
}

counters! {
    /// Connections accepted since the start or the last reset.
    TotalConnections = "total_connections",
    /// Connections refused at the limit.
    RejectedConnections = "rejected_connections",
    /// Keys asked for by `get`, `gets`, `gat` and `gats`.
    CmdGet = "cmd_get",
    /// Storage commands.
    CmdSet = "cmd_set",
    /// `flush_all` commands.
    CmdFlush = "cmd_flush",
    /// Keys touched by `touch`, `gat` and `gats`, found or not.
    CmdTouch = "cmd_touch",
    /// Keys that `get` and `gets` found.
    GetHits = "get_hits",
    /// Keys that a retrieval command did not find.
    GetMisses = "get_misses",
    /// `delete` of a key that is not there.
    DeleteMisses = "delete_misses",
    /// `delete` of a key that was there.
    DeleteHits = "delete_hits",
    /// `incr` of a key that is not there.
    IncrMisses = "incr_misses",
    /// `incr` of a number.
    IncrHits = "incr_hits",
    /// `decr` of a key that is not there.
    DecrMisses = "decr_misses",
    /// `decr` of a number.
    DecrHits = "decr_hits",
    /// `cas` of a key that is not there.
    CasMisses = "cas_misses",
    /// `cas` that stored.
    CasHits = "cas_hits",
    /// `cas` refused because the value had changed.
    CasBadval = "cas_badval",
    /// Keys touched.
    TouchHits = "touch_hits",
    /// Keys to touch that are not there.
    TouchMisses = "touch_misses",
    /// Values refused for their size.
    StoreTooLarge = "store_too_large",
    /// Values refused because there was no memory to read them.
    StoreNoMemory = "store_no_memory",
    /// Values stored since the start or the last reset.
    TotalItems = "total_items",
    /// Bytes received.
    BytesRead = "bytes_read",
    /// Bytes sent.
    BytesWritten = "bytes_written",
    /// Requests refused because the memory for requests in the making was spent.
    ReadBufOom = "read_buf_oom",
    /// Keys that another region was asked for while warming, and had.
    FetchHits = "replication_fetch_hits",
    /// Keys that another region was asked for while warming, and had not; or that nobody ready was there to be asked for.
    FetchMisses = "replication_fetch_misses",
    /// Questions to another region, asked while warming, that had no answer in time.
    FetchFailures = "replication_fetch_failures",
    /// Connections closed because they spoke the binary protocol.
    BinaryKicks = "binary_kicks",
    /// Times that accepting paused because the system refused another connection.
    ListenDisabledNum = "listen_disabled_num",
    /// Times that a connection with more commands or keys at hand let others go first.
    ConnYields = "conn_yields",
    /// Connections closed because nothing came for the idle timeout, or of a large request for the stall timeout.
    IdleKicks = "idle_kicks",
    /// Connections closed because the client did not take its answers in time.
    WriteKicks = "write_kicks",
}

/// One connection's counts since the last batch.
#[derive(Debug, Clone)]
pub struct Tally([u64; COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub fn add(&mut self, counter: Counter, count: u64) {
        self.0[counter as usize] += count;
    }
}

/// The counts of the whole server.
#[derive(Debug)]
pub struct Counters([AtomicU64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNT])
    }
}

impl Counters {
    /// Adds a tally and empties it.
    pub fn take(&self, tally: &mut Tally) {
        for (shared, own) in self.0.iter().zip(&mut tally.0) {
            if *own != 0 {
                shared.fetch_add(std::mem::take(own), Ordering::Relaxed);
            }
        }
    }

    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The count now.
    pub fn value(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Starts over: what `stats reset` does.
    pub fn reset(&self) {
        for counter in &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
