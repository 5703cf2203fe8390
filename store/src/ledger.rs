//! Ledgers: registers in which coordinators write what they decided.
//!
//! A ledger is a value like any other, an object, under a key that clients cannot name. Its entries are
//! numbered by its coordinator; an open ledger that has no entry of a number leaves that number pending.
//!
//! Keeps:
//! 1. What is absent, closed, aborted or done never becomes committed.
//! 2. Only an existing open ledger takes a decision; only the coordinator makes one.
//! 3. A closed ledger has committed entries only, and goes with the last of them.
//! 4. A number below the low mark that has no entry is closed.
//!
//! Source: Paxos Commit (Gray, Lamport 2006); `docs/protocol.md`, section 8.

use crate::change::Refusal;
use crate::record::{Key, RESERVED, Record};
use crate::tx::TxStep;
use crate::value::{Data, Value};
use num_bigint::BigInt;
use ring::NodeId;
use std::collections::BTreeMap;

/// The second byte of a ledger's key.
const MARK: u8 = b'L';

/// What a coordinator decided of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Committed: the keys written, with the versions that are to be installed.
    Committed(Vec<(Key, u64)>),
    /// Aborted.
    Aborted,
    /// Committed, and every key has its new state.
    Done,
}

/// The state of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Nothing more is decided here.
    pub is_closed: bool,
    /// Numbers below it without an entry are closed.
    pub low: u64,
    /// The entries.
    pub entries: BTreeMap<u64, Entry>,
}

/// What a ledger says of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Pending,
    /// Committed with these keys and versions.
    Committed(Vec<(Key, u64)>),
    /// Aborted.
    Aborted,
    /// It will never be committed, or everything of it is applied: its locks are ghosts.
    Closed,
}

impl Verdict {
    /// Whether a lock of `key` with `version` is to be applied; none while it is pending.
    pub fn applies(&self, key: &Key, version: u64) -> Option<bool> {
        match self {
            Verdict::Pending => None,
            Verdict::Committed(keys) => Some(keys.iter().any(|(k, v)| k == key && *v == version)),
            Verdict::Aborted | Verdict::Closed => Some(false),
        }
    }
}

/// A change of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerChange {
    /// Makes it, if there is none.
    Create,
    /// The coordinator's: commits entries, marks others done, raises the low mark. Answers the numbers that
    /// could not be committed any more.
    Decide {
        /// By number: keys and versions.
        commits: Vec<(u64, Vec<(Key, u64)>)>,
        /// Numbers of which everything is applied.
        done: Vec<u64>,
        /// Every lower number is finished.
        low: u64,
    },
    /// Anybody's: a pending entry is aborted.
    Abort(u64),
    /// Takes no more decisions; what is pending will not be committed.
    Close,
    /// Of a closed ledger: these entries are applied.
    Applied(Vec<u64>),
}

impl Ledger {
    /// The key of a ledger.
    pub fn key(coordinator: NodeId, number: u64, salt: u32) -> Key {
        let mut bytes = vec![RESERVED, MARK];
        bytes.extend_from_slice(&coordinator.0.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&salt.to_be_bytes());
        Key::new(&bytes)
    }

    /// The coordinator of a ledger, if `key` is the key of one.
    pub fn coordinator(key: &Key) -> Option<NodeId> {
        let rest = key.as_bytes().strip_prefix(&[RESERVED, MARK])?;
        let id: [u8; 8] = rest.get(..8)?.try_into().ok()?;
        (rest.len() == 20).then_some(NodeId(u64::from_be_bytes(id)))
    }

    /// What it says of a number.
    pub fn verdict(&self, number: u64) -> Verdict {
        match self.entries.get(&number) {
            Some(Entry::Committed(keys)) => Verdict::Committed(keys.clone()),
            Some(Entry::Aborted) => Verdict::Aborted,
            Some(Entry::Done) => Verdict::Closed,
            None if self.is_closed || number < self.low => Verdict::Closed,
            None => Verdict::Pending,
        }
    }

    /// What a read of a ledger's key says of a number: an absent ledger is closed.
    pub fn verdict_of(value: Option<&Value>, number: u64) -> Verdict {
        value.and_then(Ledger::decode).map_or(Verdict::Closed, |l| l.verdict(number))
    }

    /// The committed entries.
    pub fn committed(&self) -> impl Iterator<Item = (u64, &Vec<(Key, u64)>)> {
        self.entries.iter().filter_map(|(n, e)| match e {
            Entry::Committed(keys) => Some((*n, keys)),
            Entry::Aborted | Entry::Done => None,
        })
    }

