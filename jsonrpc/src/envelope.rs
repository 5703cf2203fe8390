//! The envelope: bodies to calls, results and errors to bodies.
//!
//! Keeps:
//! 1. Every body gets one answer, which is one line of JSON, or empty if nothing in it asks for one.
//! 2. Members are in the order of Scalaris' server: `result`, `id`, `jsonrpc`; of an error `jsonrpc`, `id`,
//!    `error`.
//!
//! Differs from Scalaris: where an Erlang exception gives 500 or ends the connection there, the answer is an
//! error with its cause in the member `data`.

use crate::body;
use crate::call::{Call, Page, Reject, call};
use crate::json::{Json, parse};

/// Calls in one batch.
pub const BATCH_MAX: usize = 1000;

/// An answer of the protocol itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The code.
    pub code: i32,
    /// What it means.
    pub message: String,
    /// More about it.
    pub data: Option<Json>,
}

impl Error {
    /// An error with the usual message of its code.
    fn usual(code: i32) -> Error {
        let message = match code {
            -32700 => "parse error",
            -32600 => "invalid request",
            -32602 => "invalid params",
            _ => "method not found",
        };
        Error { code, message: message.to_owned(), data: None }
    }
}

impl From<Reject> for Error {
    fn from(r: Reject) -> Error {
        Error { data: Some(Json::String(r.cause)), ..Error::usual(r.code) }
    }
}

/// A call with the id under which it is answered, or the answer that is certain already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// To be carried out.
    Call {
        /// Echoed.
        id: Json,
        /// What is asked.
        call: Call,
    },
    /// To be answered by an error.
    Error {
        /// Echoed, or null.
        id: Json,
        /// The error.
        error: Error,
    },
    /// A notification: neither carried out nor answered.
    Notification,
}

/// What a body asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    /// One call.
    One(Item),
    /// A batch, answered as an array.
    Batch(Vec<Item>),
}

/// Takes a body apart.
pub fn calls(page: Page, bytes: &[u8]) -> Calls {
    let Some(json) = body::text(bytes).and_then(|text| parse(&text).ok()) else {
        return Calls::One(protocol_error(-32700));
    };
    let Json::Array(items) = json else { return Calls::One(item(page, &json)) };
    if items.is_empty() {
        return Calls::One(protocol_error(-32600));
    }
    if items.len() > BATCH_MAX {
        let data = format!("a batch of {} calls, the limit is {BATCH_MAX}; nothing was done", items.len());
        let error = Error { data: Some(Json::String(data)), ..Error::usual(-32600) };
        return Calls::One(Item::Error { id: Json::Null, error });
    }
    Calls::Batch(items.iter().map(|j| item(page, j)).collect())
}

fn protocol_error(code: i32) -> Item {
    Item::Error { id: Json::Null, error: Error::usual(code) }
}

fn item(page: Page, json: &Json) -> Item {
    let Json::Object(members) = json else { return protocol_error(-32600) };
    let member = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, j)| j);
    match member("jsonrpc") {
        None => {}
        Some(Json::String(version)) if version == "2.0" => {}
        Some(_) => return protocol_error(-32700),
    }
    let Some(Json::String(method)) = member("method") else { return protocol_error(-32600) };
    let params = member("params");
    if let Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) = params {
        return protocol_error(-32602);
    }
    let Some(id) = member("id") else { return Item::Notification };
    let id = id.clone();
    let Some(Json::Array(params)) = params else {
        return Item::Error { id, error: Error::usual(-32601) };
    };
    match call(page, method, params) {
        Ok(call) => Item::Call { id, call },
        Err(reject) => Item::Error { id, error: reject.into() },
    }
}

/// The answer to a call.
pub fn answer(id: Json, outcome: Result<Json, Error>) -> Json {
    let version = Json::string("2.0");
    match outcome {
        Ok(result) => Json::object([("result", result), ("id", id), ("jsonrpc", version)]),
        Err(Error { code, message, data }) => {
            let mut error =
                vec![("code".to_owned(), Json::integer(code)), ("message".to_owned(), Json::String(message))];
            error.extend(data.map(|d| ("data".to_owned(), d)));
            Json::object([("jsonrpc", version), ("id", id), ("error", Json::Object(error))])
        }
    }
}

/// A body from answers; the line feed at its end is part of it.
pub fn body_of(answers: &Answers) -> String {
    let mut out = String::new();
    match answers {
        Answers::One(one) => {
            if let Some(json) = one {
                json.write_to(&mut out);
            }
        }
        Answers::Batch(all) if all.is_empty() => {}
        Answers::Batch(all) => {
            out.push('[');
            for (i, json) in all.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json.write_to(&mut out);
            }
            out.push(']');
        }
    }
    out.push('\n');
    out
}

