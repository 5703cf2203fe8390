//! What one operation makes of one record: a function of both and of what the reign remembers.
//!
//! Keeps:
//! 1. An operation id takes effect at most once.
//! 2. What changes nothing is answered like a read; only what rests on no record is answered at once.
//!
//! Source: `docs/protocol.md`, section 4.

use crate::message::{Answer, Attempt, Operation};
use crate::plant::Plant;
use crate::reign::Reign;
use store::{Change, OpEntry, Outcome, Record, TxChange, TxStep, Value};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Answered now, without a Confirm.
    Now(Answer),
    /// Answered like a read; if the reign is lost before, the second is said.
    Confirmed(Answer, Answer),
    /// A new record.
    Write(Box<Writing>),
    /// A transaction's lock is in the way.
    Blocked,
}

/// A new record, and what is answered once it is chosen.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) record: Record,
    pub(crate) version: u64,
    pub(crate) result: Option<Value>,
    /// The operation ids that the record had to drop for it.
    pub(crate) gone: Vec<OpEntry>,
}

/// What limits a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) is_memory_full: bool,
    pub(crate) value_bytes_max: usize,
    /// The number under which a record would be written.
    pub(crate) n: u64,
    /// Of what was executed above it, all that the record has forgotten was forgotten under this reign.
    pub(crate) floor: u64,
    /// A rule that a test breaks.
    pub(crate) planted: Option<Plant>,
}

/// Decides on the record of the last Accept sent.
pub(crate) fn decide(reign: &Reign, record: &Record, a: &Attempt, room: Room) -> Decision {
    let is_blocked = record.lock().is_some_and(|l| crate::tx::is_in_the_way(l, &a.operation));
    let change = match &a.operation {
        Operation::Inspect { .. } if is_blocked && room.planted == Some(Plant::ValidateIgnoresLocks) => {
            return Decision::Confirmed(read_of(record, &a.operation), Answer::NotHome { hint: None });
        }
        Operation::Get | Operation::Inspect { .. } if is_blocked => return Decision::Blocked,
        Operation::Get | Operation::Inspect { .. } | Operation::Resync => {
            return Decision::Confirmed(read_of(record, &a.operation), Answer::NotHome { hint: None });
        }
        Operation::Tx(c) => return decide_tx(reign, record, a, c, room, is_blocked),
        Operation::Change(c) => c,
    };
    if let Some(known) = repeated(reign, record, a, room) {
        return known;
    }
    if is_blocked {
        return Decision::Blocked;
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
            let version = room.n;
            let (record, gone) = written(record.clone(), a, version, value, result.clone());
            let gone = gone.into_iter().collect();
            Decision::Write(Box::new(Writing { record, version, result, gone }))
        }
    }
}

/// Decides a transaction's change.
fn decide_tx(
    reign: &Reign,
    record: &Record,
    a: &Attempt,
    change: &TxChange,
    room: Room,
    is_blocked: bool,
) -> Decision {
    if !change.is_repeatable()
        && let Some(known) = repeated(reign, record, a, room)
    {
        return known;
    }
    if is_blocked {
        return Decision::Blocked;
    }
    if !change.shrinks() && room.is_memory_full {
        return Decision::Now(Answer::Full);
    }
    let planted = room.planted.and_then(|p| crate::tx::broken(p, change, record, room.n));
    let not_home = Answer::NotHome { hint: None };
    match planted.unwrap_or_else(|| change.apply(record, room.n)) {
        TxStep::Nothing(version) => Decision::Confirmed(Answer::Nothing { version, value: None }, not_home),
        TxStep::Refused(refusal) => {
            let answer = Answer::Refused { refusal, version: record.version, value: None };
            Decision::Confirmed(answer, not_home)
        }
        TxStep::Locked => Decision::Blocked,
        TxStep::Write(next, version, result) => {
            let mut after = *next;
            if !change.is_repeatable() {
                let (session, seq, n) = (a.session, a.seq, room.n);
                after.ops_mut().note(OpEntry { session, seq, n, result: result.clone() });
            }
            // An end of a lock notes the commit's id, and drops another for it.
            let gone = forgotten(record, &after);
            let record = after;
            Decision::Write(Box::new(Writing { record, version, result, gone }))
        }
    }
}

/// The operation ids of `before` of whose sessions `after` knows nothing any more.
fn forgotten(before: &Record, after: &Record) -> Vec<OpEntry> {
    let is_kept = |e: &OpEntry| after.ops.as_ref().is_some_and(|o| o.get(e.session).is_some());
    before.ops.iter().flat_map(|o| &o.entries).filter(|e| !is_kept(e)).collect()
}