    /// Its value.
    pub fn encode(&self) -> Value {
        let int = |n: u64| Data::Int(BigInt::from(n));
        let keys = |keys: &[(Key, u64)]| {
            let pair = |(k, v): &(Key, u64)| [Data::Bytes(k.as_bytes().to_vec()), int(*v)];
            Data::List(keys.iter().flat_map(pair).collect())
        };
        let entry = |(n, e): (&u64, &Entry)| {
            let state = match e {
                Entry::Committed(k) => keys(k),
                Entry::Aborted => Data::Bool(false),
                Entry::Done => Data::Bool(true),
            };
            [int(*n), state]
        };
        let entries = Data::List(self.entries.iter().flat_map(entry).collect());
        let members = [
            ("closed".to_owned(), Data::Bool(self.is_closed)),
            ("entries".to_owned(), entries),
            ("low".to_owned(), int(self.low)),
        ];
        Value::encode(&Data::Object(BTreeMap::from(members)))
    }

    /// The ledger that a value is, if it is one.
    pub fn decode(value: &Value) -> Option<Ledger> {
        let Data::Object(mut members) = value.decode() else { return None };
        let is_closed = members.remove("closed") == Some(Data::Bool(true));
        let low = int(&members.remove("low")?)?;
        let Data::List(list) = members.remove("entries")? else { return None };
        let mut entries = BTreeMap::new();
        for pair in list.chunks(2) {
            let [n, state] = pair else { return None };
            let entry = if let Data::List(keys) = state {
                Entry::Committed(pairs(keys)?)
            } else if *state == Data::Bool(true) {
                Entry::Done
            } else {
                // An entry of a kind that is not known here is surely not to be applied.
                Entry::Aborted
            };
            entries.insert(int(n)?, entry);
        }
        Some(Ledger { is_closed, low, entries })
    }

    fn forget_finished(&mut self) {
        let low = self.low;
        self.entries.retain(|n, e| matches!(e, Entry::Committed(_)) || (*n >= low));
        if self.is_closed {
            self.entries.retain(|_, e| matches!(e, Entry::Committed(_)));
        }
    }
}

fn int(d: &Data) -> Option<u64> {
    if let Data::Int(i) = d { u64::try_from(i).ok() } else { None }
}

fn pairs(list: &[Data]) -> Option<Vec<(Key, u64)>> {
    let one = |pair: &[Data]| match pair {
        [Data::Bytes(k), v] => Some((Key::new(k), int(v)?)),
        _ => None,
    };
    list.chunks(2).map(one).collect()
}

/// The numbers in an answer to [`LedgerChange::Decide`] that were not committed.
pub fn refused_numbers(result: Option<&Value>) -> Vec<u64> {
    match result.map(Value::decode) {
        Some(Data::List(l)) => l.iter().filter_map(int).collect(),
        Some(_) | None => Vec::new(),
    }
}

impl LedgerChange {
    /// Whether executing it twice does no harm.
    pub fn is_repeatable(&self) -> bool {
        match self {
            // Repeated after it was closed and dropped, a Create would open it again; repeated after the entry
            // is done, a Decide could not tell that it had been committed.
            LedgerChange::Create | LedgerChange::Decide { .. } => false,
            LedgerChange::Abort(_) | LedgerChange::Close | LedgerChange::Applied(_) => true,
        }
    }

    /// Bytes that it carries.
    pub fn size_bytes(&self) -> usize {
        match self {
            LedgerChange::Decide { commits, done, .. } => {
                let keys = commits.iter().flat_map(|c| &c.1);
                keys.map(|(k, _)| 12 + k.as_bytes().len()).sum::<usize>() + 8 * (commits.len() + done.len())
            }
            LedgerChange::Applied(numbers) => 8 * numbers.len(),
            LedgerChange::Create | LedgerChange::Abort(_) | LedgerChange::Close => 0,
        }
    }

    /// What this change makes of a ledger's record, executed under the number `n`.
    pub fn apply(&self, record: &Record, n: u64) -> TxStep {
        let ledger = record.value.as_ref().and_then(Ledger::decode);
        let Some(mut ledger) = ledger else {
            return match self {
                LedgerChange::Create => write(record, Some(&Ledger::default()), n, None),
                LedgerChange::Decide { .. } => TxStep::Refused(Refusal::NotFound),
                LedgerChange::Abort(_) | LedgerChange::Close | LedgerChange::Applied(_) => {
                    TxStep::Nothing(record.version)
                }
            };
        };
        match self {
            LedgerChange::Create => return TxStep::Refused(Refusal::Exists),
            LedgerChange::Decide { commits, done, low } => {
                if ledger.is_closed {
                    return TxStep::Refused(Refusal::NotFound);
                }
                let mut refused = Vec::new();
                for (number, keys) in commits {
                    if ledger.verdict(*number) == Verdict::Pending {
                        ledger.entries.insert(*number, Entry::Committed(keys.clone()));
                    } else {
                        refused.push(Data::Int(BigInt::from(*number)));
                    }
                }
                for number in done {
                    if let Some(e @ Entry::Committed(_)) = ledger.entries.get_mut(number) {
                        *e = Entry::Done;
                    }
                }
                ledger.low = ledger.low.max(*low);
                ledger.forget_finished();
                let result = (!refused.is_empty()).then(|| Value::encode(&Data::List(refused)));
                return write(record, Some(&ledger), n, result);
            }
            LedgerChange::Abort(number) => {
                if ledger.verdict(*number) != Verdict::Pending {
                    return TxStep::Nothing(record.version);
                }
                ledger.entries.insert(*number, Entry::Aborted);
            }
            LedgerChange::Close => {
                if ledger.is_closed {
                    return TxStep::Nothing(record.version);
                }
                ledger.is_closed = true;
            }
            LedgerChange::Applied(numbers) => {
                if !ledger.is_closed {
                    return TxStep::Nothing(record.version);
                }
                for number in numbers {
                    ledger.entries.remove(number);
                }
            }
        }
        ledger.forget_finished();
        let is_over = ledger.is_closed && ledger.entries.is_empty();
        write(record, (!is_over).then_some(&ledger), n, None)
    }
}