/// The answers to what a body asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answers {
    /// To one call; none to a notification.
    One(Option<Json>),
    /// To a batch.
    Batch(Vec<Json>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use proptest::prelude::*;

    /// The body that a server would send whose every call succeeds with its name.
    fn answered(page: Page, body: &[u8]) -> String {
        let one = |item: Item| match item {
            Item::Call { id, call } => {
                let name = format!("{call:?}");
                Some(answer(id, Ok(Json::string(name.split([' ', '(']).next().unwrap_or_default()))))
            }
            Item::Error { id, error } => Some(answer(id, Err(error))),
            Item::Notification => None,
        };
        body_of(&match calls(page, body) {
            Calls::One(item) => Answers::One(one(item)),
            Calls::Batch(items) => Answers::Batch(items.into_iter().filter_map(one).collect()),
        })
    }

    fn check(body: &str, expected: &str) {
        assert_eq!(answered(Page::Tx, body.as_bytes()), format!("{expected}\n"), "{body}");
        let encoded: String = body.bytes().map(|b| format!("%{b:02X}")).collect();
        assert_eq!(answered(Page::Tx, encoded.as_bytes()), format!("{expected}\n"), "{body}, encoded");
    }

    #[test]
    fn ids_are_echoed_and_the_version_may_be_missing() {
        for id in ["0", "-1", "1.50", "1e3", "\"abc\"", "null", "[1,{\"b\":1,\"a\":2}]", "{\"x\":0}", "true"]
        {
            check(
                &format!(r#"{{"method":"nop","params":[1],"id":{id}}}"#),
                &format!(r#"{{"result":"Nop","id":{id},"jsonrpc":"2.0"}}"#),
            );
        }
    }

    #[test]
    fn errors_of_the_protocol_are_those_of_scalaris() {
        let error = |id: &str, code: i32, text: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{text}"}}}}"#)
        };
        let (parse, request) =
            (error("null", -32700, "parse error"), error("null", -32600, "invalid request"));
        let (method, params) =
            (error("0", -32601, "method not found"), error("null", -32602, "invalid params"));
        for (body, expected) in [
            ("", &parse),
            ("{", &parse),
            ("{} x", &parse),
            (r#"{"jsonrpc":"1.0","method":"nop","params":[1],"id":0}"#, &parse),
            (r#"{"jsonrpc":2.0,"method":"nop","params":[1],"id":0}"#, &parse),
            (r#"{"method":"nop","params":["\u0000"],"id":0}"#, &parse),
            ("[]", &request),
            ("5", &request),
            ("\"x\"", &request),
            ("{}", &request),
            (r#"{"jsonrpc":"2.0","params":[],"id":0}"#, &request),
            (r#"{"jsonrpc":"2.0","method":5,"params":[],"id":0}"#, &request),
            (r#"{"method":"nop","params":"x","id":0}"#, &params),
            (r#"{"method":"nop","params":1,"id":0}"#, &params),
            (r#"{"method":"nop","params":{"a":1},"id":0}"#, &method),
            (r#"{"method":"nop","id":0}"#, &method),
        ] {
            check(body, expected);
        }
    }

    #[test]
    fn notifications_are_not_answered_and_batches_are_in_order() {
        let call = |id: u8| format!(r#"{{"method":"nop","params":[1],"id":{id}}}"#);
        let note = r#"{"jsonrpc":"2.0","method":"nop","params":[1]}"#;
        check(note, "");
        check(&format!("[{note},{note}]"), "");
        check(
            &format!("[{},{note},7,{}]", call(1), call(2)),
            r#"[{"result":"Nop","id":1,"jsonrpc":"2.0"},{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}},{"result":"Nop","id":2,"jsonrpc":"2.0"}]"#,
        );
        let many = vec![note; BATCH_MAX + 1].join(",");
        assert!(answered(Page::Tx, format!("[{many}]").as_bytes()).contains("the limit is 1000"));
    }

    fn on(page: Page, method: &str, params: &str) -> String {
        let body = format!(r#"{{"method":"{method}","params":{params},"id":0}}"#);
        let text = answered(page, body.as_bytes());
        text.strip_prefix(r#"{"result":""#)
            .and_then(|t| t.strip_suffix("\",\"id\":0,\"jsonrpc\":\"2.0\"}\n"))
            .map_or(text.clone(), str::to_owned)
    }

    #[test]
    fn each_page_has_its_methods_and_the_old_page_has_no_vm() {
        for (page, method, params, expected) in [
            (Page::Tx, "read", r#"["k"]"#, "Single"),
            (Page::Tx, "read", "[]", "Unknown"),
            (Page::Tx, "delete", r#"["k"]"#, "Unknown"),
            (Page::Rdht, "delete", r#"["k",100]"#, "Delete"),
            (Page::DhtRaw, "range_read", "[0,340282366920938463463374607431768211456]", "RangeRead"),
            (Page::Rbr, "read", r#"["k"]"#, "Single"),
            (Page::Rbr, "write", r#"["k",[1]]"#, "RbrWrite"),
            (Page::Rbr, "rbr_read", r#"["k"]"#, "Unknown"),
            (Page::Rt, "get_replication_factor", "[]", "GetReplicationFactor"),
            (Page::Vm, "add_nodes", "[3]", "Vm"),
            (Page::Vm, "kill_nodes_by_name", r#"[["a"]]"#, "Vm"),
            (Page::Monitor, "get_service_info", "[]", "Monitor"),
            (Page::Autoscale, "pull_scale_req", "[]", "Autoscale"),
            (Page::Legacy, "rbr_write", r#"["k",1]"#, "RbrWrite"),
            (Page::Legacy, "delete", r#"["k"]"#, "Delete"),
            (Page::Legacy, "range_read", "[1,2]", "RangeRead"),
            (Page::Legacy, "get_node_info", "[]", "Monitor"),
            (Page::Legacy, "get_replication_factor", "[]", "GetReplicationFactor"),
            (Page::Legacy, "get_ring_size", "[2000]", "GetRingSize"),
            (Page::Legacy, "wait_for_ring_size", "[1,2000]", "WaitForRingSize"),
            (Page::Legacy, "run_benchmark_incr", "[]", "Benchmark"),
            (Page::Legacy, "req_list", "[[]]", "ReqList"),
            (Page::Legacy, "get_info", "[]", "Unknown"),
            (Page::Legacy, "check_config", "[]", "Unknown"),
            (Page::Legacy, "frobnicate", "[1]", "Unknown"),
        ] {
            assert_eq!(on(page, method, params), expected, "{method} {params}");
        }
    }

    #[test]
    fn parameters_without_sense_are_errors_with_a_cause() {
        for (page, method, params, code) in [
            (Page::Tx, "write", r#"["k","plain"]"#, -32601),
            (Page::Tx, "write", r#"["k",{"type":"as_bin","value":"*"}]"#, -32601),
            (Page::Tx, "write", r#"["k",{"type":"as_is"}]"#, -32602),
            (Page::Tx, "read", "[1]", -32602),
            (Page::Tx, "req_list", r#"[[{"bogus":"k"}]]"#, -32602),
            (Page::Tx, "req_list", r#"[[{"write":{"a":1,"b":2}}]]"#, -32602),
            (Page::Tx, "req_list", r#"["g2o=",[]]"#, -32602),
            (Page::Tx, "req_list", r#"[5,[]]"#, -32602),
            (Page::Tx, "req_list", r#"["x"]"#, -32601),
            (Page::Tx, "req_list_commit_each", r#"[[{"commit":1}]]"#, -32602),
            (Page::Rdht, "delete", r#"["k","soon"]"#, -32602),
            (Page::Rdht, "delete", r#"["k",-1]"#, -32602),
            (Page::DhtRaw, "range_read", "[-1,0]", -32602),
            (Page::DhtRaw, "range_read", "[1.5,0]", -32602),
            (Page::Vm, "get_other_vms", "[0]", -32601),
            (Page::Vm, "add_nodes", "[\"1\"]", -32602),
            (Page::Vm, "kill_nodes_by_name", "[5]", -32601),
        ] {
            let text = on(page, method, params);
            let begin = format!(r#"{{"jsonrpc":"2.0","id":0,"error":{{"code":{code},"#);
            assert!(text.starts_with(&begin) && text.contains(r#""data":""#), "{method} {params}: {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_by_a_line_of_json(body: Vec<u8>, page in 0usize..9) {
            let text = answered(Page::ALL[page].1, &body);
            prop_assert!(text == "\n" || text.trim_end().parse::<serde_json::Value>().is_ok());
        }

        #[test]
        fn so_is_whatever_resembles_a_call(
            page in 0usize..9,
            method in prop_oneof![Just("write"), Just("req_list"), Just("test_and_set"), Just("delete"), Just("add_nodes"), Just("range_read")],
            params in "(\\[|\\]|\\{|\\}|\"[a-z%\\\\]{0,3}\"|:|,|-?[0-9]{1,4}|1\\.5e[0-9]{1,3}|\"type\":\"as_is\"|\"value\":){0,16}",
        ) {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":[{params}],"id":0}}"#);
            let text = answered(Page::ALL[page].1, body.as_bytes());
            prop_assert!(text.ends_with('\n') && text.trim_end().parse::<serde_json::Value>().is_ok());
            prop_assert!(json::parse(&text).is_ok());
        }
    }
}
