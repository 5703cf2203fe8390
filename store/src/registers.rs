//! The registers of one extent: records by offset and key, counted in bytes, split and joined by offset.
//!
//! Keeps:
//! 1. `weight` is the sum of the weights of all entries.
//! 2. Entries are ordered by (offset, key), so that an extent is a range.
//! 3. `unfinished` is the keys whose record has a lock, and the reserved ones: whatever transactions left.

use crate::record::{Key, Record};
use crate::stamp::Stamp;
use ring::{Extent, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// A key's accepted record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Under which it was accepted.
    pub stamp: Stamp,
    /// The record.
    pub record: Record,
    /// Whether it was accepted here, or reported settled by all of the donors it was filled from.
    pub settled: bool,
    /// The serial number of the local reign that synced it, 0 for none. Local to the process, never sent.
    pub mark: u32,
}

/// The place of a key in the order. The offset is kept as two words: in a tuple its alignment would cost eight
/// bytes a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    high: u64,
    low: u64,
    key: Key,
}

impl Place {
    fn new(offset: Offset, key: Key) -> Place {
        let b = offset.to_be_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15] = b;
        let high = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        let low = u64::from_be_bytes([b8, b9, b10, b11, b12, b13, b14, b15]);
        Place { high, low, key }
    }

    fn offset(&self) -> Offset {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

/// The registers of one extent.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    map: BTreeMap<Place, Entry>,
    weight: usize,
    unfinished: BTreeSet<(Offset, Key)>,
}

fn is_unfinished(key: &Key, record: &Record) -> bool {
    record.lock().is_some() || key.is_reserved()
}

impl Registers {
    /// No registers.
    pub fn new() -> Registers {
        Registers::default()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes taken, overhead included, estimated.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The entry of a key.
    pub fn get(&self, offset: Offset, key: &Key) -> Option<&Entry> {
        // A place cannot be looked up by parts, and cloning a key is a copy or one counter.
        self.map.get(&Place::new(offset, key.clone()))
    }

    /// Sets a key's local mark.
    pub fn set_mark(&mut self, offset: Offset, key: &Key, mark: u32) {
        if let Some(e) = self.map.get_mut(&Place::new(offset, key.clone())) {
            e.mark = mark;
        }
    }

    /// Replaces the entry of a key.
    pub fn insert(&mut self, offset: Offset, key: Key, entry: Entry) {
        self.weight += entry.record.weight(&key);
        let is_now = is_unfinished(&key, &entry.record);
        let was_before;
        let at = Place::new(offset, key.clone());
        if let Some(slot) = self.map.get_mut(&at) {
            was_before = is_unfinished(&at.key, &slot.record);
            self.weight -= slot.record.weight(&at.key);
            *slot = entry;
        } else {
            was_before = false;
            self.map.insert(at, entry);
        }
        match (was_before, is_now) {
            (false, true) => drop(self.unfinished.insert((offset, key))),
            (true, false) => drop(self.unfinished.remove(&(offset, key))),
            (true, true) | (false, false) => {}
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, offset: Offset, key: &Key) -> Option<Entry> {
        let gone = self.map.remove(&Place::new(offset, key.clone()))?;
        self.weight -= gone.record.weight(key);
        if is_unfinished(key, &gone.record) {
            self.unfinished.remove(&(offset, key.clone()));
        }
        Some(gone)
    }

    /// Takes out everything at `offset` and above.
    pub fn split_off(&mut self, offset: Offset) -> Registers {
        let map = self.map.split_off(&Place::new(offset, Key::new(b"")));
        let unfinished = self.unfinished.split_off(&(offset, Key::new(b"")));
        let weight = map.iter().map(|(p, e)| e.record.weight(&p.key)).sum();
        self.weight -= weight;
        Registers { map, weight, unfinished }
    }

    /// Adds everything of `other`, whose keys must not be here yet.
    pub fn append(&mut self, mut other: Registers) {
        self.map.append(&mut other.map);
        self.unfinished.append(&mut other.unfinished);
        self.weight += other.weight;
    }

    /// The last offset of the shortest beginning of `extent` that weighs at least `bytes`; its end if all of it
    /// weighs less.
    pub fn first_of(&self, extent: Extent, bytes: usize) -> Offset {
        let entries = self.map.range(Place::new(extent.lo, Key::new(b""))..);
        let weights = entries.map(|(p, e)| (p.offset(), e.record.weight(&p.key)));
        let entries = weights.take_while(|x| x.0 <= extent.hi);
        Self::reach(entries, bytes).unwrap_or(extent.hi)
    }

    /// The first offset of the shortest end of `extent` that weighs at least `bytes`.
    pub fn last_of(&self, extent: Extent, bytes: usize) -> Offset {
        let above = extent.hi.checked_add(1).map(|hi| Place::new(hi, Key::new(b"")));
        let above = above.map_or(Bound::Unbounded, Bound::Excluded);
        let low = Bound::Included(Place::new(extent.lo, Key::new(b"")));
        let entries = self.map.range((low, above)).rev();
        Self::reach(entries.map(|(p, e)| (p.offset(), e.record.weight(&p.key))), bytes).unwrap_or(extent.lo)
    }

    /// The offset at which the weights come to `bytes`, if others follow it: keys of one offset stay together.
    fn reach(entries: impl Iterator<Item = (Offset, usize)>, bytes: usize) -> Option<Offset> {
        let (mut sum, mut last) = (0, None);
        for (offset, weight) in entries {
            if sum >= bytes && last.is_some_and(|l| l != offset) {
                return last;
            }
            sum += weight;
            last = Some(offset);
        }
        None
    }

    /// The entries of `extent` after `after`, in order.
    pub fn range<'a>(
        &'a self,
        extent: Extent,
        after: Option<&(Offset, Key)>,
    ) -> impl Iterator<Item = (Offset, &'a Key, &'a Entry)> + use<'a> {
        let (from, low) = match after {
            Some(a) if a.0 >= extent.lo => (a.0, Bound::Excluded(Place::new(a.0, a.1.clone()))),
            _ => (extent.lo, Bound::Included(Place::new(extent.lo, Key::new(b"")))),
        };
        // An `after` beyond the extent leaves nothing.
        (from <= extent.hi)
            .then(|| self.map.range((low, Bound::Unbounded)))
            .into_iter()
            .flatten()
            .map(|(p, e)| (p.offset(), &p.key, e))
            .take_while(move |(o, _, _)| *o <= extent.hi)
    }

