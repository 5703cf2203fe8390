//! A step of a transaction on its log: pure, given what the keys hold.
//!
//! Nothing is locked before the commit. An operation sees what those before it wrote. A key that was only read
//! is read again, and if it is not as it was the client gets what it is now and the transaction is doomed.
//!
//! Source: `docs/scalaris.md`; Scalaris, `src/transactions/rdht_tx*.erl`.

use crate::call::{Edit, Operation, Request};
use crate::log::{Entry, Log};
use crate::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Condition, Data, Record, Refusal, Value};

/// What a read showed of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Its value, if it is there, and its version.
    State {
        /// The value.
        value: Option<Value>,
        /// The version.
        version: u64,
    },
    /// No answer.
    Timeout,
}

/// The keys that must be read before `requests` can be executed on `log`.
pub fn keys_to_read(log: &Log, requests: &[Request]) -> BTreeSet<String> {
    let is_written = |key: &str| log.entries.get(key).is_some_and(|e| e.write.is_some());
    let keys = requests.iter().filter_map(|r| match r {
        Request::Operation(key, _) if !is_written(key) => Some(key.clone()),
        Request::Operation(..) | Request::Commit => None,
    });
    keys.collect()
}

/// Whether a commit stands before the end.
pub fn is_commit_misplaced(requests: &[Request]) -> bool {
    requests.iter().rev().skip(1).any(|r| *r == Request::Commit)
}

/// Whether a commit stands at the end.
pub fn commits(requests: &[Request]) -> bool {
    requests.last() == Some(&Request::Commit)
}

/// The one operation of a transaction that is nothing else and commits: it needs no log.
pub fn single<'a>(log: &Log, requests: &'a [Request]) -> Option<(&'a str, &'a Operation)> {
    match requests {
        [Request::Operation(key, operation), Request::Commit] if log.entries.is_empty() => {
            Some((key, operation))
        }
        _ => None,
    }
}

/// What a list with a misplaced commit is answered, without a look at the store; every key is failed.
pub fn refuse(log: &mut Log, requests: &[Request]) -> Vec<Outcome> {
    let outcomes = requests.iter().map(|r| match r {
        Request::Operation(key, operation) => {
            log.entries.entry(key.clone()).or_default();
            match operation {
                Operation::Read => Outcome::NotFound,
                Operation::Edit(_) => Outcome::Ok,
            }
        }
        Request::Commit => Outcome::Abort(Vec::new()),
    });
    let outcomes = outcomes.collect();
    log.entries.values_mut().for_each(|e| e.is_failed = true);
    outcomes
}

/// Executes the operations of `requests` on `log`; one outcome for each, none for the commit.
pub fn execute(
    log: &mut Log,
    requests: &[Request],
    mut reads: BTreeMap<String, Read>,
    value_bytes_max: usize,
) -> Vec<Outcome> {
    let values = note(log, &mut reads);
    let mut state = State { log, values, value_bytes_max };
    let operations = requests.iter().filter_map(|r| match r {
        Request::Operation(key, operation) => Some((key, operation)),
        Request::Commit => None,
    });
    operations.map(|(key, operation)| state.step(key, operation)).collect()
}

/// Notes in the log what was read, and gives the values; a key without an answer has none.
fn note(log: &mut Log, reads: &mut BTreeMap<String, Read>) -> BTreeMap<String, Option<Value>> {
    let mut values = BTreeMap::new();
    for (key, read) in core::mem::take(reads) {
        let entry = log.entries.get_mut(&key);
        match read {
            Read::State { value, version } => {
                let seen = Entry { version, exists: value.is_some(), ..Entry::default() };
                match entry {
                    Some(e) => {
                        let is_same = e.exists == seen.exists && (e.version == version || !e.exists);
                        if !is_same {
                            *e = Entry { is_failed: true, ..seen };
                        }
                    }
                    None => {
                        log.entries.insert(key.clone(), seen);
                    }
                }
                values.insert(key, value);
            }
            Read::Timeout => log.entries.entry(key).or_default().is_failed = true,
        }
    }
    values
}

struct State<'a> {
    log: &'a mut Log,
    values: BTreeMap<String, Option<Value>>,
    value_bytes_max: usize,
}

impl State<'_> {
    fn step(&mut self, key: &str, operation: &Operation) -> Outcome {
        let entry = self.log.entries.entry(key.to_owned()).or_default();
        let present = match (&entry.write, self.values.get(key)) {
            (Some(own), _) => Some(own.clone()),
            (None, Some(read)) => read.clone(),
            (None, None) => return Outcome::Timeout,
        };
        let edit = match operation {
            Operation::Read => return present.map_or(Outcome::NotFound, Outcome::Value),
            Operation::Edit(edit) => edit,
        };
        let (outcome, write) = apply(edit, key, present, entry.version, self.value_bytes_max);
        entry.is_failed |= outcome != Outcome::Ok;
        if write.is_some() {
            entry.write = write;
        }
        outcome
    }
}

