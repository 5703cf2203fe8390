//! Keys and records.

use crate::ops::OpLog;
use crate::tx::Lock;
use crate::value::Value;
use core::fmt;
use std::sync::Arc;

/// The first byte of keys that clients cannot name: no text contains it.
pub const RESERVED: u8 = 0xff;

/// A client's key. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Key {
        Key(bytes.into())
    }

    /// Whether it is one of those that clients cannot name.
    pub fn is_reserved(&self) -> bool {
        self.0.first() == Some(&RESERVED)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
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
        self.ops.as_ref().map_or(0, |o| o.floor)
    }

    /// The operation ids, made if there are none.
    pub fn ops_mut(&mut self) -> &mut OpLog {
        self.ops.get_or_insert_default()
    }

    /// The transaction's hold on the key, if there is one.
    pub fn lock(&self) -> Option<&Lock> {
        self.ops.as_ref()?.lock.as_deref()
    }

    /// Takes the lock away, and what was kept for it alone.
    pub fn unlock(&mut self) {
        if let Some(ops) = &mut self.ops {
            ops.lock = None;
            if ops.is_empty() {
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
        let ops = self.ops.as_ref().map_or(0, |o| 96 + 40 * o.entries.len() + o.extra.len() + lock(o));

        key.as_bytes().len() + value + ops + 200
    }
}
