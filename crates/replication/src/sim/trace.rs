//! What happened, as one number and, on demand, as text.

use std::{collections::VecDeque, fmt::Write as _};

use xxhash_rust::xxh3::xxh3_64;

use super::{Event, FrameKind, link::mix};
use crate::record::Op;

/// A running hash of all events, and the last of them as text where they are kept.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn keep(&mut self, lines_max: usize) {
        self.lines_max = lines_max;
        self.lines.drain(..self.lines.len().saturating_sub(lines_max));
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    pub(super) fn note(&mut self, now_ms: u64, event: &Event<'_>) {
        for number in numbers(event) {
            self.hash = mix(self.hash, number);
        }
        self.hash = mix(self.hash, now_ms);
        if self.lines_max > 0 {
            if self.lines.len() >= self.lines_max {
                self.lines.pop_front();
            }
            self.lines.push_back(line(now_ms, event));
        }
    }
}

/// What an event adds to the hash: what it is, where, and what it carries.
fn numbers(event: &Event<'_>) -> [u64; 2] {
    let place = |kind: u64, node: usize, other: usize| kind << 32 | (node as u64) << 16 | other as u64;
    match event {
        Event::Started { node, life } => [place(1, *node, 0), *life],
        Event::Crashed { node, life } => [place(2, *node, 0), *life],
        Event::Wrote { node, key, stamp, .. } => [place(3, *node, 0), stamp.hlc.0 ^ xxh3_64(key)],
        Event::Cleared { node, namespace, stamp } => {
            [place(4, *node, 0), stamp.map_or(0, |stamp| stamp.hlc.0) ^ xxh3_64(namespace)]
        }
        Event::Read { node, key, held } => {
            let held = held.map_or(0, |held| held.stamp.hlc.0 ^ held.stamp.origin.0);
            [place(5, *node, 0), held ^ xxh3_64(key)]
        }
        Event::Ticked { node } => [place(6, *node, 0), 0],
        Event::Handled { node, from, frame } => [place(7, *node, *from), xxh3_64(frame)],
        Event::Sent { from, to, frame, fate: _ } => [place(8, *from, *to), frame.len() as u64],
        Event::Acted { applied, .. } => [place(9, 0, 0), u64::from(*applied)],
        Event::Called { node } => [place(10, *node, 0), 0],
    }
}

fn line(now_ms: u64, event: &Event<'_>) -> String {
    let mut line = format!("{now_ms:>8}  ");
    // Writing to a string does not fail.
    let _ = match event {
        Event::Started { node, life } => write!(line, "node {node} starts its life {life}"),
        Event::Crashed { node, life } => write!(line, "node {node} ends its life {life}"),
        Event::Wrote { node, key, op, stamp } => {
            let what = match op {
                Op::Put(value) => format!("put {:?} {:?}", value.bytes, value.ttl.map(|ttl| ttl.left_ms)),
                Op::Remove => "remove".to_owned(),
                Op::Clear => "clear".to_owned(),
            };
            write!(line, "node {node} {what} of {} at {stamp}", key.escape_ascii())
        }
        Event::Cleared { node, namespace, stamp } => {
            let stamp = stamp.map(|stamp| stamp.to_string());
            write!(line, "node {node} clear of {:?} at {stamp:?}", namespace.escape_ascii().to_string())
        }
        Event::Read { node, key, held } => {
            let held = held.map(|held| held.stamp.to_string());
            write!(line, "node {node} reads {}: {held:?}", key.escape_ascii())
        }
        Event::Called { node } => write!(line, "node {node} is called"),
        Event::Ticked { node } => write!(line, "node {node} ticks"),
        Event::Handled { node, from, frame } => {
            write!(line, "node {node} handles {:?} of {from}, {} bytes", FrameKind::of(frame), frame.len())
        }
        Event::Sent { from, to, frame, fate } => {
            let kind = FrameKind::of(frame);
            write!(line, "node {from} sends {kind:?} to {to}, {} bytes: {fate:?}", frame.len())
        }
        Event::Acted { action, applied: true } => write!(line, "{action}"),
        Event::Acted { action, applied: false } => write!(line, "{action}: does not apply"),
    };
    line
}