/// What an edit makes of a key, and what is to be written.
fn apply(
    edit: &Edit,
    key: &str,
    present: Option<Value>,
    version: u64,
    value_bytes_max: usize,
) -> (Outcome, Option<Value>) {
    let change = match change(edit) {
        Ok(change) => change,
        Err(outcome) => return (outcome, None),
    };
    let value = match edit {
        Edit::AddDelOnList(_) => present.map(|v| characters(&v).unwrap_or(v)),
        Edit::Write(_) | Edit::AddOnNumber(_) | Edit::TestAndSet { .. } => present,
    };
    let record = Record { version, value, ..Record::default() };
    match change.apply(&record, value_bytes_max) {
        store::Outcome::Write(write) => (Outcome::Ok, write),
        store::Outcome::Nothing => (Outcome::Ok, None),
        store::Outcome::Refused(r) => (refused(edit, &r, record.value, key), None),
    }
}

/// The change of the store that an edit is, or what it is answered without one.
pub fn change(edit: &Edit) -> Result<Change, Outcome> {
    match edit {
        Edit::Write(value) => Ok(Change::Put { value: value.clone(), condition: Condition::Always }),
        Edit::AddDelOnList(Some((add, remove))) => {
            Ok(Change::AddDelOnList { add: add.clone(), remove: remove.clone() })
        }
        Edit::AddDelOnList(None) => Err(Outcome::NotAList),
        Edit::AddOnNumber(Some(by)) => Ok(Change::AddOnNumber { by: by.clone() }),
        Edit::AddOnNumber(None) => Err(Outcome::NotANumber),
        Edit::TestAndSet { old, new } => Ok(Change::TestAndSet { old: old.clone(), new: new.clone() }),
    }
}

/// What the client is told of a refusal.
pub fn refused(edit: &Edit, refusal: &Refusal, present: Option<Value>, key: &str) -> Outcome {
    match refusal {
        Refusal::NotFound => Outcome::NotFound,
        Refusal::ValueDiffers => present.map_or(Outcome::NotFound, Outcome::KeyChanged),
        Refusal::WrongType { .. } => match edit {
            Edit::AddDelOnList(_) => Outcome::NotAList,
            Edit::Write(_) | Edit::AddOnNumber(_) | Edit::TestAndSet { .. } => Outcome::NotANumber,
        },
        Refusal::Exists
        | Refusal::VersionDiffers
        | Refusal::Locked
        | Refusal::Applied
        | Refusal::Forgotten
        | Refusal::TooLarge { .. } => Outcome::Abort(vec![key.to_owned()]),
    }
}

/// The code points of a text as a list: in Scalaris a text is one, and can be edited as one.
fn characters(value: &Value) -> Option<Value> {
    let list = value.as_str()?.chars().map(|c| Data::Int(u32::from(c).into())).collect();
    Some(Value::encode(&Data::List(list)))
}

