//! What the benchmarks have in common: keys and records, the plain gRPC server, the load, and the count of
//! processor time.
//!
//! Keys have 16 bytes and values 128, as in the measurements of other systems that ours are compared with.

#![allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]

pub mod closed_loop;
pub mod echo;
pub mod usage;

use store::{Key, Record, Value};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 128;

/// The key with this number, as text.
pub fn key_text(i: u32) -> String {
    format!("key-{i:0width$}", width = KEY_BYTES - 4)
}

/// The key with this number.
pub fn key(i: u32) -> Key {
    Key::new(key_text(i).as_bytes())
}

/// A record of version `n`.
pub fn record(n: u64) -> Record {
    Record { version: n, value: Some(Value::bytes(&[b'v'; VALUE_BYTES])), ops: None }
}
