//! What memories hold: the registers of every acceptor, compared with what they held when they were last looked at.
//!
//! Keeps:
//! 1. I1: one record for each key and stamp, in all memories and all Accepts.
//! 2. A key's stamp in one memory only grows, and a key goes only if the floor covers its stamp, wherever the memory
//!    was moved.
//!
//! A register that is as it was when it was last looked at costs one comparison: nearly all of them are.

use crate::invariants::{Violation, broken};
use core::hash::{Hash, Hasher};
use paxos::Acceptor;
use ring::{Offset, ReplicaId, Slot, Space};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use store::{Key, Lock, Record, Stamp, Value};

/// A map for look-ups only, with the same hasher in every run.
type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A register when it was last looked at.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    version: u64,
    value: Option<Value>,
    lock: Option<Lock>,
}

impl Seen {
    fn of(stamp: Stamp, record: &Record) -> Seen {
        Seen { stamp, version: record.version, value: record.value.clone(), lock: record.lock().cloned() }
    }

    fn is(&self, stamp: Stamp, record: &Record) -> bool {
        self.stamp == stamp
            && self.version == record.version
            && self.value == record.value
            && self.lock.as_ref() == record.lock()
    }
}

/// What is remembered of all memories.
#[derive(Debug, Default)]
pub struct Memories {
    /// The record of a key and stamp, as a number.
    records: Lookup<(Key, Stamp), u64>,
    /// The operation ids of an Accept, as a number.
    accepts: Lookup<(Key, Stamp), u64>,
    seen: BTreeMap<(ReplicaId, Slot), BTreeMap<(Offset, Key), Seen>>,
}

impl Memories {
    /// I1: one record per key and stamp, in every Accept that is sent.
    pub fn i1_one_record_per_accept(
        &mut self,
        key: &Key,
        stamp: Stamp,
        record: &Record,
    ) -> Result<(), Violation> {
        self.i1_one_record_per_stamp(key, stamp, record)?;
        let print = match &record.ops {
            None => 0,
            Some(ops) => fingerprint(|h| {
                (ops.floor, &ops.extra).hash(h);
                for e in &ops.entries {
                    (e.session, e.seq, e.n, e.result).hash(h);
                }
            }),
        };
        let first = *self.accepts.entry((key.clone(), stamp)).or_insert(print);
        if first != print {
            return broken(
                "I1",
                format!("key {key:?} stamp {stamp} was sent with two sets of operation ids"),
            );
        }
        Ok(())
    }

    /// I1: one record per key and stamp, over all memories and messages.
    pub fn i1_one_record_per_stamp(
        &mut self,
        key: &Key,
        stamp: Stamp,
        record: &Record,
    ) -> Result<(), Violation> {
        let print = fingerprint(|h| {
            (record.version, &record.value).hash(h);
            if let Some(lock) = record.lock() {
                format!("{lock:?}").hash(h);
            }
        });
        let first = *self.records.entry((key.clone(), stamp)).or_insert(print);
        if first != print {
            return broken("I1", format!("key {key:?} stamp {stamp} has two records, one is {record:?}"));
        }
        Ok(())
    }

    /// Looks at every register of a node: I1, and that no stamp goes back in one memory.
    pub fn look<'a>(
        &mut self,
        space: &Space,
        acceptors: impl Iterator<Item = &'a Acceptor>,
    ) -> Result<(), Violation> {
        for a in acceptors {
            if a.is_active() {
                self.stamps_never_go_back(space, a)?;
            } else {
                for (_, key, entry) in a.registers.iter() {
                    self.i1_one_record_per_stamp(key, entry.stamp, &entry.record)?;
                }
            }
        }
        Ok(())
    }

    /// A key's stamp in one memory only grows; it may go only if the floor covers it.
    fn stamps_never_go_back(&mut self, space: &Space, a: &Acceptor) -> Result<(), Violation> {
        let mut seen = self.seen.remove(&(a.replica, a.slot)).unwrap_or_default();
        let looked = self.compare(space, a, &mut seen);
        self.seen.insert((a.replica, a.slot), seen);
        looked
    }

    /// Goes through what is there and what was there, both in order.
    fn compare(
        &mut self,
        space: &Space,
        a: &Acceptor,
        seen: &mut BTreeMap<(Offset, Key), Seen>,
    ) -> Result<(), Violation> {
        let mut changed: Vec<(Offset, &Key, &store::Entry)> = Vec::new();
        let mut before = seen.range((a.extent.lo, Key::new(b""))..).peekable();
        for (offset, key, entry) in a.registers.iter() {
            while let Some((at, s)) = before.next_if(|b| (b.0.0, &b.0.1) < (offset, key)) {
                is_covered(space, a, at, s)?;
            }
            match before.next_if(|b| b.0.0 == offset && b.0.1 == *key) {
                Some((_, s)) if s.is(entry.stamp, &entry.record) => {}
                Some((_, s)) if s.stamp > entry.stamp => {
                    return broken(
                        "stamps",
                        format!(
                            "key {key:?} at {} of slot {} went from {} back to {} in {:?}, epoch {}",
                            a.replica, a.slot, s.stamp, entry.stamp, a.extent, a.configuration.epoch
                        ),
                    );
                }
                Some(_) | None => changed.push((offset, key, entry)),
            }
        }
        for (at, s) in before.take_while(|b| b.0.0 <= a.extent.hi) {
            is_covered(space, a, at, s)?;
        }
        for (offset, key, entry) in changed {
            self.i1_one_record_per_stamp(key, entry.stamp, &entry.record)?;
            seen.insert((offset, key.clone()), Seen::of(entry.stamp, &entry.record));
        }
        Ok(())
    }
}

