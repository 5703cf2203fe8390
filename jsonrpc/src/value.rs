//! Stored values and JSON, both ways.
//!
//! A value travels as `{"type":"as_is","value":J}`, bytes as `{"type":"as_bin","value":"BASE64"}`. What JSON has
//! no form for inside a value, bytes and doubles that are no numbers, travels as an object of the same two
//! members; an object that would look like one is wrapped once more in `as_is`.
//!
//! Keeps:
//! 1. `data_of_json(json_of_data(d))` is `d` for every value within the limits whose texts have no U+0000, which
//!    Scalaris refuses: nothing is lost between this
//!    interface and gRPC.
//! 2. `json_of_data(data_of_json(j))` says the same as `j` for every JSON of a client.
//!
//! Differs from Scalaris: a list and a string are never the same thing; arrays inside objects are lists too.

use crate::call::Reject;
use crate::json::Json;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use num_bigint::BigInt;
use std::collections::BTreeMap;
use store::value::DEPTH_MAX;
use store::{Data, Value};

/// Integers with more digits do not travel: writing one down takes time that grows with the square.
pub const INTEGER_DIGITS_MAX: usize = 1 << 16;
/// Above so many bits an integer may have more digits than that.
const INTEGER_BITS_MAX: u64 = 217_000;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A stored value that this interface cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an integer of more than {INTEGER_DIGITS_MAX} digits")]
pub struct NotShown;

/// The bytes in base64; blanks are skipped, as Ruby's encoder breaks lines.
pub fn bytes_of_base64(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    BASE64.decode(text).ok()
}

