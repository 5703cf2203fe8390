//! Somebody else's lock, met at a key's home: what to do about it.
//!
//! The ledger that the lock names is read. A transaction that is decided, or cannot be committed any more, has
//! its locks ended here. One that is pending is left alone while it is young and its coordinator alive, and
//! aborted otherwise. Age is counted here, from when the lock was first met.
//!
//! Keeps:
//! 1. A lock is ended only on the word of its ledger.
//! 2. A pending transaction is aborted in the ledger before any of its locks is released.
//!
//! Source: `docs/protocol.md`, section 8.

use crate::api::Reply;
use core::time::Duration;
use ring::Time;
use std::collections::BTreeMap;
use store::{Key, Ledger, TxId, Verdict};

/// The first pause before a pending transaction's ledger is read again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// The ledger is read; the number of the read.
    Reading(u64),
    Aborting,
}

/// A transaction whose locks were met.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) tx: TxId,
    /// Its locks met here, with their versions.
    pub(crate) keys: BTreeMap<Key, u64>,
    first_met: Time,
    stage: Stage,
    pub(crate) wake_at: Time,
    pause: Duration,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until `wake_at`.
    Wait,
    /// Read the ledger's entry.
    Read,
    /// Abort the entry.
    Abort,
    /// It was pending at a moment after this read had begun.
    Pending(u64),
    /// End these locks: key, version, whether it is applied.
    End(Vec<(Key, u64, bool)>),
}

impl Watch {
    /// A transaction that is met for the first time.
    pub(crate) fn new(tx: TxId, now: Time, look_at: Time) -> Watch {
        let stage = Stage::Idle;
        Watch { tx, keys: BTreeMap::new(), first_met: now, stage, wake_at: look_at, pause: PAUSE_MIN }
    }

    /// Another lock of it, or somebody who waits for one.
    pub(crate) fn meet(&mut self, key: Key, version: u64, look_at: Time) {
        self.keys.insert(key, version);
        self.wake_at = self.wake_at.min(look_at);
    }

    /// Whether nothing is asked of the ledger.
    pub(crate) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// It is time, if it is.
    pub(crate) fn on_time(&mut self, now: Time, is_coordinator_live: bool, age_max: Duration) -> Next {
        if self.stage != Stage::Idle || self.wake_at > now {
            return Next::Wait;
        }
        let is_old = now.since(self.first_met) >= age_max;
        if is_old || !is_coordinator_live && now.since(self.first_met) >= PAUSE_MIN {
            self.stage = Stage::Aborting;
            Next::Abort
        } else {
            Next::Read
        }
    }

    /// The ledger is being read, for whoever came before.
    pub(crate) fn reads(&mut self, number: u64) {
        self.stage = Stage::Reading(number);
    }

    /// An answer of the ledger.
    pub(crate) fn on_answer(&mut self, now: Time, reply: &Reply) -> Next {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        self.wake_at = now + pause;
        match (stage, reply) {
            // Now it has an outcome, whoever gave it.
            (Stage::Aborting, Reply::Changed { .. }) => Next::Read,
            (Stage::Reading(number), Reply::Value { value, .. }) => {
                let verdict = Ledger::verdict_of(value.as_ref(), self.tx.entry);
                if verdict == Verdict::Pending {
                    return Next::Pending(number);
                }
                let of = |(k, v): (&Key, &u64)| (k.clone(), *v, verdict.applies(k, *v).unwrap_or(false));
                Next::End(self.keys.iter().map(of).collect())
            }
            (_, _) => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }
    fn watch() -> Watch {
        let tx = TxId { ledger: Key::new(b"\xff"), entry: 3 };
        let mut w = Watch::new(tx, at(0), at(0));
        w.meet(Key::new(b"a"), 7, at(0));
        w.meet(Key::new(b"b"), 8, at(0));
        w
    }
    const AGE: Duration = Duration::from_secs(1);

    #[test]
    fn a_young_transaction_of_a_live_coordinator_is_only_looked_at() {
        let mut w = watch();
        assert_eq!(w.on_time(at(0), true, AGE), Next::Read);
        w.reads(5);
        let open = Reply::Value { value: Some(Ledger::default().encode()), version: 1 };
        assert_eq!(w.on_answer(at(1), &open), Next::Pending(5));
        assert_eq!(w.on_time(at(2), true, AGE), Next::Wait);
        assert_eq!(w.on_time(at(900), true, AGE), Next::Read);
    }

    #[test]
    fn an_old_one_and_one_without_coordinator_are_aborted_in_the_ledger_first() {
        assert_eq!(watch().on_time(at(1000), true, AGE), Next::Abort);
        let mut w = watch();
        assert_eq!(w.on_time(at(30), false, AGE), Next::Abort);
        assert_eq!(w.on_answer(at(31), &Reply::Changed { version: 2, value: None }), Next::Read);
        w.reads(6);
        let gone = Reply::Value { value: None, version: 1 };
        let ends = vec![(Key::new(b"a"), 7, false), (Key::new(b"b"), 8, false)];
        assert_eq!(w.on_answer(at(32), &gone), Next::End(ends));
    }

    #[test]
    fn only_locks_that_the_ledger_lists_with_their_version_are_applied() {
        let mut w = watch();
        w.reads(1);
        let keys = vec![(Key::new(b"a"), 7), (Key::new(b"b"), 9)];
        let entries = BTreeMap::from([(3, store::ledger::Entry::Committed(keys))]);
        let ledger = Ledger { entries, ..Ledger::default() };
        let reply = Reply::Value { value: Some(ledger.encode()), version: 1 };
        let ends = vec![(Key::new(b"a"), 7, true), (Key::new(b"b"), 8, false)];
        assert_eq!(w.on_answer(at(1), &reply), Next::End(ends));
    }
}
