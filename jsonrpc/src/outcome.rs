//! What came of an operation, and the object that says so.
//!
//! Keeps:
//! 1. Clients count the members: no object here has more or fewer than Scalaris' has.

use crate::json::Json;
use crate::value::{NotShown, typed_of_value};
use store::Value;

/// What came of an operation or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// The value read.
    Value(Value),
    /// The key is not there.
    NotFound,
    /// The value or a parameter is not a list.
    NotAList,
    /// The value or the parameter is not a number.
    NotANumber,
    /// The value is another, this one.
    KeyChanged(Value),
    /// No answer in time. A read can be repeated; a change may have been done or may still be.
    Timeout,
    /// Not done and will not be, because of these keys.
    Abort(Vec<String>),
}

impl Outcome {
    /// The object for the client.
    pub fn json(&self) -> Result<Json, NotShown> {
        let fail = |reason| ("reason", Json::string(reason));
        let failed = ("status", Json::string("fail"));
        let ok = ("status", Json::string("ok"));
        Ok(match self {
            Outcome::Ok => Json::object([ok]),
            Outcome::Value(value) => Json::object([ok, ("value", typed_of_value(value)?)]),
            Outcome::NotFound => Json::object([failed, fail("not_found")]),
            Outcome::NotAList => Json::object([failed, fail("not_a_list")]),
            Outcome::NotANumber => Json::object([failed, fail("not_a_number")]),
            Outcome::KeyChanged(value) => {
                Json::object([failed, fail("key_changed"), ("value", typed_of_value(value)?)])
            }
            Outcome::Timeout => Json::object([failed, fail("timeout")]),
            Outcome::Abort(keys) => {
                let keys = keys.iter().map(Json::string).collect();
                Json::object([failed, fail("abort"), ("keys", Json::Array(keys))])
            }
        })
    }
}