/// Base64 with padding and without line breaks.
pub fn base64_of_bytes(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A client's `{"type": ..., "value": ...}`.
pub fn value_of_typed(json: &Json) -> Result<Value, Reject> {
    let Json::Object(members) = json else {
        return Err(Reject::misshapen(format!(
            "a value is {{\"type\":\"as_is\",\"value\":...}} or {{\"type\":\"as_bin\",\"value\":\"BASE64\"}}, not {}",
            kind(json)
        )));
    };
    let Some((name, inner)) = pair(members) else {
        return Err(Reject::invalid("a value has exactly the two members \"type\" and \"value\""));
    };
    match (name, inner) {
        ("as_is", inner) => value_of_json(inner),
        ("as_bin", Json::String(text)) => bytes_of_base64(text)
            .map(|b| Value::bytes(&b))
            .ok_or_else(|| Reject::misshapen("the value of type \"as_bin\" is not base64")),
        ("as_bin", other) => {
            Err(Reject::misshapen(format!("the value of type \"as_bin\" is a string, not {}", kind(other))))
        }
        (other, _) => Err(Reject::misshapen(format!(
            "the type of a value is \"as_is\" or \"as_bin\", not \"{}\"",
            other.chars().take(40).collect::<String>()
        ))),
    }
}

/// A client's value without a type.
pub fn value_of_json(json: &Json) -> Result<Value, Reject> {
    Ok(Value::encode(&data_of_json(json, 0)?))
}

/// A stored value for a client.
pub fn typed_of_value(value: &Value) -> Result<Json, NotShown> {
    let data = value.decode();
    if let Data::Bytes(b) = &data {
        return Ok(typed("as_bin", Json::String(base64_of_bytes(b))));
    }
    Ok(typed("as_is", json_of_data(data, 0)?))
}

fn typed(name: &str, value: Json) -> Json {
    Json::object([("type", Json::string(name)), ("value", value)])
}

/// What a JSON value is, for messages.
pub fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// The type and the value of an object that has these two members, in any order.
fn pair(members: &[(String, Json)]) -> Option<(&str, &Json)> {
    match members {
        [(t, Json::String(name)), (v, inner)] | [(v, inner), (t, Json::String(name))]
            if t == "type" && v == "value" =>
        {
            Some((name, inner))
        }
        _ => None,
    }
}

fn data_of_json(json: &Json, level: usize) -> Result<Data, Reject> {
    if level > DEPTH_MAX {
        return Err(Reject::invalid(format!("a value is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(match json {
        Json::Null => Data::Null,
        Json::Bool(b) => Data::Bool(*b),
        Json::Number(text) => number(text)?,
        Json::String(text) => Data::String(text.clone()),
        Json::Array(items) => {
            Data::List(items.iter().map(|j| data_of_json(j, level + 1)).collect::<Result<_, _>>()?)
        }
        Json::Object(members) => match marked(members, level == 0) {
            Some(Marked::Data(data)) => data,
            Some(Marked::Wrapped(inner)) => Data::Object(object(inner, level)?),
            None => Data::Object(object(members, level)?),
        },
    })
}

fn object(members: &[(String, Json)], level: usize) -> Result<BTreeMap<String, Data>, Reject> {
    members.iter().map(|(name, j)| Ok((name.clone(), data_of_json(j, level + 1)?))).collect()
}

fn number(text: &str) -> Result<Data, Reject> {
    if text.contains(['.', 'e', 'E']) {
        return text.parse().map(Data::Double).map_err(|_| Reject::invalid("a number that is none"));
    }
    let count = text.len();
    if count > INTEGER_DIGITS_MAX {
        return Err(Reject::invalid(format!(
            "an integer of {count} digits, the limit is {INTEGER_DIGITS_MAX}"
        )));
    }
    text.parse::<BigInt>().map(Data::Int).map_err(|_| Reject::invalid("a number that is none"))
}

/// An object that stands for something else.
enum Marked<'a> {
    /// What JSON has no form for.
    Data(Data),
    /// An object that looks like a mark.
    Wrapped(&'a [(String, Json)]),
}

/// Outermost, bytes have a type of their own and need no mark.
fn marked(members: &[(String, Json)], is_outermost: bool) -> Option<Marked<'_>> {
    let (name, inner) = pair(members)?;
    match (name, inner) {
        ("as_bin", Json::String(text)) if !is_outermost => {
            // Only the encoding that would be sent back.
            let bytes = bytes_of_base64(text)?;
            (base64_of_bytes(&bytes) == *text).then_some(Marked::Data(Data::Bytes(bytes)))
        }
        ("as_double", Json::String(text)) => {
            let d = match text.as_str() {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => return None,
            };
            Some(Marked::Data(Data::Double(d)))
        }
        ("as_is", Json::Object(inner)) if marked(inner, is_outermost).is_some() => {
            Some(Marked::Wrapped(inner))
        }
        _ => None,
    }
}

fn json_of_data(data: Data, level: usize) -> Result<Json, NotShown> {
    let inner = |d| json_of_data(d, level + 1);
    Ok(match data {
        Data::Null => Json::Null,
        Data::Bool(b) => Json::Bool(b),
        Data::Int(i) if i.bits() > INTEGER_BITS_MAX => return Err(NotShown),
        Data::Int(i) => Json::integer(i),
        Data::Double(d) => double(d),
        Data::String(text) => Json::String(text),
        Data::Bytes(b) => typed("as_bin", Json::String(base64_of_bytes(&b))),
        Data::List(items) => Json::Array(items.into_iter().map(inner).collect::<Result<_, _>>()?),
        Data::Object(members) => {
            let members: Vec<(String, Json)> = members
                .into_iter()
                .map(|(name, d)| Ok((name, inner(d)?)))
                .collect::<Result<_, NotShown>>()?;
            let is_mark = marked(&members, level == 0).is_some();
            let object = Json::Object(members);
            if is_mark { typed("as_is", object) } else { object }
        }
    })
}

/// A double as Erlang writes it.
fn double(d: f64) -> Json {
    if !d.is_finite() {
        let text = match (d.is_nan(), d.is_sign_negative()) {
            (true, _) => "NaN",
            (false, false) => "Infinity",
            (false, true) => "-Infinity",
        };
        return typed("as_double", Json::string(text));
    }
    let text = format!("{d:.20e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    Json::Number(format!("{digits}e{sign}{exponent:0>2}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;
    use proptest::prelude::*;

    fn any_data() -> impl Strategy<Value = Data> {
        let name = || prop_oneof![Just("type".to_owned()), Just("value".to_owned()), "[^\u{0}]{0,4}"];
        let leaf = prop_oneof![
            Just(Data::Null),
            any::<bool>().prop_map(Data::Bool),
            any::<i128>().prop_map(|i| Data::Int(i.into())),
            any::<f64>().prop_map(Data::Double),
            prop_oneof![Just("as_is"), Just("as_bin"), Just("as_double"), Just("NaN"), Just("AAA=")]
                .prop_map(|s: &str| Data::String(s.to_owned())),
            "[^\u{0}]{0,12}".prop_map(Data::String),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(Data::Bytes),
        ];
        leaf.prop_recursive(5, 48, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Data::List),
                proptest::collection::btree_map(name(), inner, 0..4).prop_map(Data::Object),
            ]
        })
    }

    fn through(text: &str) -> String {
        let value = value_of_typed(&parse(text).expect("JSON")).expect("a value");
        typed_of_value(&value).expect("is shown").write()
    }

    proptest! {
        #[test]
        fn no_value_is_lost(d in any_data()) {
            let value = Value::encode(&d);
            let text = typed_of_value(&value).expect("is shown").write();
            prop_assert_eq!(value_of_typed(&parse(&text).expect("JSON")).expect("a value"), value);
        }
    }

    #[test]
    fn values_come_back_as_scalaris_sends_them() {
        for (sent, expected) in [
            (r#""hello""#, r#""hello""#),
            (
                r#"["a",[65,66],null,true,1.5,{"x":[1,"y"]}]"#,
                r#"["a",[65,66],null,true,1.50000000000000000000e+00,{"x":[1,"y"]}]"#,
            ),
            ("-1e-7", "-9.99999999999999954748e-08"),
            ("4.9e-324", "4.94065645841246544177e-324"),
            ("1.7976931348623157e308", "1.79769313486231570815e+308"),
            ("-0.0", "-0.00000000000000000000e+00"),
            ("1e0", "1.00000000000000000000e+00"),
            ("-0", "0"),
            (
                "1606938044258990275541962092341162602522202993782792835301376",
                "1606938044258990275541962092341162602522202993782792835301376",
            ),
            ("[-1]", "[-1]"),
            ("[]", "[]"),
            (r#""\u00e4\u00f6""#, r#""äö""#),
            (r#"{"b":1,"a":{"":[]}}"#, r#"{"a":{"":[]},"b":1}"#),
        ] {
            let typed = format!(r#"{{"type":"as_is","value":{sent}}}"#);
            assert_eq!(through(&typed), format!(r#"{{"type":"as_is","value":{expected}}}"#), "{sent}");
        }
        assert_eq!(
            through(r#"{"value":"AAEC/w==","type":"as_bin"}"#),
            r#"{"type":"as_bin","value":"AAEC/w=="}"#
        );
        assert_eq!(
            through(r#"{"type":"as_bin","value":"AAEC\n/w\n"}"#),
            r#"{"type":"as_bin","value":"AAEC/w=="}"#
        );
        let big = format!(r#"{{"type":"as_is","value":{}}}"#, "9".repeat(INTEGER_DIGITS_MAX - 300));
        assert_eq!(through(&big), big);
    }

    #[test]
    fn an_object_that_looks_like_a_mark_is_what_the_client_sent() {
        for inner in [
            r#"{"type":"as_bin","value":"AAE="}"#,
            r#"{"type":"as_bin","value":"not base64!"}"#,
            r#"{"type":"as_is","value":{"type":"as_bin","value":"AAE="}}"#,
            r#"{"type":"as_is","value":{"type":"as_is","value":{"type":"as_bin","value":"AAE="}}}"#,
            r#"{"type":"as_is","value":1}"#,
            r#"{"type":"as_double","value":"NaN"}"#,
        ] {
            let typed = format!(r#"{{"type":"as_is","value":[{inner}]}}"#);
            assert_eq!(through(&typed), typed);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_the_reason() {
        for text in [
            "\"plain\"",
            "1",
            r#"{"type":"as_is"}"#,
            r#"{"type":"as_is","value":1,"more":2}"#,
            r#"{"type":"as_is","type":"as_is"}"#,
            r#"{"type":"as_text","value":"x"}"#,
            r#"{"type":"as_bin","value":"*"}"#,
            r#"{"type":"as_bin","value":5}"#,
            r#"{"type":5,"value":5}"#,
        ] {
            assert!(value_of_typed(&parse(text).expect("JSON")).is_err(), "{text}");
        }
        let long = Json::Number("9".repeat(INTEGER_DIGITS_MAX + 1).into());
        assert!(value_of_json(&long).is_err());
        let huge = Value::encode(&Data::List(vec![Data::Int(BigInt::from(1) << 218_000)]));
        assert_eq!(typed_of_value(&huge), Err(NotShown));
    }

    #[test]
    fn nesting_is_that_of_the_store() {
        let nested = |n: usize| parse(&format!("{}1{}", "[".repeat(n), "]".repeat(n))).expect("JSON");
        assert!(value_of_json(&nested(DEPTH_MAX)).is_ok());
        assert!(value_of_json(&nested(DEPTH_MAX + 1)).is_err());
    }
}
