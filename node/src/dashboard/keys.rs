//! Reading and changing keys from the dashboard.
//!
//! Values travel as a type and a text, so that a browser's numbers never touch an integer of any size.

use crate::cli::json as typed;
use crate::error::{self, Report};
use crate::grpc::{Api, Problem, closed, failure, refusal, unexpected};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dht::api::{InspectedReplica, ReplicaSight};
use dht::{Reply, Request};
use serde_json::{Value as Json, json};
use store::{Change, Condition, Data, Key, Value};

/// A value longer than this is shown in part.
const SHOWN_BYTES_MAX: usize = 256 << 10;

/// An answer and its HTTP status.
pub(super) type Answer = (u16, Json);

pub(super) fn report_json(r: &Report) -> Answer {
    let json = json!({
        "error": {
            "code": r.code.code, "reason": r.code.reason, "message": r.message, "cause": r.cause, "fix": r.fix,
            "outcome": r.code.outcome.word(),
        }
    });
    (r.code.http, json)
}

pub(super) fn wrong(cause: impl Into<String>) -> Answer {
    let fix = "send a JSON object as docs/operations.md describes";
    report_json(&Report::new(error::VALUE_MALFORMED, "the request is not one", cause, fix))
}

pub(super) fn problem(p: &Problem) -> Answer {
    report_json(p.report())
}

