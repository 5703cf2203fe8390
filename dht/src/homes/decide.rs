//! What one operation makes of one record: a function of both and of what the reign remembers.
//!
//! Keeps:
//! 1. An operation id takes effect at most once.
//! 2. What changes nothing is answered like a read; only what rests on no record is answered at once.
//!
//! Source: `docs/protocol.md`, section 4.

use crate::message::{Answer, Attempt, Operation};
use crate::reign::Reign;
use store::{Change, OpEntry, Outcome, Record, Value};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Decision {
    /// Answered now, without a Confirm.
    Now(Answer),
    /// Answered like a read; if the reign is lost before, the second is said.
    Confirmed(Answer, Answer),
    /// The record gets this value; the second goes into the answer.
    Write(Option<Value>, Option<Value>),
}

/// What limits a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) is_memory_full: bool,
    pub(super) value_bytes_max: usize,
}

/// Decides on the record of the last Accept sent.
pub(super) fn decide(reign: &Reign, record: &Record, a: &Attempt, room: Room) -> Decision {
    let change = match &a.operation {
        Operation::Get => {
            let answer = Answer::Value { version: record.version, value: record.value.clone() };
            return Decision::Confirmed(answer, Answer::NotHome { hint: None });
        }
        Operation::Change(c) => c,
    };
    if let Some(known) = repeated(reign, record, a) {
        return known;
    }
    let shrinks = matches!(change, Change::Delete { .. });
    if !shrinks && room.is_memory_full {
        return Decision::Now(Answer::Full);
    }
    match change.apply(record, room.value_bytes_max) {
        Outcome::Nothing => {
            let value = change.answers_value().then(|| record.value.clone()).flatten();
            let answer = Answer::Nothing { version: record.version, value };
            Decision::Confirmed(answer, Answer::NotHome { hint: None })
        }
        Outcome::Refused(refusal) => {
            let (version, value) = (record.version, record.value.clone());
            let answer = Answer::Refused { refusal, version, value };
            Decision::Confirmed(answer, Answer::NotHome { hint: None })
        }
        Outcome::Write(value) => {
            let result = change.answers_value().then(|| value.clone()).flatten();
            Decision::Write(value, result)
        }
    }
}

/// The answer to an operation that was executed before, or may have been.
fn repeated(reign: &Reign, record: &Record, a: &Attempt) -> Option<Decision> {
    if let Some(e) = record.ops.as_ref().and_then(|o| o.get(a.session)) {
        if e.seq == a.seq {
            let done = Answer::Done { version: e.n, result: e.result.clone() };
            return Some(Decision::Confirmed(done, Answer::Unknown));
        }
        if e.seq > a.seq {
            return Some(Decision::Now(Answer::Unknown));
        }
    }
    if a.is_first {
        // Its reign is this one, so only what was executed and forgotten under it can be a repetition.
        if reign.was_evicted(a.session, a.seq) {
            return Some(Decision::Now(Answer::Unknown));
        }
        if a.known < reign.first_floor {
            let behind = Answer::Behind { floor: reign.first_floor };
            return Some(Decision::Confirmed(behind, Answer::NotHome { hint: None }));
        }
    } else if a.known < record.ops_floor() || reign.was_evicted(a.session, a.seq) {
        return Some(Decision::Now(Answer::Unknown));
    }
    None
}

/// The record that `a` writes under `n`, and the operation id that it forgets for it.
pub(super) fn written(
    record: Record,
    a: &Attempt,
    n: u64,
    value: Option<Value>,
    result: Option<Value>,
) -> (Record, Option<OpEntry>) {
    let mut next = record;
    // The floor is that of the record before: it is made before the version changes.
    let gone = next.ops_mut().note(OpEntry { session: a.session, seq: a.seq, n, result });
    (next.version, next.value) = (n, value);
    (next, gone)
}
