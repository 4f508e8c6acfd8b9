//! Executes what came by the meta protocol.

use std::time::Duration;

use bytes::Bytes;
use geocache::{Error, Expect, Item, Outcome, TimeToLive, Write};

use super::{Session, number, server_error, time_to_live};
use crate::memcached::{
    counter::Counter,
    meta::{Meta, MetaVerb, Mode},
};

impl Session {
    /// Executes a request and appends its answer.
    pub(super) fn meta(&mut self, meta: &Meta<'_>, out: &mut Vec<u8>) {
        let done = match meta.verb {
            MetaVerb::Get => self.meta_get(meta, out),
            MetaVerb::Set { data } => self.meta_set(meta, data, out),
            MetaVerb::Delete => self.meta_delete(meta, out),
        };
        if let Err(error) = done {
            if matches!(error, Error::ValueTooLarge { .. }) {
                self.tally.count(Counter::StoreTooLarge);
            }
            server_error(out, &error);
        }
    }

    fn meta_get(&mut self, meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.keys += 1;
        self.tally.count(Counter::CmdGet);
        let touches = meta.flags.exptime.is_some();
        let item = match meta.flags.exptime {
            None => self.shared.cache.item(&meta.key),
            Some(exptime) => {
                self.tally.count(Counter::CmdTouch);
                self.touched(&meta.key, exptime)?
            }
        };
        let (hit, miss) = (Counter::GetHits, Counter::GetMisses);
        self.tally.count(if item.is_some() { hit } else { miss });
        if touches {
            let (hit, miss) = (Counter::TouchHits, Counter::TouchMisses);
            self.tally.count(if item.is_some() { hit } else { miss });
        }
        let Some(item) = item else {
            if !meta.flags.quiet {
                answer(meta, b"EN", None, None, out);
            }
            return Ok(());
        };
        if meta.flags.value {
            out.reserve(item.bytes.len() + 128);
            out.extend_from_slice(b"VA ");
            number::push(out, item.bytes.len() as u64);
            answer(meta, b"", Some(&item), Some(item.cas), out);
            out.extend_from_slice(&item.bytes);
            out.extend_from_slice(b"\r\n");
        } else {
            answer(meta, b"HD", Some(&item), Some(item.cas), out);
        }
        Ok(())
    }

    fn meta_set(&mut self, meta: &Meta<'_>, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.tally.count(Counter::CmdSet);
        let flags = &meta.flags;
        let expect = match (flags.mode, flags.cas) {
            (Mode::Add, _) => Expect::Absent,
            (_, Some(cas)) => Expect::Cas(cas),
            (Mode::Replace, None) => Expect::Present,
            (Mode::Set, None) => Expect::Any,
        };
        let ttl = match flags.exptime {
            _ if flags.keep => Some(TimeToLive::Keep),
            Some(exptime) => time_to_live(exptime),
            None => Some(TimeToLive::Never),
        };
        let outcome = match ttl {
            Some(ttl) => {
                let write = Write { bytes: Bytes::copy_from_slice(data), ttl, ..Write::default() };
                self.shared.cache.write(&meta.key, write.with_memcached_flags(flags.client), expect)?
            }
            None => self.store_dead(&meta.key, expect)?,
        };
        let is_cas = matches!(expect, Expect::Cas(_));
        let (code, cas) = match outcome {
            Outcome::Done { cas } => {
                self.tally.count(Counter::TotalItems);
                if is_cas {
                    self.tally.count(Counter::CasHits);
                }
                if flags.quiet {
                    return Ok(());
                }
                (&b"HD"[..], cas)
            }
            Outcome::Exists => {
                self.tally.count(Counter::CasBadval);
                (&b"EX"[..], 0)
            }
            Outcome::Missing if is_cas => {
                self.tally.count(Counter::CasMisses);
                (&b"NF"[..], 0)
            }
            _ => (&b"NS"[..], 0),
        };
        answer(meta, code, None, Some(cas), out);
        Ok(())
    }

    fn meta_delete(&mut self, meta: &Meta<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let expect = meta.flags.cas.map_or(Expect::Any, Expect::Cas);
        let code = match self.shared.cache.remove_if(&meta.key, expect)? {
            Outcome::Done { .. } => {
                self.tally.count(Counter::DeleteHits);
                &b"HD"[..]
            }
            Outcome::Exists => &b"EX"[..],
            _ => {
                self.tally.count(Counter::DeleteMisses);
                &b"NF"[..]
            }
        };
        // What was not there is told all the same.
        if !meta.flags.quiet || code != b"HD" {
            answer(meta, code, None, None, out);
        }
        Ok(())
    }
}

/// Appends the line of an answer: the code, and what the flags ask back, in their order.
fn answer(meta: &Meta<'_>, code: &[u8], item: Option<&Item>, cas: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(code);
    for word in meta.words {
        let letter = word[0];
        match (letter, item, cas) {
            (b'k', ..) => {
                out.extend_from_slice(b" k");
                out.extend_from_slice(meta.given);
                // It says how the key is to be read, and so goes with it alone.
                if meta.flags.encoded {
                    out.extend_from_slice(b" b");
                }
            }
            (b'O', ..) => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
            (b'c', _, Some(cas)) => returned(b" c", cas, out),
            (b'f', Some(item), _) => returned(b" f", u64::from(item.memcached_flags()), out),
            (b's', Some(item), _) => returned(b" s", item.bytes.len() as u64, out),
            (b't', Some(item), _) => match item.left {
                Some(left) => returned(b" t", whole_seconds(left), out),
                None => out.extend_from_slice(b" t-1"),
            },
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn returned(letter: &[u8], number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(letter);
    number::push(out, number);
}

/// Rounded up: 0 would be a life that is over.
fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