/// A value as its type and a text.
fn value_json(value: &Value) -> Json {
    let data = value.decode();
    let (kind, mut text) = match &data {
        Data::String(s) => ("string", s.clone()),
        Data::Bytes(b) => ("bytes", STANDARD.encode(b)),
        Data::Int(i) => ("integer", i.to_string()),
        Data::Double(_) => ("double", typed::to_json(&data).to_string()),
        Data::Bool(b) => ("bool", b.to_string()),
        Data::Null => ("null", "null".to_owned()),
        Data::List(_) | Data::Object(_) => ("json", typed::to_json(&data).to_string()),
    };
    let size = value.as_bytes().len();
    let is_whole = text.len() <= SHOWN_BYTES_MAX;
    if !is_whole {
        let mut end = SHOWN_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    json!({ "type": kind, "text": text, "bytes": size, "whole": is_whole })
}

pub(super) fn value_of(json: &Json) -> Result<Value, Answer> {
    let field = |name: &str| json.get(name).and_then(Json::as_str);
    let (Some(kind), Some(text)) = (field("type"), field("text")) else {
        return Err(wrong("a value has a \"type\" and a \"text\""));
    };
    let data = match kind {
        "string" => Data::String(text.to_owned()),
        "bytes" => Data::Bytes(STANDARD.decode(text.trim()).map_err(|e| wrong(format!("base64: {e}")))?),
        "integer" | "double" => match (kind, typed::number(text.trim()).map_err(wrong)?) {
            ("integer", Data::Double(_)) => return Err(wrong(format!("\"{text}\" is not an integer"))),
            // "2" as a double is 2.0.
            ("double", Data::Int(i)) => {
                Data::Double(i.to_string().parse().map_err(|_| wrong(format!("\"{text}\" is no double")))?)
            }
            (_, data) => data,
        },
        "bool" => match text.trim() {
            "true" => Data::Bool(true),
            "false" => Data::Bool(false),
            other => return Err(wrong(format!("\"{other}\" is neither true nor false"))),
        },
        "null" => Data::Null,
        "json" => return typed::parse(text).map_err(|e| wrong(format!("JSON: {e}"))),
        other => return Err(wrong(format!("there is no type \"{other}\""))),
    };
    Ok(Value::encode(&data))
}

fn key_of(body: &Json) -> Result<(String, Key), Answer> {
    let Some(key) = body.get("key").and_then(Json::as_str) else { return Err(wrong("\"key\" is missing")) };
    Ok((key.to_owned(), Key::new(key.as_bytes())))
}

fn condition_of(body: &Json) -> Result<Condition, Answer> {
    match body.get("if") {
        None | Some(Json::Null) => Ok(Condition::Always),
        Some(Json::String(s)) if s == "absent" => Ok(Condition::Absent),
        // Versions are numbers of 64 bits, which a browser would round: they travel as text.
        Some(Json::String(s)) => {
            s.parse().map(Condition::Version).map_err(|_| wrong(format!("\"{s}\" is not a version")))
        }
        Some(other) => Err(wrong(format!("\"if\" is {other}"))),
    }
}

/// Does what `verb` says with the key in `body`.
pub(super) async fn answer(api: &Api, verb: &str, body: &Json) -> Answer {
    match go(api, verb, body).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn go(api: &Api, verb: &str, body: &Json) -> Result<Answer, Answer> {
    let (name, key) = key_of(body)?;
    let request = match verb {
        "get" => Request::Get { key },
        "inspect" => Request::Inspect { key },
        "put" => {
            let value = value_of(body.get("value").unwrap_or(&Json::Null))?;
            Request::Change { key, change: Change::Put { value, condition: condition_of(body)? } }
        }
        "delete" => Request::Change { key, change: Change::Delete { condition: condition_of(body)? } },
        other => return Err(wrong(format!("there is no \"{other}\""))),
    };
    let reply = api.handle().request(request).await.map_err(|e| problem(&closed(e)))?;
    Ok(reply_json(&name, reply))
}

pub(super) fn reply_json(key: &str, reply: Reply) -> Answer {
    match reply {
        Reply::Value { value, version } => {
            let value = value.as_ref().map(value_json);
            (200, json!({ "key": key, "version": version.to_string(), "value": value }))
        }
        Reply::Changed { version, .. } => (200, json!({ "key": key, "version": version.to_string() })),
        Reply::Inspected(replicas) => {
            let replicas: Vec<Json> = replicas.iter().map(replica_json).collect();
            (200, json!({ "key": key, "replicas": replicas }))
        }
        Reply::Refused { refusal: r, version, value } => {
            let (code, mut json) = problem(&refusal(&r, key, version, value.as_ref()));
            if let Some(o) = json.as_object_mut() {
                let present =
                    json!({ "version": version.to_string(), "value": value.as_ref().map(value_json) });
                o.insert("present".to_owned(), present);
            }
            (code, json)
        }
        Reply::Failed(f) => problem(&failure(&f, key)),
        other @ (Reply::Ok
        | Reply::Status(_)
        | Reply::Insight(_)
        | Reply::Members(_)
        | Reply::Ring(_)
        | Reply::Located(_)
        | Reply::Transacted(_)
        | Reply::Scanned { .. }
        | Reply::Salvaged(_)
        | Reply::Dissolved(_)
        | Reply::Left { .. }) => problem(&unexpected(&other)),
    }
}

fn replica_json(r: &InspectedReplica) -> Json {
    let owner = r.owner.map(|n| n.id.to_string());
    let address = r.owner.map(|n| n.addr.to_string());
    let mut json = json!({ "slot": r.slot, "node": owner, "overlay_address": address });
    let more = match r.sight {
        ReplicaSight::Silent => json!({ "sight": "silent" }),
        ReplicaSight::Refused => json!({ "sight": "refused" }),
        ReplicaSight::Nothing => json!({ "sight": "nothing" }),
        ReplicaSight::Record { version, is_there, n, is_settled } => json!({
            "sight": if is_there { "value" } else { "removed" },
            "version": version.to_string(), "n": n.to_string(), "settled": is_settled,
        }),
    };
    if let (Some(all), Json::Object(more)) = (json.as_object_mut(), more) {
        all.extend(more);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_sent() {
        for (kind, text) in [
            ("string", "</script><img src=x onerror=alert(1)>"),
            ("bytes", "AAH/"),
            ("integer", "123456789012345678901234567890"),
            ("double", "1.5"),
            ("bool", "true"),
            ("null", "null"),
            ("json", "[1,{\"a\":null}]"),
        ] {
            let value = value_of(&json!({ "type": kind, "text": text })).expect("valid");
            let back = value_json(&value);
            assert_eq!((back["type"].as_str(), back["text"].as_str()), (Some(kind), Some(text)));
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_reason() {
        for (kind, text, reason) in [
            ("integer", "1.5", "not an integer"),
            ("double", "x", "not a number"),
            ("bool", "yes", "neither true nor false"),
            ("json", "{", "JSON"),
            ("tuple", "", "no type"),
        ] {
            let (code, json) = value_of(&json!({ "type": kind, "text": text })).expect_err("refused");
            assert_eq!(code, 400);
            let cause = json["error"]["cause"].as_str().unwrap_or_default();
            assert!(cause.contains(reason), "{cause}");
        }
    }
}
