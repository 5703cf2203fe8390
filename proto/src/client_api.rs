//! Values and conditions of the client API and of the core, converted both ways.
//!
//! Keeps:
//! 1. `value_from_wire(value_to_wire(v))` is `v` for every value the store takes.
//! 2. Bytes from a client never panic: what is not a value is a [`WireError`].
//! 3. Texts and bytes, the usual values, are not taken apart on the way.

use crate::v1;
use crate::v1::condition::Kind as ConditionKind;
use crate::v1::value::Kind;
use bytes::Bytes;
use num_bigint::BigInt;
use std::collections::BTreeMap;
use store::value::DEPTH_MAX;
use store::{Condition, Data, Value, ValueError};

/// Values nested deeper than this travel as `encoded_value`: three messages a level, and most protobuf
/// libraries stop at 100.
pub const INLINE_DEPTH_MAX: usize = 30;

/// Why a message is not a value or a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There is no value, or it has no kind that this program knows.
    #[error("a value without a known type")]
    NoValue,
    /// A big integer without bytes.
    #[error("a big_integer_value of 0 bytes")]
    EmptyInteger,
    /// An enum value other than `NULL_VALUE`.
    #[error("a null_value other than NULL_VALUE")]
    BadNull,
    /// `encoded_value` is not the encoding of a value.
    #[error("an encoded_value that is {0}")]
    Encoded(#[from] ValueError),
    /// Nested too deeply.
    #[error("a value nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// `absent: false`, or a condition without a kind.
    #[error("a condition that is neither absent = true nor a version")]
    BadCondition,
}

/// The store's form of a client's value.
pub fn value_from_wire(wire: Option<v1::Value>) -> Result<Value, WireError> {
    match wire.and_then(|v| v.kind).ok_or(WireError::NoValue)? {
        Kind::StringValue(s) => Ok(Value::string(&s)),
        Kind::BytesValue(b) => Ok(Value::bytes(&b)),
        Kind::IntegerValue(i) => Ok(Value::int(i)),
        Kind::EncodedValue(b) => Ok(Value::try_from_bytes(&b)?),
        kind @ (Kind::BigIntegerValue(_)
        | Kind::DoubleValue(_)
        | Kind::BoolValue(_)
        | Kind::NullValue(_)
        | Kind::ListValue(_)
        | Kind::ObjectValue(_)) => Ok(Value::encode(&data(kind, 0)?)),
    }
}

/// The store's form of a client's list.
pub fn list_from_wire(wire: Vec<v1::Value>) -> Result<Value, WireError> {
    Ok(Value::encode(&Data::List(items(wire, 0)?)))
}

/// A client's form of a stored value.
pub fn value_to_wire(value: &Value) -> v1::Value {
    let kind = if let Some(s) = value.as_str() {
        Kind::StringValue(s.to_owned())
    } else if value.type_name() == "bytes" {
        Kind::BytesValue(Bytes::copy_from_slice(value.as_bytes().get(1..).unwrap_or_default()))
    } else {
        let d = value.decode();
        if depth(&d) > INLINE_DEPTH_MAX {
            Kind::EncodedValue(Bytes::copy_from_slice(value.as_bytes()))
        } else {
            kind(d)
        }
    };
    v1::Value { kind: Some(kind) }
}

/// The core's form of a condition; none means always.
pub fn condition_from_wire(wire: Option<v1::Condition>) -> Result<Condition, WireError> {
    match wire.map(|c| c.kind) {
        None => Ok(Condition::Always),
        Some(Some(ConditionKind::Absent(true))) => Ok(Condition::Absent),
        Some(Some(ConditionKind::Version(v))) => Ok(Condition::Version(v)),
        Some(Some(ConditionKind::Absent(false)) | None) => Err(WireError::BadCondition),
    }
}

/// A client's form of a condition.
pub fn condition_to_wire(condition: Condition) -> Option<v1::Condition> {
    let kind = match condition {
        Condition::Always => return None,
        Condition::Absent => ConditionKind::Absent(true),
        Condition::Version(v) => ConditionKind::Version(v),
    };
    Some(v1::Condition { kind: Some(kind) })
}

fn items(wire: Vec<v1::Value>, level: usize) -> Result<Vec<Data>, WireError> {
    wire.into_iter().map(|v| data(v.kind.ok_or(WireError::NoValue)?, level + 1)).collect()
}

fn data(kind: Kind, level: usize) -> Result<Data, WireError> {
    if level > DEPTH_MAX {
        return Err(WireError::TooDeep);
    }
    Ok(match kind {
        Kind::StringValue(s) => Data::String(s),
        Kind::BytesValue(b) => Data::Bytes(b.into()),
        Kind::IntegerValue(i) => Data::Int(i.into()),
        Kind::BigIntegerValue(b) if b.is_empty() => return Err(WireError::EmptyInteger),
        Kind::BigIntegerValue(b) => Data::Int(BigInt::from_signed_bytes_be(&b)),
        Kind::DoubleValue(d) => Data::Double(d),
        Kind::BoolValue(b) => Data::Bool(b),
        Kind::NullValue(0) => Data::Null,
        Kind::NullValue(_) => return Err(WireError::BadNull),
        Kind::ListValue(l) => Data::List(items(l.values, level)?),
        Kind::ObjectValue(o) => {
            let mut members = BTreeMap::new();
            for (name, v) in o.fields {
                members.insert(name, data(v.kind.ok_or(WireError::NoValue)?, level + 1)?);
            }
            Data::Object(members)
        }
        Kind::EncodedValue(b) => {
            let d = Value::try_from_bytes(&b)?.decode();
            if level + depth(&d) > DEPTH_MAX {
                return Err(WireError::TooDeep);
            }
            d
        }
    })
}