fn write(record: &Record, ledger: Option<&Ledger>, n: u64, result: Option<Value>) -> TxStep {
    let next = Record { version: n, value: ledger.map(Ledger::encode), ops: record.ops.clone() };
    TxStep::Write(Box::new(next), n, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(record: &mut Record, n: u64, change: LedgerChange) -> TxStep {
        let step = change.apply(record, n);
        if let TxStep::Write(next, _, _) = &step {
            *record = (**next).clone();
        }
        step
    }
    fn decide(commits: &[u64], done: &[u64], low: u64) -> LedgerChange {
        let commits = commits.iter().map(|n| (*n, vec![(Key::new(b"k"), *n)])).collect();
        LedgerChange::Decide { commits, done: done.to_vec(), low }
    }
    fn verdict(record: &Record, number: u64) -> Verdict {
        Ledger::verdict_of(record.value.as_ref(), number)
    }

    #[test]
    fn an_absent_ledger_takes_no_decision_and_says_closed() {
        let mut r = Record::absent(0);
        assert_eq!(apply(&mut r, 1, decide(&[1], &[], 0)), TxStep::Refused(Refusal::NotFound));
        assert_eq!(verdict(&r, 1), Verdict::Closed);
    }

    #[test]
    fn entries_go_from_pending_to_committed_to_done_and_vanish_below_the_low_mark() {
        let mut r = Record::absent(0);
        apply(&mut r, 1, LedgerChange::Create);
        assert_eq!(verdict(&r, 2), Verdict::Pending);
        apply(&mut r, 2, decide(&[2], &[], 0));
        assert_eq!(verdict(&r, 2).applies(&Key::new(b"k"), 2), Some(true));
        assert_eq!(verdict(&r, 2).applies(&Key::new(b"k"), 1), Some(false), "another version");
        assert_eq!(verdict(&r, 1), Verdict::Pending, "an older one is not touched");
        apply(&mut r, 3, decide(&[], &[2], 1));
        assert_eq!((verdict(&r, 2), verdict(&r, 1)), (Verdict::Closed, Verdict::Pending));
        apply(&mut r, 4, decide(&[], &[], 3));
        let ledger = Ledger::decode(r.value.as_ref().expect("there")).expect("a ledger");
        assert!(ledger.entries.is_empty());
        assert_eq!(verdict(&r, 1), Verdict::Closed);
    }

    #[test]
    fn what_was_aborted_or_closed_is_refused() {
        let mut r = Record::absent(0);
        apply(&mut r, 1, LedgerChange::Create);
        apply(&mut r, 2, LedgerChange::Abort(4));
        let TxStep::Write(_, _, result) = apply(&mut r, 3, decide(&[4, 5], &[], 0)) else { panic!("{r:?}") };
        assert_eq!(refused_numbers(result.as_ref()), [4]);
        apply(&mut r, 4, LedgerChange::Close);
        assert_eq!(apply(&mut r, 5, decide(&[6], &[], 0)), TxStep::Refused(Refusal::NotFound));
        assert!(
            matches!(verdict(&r, 5), Verdict::Committed(_)),
            "what was committed stays until it is applied"
        );
        apply(&mut r, 6, LedgerChange::Applied(vec![5]));
        assert_eq!((r.value.clone(), verdict(&r, 5)), (None, Verdict::Closed));
    }

    #[test]
    fn a_ledger_comes_back_from_its_value() {
        let keys = vec![(Key::new(b"a"), 3), (Key::new(b"\xff"), u64::MAX)];
        let entries = BTreeMap::from([(1, Entry::Committed(keys)), (7, Entry::Aborted), (9, Entry::Done)]);
        let ledger = Ledger { is_closed: true, low: 4, entries };
        assert_eq!(Ledger::decode(&ledger.encode()), Some(ledger));
        assert_eq!(Ledger::decode(&Value::int(3)), None);
    }

    #[test]
    fn a_ledgers_key_names_its_coordinator_and_no_text_is_one() {
        let key = Ledger::key(NodeId(77), 3, 9);
        assert_eq!(Ledger::coordinator(&key), Some(NodeId(77)));
        assert!(key.is_reserved() && core::str::from_utf8(key.as_bytes()).is_err());
        assert_eq!(Ledger::coordinator(&Key::new(b"plain")), None);
    }
}
