//! Values as JSON and back.
//!
//! JSON has no bytes: they are written as `{"$bytes": "<base64>"}`, alone and inside of lists and objects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Data, Value};
use num_bigint::BigInt;
use serde_json::{Map, Number, Value as Json};
use std::collections::BTreeMap;
use store::value::DEPTH_MAX;

const BYTES_KEY: &str = "$bytes";

/// A value as JSON.
pub(crate) fn to_json(data: &Data) -> Json {
    match data {
        Data::Null => Json::Null,
        Data::Bool(b) => Json::Bool(*b),
        Data::Int(i) => i.to_string().parse::<Number>().map_or(Json::Null, Json::Number),
        Data::Double(d) => Number::from_f64(*d).map_or_else(|| Json::String(d.to_string()), Json::Number),
        Data::String(s) => Json::String(s.clone()),
        Data::Bytes(b) => {
            Json::Object(Map::from_iter([(BYTES_KEY.to_owned(), Json::String(STANDARD.encode(b)))]))
        }
        Data::List(l) => Json::Array(l.iter().map(to_json).collect()),
        Data::Object(m) => Json::Object(m.iter().map(|(k, v)| (k.clone(), to_json(v))).collect()),
    }
}

/// The value that JSON text stands for.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    from_json(json, 0).map(|d| Value::encode(&d))
}

fn from_json(json: Json, depth: usize) -> Result<Data, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(match json {
        Json::Null => Data::Null,
        Json::Bool(b) => Data::Bool(b),
        Json::Number(n) => number(&n.to_string())?,
        Json::String(s) => Data::String(s),
        Json::Array(a) => {
            Data::List(a.into_iter().map(|j| from_json(j, depth + 1)).collect::<Result<_, _>>()?)
        }
        Json::Object(o) => {
            if let (1, Some(Json::String(b))) = (o.len(), o.get(BYTES_KEY)) {
                return STANDARD.decode(b).map(Data::Bytes).map_err(|e| format!("{BYTES_KEY}: {e}"));
            }
            let members = o.into_iter().map(|(k, v)| Ok((k, from_json(v, depth + 1)?)));
            Data::Object(members.collect::<Result<BTreeMap<_, _>, String>>()?)
        }
    })
}

/// An integer of any size, or a double.
pub(crate) fn number(text: &str) -> Result<Data, String> {
    if let Ok(i) = text.parse::<BigInt>() {
        return Ok(Data::Int(i));
    }
    match text.parse::<f64>() {
        Ok(d) if d.is_finite() => Ok(Data::Double(d)),
        _ => Err(format!("\"{text}\" is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        for text in [
            "null",
            "true",
            "-3",
            "123456789012345678901234567890",
            "1.5",
            "\"text\"",
            "[1,[],{\"a\":null}]",
            "{\"$bytes\":\"AAH/\"}",
        ] {
            assert_eq!(to_json(&parse(text).expect("valid").decode()).to_string(), text);
        }
        assert!(parse("{").is_err());
        assert!(parse("{\"$bytes\":\"*\"}").is_err());
    }
}
