//! The answers to `stats`: memcached's names for what is shared, `replication_…` for our own.
//!
//! Only what is true is shown: memcached's slab classes, crawlers and allocator have no counterpart here, so `stats
//! items` shows everything as class 1 and `stats slabs` shows the total alone.

use std::{
    fmt::{self, Display},
    io::Write as _,
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use geocache::{Stats, client::Doubt};

use super::{
    counter::{Counter, Tally},
    session::Shared,
};

/// What `version` answers: the memcached whose text protocol this is, and what it is really.
pub const VERSION: &str = concat!("1.6.18-geocached-", env!("CARGO_PKG_VERSION"));

const PAGE_BYTES: u64 = 1 << 20;

/// Appends the answer to `stats <topic>`.
pub(super) fn answer(shared: &Shared, tally: &mut Tally, topic: &[u8], out: &mut Vec<u8>) {
    // The asking connection's own commands are part of the answer.
    shared.counters.take(tally);
    let mut lines = Lines { out };
    match topic {
        b"" => general(shared, &mut lines),
        b"settings" => settings(shared, &mut lines),
        b"items" => items(&shared.cache.stats(), shared, &mut lines),
        b"slabs" => {
            lines.stat("active_slabs", 0);
            // memcached takes memory by the page, and its users expect the figure to move in pages.
            lines.stat("total_malloced", shared.cache.stats().bytes.next_multiple_of(PAGE_BYTES));
        }
        b"sizes" => lines.stat("sizes_status", "disabled"),
        b"reset" => {
            let stats = shared.cache.stats();
            shared.evictions_before.store(stats.evictions, Ordering::Relaxed);
            shared.expirations_before.store(stats.expirations, Ordering::Relaxed);
            shared.counters.reset();
            out.extend_from_slice(b"RESET\r\n");
            return;
        }
        _ => {
            out.extend_from_slice(b"ERROR\r\n");
            return;
        }
    }
    out.extend_from_slice(b"END\r\n");
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
}

impl Lines<'_> {
    fn stat(&mut self, name: impl Display, value: impl Display) {
        write!(self.out, "STAT {name} {value}\r\n").expect("a Vec takes every write");
    }
}

fn general(shared: &Shared, lines: &mut Lines<'_>) {
    let stats = shared.cache.stats();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    lines.stat("pid", std::process::id());
    lines.stat("uptime", shared.started.elapsed().as_secs());
    lines.stat("time", time);
    lines.stat("version", VERSION);
    lines.stat("pointer_size", usize::BITS);
    lines.stat("max_connections", shared.options.connections_max);
    lines.stat("curr_connections", shared.connections());
    for &counter in Counter::ALL {
        lines.stat(counter.name(), shared.counters.value(counter));
    }
    lines.stat("read_buf_bytes", shared.claimed.bytes());
    lines.stat("limit_maxbytes", shared.options.memory_bytes);
    lines.stat("accepting_conns", 1);
    lines.stat("threads", shared.options.threads);
    lines.stat("bytes", stats.bytes);
    lines.stat("curr_items", stats.entries);
    lines.stat("evictions", evictions(shared, &stats));
    lines.stat("reclaimed", expirations(shared, &stats));
    replication(shared, &stats, lines);
}

fn evictions(shared: &Shared, stats: &Stats) -> u64 {
    stats.evictions.saturating_sub(shared.evictions_before.load(Ordering::Relaxed))
}

fn expirations(shared: &Shared, stats: &Stats) -> u64 {
    stats.expirations.saturating_sub(shared.expirations_before.load(Ordering::Relaxed))
}

