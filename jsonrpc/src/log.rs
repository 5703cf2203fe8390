//! The log of a transaction, which the client keeps: what was seen of each key, and what will be written.
//!
//! A client holds it as an opaque text. It is good at every node and has no lifetime.
//!
//! Keeps:
//! 1. `from_token(token(log))` is `log`; no text panics, and one from elsewhere is a [`BadToken`].
//! 2. A key of which an operation failed stays failed: such a log is never committed.
//!
//! Differs from Scalaris: the text is not an Erlang term, and does not name modules or processes.

use crate::value::{base64_of_bytes, bytes_of_base64};
use std::collections::BTreeMap;
use store::Value;

/// The first byte of every log; another one is another format.
const FORMAT: u8 = 1;
const EXISTS: u8 = 1;
const FAILED: u8 = 2;
const WRITES: u8 = 4;

/// What a transaction knows of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The version when it was read.
    pub version: u64,
    /// Whether the key was there.
    pub exists: bool,
    /// Whether an operation on it failed.
    pub is_failed: bool,
    /// What will be written.
    pub write: Option<Value>,
}

/// The log of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// By key.
    pub entries: BTreeMap<String, Entry>,
}

/// The text is not a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction log is not one that this program made; begin the transaction anew, without a log")]
pub struct BadToken;

impl Log {
    /// The keys of which an operation failed.
    pub fn failed_keys(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, e)| e.is_failed).map(|(k, _)| k.clone()).collect()
    }

    /// The text for the client.
    pub fn token(&self) -> String {
        let mut out = vec![FORMAT];
        for (key, e) in &self.entries {
            put_bytes(&mut out, key.as_bytes());
            let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
            out.push(flag(e.exists, EXISTS) | flag(e.is_failed, FAILED) | flag(e.write.is_some(), WRITES));
            put_number(&mut out, e.version);
            if let Some(value) = &e.write {
                put_bytes(&mut out, value.as_bytes());
            }
        }
        base64_of_bytes(&out)
    }

    /// The log that a client's text stands for.
    pub fn from_token(token: &str) -> Result<Log, BadToken> {
        let bytes = bytes_of_base64(token).ok_or(BadToken)?;
        let mut rest = match bytes.split_first() {
            Some((&FORMAT, rest)) => rest,
            _ => return Err(BadToken),
        };
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        while !rest.is_empty() {
            let key = core::str::from_utf8(take_bytes(&mut rest)?).map_err(|_| BadToken)?.to_owned();
            if entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(BadToken);
            }
            entries.insert(key, take_entry(&mut rest)?);
        }
        Ok(Log { entries })
    }
}

fn take_entry(rest: &mut &[u8]) -> Result<Entry, BadToken> {
    let flags = take_byte(rest)?;
    if flags > EXISTS | FAILED | WRITES {
        return Err(BadToken);
    }
    let version = take_number(rest)?;
    let write = match flags & WRITES {
        0 => None,
        _ => Some(Value::try_from_bytes(take_bytes(rest)?).map_err(|_| BadToken)?),
    };
    Ok(Entry { version, exists: flags & EXISTS != 0, is_failed: flags & FAILED != 0, write })
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, BadToken> {
    let (&first, tail) = rest.split_first().ok_or(BadToken)?;
    *rest = tail;
    Ok(first)
}

fn take_number(rest: &mut &[u8]) -> Result<u64, BadToken> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return Err(BadToken);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadToken)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadToken> {
    let len = usize::try_from(take_number(rest)?).map_err(|_| BadToken)?;
    let (head, tail) = rest.split_at_checked(len).ok_or(BadToken)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_log() -> impl Strategy<Value = Log> {
        let value = proptest::option::of(".{0,9}".prop_map(|s| Value::string(&s)));
        let entry = (any::<u64>(), any::<bool>(), any::<bool>(), value)
            .prop_map(|(version, exists, is_failed, write)| Entry { version, exists, is_failed, write });
        proptest::collection::btree_map(".{0,9}", entry, 0..6).prop_map(|entries| Log { entries })
    }

    proptest! {
        #[test]
        fn a_log_comes_back_as_it_was(log in any_log()) {
            prop_assert_eq!(Log::from_token(&log.token()), Ok(log));
        }

        #[test]
        fn any_bytes_are_a_log_or_an_error(bytes: Vec<u8>, at in 0usize..60, with: u8, log in any_log()) {
            let _ = Log::from_token(&base64_of_bytes(&bytes));
            let mut own = bytes_of_base64(&log.token()).expect("own text");
            if let Some(b) = own.get_mut(at) {
                *b = with;
            }
            let _ = Log::from_token(&base64_of_bytes(&own));
        }
    }

    #[test]
    fn the_empty_log_is_a_constant_and_foreign_logs_are_refused() {
        assert_eq!(Log::default().token(), "AQ==");
        for foreign in ["", "g2o=", "nonsense!", "AQ", "AQE="] {
            assert_eq!(Log::from_token(foreign).is_ok(), foreign == "AQ", "{foreign}");
        }
    }
}
