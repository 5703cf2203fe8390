//! Typed values in one canonical encoding: equal values are equal bytes.
//!
//! The store keeps a value as the bytes of its encoding, one allocation whatever its shape; only operations
//! that look inside (adding to a number, editing a list) decode it. The first byte is the type.
//!
//! Keeps:
//! 1. `decode(encode(d))` gives `d` back, and equal data encode to equal bytes (objects by sorted names,
//!    integers in the fewest bytes, one not-a-number).
//! 2. Decoding bytes from outside never panics and never nests deeper than [`DEPTH_MAX`].

use crate::varint;
use num_bigint::BigInt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The deepest nesting of lists and objects.
pub const DEPTH_MAX: usize = 128;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const DOUBLE: u8 = 4;
const STRING: u8 = 5;
const BYTES: u8 = 6;
const LIST: u8 = 7;
const OBJECT: u8 = 8;

/// A value taken apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// JSON null.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of any size.
    Int(BigInt),
    /// A double; every not-a-number is stored as the same one.
    Double(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Data>),
    /// Named members, sorted by name.
    Object(BTreeMap<String, Data>),
}

/// A value as it is stored: the canonical encoding of some [`Data`]. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Arc<[u8]>);

/// Why bytes are not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The encoding ends early, has bytes left over, or an unknown type.
    #[error("not the encoding of a value")]
    Malformed,
    /// Lists and objects are nested too deeply.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

impl Value {
    /// Encodes `data`.
    pub fn encode(data: &Data) -> Value {
        let mut out = Vec::new();
        put(&mut out, data);
        Value(out.into())
    }

    /// A text value, without a detour through [`Data`].
    pub fn string(text: &str) -> Value {
        let mut out = Vec::with_capacity(text.len() + 1);
        out.push(STRING);
        out.extend_from_slice(text.as_bytes());
        Value(out.into())
    }

    /// A bytes value.
    pub fn bytes(bytes: &[u8]) -> Value {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        out.push(BYTES);
        out.extend_from_slice(bytes);
        Value(out.into())
    }

    /// An integer value.
    pub fn int(i: i64) -> Value {
        Value::encode(&Data::Int(BigInt::from(i)))
    }

    /// Takes bytes from outside after checking that they are an encoding.
    pub fn try_from_bytes(bytes: &[u8]) -> Result<Value, ValueError> {
        decode(bytes)?;
        Ok(Value(bytes.into()))
    }

    /// Bytes that have been the encoding of a value before.
    pub(crate) fn from_canonical(bytes: &[u8]) -> Value {
        Value(bytes.into())
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value taken apart.
    pub fn decode(&self) -> Data {
        decode(&self.0).unwrap_or(Data::Null)
    }

    /// The text, if it is a text value.
    pub fn as_str(&self) -> Option<&str> {
        match self.0.split_first() {
            Some((&STRING, rest)) => core::str::from_utf8(rest).ok(),
            _ => None,
        }
    }

    /// The name of its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self.0.first() {
            Some(&NULL) => "null",
            Some(&FALSE | &TRUE) => "bool",
            Some(&INT) => "integer",
            Some(&DOUBLE) => "double",
            Some(&STRING) => "string",
            Some(&BYTES) => "bytes",
            Some(&LIST) => "list",
            Some(&OBJECT) => "object",
            _ => "unknown",
        }
    }
}

impl core::fmt::Debug for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0.len() > 64 {
            write!(f, "{}({} bytes)", self.type_name(), self.0.len() - 1)
        } else {
            write!(f, "{:?}", self.decode())
        }
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    varint::put(out, varint::of_len(len));
}

fn put_sized(out: &mut Vec<u8>, data: &Data) {
    let mut inner = Vec::new();
    put(&mut inner, data);
    put_len(out, inner.len());
    out.extend_from_slice(&inner);
}

