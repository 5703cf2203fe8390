//! Operations on keys: alone, as steps of a transaction, and the delete that counts replicas.

use super::{
    Changed, Scalaris, as_outcome, change_failed, not_shown, problem_error, read_failed, report_error,
    unexpected,
};
use crate::error::{self, Report};
use crate::grpc::{closed, refusal};
use core::time::Duration;
use dht::{Reply, Request as Ask};
use jsonrpc::Json;
use jsonrpc::call::{Edit, Operation, Request};
use jsonrpc::envelope::Error;
use jsonrpc::log::Log;
use jsonrpc::outcome::Outcome;
use jsonrpc::transaction::{self, Read};
use std::collections::BTreeMap;
use store::{Change, Condition, Key, Refusal, Value};
use tokio::time::Instant;

/// Operations that commit by themselves, at once.
const EACH_AT_ONCE: usize = 50;
/// How often an edit of a text is tried again when the text changes meanwhile.
const EDITS_MAX: usize = 8;
/// A delete waits at least so long: Scalaris counts whole seconds, and takes 0 for the next moment.
const DELETE_WAIT_MIN: Duration = Duration::from_secs(1);

impl Scalaris {
    /// One operation that commits by itself.
    pub(super) async fn single(&self, key: &str, operation: &Operation) -> Result<Json, Error> {
        let began = Instant::now();
        let outcome = self.operation(key, operation).await?;
        self.latencies.note(began.elapsed());
        outcome.json().map_err(not_shown)
    }

    pub(super) async fn operation(&self, key: &str, operation: &Operation) -> Result<Outcome, Error> {
        match operation {
            Operation::Read => match self.get(key).await? {
                Ok((value, _)) => Ok(value.map_or(Outcome::NotFound, Outcome::Value)),
                Err(outcome) => Ok(outcome),
            },
            Operation::Edit(edit) => match transaction::change(edit) {
                Ok(change) => self.edit(key, edit, change).await,
                Err(outcome) => Ok(outcome),
            },
        }
    }

    /// The value and version of a key, or what the client is told instead.
    pub(super) async fn get(&self, key: &str) -> Result<Result<(Option<Value>, u64), Outcome>, Error> {
        let reply = self.ask(Ask::Get { key: Key::new(key.as_bytes()) }).await?;
        got(key, reply)
    }

    async fn edit(&self, key: &str, edit: &Edit, first: Change) -> Result<Outcome, Error> {
        let mut change = first.clone();
        for _ in 0..EDITS_MAX {
            let (refused, version, value) = match self.change(key, change).await? {
                Changed::Done => return Ok(Outcome::Ok),
                Changed::Failed(f) => return change_failed(&f, key),
                Changed::Refused { refusal, version, value } => (refusal, version, value),
            };
            if matches!(refused, Refusal::TooLarge { .. }) {
                return Err(problem_error(&refusal(&refused, key, version, value.as_ref())));
            }
            let text =
                value.as_ref().and_then(|v| transaction::edit_text(edit, key, v, self.info.value_bytes_max));
            change = match text {
                // A text is a list of characters: what is made of it replaces it, if it is still there.
                Some((Outcome::Ok, Some(list))) => {
                    Change::Put { value: list, condition: Condition::Version(version) }
                }
                Some((outcome, _)) => return Ok(outcome),
                None if matches!(refused, Refusal::VersionDiffers) => first.clone(),
                None => return Ok(transaction::refused(edit, &refused, value, key)),
            };
        }
        Ok(Outcome::Abort(vec![key.to_owned()]))
    }

    /// The write of the page `rbr`.
    pub(super) async fn rbr_write(&self, key: &str, value: Value) -> Result<Json, Error> {
        self.single(key, &Operation::Edit(Edit::Write(value))).await
    }

    fn check_length(&self, n: usize) -> Result<(), Error> {
        let limit = self.info.batch_operations_max;
        if n <= limit {
            return Ok(());
        }
        Err(report_error(&Report::new(
            error::TOO_MANY_OPERATIONS,
            "the request list is too long; nothing was done",
            format!("it has {n} operations, the limit is {limit}"),
            "send it in several steps",
        )))
    }

    /// Operations that commit by themselves, some at once; those on the same key in any order.
    pub(super) async fn commit_each(&self, operations: Vec<(String, Operation)>) -> Result<Json, Error> {
        self.check_length(operations.len())?;
        let mut results = Vec::with_capacity(operations.len());
        for some in operations.chunks(EACH_AT_ONCE) {
            let began = Instant::now();
            for (outcome, (key, _)) in self.at_once(some).await.into_iter().zip(some) {
                results.push(as_outcome(outcome, key).json().map_err(not_shown)?);
            }
            self.latencies.note(began.elapsed());
        }
        Ok(Json::Array(results))
    }

