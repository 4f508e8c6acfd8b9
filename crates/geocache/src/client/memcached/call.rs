//! The calls of an endpoint, each over one connection: what is sent, and what the answers mean.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use resilience::Life as LifeOfServer;

use super::{
    connection::{Answer, Connection, Progress},
    fault::Fault,
    wire::{self, Key, Life, Line, Returned},
};
use crate::{
    client::{Doubt, Pulse},
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// How often a write that keeps a life is tried on plain memcached, where another writer was faster.
const KEEP_TRIES_MAX: u32 = 16;
/// How many keys go in one round trip.
const KEYS_AT_ONCE_MAX: usize = 1_000;
/// How a value is read: the value, its flags, number and what is left of its life.
const READ: &str = " v f c t";

pub(super) async fn get(connection: &mut Connection, key: &[u8]) -> Result<Option<Item>, Fault> {
    match connection.ask(&simple(connection, "mg", key, READ)?).await? {
        Answer::Value { bytes, returned } => Ok(Some(item(bytes, returned))),
        Answer::Line(Line::Miss) => Ok(None),
        Answer::Line(line) => Err(unexpected(line)),
    }
}

/// One round trip for a thousand keys: those that are there are answered, and what marks the end.
pub(super) async fn get_many(
    connection: &mut Connection,
    keys: &[Bytes],
) -> Result<Vec<Option<Item>>, Fault> {
    let mut items = vec![None; keys.len()];
    for (keys, items) in keys.chunks(KEYS_AT_ONCE_MAX).zip(items.chunks_mut(KEYS_AT_ONCE_MAX)) {
        let mut requests = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let key = Key::of(key, connection.kind.encoded_key_bytes_max())?;
            wire::request(&mut requests, "mg", &key, &format!("{READ} q O{index}"));
        }
        requests.extend_from_slice(b"mn\r\n");
        let take = |answer| match answer {
            Answer::Value { bytes, returned } => {
                let item_of = returned.opaque.and_then(|index| items.get_mut(index));
                let slot = item_of.ok_or_else(|| Fault::garbled(b"a value that nobody asked for"))?;
                *slot = Some(item(bytes, returned));
                Ok(Progress::More)
            }
            Answer::Line(Line::Miss) => Ok(Progress::More),
            Answer::Line(Line::Noop) => Ok(Progress::Whole),
            Answer::Line(line) => Err(unexpected(line)),
        };
        connection.exchange(&requests, take).await?;
    }
    Ok(items)
}

pub(super) async fn write(
    connection: &mut Connection,
    key: &[u8],
    write: &Write,
    expect: Expect,
    default_ttl: Option<Duration>,
) -> Result<Outcome, Fault> {
    let key = Key::of(key, connection.kind.encoded_key_bytes_max())?;
    let life = Life::of(write.ttl, default_ttl, SystemTime::now());
    if life == Life::Keep && connection.kind == super::connection::Kind::Memcached {
        return write_keeping(connection, &key, write, expect, default_ttl).await;
    }
    store(connection, &key, write, life, expect).await
}

/// memcached has no store that keeps a life: what is left is read first, and the value stored if it is still the one that was seen. A
/// life that another gives it in between without a new value, by a touch, is lost.
async fn write_keeping(
    connection: &mut Connection,
    key: &Key,
    write: &Write,
    expect: Expect,
    default_ttl: Option<Duration>,
) -> Result<Outcome, Fault> {
    let fresh = Life::of(TimeToLive::Default, default_ttl, SystemTime::now());
    for _ in 0..KEEP_TRIES_MAX {
        let mut request = Vec::new();
        wire::request(&mut request, "mg", key, " c t");
        let seen = match connection.ask(&request).await? {
            Answer::Line(Line::Done { returned: Returned { cas: Some(cas), left, .. } }) => Some((cas, left)),
            Answer::Line(Line::Miss) => None,
            answer => return Err(unexpected_answer(answer)),
        };
        match (expect, seen) {
            (Expect::Absent, Some(_)) => return Ok(Outcome::Present),
            (Expect::Present | Expect::Cas(_), None) => return Ok(Outcome::Missing),
            (Expect::Cas(expected), Some((cas, _))) if cas != expected => return Ok(Outcome::Exists),
            _ => {}
        }
        let outcome = match seen {
            None => store(connection, key, write, fresh, Expect::Absent).await?,
            Some((cas, left)) => {
                // A whole second at least: none would be for ever.
                let left = left.map(|left| left.max(Duration::from_secs(1)));
                let ttl = left.map_or(TimeToLive::Never, TimeToLive::For);
                let life = Life::of(ttl, None, SystemTime::now());
                store(connection, key, write, life, Expect::Cas(cas)).await?
            }
        };
        let is_final = matches!(outcome, Outcome::Done { .. }) || matches!(expect, Expect::Cas(_));
        if is_final || expect == Expect::Absent {
            return Ok(outcome);
        }
    }
    Err(Error::Contended { tries: KEEP_TRIES_MAX }.into())
}

