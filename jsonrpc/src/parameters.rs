//! What the parameters of a call are: keys, edits, numbers, names, and request lists.

use crate::call::{Edit, Operation, Reject, Request};
use crate::json::Json;
use crate::value::{kind, value_of_json, value_of_typed};
use num_bigint::BigUint;
use store::{Data, Value};

pub(crate) fn key(json: &Json) -> Result<String, Reject> {
    let Json::String(text) = json else {
        return Err(Reject::invalid(format!("a key is a string, not {}", kind(json))));
    };
    Ok(text.clone())
}

pub(crate) fn add_del(add: &Json, del: &Json) -> Result<Edit, Reject> {
    let (Json::Array(_), Json::Array(_)) = (add, del) else { return Ok(Edit::AddDelOnList(None)) };
    Ok(Edit::AddDelOnList(Some((value_of_json(add)?, value_of_json(del)?))))
}

pub(crate) fn add_on_nr(by: &Json) -> Result<Edit, Reject> {
    let Json::Number(_) = by else { return Ok(Edit::AddOnNumber(None)) };
    let by = value_of_json(by)?;
    debug_assert!(matches!(by.decode(), Data::Int(_) | Data::Double(_)), "a number");
    Ok(Edit::AddOnNumber(Some(by)))
}

pub(crate) fn requests(list: &Json) -> Result<Vec<Request>, Reject> {
    let Json::Array(entries) = list else {
        return Err(Reject::misshapen(format!("a request list is an array, not {}", kind(list))));
    };
    // What is no object with one member is dropped without a word, as in Scalaris.
    let named = entries.iter().filter_map(|e| match e {
        Json::Object(members) => match members.as_slice() {
            [(name, inner)] => Some((name.as_str(), inner)),
            _ => None,
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => None,
    });
    named.map(|(name, inner)| request(name, inner)).collect()
}

fn request(name: &str, inner: &Json) -> Result<Request, Reject> {
    let (k, edit) = match name {
        "read" => return Ok(Request::Operation(key(inner)?, Operation::Read)),
        "commit" => return Ok(Request::Commit),
        "write" => {
            let (k, value) = only_member(name, inner)?;
            (k, Edit::Write(value_of_typed(value)?))
        }
        "add_on_nr" => {
            let (k, by) = only_member(name, inner)?;
            (k, add_on_nr(by)?)
        }
        "add_del_on_list" => {
            let [k, add, del] = members(name, inner, ["key", "add", "del"])?;
            (key(k)?, add_del(add, del)?)
        }
        "test_and_set" => {
            let [k, old, new] = members(name, inner, ["key", "old", "new"])?;
            let (old, new) = (typed_or_raw(old)?, typed_or_raw(new)?);
            (key(k)?, Edit::TestAndSet { old, new })
        }
        other => {
            return Err(Reject::invalid(format!(
                "a request list has no operation \"{}\"; it has read, write, add_del_on_list, add_on_nr, test_and_set \
                 and commit",
                other.chars().take(40).collect::<String>()
            )));
        }
    };
    Ok(Request::Operation(k, Operation::Edit(edit)))
}

/// Scalaris' Python client sends the values of a test_and_set without their types; Scalaris refuses that.
fn typed_or_raw(json: &Json) -> Result<Value, Reject> {
    value_of_typed(json).or_else(|_| value_of_json(json))
}

fn only_member<'a>(name: &str, inner: &'a Json) -> Result<(String, &'a Json), Reject> {
    if let Json::Object(members) = inner
        && let [(k, value)] = members.as_slice()
    {
        return Ok((k.clone(), value));
    }
    Err(Reject::invalid(format!("\"{name}\" has an object with one member, the key")))
}

fn members<'a>(name: &str, inner: &'a Json, names: [&str; 3]) -> Result<[&'a Json; 3], Reject> {
    let wrong = || {
        let [a, b, c] = names;
        Reject::invalid(format!(
            "\"{name}\" has an object with the three members \"{a}\", \"{b}\" and \"{c}\""
        ))
    };
    let Json::Object(all) = inner else { return Err(wrong()) };
    if all.len() != names.len() {
        return Err(wrong());
    }
    let find = |n| all.iter().find(|(name, _)| name == n).map(|(_, j)| j).ok_or_else(wrong);
    let [a, b, c] = names;
    Ok([find(a)?, find(b)?, find(c)?])
}

pub(crate) fn natural(json: &Json, what: &str) -> Result<u64, Reject> {
    match json {
        Json::Number(text) => text.parse().ok(),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    }
    .ok_or_else(|| {
        Reject::invalid(format!("{what} is an integer from 0 to {}, not {}", u64::MAX, shown(json)))
    })
}

pub(crate) fn count(json: &Json, what: &str) -> Result<usize, Reject> {
    Ok(usize::try_from(natural(json, what)?).unwrap_or(usize::MAX))
}

pub(crate) fn position(json: &Json) -> Result<u128, Reject> {
    let wrong = || Reject::invalid(format!("a position is an integer from 0, not {}", shown(json)));
    let Json::Number(text) = json else { return Err(wrong()) };
    if text.contains(['.', 'e', 'E', '-']) {
        return Err(wrong());
    }
    // Whatever is beyond the ring is its end.
    let is_huge = text.len() > 39 || text.parse::<BigUint>().is_ok_and(|i| i.bits() > 128);
    Ok(if is_huge { u128::MAX } else { text.parse().unwrap_or(u128::MAX) })
}

fn shown(json: &Json) -> String {
    match json {
        Json::Number(text) => text.chars().take(40).collect(),
        other @ (Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_)) => {
            kind(other).to_owned()
        }
    }
}

pub(crate) fn node_name(json: &Json) -> Result<String, Reject> {
    let Json::String(text) = json else {
        return Err(Reject::misshapen(format!("a node's name is a string, not {}", kind(json))));
    };
    Ok(text.clone())
}

pub(crate) fn node_names(json: &Json) -> Result<Vec<String>, Reject> {
    let Json::Array(names) = json else {
        return Err(Reject::misshapen(format!("the names are an array, not {}", kind(json))));
    };
    names.iter().map(node_name).collect()
}
