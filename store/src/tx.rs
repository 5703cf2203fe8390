//! What a transaction does to one key: lock it, and later apply or release the lock.
//!
//! A lock carries the new value, so that whoever meets it can finish the transaction without its coordinator.
//! The version that it will install is the n of the Accept that set it, which is above everything the key ever
//! had. Locks say nothing of the decision: that is in the ledger which the transaction's id names.
//!
//! Keeps:
//! 1. A record has at most one lock, and no change but its own transaction's passes it.
//! 2. A lock is set only on the state that the transaction saw; of an absent key it is enough that it is absent.
//! 3. Settling names transaction and version: another lock of the same key is never touched.
//! 4. All of it may be repeated: a lock that is there already is confirmed, one that is gone stays gone.
//!
//! Source: FaRM (Dragojević et al. 2015) for lock, validate, commit; `docs/protocol.md`, section 8.

use crate::change::Refusal;
use crate::ops::{OpEntry, SessionId};
use crate::record::{Key, Record};
use crate::value::Value;

/// A transaction's name: an entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId {
    /// The ledger's key.
    pub ledger: Key,
    /// The entry's number in it.
    pub entry: u64,
}

/// The id of a commit, remembered by the keys that it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// Whose commit.
    pub session: SessionId,
    /// Its number in the session.
    pub seq: u64,
}

/// The state in which a transaction saw a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was not there. What was deleted before was deleted at this number or below.
    Absent(u64),
    /// It was there with this version.
    Version(u64),
}

impl Seen {
    /// The state that a read shows; for an absent key `version` is the number up to which it is known absent.
    pub fn of(version: u64, is_present: bool) -> Seen {
        if is_present { Seen::Version(version) } else { Seen::Absent(version) }
    }

    /// The number above which every later version of the key lies.
    pub fn number(self) -> u64 {
        match self {
            Seen::Absent(n) | Seen::Version(n) => n,
        }
    }

    /// Whether a read that shows `now` proves that the key was in this state all the time between.
    ///
    /// An absent key that shows a higher number may have been there meanwhile.
    pub fn still_holds(self, now: Seen) -> bool {
        match (self, now) {
            (Seen::Version(a), Seen::Version(b)) => a == b,
            (Seen::Absent(a), Seen::Absent(b)) => b <= a,
            (Seen::Absent(_), Seen::Version(_)) | (Seen::Version(_), Seen::Absent(_)) => false,
        }
    }

    fn matches(self, record: &Record) -> bool {
        match (self, &record.value) {
            (Seen::Version(v), Some(_)) => v == record.version,
            (Seen::Absent(_), None) => true,
            (Seen::Absent(_), Some(_)) | (Seen::Version(_), None) => false,
        }
    }
}

/// What becomes of a key when its transaction commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing: the key was only read, and nobody else may change it until the decision.
    Keep,
    /// It is deleted.
    Delete,
    /// It gets this value.
    Put(Value),
}

/// A transaction's hold on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose.
    pub tx: TxId,
    /// The version that it will install.
    pub version: u64,
    /// The new state.
    pub intent: Intent,
    /// Whether the transaction rests on keys that it holds no lock of.
    pub validates: bool,
    /// The commit's id.
    pub op: OpId,
}

/// A change that transactions make of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxChange {
    /// Sets a lock.
    Lock {
        /// Whose.
        tx: TxId,
        /// The state it depends on.
        seen: Seen,
        /// The new state.
        intent: Intent,
        /// Whether the transaction rests on keys that it holds no lock of.
        validates: bool,
        /// The commit's id.
        op: OpId,
        /// Whether it waits its turn behind another lock.
        waits: bool,
    },
    /// Ends the lock of this transaction with this version.
    Settle {
        /// Whose lock.
        tx: TxId,
        /// The version in it.
        version: u64,
        /// Whether its new state is installed.
        applies: bool,
    },
    /// A transaction of one key: what lock and apply would do, at once.
    Install {
        /// The state it depends on.
        seen: Seen,
        /// The new state.
        intent: Intent,
        /// The commit's id.
        op: OpId,
    },
    /// A change of a ledger.
    Ledger(crate::ledger::LedgerChange),
}

