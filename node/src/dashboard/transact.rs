//! Transactions over several keys from the dashboard.
//!
//! A page first reads, is given the log, and commits with it: the commit succeeds only if nothing it read has
//! changed meanwhile. The log is opaque to the page, as to every client.

use super::keys::{Answer, problem, reply_json, value_of, wrong};
use crate::grpc::{Api, closed, failure, unexpected};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dht::api::{Transact, Transacted, TxOutcome};
use dht::tx::{Step, TxLog};
use dht::{Failure, Reply, Request};
use proto::transaction_log;
use serde_json::{Value as Json, json};
use store::{Change, Condition, Key, OpId, SessionId};

/// Operations of one call.
const OPERATIONS_MAX: usize = 100;
/// A commit of which nobody told the outcome is asked for so often.
const TRIES_MAX: u32 = 3;

fn text<'a>(json: &'a Json, name: &str) -> Option<&'a str> {
    json.get(name).and_then(Json::as_str)
}

fn step(json: &Json) -> Result<(String, Step), Answer> {
    let (Some(verb), Some(name)) = (text(json, "do"), text(json, "key")) else {
        return Err(wrong("an operation has a \"do\" and a \"key\""));
    };
    let value = || value_of(json.get("value").unwrap_or(&Json::Null));
    let change = match verb {
        "get" => None,
        "put" => Some(Change::Put { value: value()?, condition: Condition::Always }),
        "add" => Some(Change::AddOnNumber { by: value()? }),
        "delete" => Some(Change::Delete { condition: Condition::Always }),
        other => return Err(wrong(format!("there is no operation \"{other}\""))),
    };
    Ok((name.to_owned(), Step { key: Key::new(name.as_bytes()), change }))
}

fn log_of(body: &Json) -> Result<TxLog, Answer> {
    let bytes =
        STANDARD.decode(text(body, "log").unwrap_or_default()).map_err(|e| wrong(format!("log: {e}")))?;
    transaction_log::decode(&bytes).map_err(|e| wrong(format!("log: {e}")))
}

/// A name for a commit, so that it can be asked for again.
fn draw_op() -> Result<OpId, Answer> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| wrong(format!("no random bytes: {e}")))?;
    Ok(OpId { session: SessionId(u64::from_be_bytes(bytes)), seq: 1 })
}

/// Executes the operations in `body`, and commits if it says so.
pub(super) async fn answer(api: &Api, body: &Json) -> Answer {
    match go(api, body).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn go(api: &Api, body: &Json) -> Result<Answer, Answer> {
    let log = log_of(body)?;
    let Some(operations) = body.get("operations").and_then(Json::as_array) else {
        return Err(wrong("\"operations\" is missing"));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(wrong(format!("it has {} operations, the limit is {OPERATIONS_MAX}", operations.len())));
    }
    let (names, steps): (Vec<String>, Vec<Step>) =
        operations.iter().map(step).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let commit = body.get("commit").and_then(Json::as_bool).unwrap_or(false);
    let conflicts = body.get("conflicts").and_then(Json::as_u64).unwrap_or(0);
    let is_named =
        commit && !log.entries.is_empty() && steps.iter().all(|s| log.entries.contains_key(&s.key));
    let mut asked = Transact {
        log,
        steps,
        commit,
        op: if is_named { Some(draw_op()?) } else { None },
        is_repeated: false,
        conflicts: u32::try_from(conflicts).unwrap_or(u32::MAX),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let request = Request::Transact(Box::new(asked.clone()));
        let reply = api.handle().request(request).await.map_err(|e| problem(&closed(e)))?;
        let is_unknown = matches!(reply, Reply::Failed(Failure::Unknown { .. }));
        if is_unknown && asked.op.is_some() && tries < TRIES_MAX {
            asked.is_repeated = true;
            continue;
        }
        return if let Reply::Transacted(done) = reply {
            Ok(done_json(&names, *done))
        } else if let Reply::Failed(f) = &reply {
            Err(problem(&failure(f, names.first().map_or("", String::as_str))))
        } else {
            Err(problem(&unexpected(&reply)))
        };
    }
}

fn done_json(names: &[String], done: Transacted) -> Answer {
    let name = |k: &Key| String::from_utf8_lossy(k.as_bytes()).into_owned();
    let results: Vec<Json> = names.iter().zip(done.results).map(|(n, r)| reply_json(n, r).1).collect();
    let log = STANDARD.encode(transaction_log::encode(&done.log));
    match done.outcome {
        TxOutcome::Open => (200, json!({ "state": "open", "log": log, "results": results })),
        TxOutcome::Committed(_) => (200, json!({ "state": "committed", "results": results })),
        TxOutcome::Failed(key) => {
            (200, json!({ "state": "failed", "failed_key": name(&key), "results": results }))
        }
        TxOutcome::Conflict(keys) => {
            let keys: Vec<String> = keys.iter().take(OPERATIONS_MAX).map(name).collect();
            (200, json!({ "state": "conflict", "conflict_keys": keys }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_and_wrong_ones_refused_with_their_reason() {
        let value = json!({ "type": "integer", "text": "-5" });
        let (name, add) = step(&json!({ "do": "add", "key": "a", "value": value })).expect("an operation");
        assert!(name == "a" && matches!(add.change, Some(Change::AddOnNumber { .. })), "{add:?}");
        assert_eq!(step(&json!({ "do": "get", "key": "b" })).expect("an operation").1.change, None);
        for (wrong, reason) in [
            (json!({ "do": "get" }), "a \"key\""),
            (json!({ "do": "swap", "key": "a" }), "no operation \"swap\""),
            (json!({ "do": "put", "key": "a" }), "\"type\""),
        ] {
            let (code, answer) = step(&wrong).expect_err("refused");
            let cause = answer["error"]["cause"].as_str().unwrap_or_default();
            assert!(code == 400 && cause.contains(reason), "{code} {cause}");
        }
        let (code, _) = log_of(&json!({ "log": "AAAA" })).expect_err("no log");
        assert_eq!(code, 400);
    }
}
