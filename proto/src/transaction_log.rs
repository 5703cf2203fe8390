//! The log of a transaction as bytes that clients carry from call to call.
//!
//! It is the client's own: whoever forges one writes what it could have written anyway, on versions that it
//! claims to have seen.
//!
//! Keeps:
//! 1. Bytes from a client become a log or an error; keys that clients cannot name are an error.
//! 2. Values that were only read are carried if they are short; others are read again when they are needed.

use crate::peer::{WireError, transaction as t, wire};
use dht::tx::{LogEntry, TxLog};
use prost::Message;
use store::{Intent, Key, Value};

/// The version of the format.
const VERSION: u32 = 1;
/// Longer values that were only read are not carried.
const READ_BYTES_MAX: usize = 1024;

fn name(key: &Key) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}

/// The log as bytes; empty if nothing is in it.
pub fn encode(log: &TxLog) -> Vec<u8> {
    if log.entries.is_empty() && log.failed.is_none() {
        return Vec::new();
    }
    let entry = |(key, e): (&Key, &LogEntry)| {
        let is_short = |v: &Option<Value>| v.as_ref().is_none_or(|v| v.as_bytes().len() <= READ_BYTES_MAX);
        let carried = e.value.as_ref().filter(|v| is_short(v));
        let write = e.write.as_ref().map(|w| match w {
            Some(v) => Intent::Put(v.clone()),
            None => Intent::Delete,
        });
        wire::TransactionLogEntry {
            key: name(key),
            seen: Some(t::seen_to_wire(e.seen)),
            value: carried.and_then(|v| v.as_ref()).map(|v| v.as_bytes().to_vec().into()),
            carries_value: carried.is_some(),
            write: write.as_ref().map(t::intent_to_wire),
        }
    };
    let entries = log.entries.iter().map(entry).collect();
    wire::TransactionLog { version: VERSION, entries, failed: log.failed.as_ref().map(name) }.encode_to_vec()
}

/// The log that these bytes are.
pub fn decode(bytes: &[u8]) -> Result<TxLog, WireError> {
    if bytes.is_empty() {
        return Ok(TxLog::default());
    }
    let w = wire::TransactionLog::decode(bytes)?;
    if w.version != VERSION {
        return Err(WireError::OutOfRange("version"));
    }
    let mut log = TxLog { failed: w.failed.map(|k| Key::new(k.as_bytes())), ..TxLog::default() };
    for e in w.entries {
        let value = match (e.carries_value, e.value) {
            (false, _) => None,
            (true, v) => Some(v.map(|v| Value::try_from_bytes(&v)).transpose()?),
        };
        let write = match e.write.map(|i| t::intent(Some(i))).transpose()? {
            None | Some(Intent::Keep) => None,
            Some(Intent::Delete) => Some(None),
            Some(Intent::Put(v)) => Some(Some(v)),
        };
        let entry = LogEntry { seen: t::seen(e.seen)?, value, write };
        if log.entries.insert(Key::new(e.key.as_bytes()), entry).is_some() {
            return Err(WireError::OutOfRange("key"));
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use store::Seen;

    fn entry() -> impl Strategy<Value = LogEntry> {
        let value = || proptest::option::of(".{0,8}".prop_map(|s| Value::string(&s)));
        let option = proptest::option::of;
        (any::<(u64, bool)>(), option(value()), option(value())).prop_map(
            |((n, is_present), value, write)| LogEntry { seen: Seen::of(n, is_present), value, write },
        )
    }

    proptest! {
        #[test]
        fn a_log_comes_back(entries in proptest::collection::btree_map(".{0,6}", entry(), 0..6), failed in proptest::option::of(".{1,4}")) {
            let key = |k: String| Key::new(k.as_bytes());
            let entries = entries.into_iter().map(|(k, e)| (key(k), e)).collect();
            let log = TxLog { entries, failed: failed.map(key) };
            prop_assert_eq!(decode(&encode(&log)), Ok(log));
        }

        #[test]
        fn any_bytes_are_a_log_or_an_error(b: Vec<u8>) {
            if let Ok(log) = decode(&b) {
                prop_assert_eq!(decode(&encode(&log)), Ok(log));
            }
        }
    }

    #[test]
    fn a_long_value_that_was_only_read_is_not_carried_and_one_that_is_written_is() {
        let long = Value::string(&"x".repeat(READ_BYTES_MAX + 1));
        let read = LogEntry { seen: Seen::Version(3), value: Some(Some(long.clone())), write: None };
        let written = LogEntry { write: Some(Some(long)), ..read.clone() };
        let entries = [(Key::new(b"r"), read), (Key::new(b"w"), written)].into();
        let log = decode(&encode(&TxLog { entries, failed: None })).expect("a log");
        assert!(log.entries.values().all(|e| e.value.is_none()));
        assert!(log.entries[&Key::new(b"w")].write.is_some());
    }
}