/// What a read is told of a record. A transaction is told up to which number an absent key is known absent.
pub(crate) fn read_of(record: &Record, operation: &Operation) -> Answer {
    let is_exact = matches!(operation, Operation::Inspect { .. }) && record.value.is_none();
    let version = if is_exact { record.version.max(record.ops_floor()) } else { record.version };
    Answer::Value { version, value: record.value.clone() }
}

/// The answer to an operation that was executed before, or may have been.
fn repeated(reign: &Reign, record: &Record, a: &Attempt, room: Room) -> Option<Decision> {
    if room.planted != Some(Plant::OpsNotLooked)
        && let Some(e) = record.ops.as_ref().and_then(|o| o.get(a.session))
    {
        if e.seq == a.seq {
            let done = Answer::Done { version: e.n, result: e.result };
            return Some(Decision::Confirmed(done, Answer::Unknown));
        }
        if e.seq > a.seq {
            return Some(Decision::Now(Answer::Forgotten));
        }
    }
    let is_ignored = if a.is_first { Plant::FirstFloorIgnored } else { Plant::OpsFloorIgnored };
    if room.planted == Some(is_ignored) {
        return None;
    }
    if let Some(e) = reign.evicted_from(a.session, a.seq) {
        if e.seq == a.seq && !e.is_untold {
            let done = Answer::Done { version: e.n, result: None };
            return Some(Decision::Confirmed(done, Answer::Unknown));
        }
        return Some(Decision::Now(Answer::Forgotten));
    }
    // The reign of a first attempt is this one, so only what was executed and forgotten under it can be a repetition.
    if a.is_first && a.known < reign.first_floor {
        let behind = Answer::Behind { floor: reign.first_floor };
        return Some(Decision::Confirmed(behind, Answer::NotHome { hint: None }));
    }
    // What has executed a later one may have been forgotten before this reign, and then it is for ever.
    (!a.is_first && a.known < room.floor).then_some(Decision::Now(Answer::Forgotten))
}