/// How many lists and objects are nested, at most.
fn depth(d: &Data) -> usize {
    match d {
        Data::List(l) => 1 + l.iter().map(depth).max().unwrap_or(0),
        Data::Object(m) => 1 + m.values().map(depth).max().unwrap_or(0),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Double(_) | Data::String(_) | Data::Bytes(_) => 0,
    }
}

fn kind(d: Data) -> Kind {
    let wrap = |d| v1::Value { kind: Some(kind(d)) };
    match d {
        Data::Null => Kind::NullValue(0),
        Data::Bool(b) => Kind::BoolValue(b),
        Data::Int(i) => match i64::try_from(&i) {
            Ok(i) => Kind::IntegerValue(i),
            Err(_) => Kind::BigIntegerValue(i.to_signed_bytes_be().into()),
        },
        Data::Double(d) => Kind::DoubleValue(d),
        Data::String(s) => Kind::StringValue(s),
        Data::Bytes(b) => Kind::BytesValue(b.into()),
        Data::List(l) => Kind::ListValue(v1::ListValue { values: l.into_iter().map(wrap).collect() }),
        Data::Object(m) => Kind::ObjectValue(v1::ObjectValue {
            fields: m.into_iter().map(|(name, d)| (name, wrap(d))).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proptest::prelude::*;

    fn any_data() -> impl Strategy<Value = Data> {
        let leaf = prop_oneof![
            Just(Data::Null),
            any::<bool>().prop_map(Data::Bool),
            any::<i128>().prop_map(|i| Data::Int(i.into())),
            any::<i64>().prop_map(|i| Data::Int(i.into())),
            any::<f64>().prop_map(Data::Double),
            ".{0,12}".prop_map(Data::String),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(Data::Bytes),
        ];
        leaf.prop_recursive(6, 48, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Data::List),
                proptest::collection::btree_map(".{0,5}", inner, 0..5).prop_map(Data::Object),
            ]
        })
    }

    fn through_bytes(v: &Value) -> Value {
        let bytes = v1::PutRequest { key: "k".into(), value: Some(value_to_wire(v)), condition: None }.encode_to_vec();
        let back = v1::PutRequest::decode(&bytes[..]).expect("own encoding");
        value_from_wire(back.value).expect("a value")
    }

    proptest! {
        #[test]
        fn a_value_comes_back_from_the_wire_as_it_was(d in any_data()) {
            let v = Value::encode(&d);
            prop_assert_eq!(through_bytes(&v), v);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(b: Vec<u8>) {
            if let Ok(wire) = v1::Value::decode(&b[..]) {
                let _ = value_from_wire(Some(wire));
            }
        }

        #[test]
        fn an_integer_in_too_many_bytes_is_the_same_integer(i: i64, extra in 0usize..4) {
            let mut b = vec![if i < 0 { 0xff } else { 0 }; extra];
            b.extend_from_slice(&i.to_be_bytes());
            let wire = v1::Value { kind: Some(Kind::BigIntegerValue(b.into())) };
            prop_assert_eq!(value_from_wire(Some(wire)), Ok(Value::int(i)));
        }

        #[test]
        fn conditions_come_back(v: u64) {
            for c in [Condition::Always, Condition::Absent, Condition::Version(v)] {
                prop_assert_eq!(condition_from_wire(condition_to_wire(c)), Ok(c));
            }
        }
    }

    fn nested(levels: usize, wrap: impl Fn(Data) -> Data) -> Value {
        Value::encode(&(0..levels).fold(Data::Null, |d, _| wrap(d)))
    }

    #[test]
    fn values_of_every_allowed_depth_pass() {
        let object = |d| Data::Object(BTreeMap::from([("m".to_owned(), d)]));
        for levels in [1, INLINE_DEPTH_MAX, INLINE_DEPTH_MAX + 1, DEPTH_MAX] {
            for v in [nested(levels, |d| Data::List(vec![d])), nested(levels, object)] {
                assert_eq!(through_bytes(&v), v, "{levels} levels");
            }
        }
    }

    #[test]
    fn an_encoded_value_inside_a_list_may_not_smuggle_depth() {
        let deep = nested(DEPTH_MAX, |d| Data::List(vec![d]));
        let wire = v1::Value { kind: Some(Kind::EncodedValue(Bytes::copy_from_slice(deep.as_bytes()))) };
        assert_eq!(list_from_wire(vec![wire]), Err(WireError::TooDeep));
    }

    #[test]
    fn what_has_no_kind_is_no_value() {
        assert_eq!(value_from_wire(None), Err(WireError::NoValue));
        assert_eq!(value_from_wire(Some(v1::Value { kind: None })), Err(WireError::NoValue));
        let empty = v1::Value { kind: Some(Kind::BigIntegerValue(Bytes::new())) };
        assert_eq!(value_from_wire(Some(empty)), Err(WireError::EmptyInteger));
    }
}