fn put(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Null => out.push(NULL),
        Data::Bool(false) => out.push(FALSE),
        Data::Bool(true) => out.push(TRUE),
        Data::Int(i) => {
            out.push(INT);
            out.extend_from_slice(&i.to_signed_bytes_be());
        }
        Data::Double(d) => {
            out.push(DOUBLE);
            let d = if d.is_nan() { f64::NAN } else { *d };
            out.extend_from_slice(&d.to_bits().to_be_bytes());
        }
        Data::String(s) => {
            out.push(STRING);
            out.extend_from_slice(s.as_bytes());
        }
        Data::Bytes(b) => {
            out.push(BYTES);
            out.extend_from_slice(b);
        }
        Data::List(items) => {
            out.push(LIST);
            for i in items {
                put_sized(out, i);
            }
        }
        Data::Object(members) => {
            out.push(OBJECT);
            for (name, d) in members {
                put_len(out, name.len());
                out.extend_from_slice(name.as_bytes());
                put_sized(out, d);
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Data, ValueError> {
    take(bytes, 0)
}

fn take_len(rest: &mut &[u8]) -> Result<usize, ValueError> {
    let mut x = 0u64;
    for shift in (0..63).step_by(7) {
        let (&b, tail) = rest.split_first().ok_or(ValueError::Malformed)?;
        *rest = tail;
        x |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            if b == 0 && shift > 0 {
                return Err(ValueError::Malformed);
            }
            return usize::try_from(x).map_err(|_| ValueError::Malformed);
        }
    }
    Err(ValueError::Malformed)
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ValueError> {
    let len = take_len(rest)?;
    if len > rest.len() {
        return Err(ValueError::Malformed);
    }
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    Ok(head)
}

fn take(bytes: &[u8], depth: usize) -> Result<Data, ValueError> {
    if depth > DEPTH_MAX {
        return Err(ValueError::TooDeep);
    }
    let (&kind, mut rest) = bytes.split_first().ok_or(ValueError::Malformed)?;
    let text = |b: &[u8]| core::str::from_utf8(b).map(str::to_owned).map_err(|_| ValueError::Malformed);
    match kind {
        NULL if rest.is_empty() => Ok(Data::Null),
        FALSE if rest.is_empty() => Ok(Data::Bool(false)),
        TRUE if rest.is_empty() => Ok(Data::Bool(true)),
        INT => {
            let i = BigInt::from_signed_bytes_be(rest);
            if rest.is_empty() || i.to_signed_bytes_be() != rest {
                Err(ValueError::Malformed)
            } else {
                Ok(Data::Int(i))
            }
        }
        DOUBLE => {
            let raw: [u8; 8] = rest.try_into().map_err(|_| ValueError::Malformed)?;
            let d = f64::from_bits(u64::from_be_bytes(raw));
            if d.is_nan() && d.to_bits() != f64::NAN.to_bits() {
                Err(ValueError::Malformed)
            } else {
                Ok(Data::Double(d))
            }
        }
        STRING => Ok(Data::String(text(rest)?)),
        BYTES => Ok(Data::Bytes(rest.to_vec())),
        LIST => {
            let mut items = Vec::new();
            while !rest.is_empty() {
                items.push(take(take_slice(&mut rest)?, depth + 1)?);
            }
            Ok(Data::List(items))
        }
        OBJECT => {
            let mut members: BTreeMap<String, Data> = BTreeMap::new();
            while !rest.is_empty() {
                let name = text(take_slice(&mut rest)?)?;
                if members.last_key_value().is_some_and(|(last, _)| *last >= name) {
                    return Err(ValueError::Malformed);
                }
                let d = take(take_slice(&mut rest)?, depth + 1)?;
                members.insert(name, d);
            }
            Ok(Data::Object(members))
        }
        _ => Err(ValueError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data() -> impl Strategy<Value = Data> {
        let leaf = prop_oneof![
            Just(Data::Null),
            any::<bool>().prop_map(Data::Bool),
            any::<i128>().prop_map(|i| Data::Int(i.into())),
            any::<i32>().prop_map(|i| Data::Double(f64::from(i) / 8.0)),
            ".{0,12}".prop_map(Data::String),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(Data::Bytes),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Data::List),
                proptest::collection::btree_map(".{0,5}", inner, 0..5).prop_map(Data::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(d in data()) {
            let v = Value::encode(&d);
            prop_assert_eq!(v.decode(), d);
            prop_assert!(Value::try_from_bytes(v.as_bytes()).is_ok());
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_something_that_encodes_to_them(b: Vec<u8>) {
            if let Ok(v) = Value::try_from_bytes(&b) {
                let again = Value::encode(&v.decode());
                prop_assert_eq!(again.as_bytes(), &b[..]);
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut d = Data::Null;
        for _ in 0..DEPTH_MAX + 1 {
            d = Data::List(vec![d]);
        }
        assert_eq!(Value::try_from_bytes(Value::encode(&d).as_bytes()), Err(ValueError::TooDeep));
    }
}