/// The record that `a` writes under `n`, and the operation id that it forgets for it.
fn written(
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

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::Configuration;
    use ring::{Extent, NodeId, Offset, RingId, Time};
    use std::sync::Arc;
    use store::{Ballot, Condition, Intent, Key, OpId, Seen, SessionId, TxId};

    const ROOM: Room =
        Room { is_memory_full: false, value_bytes_max: 1 << 20, n: 1 << 20, floor: 0, planted: None };

    fn reign() -> Reign {
        let configuration = Arc::new(Configuration::new(RingId(1), 1, Vec::new()));
        let ballot = Ballot { counter: 1, node: NodeId(1) };
        Reign::seeking(0, Extent::new(0, 99), ballot, configuration, 0, 1, 1, Time(0))
    }

    fn at() -> (Offset, Key) {
        (7, Key::new(b"key"))
    }

    fn put(seq: u64, known: u64, is_first: bool) -> Attempt {
        let change = Change::Put { value: Value::int(1), condition: Condition::Always };
        Attempt {
            session: SessionId(5),
            seq,
            attempt: if is_first { 1 } else { 2 },
            is_first,
            addressed: None,
            known,
            key: Key::new(b"key"),
            operation: Operation::Change(change),
            trace: None,
        }
    }

    /// The record after operation 3 of the session, executed under n = 20.
    fn record() -> Record {
        written(Record::absent(0), &put(3, 0, true), 20, Some(Value::int(1)), None).0
    }

    fn of(reign: &Reign, record: &Record, a: &Attempt) -> String {
        let floor = reign.floor_of(&at(), record.ops_floor());
        match decide(reign, record, a, Room { floor, ..ROOM }) {
            Decision::Blocked => "blocked".to_owned(),
            Decision::Now(answer) => format!("now {answer:?}"),
            Decision::Confirmed(answer, otherwise) => format!("confirmed {answer:?} or {otherwise:?}"),
            Decision::Write(..) => "write".to_owned(),
        }
    }

    #[test]
    fn what_was_executed_is_answered_again_and_an_older_operation_is_unknown() {
        let (r, record) = (reign(), record());
        for is_first in [true, false] {
            let again = of(&r, &record, &put(3, 0, is_first));
            assert_eq!(again, "confirmed Done { version: 20, result: None } or Unknown");
            assert_eq!(of(&r, &record, &put(2, 0, is_first)), "now Forgotten");
            assert_eq!(of(&r, &record, &put(4, 0, is_first)), "write");
        }
    }

    #[test]
    fn a_repetition_of_what_was_forgotten_is_unknown_and_never_executed() {
        let r = reign();
        let aged = record().aged(20).expect("its entry is old");
        assert!(aged.ops.is_none(), "at rest there is nothing but the value");
        assert_eq!(of(&r, &aged, &put(3, 19, false)), "now Forgotten");
        assert_eq!(of(&r, &aged, &put(4, 20, false)), "write");
        // The floor outlives the next change.
        let next = written(aged, &put(4, 20, true), 30, None, None).0;
        assert_eq!(next.ops_floor(), 20);
        assert!(record().aged(19).is_none(), "what is young stays");
    }

    #[test]
    fn a_first_attempt_that_knows_too_little_is_told_the_floor() {
        let mut r = reign();
        r.first_floor = 50;
        let told = of(&r, &record(), &put(4, 49, true));
        assert_eq!(told, "confirmed Behind { floor: 50 } or NotHome { hint: None }");
        assert_eq!(of(&r, &record(), &put(4, 50, true)), "write");
    }

    fn tx(change: TxChange) -> Attempt {
        Attempt { operation: Operation::Tx(Box::new(change)), ..put(1, 0, true) }
    }

    #[test]
    fn what_the_end_of_a_lock_and_a_commit_of_one_key_push_out_is_told() {
        let mut full = Record { version: 8, value: Some(Value::int(1)), ops: None };
        for n in 1..=8 {
            full.ops_mut().note(OpEntry { session: SessionId(100 + n), seq: 1, n, result: None });
        }
        let (op, seen) = (OpId { session: SessionId(7), seq: 1 }, Seen::Version(8));
        let id = TxId { ledger: Key::new(b"\xffL"), entry: 1 };
        let intent = || Intent::Put(Value::int(2));
        let lock =
            TxChange::Lock { tx: id.clone(), seen, intent: intent(), validates: false, op, waits: false };
        let settle = |version, applies| TxChange::Settle { tx: id.clone(), version, applies };
        let written = |record: &Record, change| {
            let decision = decide(&reign(), record, &tx(change), ROOM);
            let Decision::Write(w) = decision else { panic!("{decision:?}") };
            (w.record, w.gone.iter().map(|e| e.session.0).collect::<Vec<_>>())
        };
        let (locked, gone) = written(&full, lock);
        assert_eq!(gone, [0; 0]);
        let version = locked.lock().expect("it was set").version;
        assert_eq!(written(&locked, settle(version, true)).1, [101]);
        assert_eq!(written(&locked, settle(version, false)).1, [0; 0]);
        // The commit's own id and that of the attempt.
        assert_eq!(written(&full, TxChange::Install { seen, intent: intent(), op }).1, [101, 102]);
    }

    #[test]
    fn what_was_pushed_out_under_this_reign_is_known_without_its_result() {
        let mut r = reign();
        r.note_evicted(&at(), 0, &OpEntry { session: SessionId(5), seq: 9, n: 40, result: None });
        let sum = Some(Value::int(3));
        r.note_evicted(&at(), 40, &OpEntry { session: SessionId(6), seq: 9, n: 50, result: sum });
        for is_first in [true, false] {
            let done = "confirmed Done { version: 40, result: None } or Unknown";
            assert_eq!(of(&r, &record(), &put(9, 60, is_first)), done);
            assert_eq!(of(&r, &record(), &put(8, 60, is_first)), "now Forgotten");
            assert_eq!(of(&r, &record(), &put(10, 60, is_first)), "write");
            let other = Attempt { session: SessionId(6), ..put(9, 60, is_first) };
            assert_eq!(of(&r, &record(), &other), "now Forgotten", "the sum was forgotten");
        }
    }

    /// Ten operations of others, executed under a reign after it synced the record with floor 10.
    fn pushed_out(r: &mut Reign) -> Record {
        let mut record = Record { version: 10, value: Some(Value::int(1)), ops: None };
        for i in 0..10 {
            let a = Attempt { session: SessionId(100 + i), ..put(1, 10, true) };
            let floor = record.ops_floor();
            let (next, gone) = written(record, &a, 20 + i, Some(Value::int(1)), None);
            gone.iter().for_each(|g| r.note_evicted(&at(), floor, g));
            record = next;
        }
        assert_eq!(record.ops_floor(), 21, "two were forgotten");
        record
    }

    #[test]
    fn operations_of_this_reign_do_not_keep_a_later_attempt_of_an_earlier_one_from_being_decided() {
        let mut r = reign();
        let record = pushed_out(&mut r);
        assert_eq!(of(&r, &record, &put(4, 10, false)), "write", "nothing was forgotten before the reign");
        assert_eq!(of(&r, &record, &put(4, 9, false)), "now Forgotten");
        let done = "confirmed Done { version: 21, result: None } or Unknown";
        assert_eq!(of(&r, &record, &Attempt { session: SessionId(101), ..put(1, 10, false) }), done);
    }

    #[test]
    fn what_an_earlier_reign_forgot_is_not_decided() {
        let mut r = reign();
        let record = pushed_out(&mut r);
        assert_eq!(of(&reign(), &record, &put(4, 10, false)), "now Forgotten");
        assert_eq!(of(&reign(), &record, &put(4, 21, false)), "write");
    }
}
