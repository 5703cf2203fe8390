//! What a client may do to one key, as a function from the present value to the next.
//!
//! Source: Scalaris' single-key operations; `docs/protocol.md`, section 3.

use crate::record::Record;
use crate::value::{Data, Value};
use num_bigint::BigInt;

/// On which state of the key a change depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// On none.
    #[default]
    Always,
    /// The key is not there.
    Absent,
    /// The key is there with this version.
    Version(u64),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes `value`.
    Put {
        /// The new value.
        value: Value,
        /// When.
        condition: Condition,
    },
    /// Removes the key.
    Delete {
        /// When.
        condition: Condition,
    },
    /// Writes `new` if the value is `old`.
    TestAndSet {
        /// The expected value.
        old: Value,
        /// The new value.
        new: Value,
    },
    /// Adds a number; a missing key counts as zero.
    AddOnNumber {
        /// An integer or a double.
        by: Value,
    },
    /// Puts the elements of `add` before the list, then removes the first occurrence of each of `remove`; a
    /// missing key counts as the empty list.
    AddDelOnList {
        /// A list.
        add: Value,
        /// A list.
        remove: Value,
    },
}

/// Why a change did nothing. All of them are answers about the key's present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key is not there.
    NotFound,
    /// The key is there though it was to be absent.
    Exists,
    /// The version is another.
    VersionDiffers,
    /// The value is another.
    ValueDiffers,
    /// The value has a type with which this change does nothing.
    WrongType {
        /// The type found.
        found: &'static str,
        /// The type needed.
        needed: &'static str,
    },
    /// The result would exceed the limit on values.
    TooLarge {
        /// Bytes of the result.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A transaction holds the key.
    Locked,
    /// This very commit was applied already.
    Applied,
    /// The version is another, and whether this very commit was applied is not remembered.
    Forgotten,
}

/// What a change makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new value, or none for a deletion.
    Write(Option<Value>),
    /// It holds already: nothing is written, the operation succeeded.
    Nothing,
    /// It does not apply.
    Refused(Refusal),
}

impl Change {
    /// What this change makes of `record`, with values of at most `value_max_bytes`.
    pub fn apply(&self, record: &Record, value_max_bytes: usize) -> Outcome {
        let out = self.next(record);
        match &out {
            Outcome::Write(Some(v)) if v.as_bytes().len() > value_max_bytes => {
                Outcome::Refused(Refusal::TooLarge {
                    size_bytes: v.as_bytes().len(),
                    limit_bytes: value_max_bytes,
                })
            }
            Outcome::Write(_) | Outcome::Nothing | Outcome::Refused(_) => out,
        }
    }

    /// Whether the new value is part of the answer (and so of the operation's id entry).
    pub fn answers_value(&self) -> bool {
        matches!(self, Change::AddOnNumber { .. })
    }

    fn next(&self, record: &Record) -> Outcome {
        let refused = Outcome::Refused;
        match self {
            Change::Put { value, condition } => match check(*condition, record) {
                Some(r) => refused(r),
                None => Outcome::Write(Some(value.clone())),
            },
            Change::Delete { condition } => match (check(*condition, record), &record.value) {
                (Some(r), _) => refused(r),
                (None, None) => refused(Refusal::NotFound),
                (None, Some(_)) => Outcome::Write(None),
            },
            Change::TestAndSet { old, new } => match &record.value {
                None => refused(Refusal::NotFound),
                Some(v) if v == old => Outcome::Write(Some(new.clone())),
                Some(_) => refused(Refusal::ValueDiffers),
            },
            Change::AddOnNumber { by } => add_number(record.value.as_ref(), by),
            Change::AddDelOnList { add, remove } => edit_list(record.value.as_ref(), add, remove),
        }
    }
}

fn check(condition: Condition, record: &Record) -> Option<Refusal> {
    match (condition, &record.value) {
        (Condition::Always, _) | (Condition::Absent, None) => None,
        (Condition::Absent, Some(_)) => Some(Refusal::Exists),
        (Condition::Version(_), None) => Some(Refusal::NotFound),
        (Condition::Version(v), Some(_)) => (v != record.version).then_some(Refusal::VersionDiffers),
    }
}

fn to_double(i: &BigInt) -> f64 {
    i.to_string().parse().unwrap_or(f64::INFINITY)
}