    /// The keys of `extent` that a transaction has a hold on, and the reserved ones.
    pub fn unfinished(&self, extent: Extent) -> impl Iterator<Item = &(Offset, Key)> {
        let low = (extent.lo, Key::new(b""));
        self.unfinished.range(low..).take_while(move |at| at.0 <= extent.hi)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (Offset, &Key, &Entry)> {
        self.map.iter().map(|(p, e)| (p.offset(), &p.key, e))
    }

    /// Changes all entries in place; the records must keep their weights.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(Offset, &Key, &mut Entry)) {
        for (p, e) in &mut self.map {
            f(p.offset(), &p.key, e);
        }
    }

    /// Count and digest of an extent, the same for the same keys and stamps in any order.
    pub fn digest(&self, extent: Extent) -> (u64, u64) {
        self.range(extent, None).fold((0, 0), |(n, d), (_, k, e)| (n + 1, d ^ entry_digest(k, e)))
    }
}

/// The digest of one entry: its key and stamp, which determine its record, and whether it is settled.
pub fn entry_digest(key: &Key, entry: &Entry) -> u64 {
    // FNV-1a, then a finisher, so that the xor of many entries keeps no structure.
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for b in bytes {
            h = (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    eat(key.as_bytes());
    eat(&entry.stamp.ballot.counter.to_be_bytes());
    eat(&entry.stamp.ballot.node.0.to_be_bytes());
    eat(&entry.stamp.n.to_be_bytes());
    eat(&entry.record.version.to_be_bytes());
    eat(&[u8::from(entry.settled)]);
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Ballot;
    use crate::value::Value;
    use proptest::prelude::*;

    fn entry(n: u64) -> Entry {
        let record =
            Record { version: n, value: Some(Value::int(i64::try_from(n).expect("small"))), ops: None };
        Entry { stamp: Stamp { ballot: Ballot::ZERO, n }, record, settled: true, mark: 0 }
    }
    fn key(i: u16) -> Key {
        Key::new(&i.to_be_bytes())
    }

    #[test]
    fn what_transactions_left_is_found_wherever_it_was_moved() {
        use crate::tx::{Intent, Lock, OpId, TxId};
        let tx = TxId { ledger: Key::new(b"\xff"), entry: 1 };
        let mut locked = entry(1);
        let lock = Lock { tx, version: 1, intent: Intent::Keep, validates: false, op: OpId::default() };
        locked.record.ops_mut().lock = Some(Box::new(lock));
        let whole = Extent::new(0, 9);
        let found = |r: &Registers| r.unfinished(whole).map(|(o, _)| *o).collect::<Vec<_>>();
        let mut r = Registers::new();
        r.insert(2, key(2), locked.clone());
        r.insert(4, key(4), locked);
        r.insert(5, key(5), entry(5));
        r.insert(6, Key::new(b"\xffL"), entry(6));
        let high = r.split_off(4);
        assert_eq!((found(&r), found(&high)), (vec![2], vec![4, 6]));
        r.append(high);
        r.insert(2, key(2), entry(9));
        r.remove(6, &Key::new(b"\xffL"));
        assert_eq!(found(&r), [4]);
    }

    proptest! {
        #[test]
        fn split_and_append_lose_nothing(keys in proptest::collection::btree_set(0u16..500, 0..60), at in 0u128..500) {
            let mut r = Registers::new();
            for k in &keys { r.insert(u128::from(*k / 3), key(*k), entry(u64::from(*k))); }
            let whole = Extent::new(0, 1000);
            let (before, weight) = (r.digest(whole), r.weight());
            let high = r.split_off(at);
            prop_assert!(r.iter().all(|(o, _, _)| o < at) && high.iter().all(|(o, _, _)| o >= at));
            prop_assert_eq!(r.weight() + high.weight(), weight);
            r.append(high);
            prop_assert_eq!((r.digest(whole), r.weight()), (before, weight));
        }

        #[test]
        fn pages_of_a_range_visit_each_key_once(keys in proptest::collection::btree_set(0u16..500, 0..60), page in 1usize..9) {
            let mut r = Registers::new();
            for k in &keys { r.insert(u128::from(*k / 3), key(*k), entry(u64::from(*k))); }
            let extent = Extent::new(10, 90);
            let all: Vec<_> = r.range(extent, None).map(|(o, k, _)| (o, k.clone())).collect();
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let got: Vec<_> = r.range(extent, after.as_ref()).take(page).map(|(o, k, _)| (o, k.clone())).collect();
                if got.is_empty() { break; }
                after = got.last().cloned();
                seen.extend(got);
            }
            prop_assert_eq!(seen, all);
        }
    }
}