    /// All of them under way at once.
    pub(super) async fn at_once(&self, some: &[(String, Operation)]) -> Vec<Result<Outcome, Error>> {
        let mut waiting: Vec<_> = some.iter().map(|(k, o)| Box::pin(self.operation(k, o))).collect();
        let mut outcomes: Vec<Option<Result<Outcome, Error>>> = some.iter().map(|_| None).collect();
        core::future::poll_fn(|context| {
            for (future, slot) in waiting.iter_mut().zip(&mut outcomes).filter(|(_, slot)| slot.is_none()) {
                if let core::task::Poll::Ready(outcome) = future.as_mut().poll(context) {
                    *slot = Some(outcome);
                }
            }
            let is_done = outcomes.iter().all(Option::is_some);
            if is_done { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
        })
        .await;
        outcomes.into_iter().flatten().collect()
    }

    /// A step of a transaction.
    pub(super) async fn req_list(&self, mut log: Log, requests: &[Request]) -> Result<Json, Error> {
        self.check_length(requests.len())?;
        let began = Instant::now();
        let outcomes = if transaction::is_commit_misplaced(requests) {
            transaction::refuse(&mut log, requests)
        } else if let Some((key, operation)) = transaction::single(&log, requests) {
            let outcome = self.operation(key, operation).await?;
            single_committed(key, operation, outcome)
        } else {
            let reads = self.reads(&log, requests).await?;
            let mut outcomes = transaction::execute(&mut log, requests, reads, self.info.value_bytes_max);
            if transaction::commits(requests) {
                outcomes.push(self.commit(core::mem::take(&mut log)).await?);
            }
            outcomes
        };
        self.latencies.note(began.elapsed());
        let results: Result<Vec<Json>, _> = outcomes.iter().map(Outcome::json).collect();
        let results = Json::Array(results.map_err(not_shown)?);
        Ok(Json::object([("tlog", Json::String(log.token())), ("results", results)]))
    }

    /// Reads what a step needs; all reads are under way at once.
    async fn reads(&self, log: &Log, requests: &[Request]) -> Result<BTreeMap<String, Read>, Error> {
        let mut waiting = Vec::new();
        for key in transaction::keys_to_read(log, requests) {
            let ask = Ask::Get { key: Key::new(key.as_bytes()) };
            waiting.push((key, self.handle.submit(ask).await.map_err(|c| problem_error(&closed(c)))?));
        }
        let mut reads = BTreeMap::new();
        for (key, pending) in waiting {
            let reply = pending.answer().await.map_err(|c| problem_error(&closed(c)))?;
            let read = match got(&key, reply)? {
                Ok((value, version)) => Read::State { value, version },
                Err(_) => Read::Timeout,
            };
            reads.insert(key, read);
        }
        Ok(reads)
    }

    /// Deletes a key at all replicas. A delete is decided once and holds for every replica, so the answer
    /// counts all of them or none.
    pub(super) async fn delete(&self, key: &str, timeout: Duration) -> Result<Json, Error> {
        let replicas = usize::from(self.status().await?.replication_factor);
        let counted = |n: usize, word: &str| {
            let words = (0..replicas).map(|_| Json::string(word)).collect();
            Json::object([("ok", Json::integer(n)), ("results", Json::Array(words))])
        };
        let change = Change::Delete { condition: Condition::Always };
        let asked = self.change(key, change);
        let changed = match tokio::time::timeout(timeout.max(DELETE_WAIT_MIN), asked).await {
            Ok(changed) => changed?,
            Err(_) => return Ok(delete_timeout()),
        };
        match changed {
            Changed::Done => Ok(counted(replicas, "ok")),
            Changed::Refused { refusal: Refusal::NotFound, .. } => Ok(counted(0, "undef")),
            // What else keeps a key from being deleted is a transaction's hold on it.
            Changed::Refused { .. } => Ok(counted(0, "locks_set")),
            Changed::Failed(f) => change_failed(&f, key).map(|_| delete_timeout()),
        }
    }
}

fn delete_timeout() -> Json {
    Json::object([
        ("failure", Json::string("timeout")),
        ("ok", Json::integer(0)),
        ("results", Json::Array(Vec::new())),
    ])
}

fn got(key: &str, reply: Reply) -> Result<Result<(Option<Value>, u64), Outcome>, Error> {
    if let Reply::Value { value, version } = reply {
        return Ok(Ok((value, version)));
    }
    if let Reply::Failed(f) = reply { read_failed(&f, key).map(Err) } else { Err(unexpected(&reply)) }
}

/// The outcomes of a transaction that was one operation and its commit.
fn single_committed(key: &str, operation: &Operation, outcome: Outcome) -> Vec<Outcome> {
    let is_read = *operation == Operation::Read;
    match outcome {
        Outcome::Ok | Outcome::Value(_) => vec![outcome, Outcome::Ok],
        Outcome::NotFound if is_read => vec![outcome, Outcome::Ok],
        // The operation itself can always be done; what failed is its commit.
        Outcome::Timeout | Outcome::Abort(_) if !is_read => vec![Outcome::Ok, outcome],
        Outcome::NotFound
        | Outcome::NotAList
        | Outcome::NotANumber
        | Outcome::KeyChanged(_)
        | Outcome::Timeout
        | Outcome::Abort(_) => vec![outcome, Outcome::Abort(vec![key.to_owned()])],
    }
}
