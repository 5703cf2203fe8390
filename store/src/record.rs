//! Keys and records.

use crate::ops::OpLog;
use crate::tx::Lock;
use crate::value::Value;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

/// The first byte of keys that clients cannot name: no text contains it.
pub const RESERVED: u8 = 0xff;

/// Keys up to this length are kept in place.
const INLINE_MAX: usize = 22;

/// A client's key. Short ones are kept in place, which saves every map an allocation a key; cloning a longer one
/// shares the bytes.
#[derive(Clone)]
pub struct Key(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Shared(Arc<[u8]>),
}

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Key {
        let mut inline = [0; INLINE_MAX];
        match (u8::try_from(bytes.len()), inline.get_mut(..bytes.len())) {
            (Ok(len), Some(room)) => {
                room.copy_from_slice(bytes);
                Key(Bytes::Inline { len, bytes: inline })
            }
            _ => Key(Bytes::Shared(bytes.into())),
        }
    }

    /// Whether it is one of those that clients cannot name.
    pub fn is_reserved(&self) -> bool {
        self.as_bytes().first() == Some(&RESERVED)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// The whole state of a key. Without a value it is a tombstone, or a key that never was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The n at which the value was written or deleted; 0 if the key never was.
    pub version: u64,
    /// The value.
    pub value: Option<Value>,
    /// Operation ids and what later versions add; absent when there are none, the usual state at rest.
    pub ops: Option<Box<OpLog>>,
}

impl Record {
    /// The record of a key that is not there; `floor` is the n up to which operations may have been forgotten.
    pub fn absent(floor: u64) -> Record {
        let ops = (floor > 0).then(|| Box::new(OpLog { floor, ..OpLog::default() }));
        Record { version: 0, value: None, ops }
    }

    /// The n up to which operation ids of this key may have been forgotten.
    pub fn ops_floor(&self) -> u64 {
        // Every id of a record was executed under an n up to its version: at rest that is floor enough.
        self.ops.as_ref().map_or(self.version, |o| o.floor)
    }

    /// The operation ids, made if there are none.
    pub fn ops_mut(&mut self) -> &mut OpLog {
        let floor = self.ops_floor();
        self.ops.get_or_insert_with(|| Box::new(OpLog { floor, ..OpLog::default() }))
    }

    /// The same record without the operation ids executed under `n` or before; none if it has no such.
    pub fn aged(&self, n: u64) -> Option<Record> {
        let mut log = self.ops.as_deref().filter(|o| o.entries.iter().any(|e| e.n <= n)).cloned()?;
        while log.entries.iter().next().is_some_and(|e| e.n <= n) {
            log.drop_oldest();
        }
        let ops = (!log.is_at_rest(self.version)).then(|| Box::new(log));
        Some(Record { ops, ..self.clone() })
    }

    /// The transaction's hold on the key, if there is one.
    pub fn lock(&self) -> Option<&Lock> {
        self.ops.as_ref()?.lock.as_deref()
    }

    /// Takes the lock away, and what was kept for it alone.
    pub fn unlock(&mut self) {
        if let Some(ops) = &mut self.ops {
            ops.lock = None;
            if ops.is_at_rest(self.version) {
                self.ops = None;
            }
        }
    }

    /// Whether nothing of it need be kept once every replica has it.
    pub fn is_gone(&self) -> bool {
        self.value.is_none() && self.lock().is_none()
    }

    /// Bytes of key, value and overhead that this record takes, for the memory limit.
    pub fn weight(&self, key: &Key) -> usize {
        let value = self.value.as_ref().map_or(0, |v| v.as_bytes().len());
        let lock = |o: &OpLog| o.lock.as_ref().map_or(0, |l| l.weight());
        let ops = self.ops.as_ref().map_or(0, |o| 72 + o.entries.packed_len() + o.extra.len() + lock(o));
        key.as_bytes().len() + value + ops + 170
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_compare_and_hash_as_their_bytes_do(a in proptest::collection::vec(0u8..3, 0..40),
                                                   b in proptest::collection::vec(0u8..3, 0..40)) {
            let (x, y) = (Key::new(&a), Key::new(&b));
            prop_assert_eq!(x.as_bytes(), &a[..]);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
        }
    }

    #[test]
    fn a_key_takes_three_words_and_an_entry_eight() {
        assert_eq!((size_of::<Key>(), size_of::<crate::Entry>()), (24, 64));
    }
}
