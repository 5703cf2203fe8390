//! `txn`: several operations that take effect together or not at all.

use super::output::{Output, rows};
use super::trouble::report;
use super::{Target, json};
use crate::error::{self, Report, key_text};
use clap::Args;
use client::{Answer, Condition, Error, Operation, Value};
use serde_json::{Value as Json, json};

/// Run operations as one transaction.
#[derive(Debug, Args)]
#[command(after_help = "Each operation is one argument:\n  \
    get KEY | put KEY VALUE | del KEY | incr KEY [N] | cas KEY OLD NEW\n\n\
    Examples:\n  kvnode txn 'incr alice -10' 'incr bob 10'\n  kvnode txn 'get a' 'put b hello world'")]
pub(super) struct Txn {
    /// The operations, executed in this order; each sees those before it
    #[arg(required = true, value_name = "OPERATION")]
    operations: Vec<String>,
    /// Read values as JSON: numbers, lists and objects keep their types
    #[arg(long)]
    json: bool,
}

fn wrong(text: &str, why: &str) -> Report {
    let fix = "write it as get KEY, put KEY VALUE, del KEY, incr KEY [N] or cas KEY OLD NEW";
    Report::new(error::USAGE, format!("'{text}' is not an operation"), why, fix)
}

/// The operation that an argument is, with its key.
fn operation(text: &str, is_json: bool) -> Result<(String, Operation), Report> {
    let (verb, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let (key, rest) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let rest = rest.trim();
    if key.is_empty() {
        return Err(wrong(text, "it names no key"));
    }
    let value = |v: &str| match is_json {
        false => Ok(Value::string(v)),
        true => json::parse(v).map_err(|e| wrong(text, &e)),
    };
    let operation = match verb {
        "get" if rest.is_empty() => Operation::get(key),
        "del" if rest.is_empty() => Operation::delete(key, Condition::Always),
        "put" if !rest.is_empty() => Operation::put(key, &value(rest)?, Condition::Always),
        "incr" => {
            let by = json::number(if rest.is_empty() { "1" } else { rest }).map_err(|e| wrong(text, &e))?;
            Operation::add_on_number(key, &Value::encode(&by))
        }
        "cas" => match rest.split_once(char::is_whitespace) {
            Some((old, new)) => Operation::test_and_set(key, &value(old)?, &value(new.trim())?),
            None => return Err(wrong(text, "it needs the old and the new value")),
        },
        "get" | "del" => return Err(wrong(text, "it has more than a key")),
        "put" => return Err(wrong(text, "it has no value")),
        _ => return Err(wrong(text, "the first word is none of get, put, del, incr and cas")),
    };
    Ok((key.to_owned(), operation))
}

/// What is shown of an operation: the value, or that the key is not there.
fn shown(answer: &Result<Answer, Error>) -> Json {
    let value = |a: &Answer| a.value.as_ref().map_or(Json::Bool(a.existed), |v| json::to_json(&v.decode()));
    answer.as_ref().map_or(Json::Null, value)
}

impl Txn {
    pub(super) async fn run(self, target: &Target) -> Result<Output, Report> {
        let parsed: Result<Vec<(String, Operation)>, Report> =
            self.operations.iter().map(|o| operation(o, self.json)).collect();
        let (keys, operations): (Vec<String>, Vec<Operation>) = parsed?.into_iter().unzip();
        let kv = target.connect().await?;
        let body = |tx: client::Transaction| {
            let operations = operations.clone();
            async move {
                let answers = tx.run(&operations).await?;
                // Only a key that is not there to be read or removed is no reason to stop.
                let failed = answers.iter().zip(&operations).find_map(|(a, o)| match a {
                    Err(Error::NotFound(_)) if o.is_read_or_delete() => None,
                    Err(e) => Some(e.clone()),
                    Ok(_) => None,
                });
                failed.map_or(Ok(answers), Err)
            }
        };
        let answers = kv.transaction(body).await.map_err(report)?;
        let one = |(key, a): (&String, &Result<Answer, Error>)| json!({ "key": key, "value": shown(a) });
        let results: Vec<Json> = keys.iter().zip(&answers).map(one).collect();
        let lines = keys.iter().zip(&answers);
        let table = lines.clone().map(|(k, a)| vec![key_text(k), shown(a).to_string()]).collect();
        let plain: String = lines.map(|(k, a)| format!("{}\t{}\n", key_text(k), shown(a))).collect();
        let json = json!({ "committed": true, "results": results });
        let mut output = Output::new("", json, rows(&["KEY", "VALUE"], table));
        output.plain = plain.into_bytes();
        output.notes.push(format!("committed {} operations", keys.len()));
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_and_what_is_none_is_named() {
        for good in ["get a", "put a b c", "del a", "incr a", "incr a -5", "cas a 1 2"] {
            assert!(operation(good, false).is_ok(), "{good}");
        }
        for bad in ["get", "put a", "frob a", "cas a 1", "get a b", "incr a x", ""] {
            let e = operation(bad, false).map(drop).expect_err(bad);
            assert_eq!(e.code.exit, error::Exit::Usage);
        }
        assert!(operation("put a {\"x\": 1}", true).is_ok());
        assert!(operation("put a {", true).is_err());
    }
}
