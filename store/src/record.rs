//! Keys and records.

use crate::ops::OpLog;
use crate::value::Value;
use core::fmt;
use std::sync::Arc;

/// A client's key. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Key {
        Key(bytes.into())
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
        while log.entries.first().is_some_and(|e| e.n <= n) {
            log.drop_oldest();
        }
        let is_at_rest = log.entries.is_empty() && log.extra.is_empty() && log.floor <= self.version;
        let ops = (!is_at_rest).then(|| Box::new(log));
        Some(Record { ops, ..self.clone() })
    }

    /// Bytes of key, value and overhead that this record takes, for the memory limit.
    pub fn weight(&self, key: &Key) -> usize {
        let value = self.value.as_ref().map_or(0, |v| v.as_bytes().len());
        let ops = self.ops.as_ref().map_or(0, |o| 96 + 40 * o.entries.len() + o.extra.len());
        key.as_bytes().len() + value + ops + 200
    }
}