fn replication(shared: &Shared, stats: &Stats, lines: &mut Lines<'_>) {
    let counters = &stats.replication;
    lines.stat("replication_region", shared.cache.region());
    lines.stat("replication_node", shared.cache.node().name());
    lines.stat("replication_ready", u8::from(stats.ready));
    match shared.cache.pulse() {
        Ok(pulse) => {
            lines.stat("replication_life", pulse.life.incarnation);
            lines.stat("replication_doubt", Doubted(pulse.doubt));
        }
        Err(_) => lines.stat("replication_doubt", "closed"),
    }
    if let Some(health) = &stats.transport {
        lines.stat("replication_transport", health.name());
        if let Some(since) = health.since() {
            lines.stat("replication_transport_secs", since.elapsed().as_secs());
        }
        if let Some(reason) = health.reason() {
            // A line of the protocol is one line.
            lines.stat("replication_transport_reason", reason.replace(['\r', '\n'], " "));
        }
    }
    for (name, value) in [
        ("graves", stats.graves as u64),
        ("graves_dropped", stats.graves_dropped),
        ("outbox_records", stats.outbox.records as u64),
        ("outbox_bytes", stats.outbox.bytes as u64),
        ("outbox_coalesced", stats.outbox.coalesced),
        ("outbox_skipped", stats.outbox.skipped),
        ("records_sent", counters.records_sent),
        ("frames_compressed", counters.frames_compressed),
        ("compressed_bytes_saved", counters.compressed_bytes_saved),
        ("records_applied", counters.records_applied),
        ("records_older", counters.records_older),
        ("records_swept", counters.records_swept),
        ("ring_dropped", counters.ring_dropped),
        ("ranges_dropped", counters.ranges_dropped),
        ("frames_foreign", counters.frames_foreign),
        ("frames_undecodable", counters.frames_undecodable),
        ("frames_unknown", counters.frames_unknown),
        ("frames_zombie", counters.frames_zombie),
        ("frames_gated", counters.frames_gated),
        ("frames_drifting", counters.frames_drifting),
        ("frames_over_bound", counters.frames_over_bound),
        ("pulls_sent", counters.pulls_sent),
        ("pulls_served", counters.pulls_served),
        ("pulls_gone", counters.pulls_gone),
        ("syncs_started", counters.syncs_started),
        ("syncs_finished", counters.syncs_finished),
        ("syncs_aborted", counters.syncs_aborted),
        ("pages_sent", counters.pages_sent),
        ("previewed", counters.previewed),
        ("previews_sent", counters.previews_sent),
        ("streams_dropped", counters.streams_dropped),
        ("scrub_passes", counters.scrub_passes),
        ("scrub_compared", counters.scrub_compared),
        ("scrub_repaired", counters.scrub_repaired),
        ("scrub_cut", counters.scrub_cut),
        ("divergence", counters.divergence),
        ("re_epochs", counters.re_epochs),
        ("records_reissued", counters.records_reissued),
        ("fetches_sent", counters.fetches_sent),
        ("fetches_served", counters.fetches_served),
        ("waits_refused", counters.waits_refused),
        ("control_dropped", counters.control_dropped),
        ("publishes_refused", counters.publishes_refused),
        ("publishes_retried", counters.publishes_retried),
        ("beats_dropped", counters.beats_dropped),
    ] {
        lines.stat(format_args!("replication_{name}"), value);
    }
    for region in &stats.regions {
        let name = format_args!("replication_{}", region.region).to_string();
        lines.stat(format_args!("{name}_ready"), u8::from(region.is_ready()));
        lines.stat(format_args!("{name}_nodes"), region.nodes.len());
        lines.stat(format_args!("{name}_behind_records"), region.behind_records());
        if let Some(rtt_ms) = region.rtt_ms() {
            lines.stat(format_args!("{name}_rtt_ms"), rtt_ms);
        }
        // Unknown before the region's first write.
        if let Some(lag_ms) = region.lag_ms() {
            lines.stat(format_args!("{name}_lag_ms"), lag_ms);
        }
    }
}

/// Why what is served may be older than what other regions hold, in one word; `none` where nothing speaks against it.
struct Doubted(Option<Doubt>);

impl Display for Doubted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(Doubt::Warming) => f.write_str("warming"),
            Some(Doubt::CutOff) => f.write_str("cut_off"),
            Some(Doubt::Behind(lag)) => write!(f, "behind {}", lag.as_millis()),
            Some(_) => f.write_str("copy"),
        }
    }
}

fn settings(shared: &Shared, lines: &mut Lines<'_>) {
    let options = &shared.options;
    lines.stat("maxbytes", options.memory_bytes);
    lines.stat("maxconns", options.connections_max);
    if let Some(address) = shared.address {
        lines.stat("tcpport", address.port());
        lines.stat("inter", address.ip());
    }
    lines.stat("udpport", 0);
    lines.stat("verbosity", shared.verbosity.load(Ordering::Relaxed));
    lines.stat("evictions", "on");
    lines.stat("domain_socket", "NULL");
    lines.stat("shutdown_command", "no");
    lines.stat("num_threads", options.threads);
    lines.stat("detail_enabled", "no");
    lines.stat("cas_enabled", "yes");
    lines.stat("auth_enabled_sasl", "no");
    lines.stat("auth_enabled_ascii", "no");
    lines.stat("binding_protocol", "ascii");
    lines.stat("item_size_max", options.value_bytes_max);
    lines.stat("read_buf_mem_limit", options.request_bytes_max);
    lines.stat("flush_enabled", "yes");
    lines.stat("idle_timeout", options.idle_timeout.map_or(0, |idle| idle.as_secs()));
    lines.stat("ssl_enabled", "no");
}

fn items(stats: &Stats, shared: &Shared, lines: &mut Lines<'_>) {
    if stats.entries == 0 {
        return;
    }
    lines.stat("items:1:number", stats.entries);
    lines.stat("items:1:mem_requested", stats.bytes);
    lines.stat("items:1:evicted", evictions(shared, stats));
    lines.stat("items:1:reclaimed", expirations(shared, stats));
}
