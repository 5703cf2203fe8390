//! Locks at the home of a key: who waits behind one, and what a transaction's change makes of a record.
//!
//! What meets a foreign lock waits at the home, in the order of arrival, until the lock is gone, its time is up,
//! or, for a read, the lock's transaction was found pending after the read came.
//!
//! Keeps:
//! 1. What waits was not executed: if the reign ends it is answered so.
//! 2. A read is given the value behind a pending lock only if the transaction holds locks on all its keys, and
//!    only on the word of a ledger read that began after the read had come.
//!
//! Source: `docs/protocol.md`, section 8.

use crate::message::{Answer, Attempt, Operation};
use crate::node::DhtNode;
use crate::plant::Plant;
use crate::reign::Origin;
use crate::tx::Ticket;
use core::time::Duration;
use ring::{NodeRef, Offset, Slot, Time};
use std::collections::BTreeMap;
use store::{Key, Ledger, LedgerChange, Lock, OpId, Record, Seen, Stamp, TxChange, TxId, TxStep};

/// Whoever waits behind a lock gives its transaction this long before the ledger is asked.
const GRACE: Duration = Duration::from_millis(10);

/// The longest pause before a home is asked again of what a replica shows unfinished.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Homes asked in one turn.
const ASKS_MAX: usize = 8;

/// What a replica shows unfinished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfinished {
    stamp: Stamp,
    ask_at: Time,
    pause: Duration,
}

/// An operation that waits behind a lock.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) from: NodeRef,
    pub(crate) attempt: Attempt,
    pub(crate) until: Time,
    /// Reads of the ledger up to this one began before it came.
    after_read: u64,
}

/// Whether a read may be told the value behind a pending lock.
pub(super) fn takes_old_value(operation: &Operation) -> bool {
    matches!(operation, Operation::Get | Operation::Inspect { waits: false })
}

/// Whether an operation does not wait behind a foreign lock at all.
pub(super) fn fails_at_once(operation: &Operation, lock: &Lock) -> bool {
    match operation {
        // An earlier commit of the same log may have set it: that one has to end first.
        Operation::Tx(c) => matches!(&**c, TxChange::Lock { waits: false, op, .. } if *op != lock.op),
        Operation::Get | Operation::Inspect { .. } | Operation::Resync | Operation::Change(_) => false,
    }
}

/// Whether a lock is in an operation's way.
pub(crate) fn is_in_the_way(lock: &Lock, operation: &Operation) -> bool {
    match operation {
        Operation::Get | Operation::Inspect { .. } | Operation::Change(_) => true,
        Operation::Resync => false,
        Operation::Tx(c) => match &**c {
            TxChange::Lock { tx, .. } => lock.tx != *tx,
            TxChange::Install { .. } => true,
            TxChange::Settle { .. } | TxChange::Ledger(_) => false,
        },
    }
}

/// What a change makes of a record, executed under `n`, where a test breaks the rule that is in its way.
pub(crate) fn broken(plant: Plant, change: &TxChange, record: &Record, n: u64) -> Option<TxStep> {
    let mut change = change.clone();
    let mut record = record.clone();
    match (plant, &mut change) {
        (Plant::LockWithoutVersion, TxChange::Lock { seen, .. } | TxChange::Install { seen, .. }) => {
            *seen = Seen::of(record.version, record.value.is_some());
        }
        (Plant::SettleAnyLock, TxChange::Settle { tx, version, .. }) => {
            let lock = record.lock()?;
            (*tx, *version) = (lock.tx.clone(), lock.version);
        }
        (Plant::ApplyWithoutId, TxChange::Install { op, .. }) => *op = OpId::default(),
        (Plant::ApplyWithoutId, TxChange::Settle { .. }) => {
            record.ops_mut().lock.as_mut()?.op = OpId::default();
        }
        (Plant::DecideCreates, TxChange::Ledger(LedgerChange::Decide { .. })) if record.value.is_none() => {
            let TxStep::Write(made, _, _) = LedgerChange::Create.apply(&record, n) else { return None };
            record = *made;
        }
        (_, _) => return None,
    }
    Some(change.apply(&record, n))
}

impl DhtNode {
    /// An operation met a foreign lock: it waits, or is answered that the key is locked.
    pub(crate) fn wait_behind(
        &mut self,
        rat: (Slot, Offset),
        at: &(Offset, Key),
        from: NodeRef,
        attempt: Attempt,
        lock: &Lock,
    ) {
        let now = self.ctx.now;
        let is_patient = !takes_old_value(&attempt.operation) || lock.validates;
        let grace = if is_patient { GRACE } else { Duration::ZERO };
        self.meet_lock(&at.1, &lock.tx, lock.version, now + grace);
        let queue_max = self.ctx.config.queue_per_key_max;
        let (until, after_read) = (now + self.ctx.config.lock_wait, self.tx.last_read);
        let origin = Origin::of(from, &attempt);
        if fails_at_once(&attempt.operation, lock) {
            self.answer_for(rat, origin, Answer::Locked);
            return;
        }
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let k = r.keys.entry(at.clone()).or_default();
        if k.blocked.len() >= queue_max {
            self.answer_for(rat, origin, Answer::Busy);
            return;
        }
        k.blocked.push_back(Blocked { from, attempt, until, after_read });
        self.homes.schedule(until);
    }

    /// Answers those whose time behind a lock is up.
    pub(crate) fn scan_blocked(&mut self, rat: (Slot, Offset)) {
        let now = self.ctx.now;
        let Some(r) = self.homes.reigns.get_mut(rat) else { return };
        let mut late = Vec::new();
        for k in r.keys.values_mut() {
            while k.blocked.front().is_some_and(|b| b.until <= now) {
                late.extend(k.blocked.pop_front().map(|b| Origin::of(b.from, &b.attempt)));
            }
        }
        r.keys.retain(|_, k| !k.is_idle());
        for origin in late {
            self.answer_for(rat, origin, Answer::Locked);
        }
    }