async fn store(
    connection: &mut Connection,
    key: &Key,
    write: &Write,
    life: Life,
    expect: Expect,
) -> Result<Outcome, Fault> {
    let request = wire::store(key, &write.bytes, write.memcached_flags(), life, expect);
    match (connection.ask(&request).await?, expect) {
        // Some versions return no number.
        (Answer::Line(Line::Done { returned }), _) => Ok(Outcome::Done { cas: returned.cas.unwrap_or(0) }),
        (Answer::Line(Line::Exists), _) => Ok(Outcome::Exists),
        (Answer::Line(Line::NotFound), _) => Ok(Outcome::Missing),
        (Answer::Line(Line::NotStored), Expect::Absent) => Ok(Outcome::Present),
        (Answer::Line(Line::NotStored), Expect::Present) => Ok(Outcome::Missing),
        (answer, _) => Err(unexpected_answer(answer)),
    }
}

pub(super) async fn remove(
    connection: &mut Connection,
    key: &[u8],
    expect: Expect,
) -> Result<Outcome, Fault> {
    if expect == Expect::Absent {
        // Nothing to remove either way.
        return match connection.ask(&simple(connection, "mg", key, "")?).await? {
            Answer::Line(Line::Done { .. }) => Ok(Outcome::Present),
            Answer::Line(Line::Miss) => Ok(Outcome::Missing),
            answer => Err(unexpected_answer(answer)),
        };
    }
    let words = if let Expect::Cas(cas) = expect { format!(" C{cas}") } else { String::new() };
    match connection.ask(&simple(connection, "md", key, &words)?).await? {
        Answer::Line(Line::Done { .. }) => Ok(Outcome::Done { cas: 0 }),
        Answer::Line(Line::NotFound) => Ok(Outcome::Missing),
        Answer::Line(Line::Exists) => Ok(Outcome::Exists),
        answer => Err(unexpected_answer(answer)),
    }
}

pub(super) async fn touch(
    connection: &mut Connection,
    key: &[u8],
    ttl: TimeToLive,
    default_ttl: Option<Duration>,
) -> Result<bool, Fault> {
    let words = match Life::of(ttl, default_ttl, SystemTime::now()) {
        Life::Keep => String::new(),
        Life::Seconds(seconds) => format!(" T{seconds}"),
    };
    match connection.ask(&simple(connection, "mg", key, &words)?).await? {
        Answer::Line(Line::Done { .. }) => Ok(true),
        Answer::Line(Line::Miss) => Ok(false),
        answer => Err(unexpected_answer(answer)),
    }
}

pub(super) async fn clear(connection: &mut Connection) -> Result<(), Fault> {
    match connection.ask(b"flush_all\r\n").await? {
        Answer::Line(Line::Okay) => Ok(()),
        answer => Err(unexpected_answer(answer)),
    }
}

pub(super) async fn probe(connection: &mut Connection) -> Result<Pulse, Fault> {
    pulse(&connection.stats().await?)
}