/// What came of a transaction's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxStep {
    /// The next record, and what is answered: a version and a result.
    Write(Box<Record>, u64, Option<Value>),
    /// Nothing has to be done; the answer's version.
    Nothing(u64),
    /// It does not apply.
    Refused(Refusal),
    /// Another transaction's lock is there.
    Locked,
}

impl TxChange {
    /// Whether executing it twice does no harm, so that no operation id need be kept for it.
    pub fn is_repeatable(&self) -> bool {
        match self {
            TxChange::Lock { .. } | TxChange::Settle { .. } => true,
            TxChange::Install { .. } => false,
            TxChange::Ledger(c) => c.is_repeatable(),
        }
    }

    /// Whether it makes no more of memory than there was, so that it is served when memory is full.
    pub fn shrinks(&self) -> bool {
        match self {
            TxChange::Settle { .. } | TxChange::Ledger(_) => true,
            TxChange::Lock { .. } | TxChange::Install { .. } => false,
        }
    }

    /// Bytes of values that it carries.
    pub fn size_bytes(&self) -> usize {
        match self {
            TxChange::Lock { intent, .. } | TxChange::Install { intent, .. } => intent.size_bytes(),
            TxChange::Settle { .. } => 0,
            TxChange::Ledger(c) => c.size_bytes(),
        }
    }

    /// What this change makes of `record`, executed under the number `n`.
    pub fn apply(&self, record: &Record, n: u64) -> TxStep {
        match self {
            TxChange::Lock { tx, seen, intent, validates, op, waits: _ } => {
                if let Some(l) = record.lock() {
                    return if l.tx == *tx { TxStep::Nothing(l.version) } else { TxStep::Locked };
                }
                if let Some(r) = refusal(record, *seen, *op) {
                    return TxStep::Refused(r);
                }
                let lock = Lock {
                    tx: tx.clone(),
                    version: n,
                    intent: intent.clone(),
                    validates: *validates,
                    op: *op,
                };
                let mut next = record.clone();
                next.ops_mut().lock = Some(Box::new(lock));
                TxStep::Write(Box::new(next), n, None)
            }
            TxChange::Settle { tx, version, applies } => settle(record, tx, *version, *applies),
            TxChange::Install { seen, intent, op } => {
                if record.lock().is_some() {
                    return TxStep::Locked;
                }
                if let Some(r) = refusal(record, *seen, *op) {
                    return TxStep::Refused(r);
                }
                let mut next = record.clone();
                // The floor is that of the record before: it is made before the version changes.
                next.ops_mut().note(OpEntry { session: op.session, seq: op.seq, n, result: None });
                install(&mut next, intent, n);
                TxStep::Write(Box::new(next), n, None)
            }
            TxChange::Ledger(c) => c.apply(record, n),
        }
    }
}

impl Intent {
    /// Bytes of its value.
    pub fn size_bytes(&self) -> usize {
        match self {
            Intent::Keep | Intent::Delete => 0,
            Intent::Put(v) => v.as_bytes().len(),
        }
    }
}

impl Lock {
    /// Bytes that it takes, estimated.
    pub fn weight(&self) -> usize {
        120 + self.tx.ledger.as_bytes().len() + self.intent.size_bytes()
    }
}

/// Why a commit that saw `seen` cannot go on at this record.
fn refusal(record: &Record, seen: Seen, op: OpId) -> Option<Refusal> {
    let log = record.ops.as_deref();
    if log.and_then(|o| o.get(op.session)).is_some_and(|e| e.seq == op.seq) {
        return Some(Refusal::Applied);
    }
    if seen.matches(record) {
        return None;
    }
    // Had this commit been applied, then under a number above what it saw. If no id of such a number was
    // dropped, it was not and, the version having moved on, never will be.
    let is_forgotten = record.ops_floor() > seen.number();
    Some(if is_forgotten { Refusal::Forgotten } else { Refusal::VersionDiffers })
}

fn install(record: &mut Record, intent: &Intent, version: u64) {
    match intent {
        Intent::Keep => return,
        Intent::Delete => record.value = None,
        Intent::Put(v) => record.value = Some(v.clone()),
    }
    record.version = version;
}