/// What a list operation on a stored text comes to: the list to write instead of it, if any.
pub fn edit_text(
    edit: &Edit,
    key: &str,
    stored: &Value,
    value_bytes_max: usize,
) -> Option<(Outcome, Option<Value>)> {
    characters(stored)?;
    matches!(edit, Edit::AddDelOnList(_)).then(|| apply(edit, key, Some(stored.clone()), 1, value_bytes_max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Page, call};
    use crate::json::parse;

    /// A store of one node, and the versions it gives.
    #[derive(Default)]
    struct Store {
        records: BTreeMap<String, (Value, u64)>,
        n: u64,
    }

    impl Store {
        fn put(&mut self, key: &str, value: Value) {
            self.n += 1;
            self.records.insert(key.to_owned(), (value, self.n));
        }

        fn reads(&self, log: &Log, list: &[Request]) -> BTreeMap<String, Read> {
            let read = |key: String| {
                let (value, version) =
                    self.records.get(&key).cloned().map_or((None, 0), |(v, n)| (Some(v), n));
                (key, Read::State { value, version })
            };
            keys_to_read(log, list).into_iter().map(read).collect()
        }
    }

    fn list(text: &str) -> Vec<Request> {
        let params = parse(&format!("[{text}]")).expect("JSON");
        let crate::Json::Array(params) = params else { panic!("an array") };
        match call(Page::Tx, "req_list", &params) {
            Ok(Call::ReqList(_, requests)) => requests,
            other => panic!("{other:?}"),
        }
    }

    fn run(store: &Store, log: &mut Log, text: &str) -> String {
        let requests = list(text);
        let reads = store.reads(log, &requests);
        let outcomes = execute(log, &requests, reads, 1 << 20);
        let texts: Vec<String> = outcomes.iter().map(|o| o.json().expect("is shown").write()).collect();
        texts.join(" ")
    }

    #[test]
    fn own_writes_are_seen_and_the_version_stays_that_of_the_first_read() {
        let (mut store, mut log) = (Store::default(), Log::default());
        store.put("a", Value::int(1));
        let out = run(
            &store,
            &mut log,
            r#"[{"read":"a"},{"write":{"a":{"type":"as_is","value":2}}},{"add_on_nr":{"a":3}},{"read":"a"}]"#,
        );
        assert_eq!(
            out,
            r#"{"status":"ok","value":{"type":"as_is","value":1}} {"status":"ok"} {"status":"ok"} {"status":"ok","value":{"type":"as_is","value":5}}"#
        );
        store.put("a", Value::int(7));
        assert_eq!(
            run(&store, &mut log, r#"[{"read":"a"}]"#),
            r#"{"status":"ok","value":{"type":"as_is","value":5}}"#
        );
        let entry = Entry { version: 1, exists: true, is_failed: false, write: Some(Value::int(5)) };
        assert_eq!(log.entries.get("a"), Some(&entry));
    }

    #[test]
    fn a_key_that_changed_since_it_was_read_shows_its_new_value_and_dooms_the_transaction() {
        let (mut store, mut log) = (Store::default(), Log::default());
        store.put("a", Value::int(1));
        run(&store, &mut log, r#"[{"read":"a"},{"read":"b"}]"#);
        store.put("a", Value::int(2));
        assert_eq!(
            run(&store, &mut log, r#"[{"read":"a"},{"read":"b"}]"#),
            r#"{"status":"ok","value":{"type":"as_is","value":2}} {"status":"fail","reason":"not_found"}"#
        );
        assert_eq!(log.failed_keys(), ["a"]);
    }

    #[test]
    fn a_failed_operation_dooms_its_key_and_a_missing_key_does_not() {
        let (mut store, mut log) = (Store::default(), Log::default());
        store.put("s", Value::bytes(b"x"));
        let out = run(
            &store,
            &mut log,
            r#"[{"read":"m"},{"add_on_nr":{"s":1}},{"add_del_on_list":{"key":"s","add":[],"del":[]}},
                {"test_and_set":{"key":"n","old":1,"new":2}},{"test_and_set":{"key":"s","old":1,"new":{"type":"as_is","value":3}}},
                {"add_on_nr":{"t":"1"}}]"#,
        );
        assert_eq!(
            out,
            r#"{"status":"fail","reason":"not_found"} {"status":"fail","reason":"not_a_number"} {"status":"fail","reason":"not_a_list"} {"status":"fail","reason":"not_found"} {"status":"fail","reason":"key_changed","value":{"type":"as_bin","value":"eA=="}} {"status":"fail","reason":"not_a_number"}"#
        );
        assert_eq!(log.failed_keys(), ["n", "s", "t"]);
    }

    #[test]
    fn lists_are_edited_as_scalaris_edits_them_and_texts_are_lists() {
        let (mut store, mut log) = (Store::default(), Log::default());
        store.put("s", Value::string("hello"));
        let out = run(
            &store,
            &mut log,
            r#"[{"add_del_on_list":{"key":"l","add":["b","b","c"],"del":["b","zz"]}},{"read":"l"},
                {"add_del_on_list":{"key":"s","add":["z"],"del":[]}},{"read":"s"},{"add_del_on_list":{"key":"e","add":[],"del":[]}},{"read":"e"}]"#,
        );
        assert_eq!(
            out,
            r#"{"status":"ok"} {"status":"ok","value":{"type":"as_is","value":["b","c"]}} {"status":"ok"} {"status":"ok","value":{"type":"as_is","value":["z",104,101,108,108,111]}} {"status":"ok"} {"status":"ok","value":{"type":"as_is","value":[]}}"#
        );
    }

    #[test]
    fn a_key_without_an_answer_fails_and_dooms() {
        let mut log = Log::default();
        let requests = list(r#"[{"read":"a"},{"write":{"a":{"type":"as_is","value":2}}}]"#);
        let reads = BTreeMap::from([("a".to_owned(), Read::Timeout)]);
        let out = execute(&mut log, &requests, reads, 1 << 20);
        assert_eq!(out, [Outcome::Timeout, Outcome::Timeout]);
        assert_eq!(log.failed_keys(), ["a"]);
    }

    #[test]
    fn a_commit_before_the_end_refuses_the_list() {
        let mut log = Log::default();
        let requests = list(r#"[{"read":"a"},{"commit":1},{"write":{"b":{"type":"as_is","value":2}}}]"#);
        assert!(is_commit_misplaced(&requests) && !commits(&requests));
        assert_eq!(refuse(&mut log, &requests), [Outcome::NotFound, Outcome::Abort(Vec::new()), Outcome::Ok]);
        assert_eq!(log.failed_keys(), ["a", "b"]);
    }

    #[test]
    fn what_is_no_object_with_one_member_is_dropped() {
        assert_eq!(list(r#"[1,"commit",{},{"read":"a","write":"b"},{"commit":null}]"#), [Request::Commit]);
    }
}
