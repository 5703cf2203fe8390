//! The log of a transaction: what it saw of each key and what it will write, as a value without a home.
//!
//! A client gets the log back after each call and hands it in with the next, at whatever node; nobody keeps it
//! meanwhile. Operations are executed on the log alone, each seeing those before it.
//!
//! Keeps:
//! 1. Every key in it has been read: a commit depends on the state seen, so committing a log twice has its
//!    effect once.
//! 2. What was seen of a key never changes; a key that must be read again and is not as it was is a conflict.
//!
//! Source: Scalaris' transaction log; `docs/protocol.md`, section 8.

use crate::api::Reply;
use crate::message::Operation;
use std::collections::BTreeMap;
use store::{Change, Intent, Key, Outcome, Record, Refusal, Seen, Value};

/// A key in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The state in which it was seen.
    pub seen: Seen,
    /// The value seen; none if the log does not carry it.
    pub value: Option<Option<Value>>,
    /// What will be written: a value, or a deletion.
    pub write: Option<Option<Value>>,
}

/// The log of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxLog {
    /// By key.
    pub entries: BTreeMap<Key, LogEntry>,
    /// The key of the first operation that failed: the transaction cannot be committed any more.
    pub failed: Option<Key>,
}

/// One operation of a transaction: a read, or a change as clients make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key.
    pub key: Key,
    /// The change; none reads.
    pub change: Option<Change>,
}

impl Step {
    /// Whether what it does depends on the value.
    fn needs_value(&self) -> bool {
        match &self.change {
            Some(Change::Put { condition, .. }) => *condition != store::Condition::Always,
            None
            | Some(
                Change::Delete { .. }
                | Change::TestAndSet { .. }
                | Change::AddOnNumber { .. }
                | Change::AddDelOnList { .. },
            ) => true,
        }
    }
}

impl TxLog {
    /// The keys that have to be read before `steps` can be executed.
    pub fn missing(&self, steps: &[Step]) -> Vec<Key> {
        let is_missing = |s: &&Step| match self.entries.get(&s.key) {
            None => true,
            Some(e) => e.write.is_none() && e.value.is_none() && s.needs_value(),
        };
        let mut keys: Vec<Key> = steps.iter().filter(is_missing).map(|s| s.key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Notes what a read shows; false if the key was seen in another state before.
    pub fn note(&mut self, key: &Key, version: u64, value: Option<Value>) -> bool {
        let seen = Seen::of(version, value.is_some());
        match self.entries.get_mut(key) {
            Some(e) => {
                if !e.seen.still_holds(seen) {
                    return false;
                }
                e.value = Some(value);
            }
            None => {
                self.entries.insert(key.clone(), LogEntry { seen, value: Some(value), write: None });
            }
        }
        true
    }

    /// Executes steps whose keys are all here; one reply for each.
    pub fn execute(&mut self, steps: &[Step], value_bytes_max: usize) -> Vec<Reply> {
        steps.iter().map(|s| self.step(s, value_bytes_max)).collect()
    }

    fn step(&mut self, step: &Step, value_bytes_max: usize) -> Reply {
        let Some(entry) = self.entries.get_mut(&step.key) else {
            return Reply::Failed(crate::api::Failure::Busy);
        };
        let value = entry.write.clone().or_else(|| entry.value.clone()).flatten();
        // What it wrote itself has no version yet.
        let version = if entry.write.is_some() { 0 } else { entry.seen.number() };
        let Some(change) = &step.change else { return Reply::Value { value, version } };
        let record = Record { version, value, ops: None };
        match change.apply(&record, value_bytes_max) {
            Outcome::Write(new) => {
                let answered = new.clone().filter(|_| change.answers_value());
                entry.write = Some(new);
                Reply::Changed { version: 0, value: answered }
            }
            Outcome::Nothing => {
                let value = record.value.filter(|_| change.answers_value());
                Reply::Changed { version, value }
            }
            Outcome::Refused(refusal) => {
                // That there was nothing to delete is an answer, not a failure.
                let is_harmless = refusal == Refusal::NotFound
                    && matches!(change, Change::Delete { condition } if *condition == store::Condition::Always);
                if !is_harmless && self.failed.is_none() {
                    self.failed = Some(step.key.clone());
                }
                Reply::Refused { refusal, version, value: record.value }
            }
        }
    }

    /// The keys that it writes, with the state seen and what becomes of them.
    pub fn writes(&self) -> impl Iterator<Item = (&Key, Seen, Intent)> {
        self.entries.iter().filter_map(|(k, e)| {
            let intent = match e.write.as_ref()? {
                Some(v) => Intent::Put(v.clone()),
                None => Intent::Delete,
            };
            Some((k, e.seen, intent))
        })
    }

    /// The keys that it only read.
    pub fn reads(&self) -> impl Iterator<Item = (&Key, Seen)> {
        self.entries.iter().filter(|(_, e)| e.write.is_none()).map(|(k, e)| (k, e.seen))
    }
}

/// The operation that reads a key for a log.
pub(crate) fn fetch(waits: bool) -> Operation {
    Operation::Inspect { waits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Condition;

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes())
    }
    fn put(name: &str, v: i64) -> Step {
        let change = Change::Put { value: Value::int(v), condition: Condition::Always };
        Step { key: key(name), change: Some(change) }
    }
    fn get(name: &str) -> Step {
        Step { key: key(name), change: None }
    }

    #[test]
    fn a_transaction_sees_its_own_writes() {
        let mut log = TxLog::default();
        let steps = [get("a"), put("a", 2), get("a")];
        assert_eq!(log.missing(&steps), [key("a")]);
        assert!(log.note(&key("a"), 7, Some(Value::int(1))));
        let replies = log.execute(&steps, 100);
        assert_eq!(replies[0], Reply::Value { value: Some(Value::int(1)), version: 7 });
        assert_eq!(replies[2], Reply::Value { value: Some(Value::int(2)), version: 0 });
        let writes: Vec<_> = log.writes().collect();
        assert_eq!(writes, [(&key("a"), Seen::Version(7), Intent::Put(Value::int(2)))]);
        assert_eq!(log.reads().count(), 0);
    }

    #[test]
    fn a_failed_operation_dooms_the_transaction_and_a_missing_key_does_not() {
        let mut log = TxLog::default();
        log.note(&key("a"), 3, None);
        let delete = Step { key: key("a"), change: Some(Change::Delete { condition: Condition::Always }) };
        log.execute(&[get("a"), delete], 100);
        assert_eq!(log.failed, None);
        let swap = Change::TestAndSet { old: Value::int(1), new: Value::int(2) };
        log.execute(&[Step { key: key("a"), change: Some(swap) }], 100);
        assert_eq!(log.failed, Some(key("a")));
    }

    #[test]
    fn a_value_that_the_log_does_not_carry_is_read_again_and_must_be_as_it_was() {
        let mut log = TxLog::default();
        log.note(&key("a"), 7, Some(Value::int(1)));
        if let Some(e) = log.entries.get_mut(&key("a")) {
            e.value = None;
        }
        assert_eq!(log.missing(&[get("a")]), [key("a")]);
        assert!(log.missing(&[put("a", 1)]).is_empty());
        assert!(!log.note(&key("a"), 8, Some(Value::int(1))));
        assert!(log.note(&key("a"), 7, Some(Value::int(1))));
    }
}
