//! What is said of leases: small items of fixed shapes, many to a frame.

use bytes::{BufMut, BytesMut};

use super::{
    KEYS_MAX,
    body::{read_stream, write_stream},
    error::DecodeError,
    reader::Reader,
    writer,
};
use crate::{
    message::{LeaseAnswer, LeaseCall, LeaseSay, Verdict},
    replica::Token,
    stamp::Hlc,
};

/// What this node says in its beats of leases: a bit of [`Beat::capabilities`].
///
/// [`Beat::capabilities`]: crate::message::Beat::capabilities
pub const GRANTS_LEASES: u32 = 0x02;

// Of the byte that says what an item is.
const ASK: u8 = 0;
const LOADED: u8 = 1;
const FAILED: u8 = 2;
const GRANTED: u8 = 0;
const HELD: u8 = 1;
const LOADED_ELSEWHERE: u8 = 2;
const REFUSED: u8 = 3;

/// The number, the position, and what is said.
const ITEM_BYTES_MIN: usize = 8 + 8 + 1;
pub(super) const CALL_BYTES_MAX: usize = ITEM_BYTES_MIN + 24;
pub(super) const ANSWER_BYTES_MAX: usize = ITEM_BYTES_MIN + 24;

pub(super) fn write_calls(buf: &mut BytesMut, calls: &[LeaseCall]) {
    writer::list(buf, calls, |buf, call| {
        buf.put_u64_le(call.id);
        buf.put_u64_le(call.position);
        match call.say {
            LeaseSay::Ask { hold_ms, seen } => {
                buf.put_u8(ASK);
                writer::varint(buf, hold_ms);
                buf.put_u64_le(seen.0);
            }
            LeaseSay::Loaded(token) => {
                buf.put_u8(LOADED);
                write_token(buf, token);
            }
            LeaseSay::Failed => buf.put_u8(FAILED),
        }
    });
}

pub(super) fn read_calls(r: &mut Reader<'_>) -> Result<Vec<LeaseCall>, DecodeError> {
    r.list("the calls for leases", ITEM_BYTES_MIN, KEYS_MAX, |r| {
        let (id, position) = (r.u64("a question's id")?, r.u64("a position")?);
        let offset = r.offset();
        let say = match r.u8("what is said of a lease")? {
            ASK => LeaseSay::Ask { hold_ms: r.varint("a lease's time")?, seen: Hlc(r.u64("a clock seen")?) },
            LOADED => LeaseSay::Loaded(read_token(r)?),
            FAILED => LeaseSay::Failed,
            _ => return Err(DecodeError::Malformed { offset, what: "nothing that is said of a lease" }),
        };
        Ok(LeaseCall { id, position, say })
    })
}

pub(super) fn write_answers(buf: &mut BytesMut, answers: &[LeaseAnswer]) {
    writer::list(buf, answers, |buf, answer| {
        buf.put_u64_le(answer.id);
        buf.put_u64_le(answer.position);
        match answer.verdict {
            Verdict::Granted { hold_ms: ms } => {
                buf.put_u8(GRANTED);
                writer::varint(buf, ms);
            }
            Verdict::Held { left_ms: ms } => {
                buf.put_u8(HELD);
                writer::varint(buf, ms);
            }
            Verdict::Loaded(token) => {
                buf.put_u8(LOADED_ELSEWHERE);
                write_token(buf, token);
            }
            Verdict::Refused => buf.put_u8(REFUSED),
        }
    });
}

pub(super) fn read_answers(r: &mut Reader<'_>) -> Result<Vec<LeaseAnswer>, DecodeError> {
    r.list("the answers of leases", ITEM_BYTES_MIN, KEYS_MAX, |r| {
        let (id, position) = (r.u64("a question's id")?, r.u64("a position")?);
        let offset = r.offset();
        let verdict = match r.u8("what becomes of a lease")? {
            GRANTED => Verdict::Granted { hold_ms: r.varint("a lease's time")? },
            HELD => Verdict::Held { left_ms: r.varint("what is left of a lease")? },
            LOADED_ELSEWHERE => Verdict::Loaded(read_token(r)?),
            REFUSED => Verdict::Refused,
            _ => return Err(DecodeError::Malformed { offset, what: "nothing that becomes of a lease" }),
        };
        Ok(LeaseAnswer { id, position, verdict })
    })
}

fn write_token(buf: &mut BytesMut, token: Token) {
    write_stream(buf, &token.stream);
    buf.put_u64_le(token.hlc.0);
}

fn read_token(r: &mut Reader<'_>) -> Result<Token, DecodeError> {
    Ok(Token { stream: read_stream(r)?, hlc: Hlc(r.u64("a write's clock")?) })
}