fn settle(record: &Record, tx: &TxId, version: u64, applies: bool) -> TxStep {
    let Some(lock) = record.lock().filter(|l| l.tx == *tx && l.version == version) else {
        return TxStep::Nothing(record.version);
    };
    let mut next = record.clone();
    if applies {
        install(&mut next, &lock.intent, lock.version);
        let op = lock.op;
        // Under the version's number, so that at rest the version tells what may have been forgotten.
        let n = lock.version;
        next.ops_mut().note(OpEntry { session: op.session, seq: op.seq, n, result: None });
    }
    next.unlock();
    let version = next.version;
    TxStep::Write(Box::new(next), version, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(entry: u64) -> TxId {
        TxId { ledger: Key::new(b"\xfftest"), entry }
    }
    fn op(seq: u64) -> OpId {
        OpId { session: SessionId(9), seq }
    }
    fn record(version: u64) -> Record {
        Record { version, value: Some(Value::int(1)), ops: None }
    }
    fn lock(entry: u64, seen: Seen) -> TxChange {
        let intent = Intent::Put(Value::int(2));
        TxChange::Lock { tx: tx(entry), seen, intent, validates: false, op: op(entry), waits: false }
    }
    fn written(step: TxStep) -> Record {
        let TxStep::Write(r, _, _) = step else { panic!("{step:?}") };
        *r
    }

    #[test]
    fn a_lock_keeps_value_and_version_and_lets_nobody_else_in() {
        let locked = written(lock(1, Seen::Version(5)).apply(&record(5), 8));
        assert_eq!((locked.version, &locked.value), (5, &Some(Value::int(1))));
        assert_eq!(lock(1, Seen::Version(5)).apply(&locked, 9), TxStep::Nothing(8), "repeated");
        assert_eq!(lock(2, Seen::Version(5)).apply(&locked, 9), TxStep::Locked);
        let install = TxChange::Install { seen: Seen::Version(5), intent: Intent::Delete, op: op(3) };
        assert_eq!(install.apply(&locked, 9), TxStep::Locked);
    }

    #[test]
    fn a_lock_needs_the_version_seen() {
        let refused = TxStep::Refused(Refusal::VersionDiffers);
        let mut remembered = record(5);
        remembered.ops = Some(Box::default());
        assert_eq!(lock(1, Seen::Version(4)).apply(&remembered, 8), refused);
        let forgotten = TxStep::Refused(Refusal::Forgotten);
        assert_eq!(lock(1, Seen::Version(4)).apply(&record(5), 8), forgotten, "at rest no id is remembered");
        assert_eq!(lock(1, Seen::Absent(9)).apply(&record(5), 8), refused);
        assert_eq!(
            lock(1, Seen::Version(5)).apply(&Record::absent(7), 8),
            TxStep::Refused(Refusal::Forgotten)
        );
        assert!(matches!(lock(1, Seen::Absent(3)).apply(&Record::absent(7), 8), TxStep::Write(..)));
    }

    #[test]
    fn a_lock_is_applied_under_its_own_version_and_remembers_the_commit() {
        let locked = written(lock(1, Seen::Version(5)).apply(&record(5), 8));
        let settle = |version, applies| TxChange::Settle { tx: tx(1), version, applies };
        assert_eq!(settle(7, true).apply(&locked, 12), TxStep::Nothing(5), "another lock");
        let applied = written(settle(8, true).apply(&locked, 12));
        assert_eq!((applied.version, &applied.value), (8, &Some(Value::int(2))));
        assert!(applied.lock().is_none());
        let again = lock(1, Seen::Version(5)).apply(&applied, 13);
        assert_eq!(again, TxStep::Refused(Refusal::Applied), "a late lock of the same commit");
        assert_eq!(settle(8, true).apply(&applied, 14), TxStep::Nothing(8));
        let released = written(settle(8, false).apply(&locked, 12));
        assert_eq!(released, record(5), "nothing is left of a released lock");
    }

    #[test]
    fn an_absent_key_that_shows_a_higher_number_may_have_been_there() {
        assert!(Seen::Absent(4).still_holds(Seen::Absent(4)));
        assert!(Seen::Absent(4).still_holds(Seen::Absent(2)));
        assert!(!Seen::Absent(4).still_holds(Seen::Absent(6)));
        assert!(!Seen::Absent(4).still_holds(Seen::Version(6)));
        assert!(Seen::Version(4).still_holds(Seen::Version(4)));
    }
}
