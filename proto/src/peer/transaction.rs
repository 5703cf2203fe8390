//! Transactions on the wire between nodes, both ways.

use super::{WireError, parts as p, take as t, wire};
use store::{Intent, Key, LedgerChange, Lock, OpId, Seen, SessionId, TxChange, TxId};
use wire::tx_change::Kind;

type Taken<T> = Result<T, WireError>;

fn tx_to_wire(tx: &TxId) -> wire::TxId {
    wire::TxId { ledger: p::key(&tx.ledger), entry: tx.entry }
}

fn tx(w: Option<wire::TxId>) -> Taken<TxId> {
    t::need(w, "tx").map(|w| TxId { ledger: t::key(&w.ledger), entry: w.entry })
}

fn op_to_wire(op: OpId) -> wire::OpId {
    wire::OpId { session: op.session.0, seq: op.seq }
}

fn op(w: Option<wire::OpId>) -> Taken<OpId> {
    t::need(w, "op").map(|w| OpId { session: SessionId(w.session), seq: w.seq })
}

pub(crate) fn seen_to_wire(seen: Seen) -> wire::TxSeen {
    wire::TxSeen { is_present: matches!(seen, Seen::Version(_)), number: seen.number() }
}

pub(crate) fn seen(w: Option<wire::TxSeen>) -> Taken<Seen> {
    t::need(w, "seen").map(|w| Seen::of(w.number, w.is_present))
}

pub(crate) fn intent_to_wire(intent: &Intent) -> wire::TxIntent {
    use wire::IntentKind as Of;
    let (kind, value) = match intent {
        Intent::Keep => (Of::Keep, bytes::Bytes::new()),
        Intent::Delete => (Of::Delete, bytes::Bytes::new()),
        Intent::Put(v) => (Of::Put, p::value(v)),
    };
    wire::TxIntent { kind: i32::from(kind), value }
}

pub(crate) fn intent(w: Option<wire::TxIntent>) -> Taken<Intent> {
    use wire::IntentKind as Of;
    let w = t::need(w, "intent")?;
    match Of::try_from(w.kind) {
        Ok(Of::Keep) => Ok(Intent::Keep),
        Ok(Of::Delete) => Ok(Intent::Delete),
        Ok(Of::Put) => Ok(Intent::Put(t::value(&w.value)?)),
        Ok(Of::Unspecified) | Err(_) => Err(WireError::OutOfRange("intent")),
    }
}

/// A record's lock on its way out.
pub(super) fn lock_to_wire(lock: &Lock) -> wire::TxLock {
    wire::TxLock {
        tx: Some(tx_to_wire(&lock.tx)),
        version: lock.version,
        intent: Some(intent_to_wire(&lock.intent)),
        validates: lock.validates,
        op: Some(op_to_wire(lock.op)),
    }
}

/// A record's lock on its way in.
pub(super) fn lock(w: wire::TxLock) -> Taken<Lock> {
    Ok(Lock {
        tx: tx(w.tx)?,
        version: w.version,
        intent: intent(w.intent)?,
        validates: w.validates,
        op: op(w.op)?,
    })
}

fn commit_to_wire((number, keys): &(u64, Vec<(Key, u64)>)) -> wire::TxCommit {
    let one = |(k, v): &(Key, u64)| wire::TxVersion { key: p::key(k), version: *v };
    wire::TxCommit { number: *number, keys: keys.iter().map(one).collect() }
}

fn commit(w: wire::TxCommit) -> (u64, Vec<(Key, u64)>) {
    (w.number, w.keys.into_iter().map(|k| (t::key(&k.key), k.version)).collect())
}

fn ledger_to_wire(c: &LedgerChange) -> Kind {
    match c {
        LedgerChange::Create => Kind::LedgerCreate(wire::tx_change::Empty {}),
        LedgerChange::Decide { commits, done, low } => Kind::LedgerDecide(wire::tx_change::Decide {
            commits: commits.iter().map(commit_to_wire).collect(),
            done: done.clone(),
            low: *low,
        }),
        LedgerChange::Abort(number) => Kind::LedgerAbort(*number),
        LedgerChange::Close => Kind::LedgerClose(wire::tx_change::Empty {}),
        LedgerChange::Applied(numbers) => {
            Kind::LedgerApplied(wire::tx_change::Applied { numbers: numbers.clone() })
        }
    }
}

/// A transaction's change on its way out.
pub(super) fn change_to_wire(change: &TxChange) -> wire::TxChange {
    let kind = match change {
        TxChange::Lock { tx, seen, intent, validates, op, waits } => Kind::Lock(wire::tx_change::Lock {
            tx: Some(tx_to_wire(tx)),
            seen: Some(seen_to_wire(*seen)),
            intent: Some(intent_to_wire(intent)),
            validates: *validates,
            op: Some(op_to_wire(*op)),
            waits: *waits,
        }),
        TxChange::Settle { tx, version, applies } => Kind::Settle(wire::tx_change::Settle {
            tx: Some(tx_to_wire(tx)),
            version: *version,
            applies: *applies,
        }),
        TxChange::Install { seen, intent, op } => Kind::Install(wire::tx_change::Install {
            seen: Some(seen_to_wire(*seen)),
            intent: Some(intent_to_wire(intent)),
            op: Some(op_to_wire(*op)),
        }),
        TxChange::Ledger(c) => ledger_to_wire(c),
    };
    wire::TxChange { kind: Some(kind) }
}

/// A transaction's change on its way in.
pub(super) fn change(w: wire::TxChange) -> Taken<TxChange> {
    let ledger = |c| Ok(TxChange::Ledger(c));
    match t::need(w.kind, "kind")? {
        Kind::Lock(w) => Ok(TxChange::Lock {
            tx: tx(w.tx)?,
            seen: seen(w.seen)?,
            intent: intent(w.intent)?,
            validates: w.validates,
            op: op(w.op)?,
            waits: w.waits,
        }),
        Kind::Settle(w) => Ok(TxChange::Settle { tx: tx(w.tx)?, version: w.version, applies: w.applies }),
        Kind::Install(w) => {
            Ok(TxChange::Install { seen: seen(w.seen)?, intent: intent(w.intent)?, op: op(w.op)? })
        }
        Kind::LedgerCreate(_) => ledger(LedgerChange::Create),
        Kind::LedgerDecide(w) => ledger(LedgerChange::Decide {
            commits: w.commits.into_iter().map(commit).collect(),
            done: w.done,
            low: w.low,
        }),
        Kind::LedgerAbort(number) => ledger(LedgerChange::Abort(number)),
        Kind::LedgerClose(_) => ledger(LedgerChange::Close),
        Kind::LedgerApplied(w) => ledger(LedgerChange::Applied(w.numbers)),
    }
}
