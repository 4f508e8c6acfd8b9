//! Spans of the calls that wait: which cache, which node, and how it went.
//!
//! `put_with`, `get_at_least`, `get_fresh`, `fresh`, `get_or_fetch`, `get_or_load`, `build` and `close` have a span each, of the level `DEBUG` and the target
//! [`TARGET`], with the fields `cache`, `region` and `node`, and an event that says how they ended. What a loader logs is inside its span. A
//! read that finds its value waits for nobody and makes none.
//!
//! Each call of a [`GeoClient`](crate::client::GeoClient) has a span too, named `client_get`, `client_put` and so on, since each may wait for
//! a server: it ends with the region that answered, how many were asked and why the answer may be old, or with the error.
//!
//! **No value is ever told, and a key at the level `TRACE` alone**, as the span's field `key`. Keys hold names and numbers of people. A hash in
//! their place was rejected: of keys as short as `user:1` it is found again by trying, so it would hide nothing from whoever wants
//! to know, and everything from an operator.

use tracing::{Level, Span, field};

/// The target of the spans and of what they end with.
pub(crate) const TARGET: &str = "geocache::call";

/// The span of a call on a node.
macro_rules! call {
    ($cache:expr, $name:literal) => {
        tracing::debug_span!(
            target: $crate::trace::TARGET,
            $name,
            cache = $cache.cache_name(),
            region = %$cache.region(),
            node = $cache.node().name(),
            key = tracing::field::Empty
        )
    };
    ($cache:expr, $name:literal, $key:expr) => {
        $crate::trace::with_key(crate::trace::call!($cache, $name), $key)
    };
}

pub(crate) use call;

/// The span of a client's call; the region is known when it ends.
macro_rules! client {
    ($name:literal) => {
        tracing::debug_span!(target: $crate::trace::TARGET, $name, key = tracing::field::Empty)
    };
    ($name:literal, $key:expr) => {
        $crate::trace::with_key(crate::trace::client!($name), $key)
    };
}

pub(crate) use client;

/// The span, with the key where it may be told.
pub(crate) fn with_key(span: Span, key: &[u8]) -> Span {
    if !span.is_disabled() && tracing::enabled!(target: TARGET, Level::TRACE) {
        span.record("key", field::display(key.escape_ascii()));
    }
    span
}