/// What was there and is not there any more is covered by the floor.
fn is_covered(space: &Space, a: &Acceptor, at: &(Offset, Key), s: &Seen) -> Result<(), Violation> {
    let (home, _) = space.locate(at.1.as_bytes());
    if a.homes.get(usize::from(home)).is_none_or(|h| h.floor < s.stamp) {
        return broken(
            "stamps",
            format!("key {:?} with {} vanished from {}, no floor", at.1, s.stamp, a.replica),
        );
    }
    Ok(())
}

fn fingerprint(feed: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut h = DefaultHasher::new();
    feed(&mut h);
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::configuration::{Configuration, Member};
    use ring::{Extent, NodeId, RingId};
    use std::sync::Arc;
    use store::Ballot;

    fn acceptor(hi: u128) -> Acceptor {
        let members = (1..=3)
            .map(|n| Member { replica: ReplicaId { node: NodeId(n), counter: 1 }, since: 1 })
            .collect();
        let configuration = Arc::new(Configuration::new(RingId(1), 1, members));
        Acceptor::new(0, Extent::new(0, hi), configuration, true)
    }
    fn stamp(n: u64) -> Stamp {
        Stamp { ballot: Ballot { counter: 1, node: NodeId(1) }, n }
    }
    fn record(version: u64, text: &str) -> Record {
        Record { version, value: Some(Value::string(text)), ops: None }
    }

    #[test]
    fn two_records_under_one_stamp_are_seen() {
        let mut m = Memories::default();
        let k = Key::new(b"k");
        m.i1_one_record_per_accept(&k, stamp(4), &record(4, "a")).expect("first");
        assert!(m.i1_one_record_per_stamp(&k, stamp(4), &record(4, "b")).is_err());
        let mut ids = record(4, "a");
        ids.ops_mut().floor = 3;
        assert!(m.i1_one_record_per_accept(&k, stamp(4), &ids).is_err(), "other operation ids");
    }

    #[test]
    fn a_key_that_vanishes_or_goes_back_is_seen() {
        let space = Space::new(3).expect("valid");
        let mut m = Memories::default();
        let keys = [Key::new(b"a"), Key::new(b"k"), Key::new(b"z")];
        let mut a = acceptor(space.whole().hi);
        for (n, k) in (3..).zip(&keys) {
            let (home, offset) = space.locate(k.as_bytes());
            a.accept(home, stamp(n), offset, k, &record(n, "a"), 0).expect("granted");
        }
        m.look(&space, [a.clone()].iter()).expect("fine");
        m.look(&space, [a.clone()].iter()).expect("still fine");
        for k in &keys {
            let (home, offset) = space.locate(k.as_bytes());
            let entry = a.registers.get(offset, k).expect("there").clone();
            let mut dropped = a.clone();
            assert!(dropped.drop_key(home, entry.stamp, offset, k));
            m.look(&space, [dropped].iter()).expect("covered by the floor");
            let mut lost = a.clone();
            lost.registers.remove(offset, k);
            assert!(m.look(&space, [lost].iter()).is_err(), "{k:?} vanished");
            let mut back = a.clone();
            back.registers.insert(offset, k.clone(), store::Entry { stamp: stamp(1), ..entry.clone() });
            assert!(m.look(&space, [back].iter()).is_err(), "{k:?} went back");
            let mut other = a.clone();
            other.registers.insert(offset, k.clone(), store::Entry { record: record(9, "b"), ..entry });
            assert!(m.look(&space, [other].iter()).is_err(), "{k:?} changed under its stamp");
        }
    }

    #[test]
    fn what_lies_beyond_a_piece_is_not_missed_in_it() {
        let space = Space::new(3).expect("valid");
        let mut m = Memories::default();
        let mut a = acceptor(space.whole().hi);
        for k in [b"a", b"k", b"z"].map(|k| Key::new(k)) {
            let (home, offset) = space.locate(k.as_bytes());
            a.accept(home, stamp(3), offset, &k, &record(3, "a"), 0).expect("granted");
        }
        m.look(&space, [a.clone()].iter()).expect("fine");
        let middle = a.registers.iter().nth(1).map(|e| e.0).expect("three keys");
        let high = a.split_off(middle);
        m.look(&space, [a].iter()).expect("the lower part");
        m.look(&space, [high].iter()).expect("the upper part");
    }
}