fn add_number(current: Option<&Value>, by: &Value) -> Outcome {
    let wrong = |v: &Value| {
        Outcome::Refused(Refusal::WrongType { found: v.type_name(), needed: "integer or double" })
    };
    let Some(current) = current else {
        return match by.decode() {
            Data::Int(_) | Data::Double(_) => Outcome::Write(Some(by.clone())),
            Data::Null
            | Data::Bool(_)
            | Data::String(_)
            | Data::Bytes(_)
            | Data::List(_)
            | Data::Object(_) => wrong(by),
        };
    };
    let sum = match (current.decode(), by.decode()) {
        (Data::Int(a), Data::Int(b)) => {
            if b == BigInt::ZERO {
                return Outcome::Nothing;
            }
            Data::Int(a + b)
        }
        (Data::Int(_) | Data::Double(_), Data::Double(0.0)) => return Outcome::Nothing,
        (Data::Int(a), Data::Double(b)) => Data::Double(to_double(&a) + b),
        (Data::Double(a), Data::Int(b)) => {
            if b == BigInt::ZERO {
                return Outcome::Nothing;
            }
            Data::Double(a + to_double(&b))
        }
        (Data::Double(a), Data::Double(b)) => Data::Double(a + b),
        (Data::Int(_) | Data::Double(_), _) => return wrong(by),
        _ => return wrong(current),
    };
    Outcome::Write(Some(Value::encode(&sum)))
}

fn edit_list(current: Option<&Value>, add: &Value, remove: &Value) -> Outcome {
    let list = |v: &Value| match v.decode() {
        Data::List(l) => Ok(l),
        Data::Null
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Double(_)
        | Data::String(_)
        | Data::Bytes(_)
        | Data::Object(_) => {
            Err(Outcome::Refused(Refusal::WrongType { found: v.type_name(), needed: "list" }))
        }
    };
    let (mut new, del) = match (list(add), list(remove)) {
        (Ok(a), Ok(d)) => (a, d),
        (Err(e), _) | (_, Err(e)) => return e,
    };
    let old = match current.map(list) {
        None => Vec::new(),
        Some(Ok(l)) => l,
        Some(Err(e)) => return e,
    };
    if current.is_some() && new.is_empty() && !del.iter().any(|d| old.contains(d)) {
        return Outcome::Nothing;
    }
    new.extend(old);
    for d in &del {
        if let Some(i) = new.iter().position(|x| x == d) {
            new.remove(i);
        }
    }
    Outcome::Write(Some(Value::encode(&Data::List(new))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(v: Option<Value>) -> Record {
        Record { version: 7, value: v, ops: None }
    }
    fn ints(l: &[i64]) -> Value {
        Value::encode(&Data::List(l.iter().map(|i| Data::Int((*i).into())).collect()))
    }

    #[test]
    fn a_missing_number_is_zero_and_adding_zero_changes_nothing() {
        let add = |r: &Record, i| Change::AddOnNumber { by: Value::int(i) }.apply(r, 100);
        assert_eq!(add(&with(None), 0), Outcome::Write(Some(Value::int(0))));
        assert_eq!(add(&with(Some(Value::int(4))), 3), Outcome::Write(Some(Value::int(7))));
        assert_eq!(add(&with(Some(Value::int(4))), 0), Outcome::Nothing);
        assert!(matches!(
            add(&with(Some(Value::string("x"))), 1),
            Outcome::Refused(Refusal::WrongType { .. })
        ));
    }

    #[test]
    fn an_integer_and_a_double_give_a_double() {
        let by = Value::encode(&Data::Double(0.5));
        let out = Change::AddOnNumber { by }.apply(&with(Some(Value::int(4))), 100);
        assert_eq!(out, Outcome::Write(Some(Value::encode(&Data::Double(4.5)))));
    }

    #[test]
    fn lists_are_prepended_to_and_lose_first_occurrences() {
        let c = Change::AddDelOnList { add: ints(&[1, 2]), remove: ints(&[2, 9]) };
        assert_eq!(c.apply(&with(Some(ints(&[2, 3]))), 100), Outcome::Write(Some(ints(&[1, 2, 3]))));
    }

    #[test]
    fn conditions_compare_versions() {
        let c = Change::Put { value: Value::int(1), condition: Condition::Version(6) };
        assert_eq!(c.apply(&with(Some(Value::int(0))), 100), Outcome::Refused(Refusal::VersionDiffers));
        let c = Change::Put { value: Value::int(1), condition: Condition::Absent };
        assert_eq!(c.apply(&with(Some(Value::int(0))), 100), Outcome::Refused(Refusal::Exists));
        assert_eq!(c.apply(&with(None), 100), Outcome::Write(Some(Value::int(1))));
    }

    #[test]
    fn results_above_the_limit_are_refused() {
        let c = Change::Put { value: Value::string("too long"), condition: Condition::Always };
        assert!(matches!(
            c.apply(&with(None), 5),
            Outcome::Refused(Refusal::TooLarge { size_bytes: 9, limit_bytes: 5 })
        ));
    }
}