    /// A transaction was pending after the ledger read `number` began: reads that came before that may have the
    /// old value.
    pub(crate) fn release_readers_of_pending(&mut self, tx: &TxId, keys: &[Key], number: u64) {
        for key in keys {
            let (home, offset) = self.ctx.space.locate(key.as_bytes());
            let Some(r) = self.homes.reigns.find_mut(home, offset).filter(|r| r.is_reigning()) else {
                continue;
            };
            let (rat, at, anchor) = ((home, r.extent.lo), (offset, key.clone()), r.anchor);
            let Some(k) = r.keys.get_mut(&at) else { continue };
            let entry = self.acceptors.entry(anchor, offset, key);
            let Some(record) = entry.map(|e| e.record.clone()) else { continue };
            let is_planted = self.ctx.is_planted(Plant::PendingAlwaysOld);
            if record.lock().is_none_or(|l| l.tx != *tx || l.validates && !is_planted) {
                continue;
            }
            let is_any = self.ctx.is_planted(Plant::PendingStaleWord);
            let (free, rest) = std::mem::take(&mut k.blocked)
                .into_iter()
                .partition(|b| (b.after_read < number || is_any) && takes_old_value(&b.attempt.operation));
            k.blocked = rest;
            let free: std::collections::VecDeque<Blocked> = free;
            for b in free {
                self.answer_read(rat, &at, &b, &record);
            }
            if let Some(r) = self.homes.reigns.get_mut(rat)
                && r.keys.get(&at).is_some_and(crate::reign::KeyState::is_idle)
            {
                r.keys.remove(&at);
            }
        }
    }

    /// Whether this node's memory has this lock.
    pub(crate) fn holds_lock(&self, key: &Key, tx: &TxId, version: u64) -> bool {
        let (_, offset) = self.ctx.space.locate(key.as_bytes());
        self.ctx.space.slots().any(|slot| {
            self.acceptors
                .entry(slot, offset, key)
                .and_then(|e| e.record.lock())
                .is_some_and(|l| l.tx == *tx && l.version == version)
        })
    }

    /// Looks at what transactions left in this node's reigns: locks that nobody ends, ledgers that nobody owns.
    pub(crate) fn look_after_transactions(&mut self) {
        let now = self.ctx.now;
        if self.tx.next_look > now {
            return;
        }
        self.tx.next_look = now + Duration::from_millis(300);
        let mut found: Vec<(Key, Stamp, Record)> = Vec::new();
        let mut stale = Vec::new();
        for r in self.homes.reigns.iter().filter(|r| r.is_reigning() && !r.is_draining) {
            let pieces = self.acceptors.parts(r.anchor, r.extent).map(|(_, a)| a);
            for (a, (offset, key)) in
                pieces.flat_map(|a| a.registers.unfinished(r.extent).map(move |k| (a, k)))
            {
                if self.ctx.space.locate(key.as_bytes()).0 == r.home
                    && let Some(e) = a.registers.get(*offset, key)
                {
                    if e.mark == r.serial {
                        found.push((key.clone(), e.stamp, e.record.clone()));
                    } else if r.keys.get(&(*offset, key.clone())).is_none_or(|k| k.sync.is_none()) {
                        stale.push(((r.home, r.extent.lo), (*offset, key.clone())));
                    }
                }
            }
        }
        // What the local replica shows may have been ended long ago.
        for (rat, at) in stale {
            self.begin_sync(rat, at);
        }
        self.ask_homes_of_unfinished();
        let look_at = now + self.ctx.config.lock_age_max;
        for (key, stamp, record) in found {
            if let Some(lock) = record.lock() {
                self.meet_lock(&key, &lock.tx, lock.version, look_at);
            } else if let Some(value) = &record.value {
                let ledger = Ledger::decode(value);
                self.meet_ledger(&key, stamp, ledger.as_ref());
            }
        }
    }

    /// What a replica has had unfinished for long, without leading there itself, its home may not know of: a read
    /// makes it look. Rarer and rarer, since a replica that missed the end shows it until the key is written.
    fn ask_homes_of_unfinished(&mut self) {
        let (now, age_max) = (self.ctx.now, self.ctx.config.lock_age_max);
        let mut here: BTreeMap<Key, Stamp> = BTreeMap::new();
        for a in self.acceptors.owned().filter(|a| a.is_active()) {
            for (offset, key) in a.registers.unfinished(a.extent) {
                let home = self.ctx.space.locate(key.as_bytes()).0;
                let leads = self.homes.reigns.find(home, *offset).is_some_and(|r| r.is_reigning());
                if let Some(e) = a.registers.get(*offset, key).filter(|_| !leads) {
                    here.insert(key.clone(), e.stamp);
                }
            }
        }
        self.tx.unfinished.retain(|k, u| here.get(k) == Some(&u.stamp));
        let mut due = Vec::new();
        for (key, stamp) in here {
            let first = Unfinished { stamp, ask_at: now + age_max, pause: age_max };
            let u = self.tx.unfinished.entry(key.clone()).or_insert(first);
            if u.ask_at <= now && due.len() < ASKS_MAX {
                u.pause = (u.pause * 2).min(ASK_PAUSE_MAX);
                u.ask_at = now + u.pause;
                due.push(key);
            }
        }
        for key in due {
            self.begin_job_operation(Ticket::NOBODY, key, Operation::Resync, false);
        }
    }
}
