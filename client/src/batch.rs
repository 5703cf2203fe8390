//! Independent operations in one call.

use crate::calls::kv;
use crate::error::Error;
use crate::{Client, Condition, Value};
use proto::client_api::{condition_to_wire, value_from_wire, value_to_wire};
use proto::v1;
use proto::v1::operation::Kind as Op;
use proto::v1::operation_result::Kind as Done;

/// One operation of a batch.
#[derive(Clone, Debug)]
pub struct Operation(pub(crate) v1::Operation);

impl Operation {
    fn new(kind: Op) -> Operation {
        Operation(v1::Operation { kind: Some(kind) })
    }

    /// Whether a missing key is an answer to it, not a failure.
    pub fn is_read_or_delete(&self) -> bool {
        matches!(self.0.kind, Some(Op::Get(_) | Op::Delete(_)))
    }

    /// As [`Client::get`].
    pub fn get(key: &str) -> Operation {
        Operation::new(Op::Get(v1::GetRequest { key: key.to_owned() }))
    }

    /// As [`Client::put_if`].
    pub fn put(key: &str, value: &Value, condition: Condition) -> Operation {
        let (value, condition) = (Some(value_to_wire(value)), condition_to_wire(condition));
        Operation::new(Op::Put(v1::PutRequest { key: key.to_owned(), value, condition }))
    }

    /// As [`Client::delete_if`].
    pub fn delete(key: &str, condition: Condition) -> Operation {
        let condition = condition_to_wire(condition);
        Operation::new(Op::Delete(v1::DeleteRequest { key: key.to_owned(), condition }))
    }

    /// As [`Client::test_and_set`].
    pub fn test_and_set(key: &str, old: &Value, new: &Value) -> Operation {
        let (old, new) = (Some(value_to_wire(old)), Some(value_to_wire(new)));
        Operation::new(Op::TestAndSet(v1::TestAndSetRequest { key: key.to_owned(), old, new }))
    }

    /// As [`Client::add_on_number`].
    pub fn add_on_number(key: &str, by: &Value) -> Operation {
        let by = Some(value_to_wire(by));
        Operation::new(Op::AddOnNumber(v1::AddOnNumberRequest { key: key.to_owned(), by }))
    }

    /// As [`Client::add_del_on_list`].
    pub fn add_del_on_list(key: &str, add: &[Value], remove: &[Value]) -> Operation {
        let list = |l: &[Value]| l.iter().map(value_to_wire).collect();
        let (add, remove) = (list(add), list(remove));
        Operation::new(Op::AddDelOnList(v1::AddDelOnListRequest { key: key.to_owned(), add, remove }))
    }
}

/// The answer to one operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The key's version.
    pub version: u64,
    /// The value: of a get, or the sum of an addition where the node still knows it.
    pub value: Option<Value>,
    /// Whether the key was there before a deletion; true for everything else.
    pub existed: bool,
}

impl Client {
    /// Runs independent operations in one call: there is no atomicity and no order among them, and each has its
    /// own result. The outer error means that there are no results at all.
    pub async fn batch(&self, operations: &[Operation]) -> Result<Vec<Result<Answer, Error>>, Error> {
        let is_read = operations.iter().all(|o| matches!(o.0.kind, Some(Op::Get(_))));
        let call = |c| {
            let operations = operations.iter().map(|o| o.0.clone()).collect();
            async move { kv(c).batch(v1::BatchRequest { operations }).await }
        };
        let (answer, node) = self.run(None, is_read, call).await?;
        answers_of(answer.into_inner().results, operations.len(), &node.address)
    }
}

/// The results of `wanted` operations.
pub(crate) fn answers_of(
    results: Vec<v1::OperationResult>,
    wanted: usize,
    endpoint: &str,
) -> Result<Vec<Result<Answer, Error>>, Error> {
    if results.len() != wanted {
        return Err(Error::nonsense(endpoint, "another number of results than of operations"));
    }
    Ok(results.into_iter().map(|r| answer_of(r.kind, endpoint)).collect())
}

fn answer_of(kind: Option<Done>, endpoint: &str) -> Result<Answer, Error> {
    let plain = |version| Ok(Answer { version, value: None, existed: true });
    match kind {
        Some(Done::Get(r)) => {
            let value = value_from_wire(r.value).map_err(|e| Error::nonsense(endpoint, &e.to_string()))?;
            Ok(Answer { version: r.version, value: Some(value), existed: true })
        }
        Some(Done::Put(r)) => plain(r.version),
        Some(Done::Delete(r)) => Ok(Answer { version: r.version, value: None, existed: r.existed }),
        Some(Done::TestAndSet(r)) => plain(r.version),
        Some(Done::AddOnNumber(r)) => {
            let value = r.value.and_then(|v| value_from_wire(Some(v)).ok());
            Ok(Answer { version: r.version, value, existed: true })
        }
        Some(Done::AddDelOnList(r)) => plain(r.version),
        Some(Done::Error(e)) => Err(Error::from_result(e, endpoint)),
        None => Err(Error::nonsense(endpoint, "a result without a kind")),
    }
}