/// What the figures of `stats` say of a server's life.
fn pulse(stats: &[(String, String)]) -> Result<Pulse, Fault> {
    let stat = |name: &str| stats.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let number = |name: &str| {
        let number = stat(name).and_then(|value| value.parse::<u64>().ok());
        number.ok_or_else(|| Fault::Garbled { reason: format!("its stats have no number {name}") })
    };
    let entries = number("curr_items")?;
    let Some(life) = stat("replication_life") else {
        if stat("replication_doubt") == Some("closed") {
            return Err(Fault::Refused { reason: "its cache is closed".to_owned() });
        }
        // Both go by one clock of the server's, so that their difference is when it started, to the second, for as long as it lives.
        let started = number("time")?.saturating_sub(number("uptime")?);
        let incarnation = started << 32 | number("pid")? & 0xffff_ffff;
        return Ok(Pulse::new(LifeOfServer::new(incarnation, entries).began_empty()));
    };
    let incarnation = life.parse().map_err(|_| Fault::garbled(life.as_bytes()))?;
    let life = LifeOfServer::new(incarnation, entries).began_empty();
    Ok(Pulse::new(life).doubt(stat("replication_doubt").and_then(doubt)))
}

fn doubt(said: &str) -> Option<Doubt> {
    match said.split_once(' ').unwrap_or((said, "")) {
        ("none", _) => None,
        ("warming", _) => Some(Doubt::Warming),
        ("behind", lag_ms) => Some(Doubt::Behind(Duration::from_millis(lag_ms.parse().unwrap_or(0)))),
        ("copy", _) => Some(Doubt::Copy),
        // What a newer server says speaks against it too.
        _ => Some(Doubt::CutOff),
    }
}

fn simple(connection: &Connection, verb: &str, key: &[u8], words: &str) -> Result<Vec<u8>, Fault> {
    let key = Key::of(key, connection.kind.encoded_key_bytes_max())?;
    let mut request = Vec::new();
    wire::request(&mut request, verb, &key, words);
    Ok(request)
}

fn item(bytes: Bytes, returned: Returned) -> Item {
    let item = Item { cas: returned.cas.unwrap_or(0), left: returned.left, ..Item::new(bytes) };
    item.with_memcached_flags(returned.flags)
}

fn unexpected(line: Line) -> Fault {
    Fault::Garbled { reason: format!("it answered what answers something else: {line:?}") }
}

fn unexpected_answer(answer: Answer) -> Fault {
    match answer {
        Answer::Line(line) => unexpected(line),
        // What it says is somebody's, and is not told.
        Answer::Value { bytes, .. } => {
            let reason = format!("it answered with a value of {} bytes what asked for none", bytes.len());
            Fault::Garbled { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_memcacheds_life_is_its_process_and_when_it_started() {
        let of = |pid, uptime, time| {
            let lines = [("pid", pid), ("uptime", uptime), ("time", time), ("curr_items", "3")];
            pulse(&stats(&lines)).unwrap()
        };
        let life = of("7", "10", "1010").life;
        assert_eq!(life, of("7", "20", "1020").life, "time goes by");
        assert_ne!(life.incarnation, of("8", "20", "1020").life.incarnation);
        assert_ne!(life.incarnation, of("7", "2", "1020").life.incarnation);
        assert_eq!((life.entries, life.began_empty), (3, true));
        assert!(matches!(pulse(&stats(&[("pid", "7"), ("curr_items", "x")])), Err(Fault::Garbled { .. })));
    }

    #[test]
    fn a_geocached_says_its_life_and_doubt_itself() {
        let of = |doubt| {
            let lines = [("curr_items", "3"), ("replication_life", "99"), ("replication_doubt", doubt)];
            pulse(&stats(&lines)).unwrap()
        };
        assert_eq!((of("none").life.incarnation, of("none").doubt), (99, None));
        assert_eq!(of("warming").doubt, Some(Doubt::Warming));
        assert_eq!(of("cut_off").doubt, Some(Doubt::CutOff));
        assert_eq!(of("behind 1500").doubt, Some(Doubt::Behind(Duration::from_millis(1500))));
        assert_eq!(of("copy").doubt, Some(Doubt::Copy));
        let closed = pulse(&stats(&[("curr_items", "3"), ("replication_doubt", "closed")]));
        assert!(matches!(closed, Err(Fault::Refused { .. })));
    }
}
