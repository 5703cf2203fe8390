//! Scalaris' JSON-RPC over the event loop.
//!
//! What bodies, calls and answers are is decided in the crate `jsonrpc`; here calls are carried out. Values, keys
//! and versions are those of gRPC: what one interface writes the other reads.
//!
//! Keeps:
//! 1. Every call is answered within a bound: operations by the core's deadline, a batch by [`BATCH_TIME_MAX`].
//! 2. What is known not to be done and what may have been done are never told by the same answer: the first is
//!    `abort` or an error whose `data.outcome` is `not_done`, the second `timeout` or `unknown`.
//!
//! Differs from Scalaris: see `docs/scalaris.md`.

mod benchmark;
mod cluster;
mod commit;
mod latencies;
mod operations;
mod page;
mod range;
mod virtual_nodes;
mod vm;

pub use virtual_nodes::{Spec, VirtualNodes};

use crate::error::{self, Outcome as Fate, Report};
use crate::grpc::{Api, Problem, ServerInfo, closed, failure};
use crate::handle::NodeHandle;
use core::time::Duration;
use dht::api::Status;
use dht::{Failure, Reply, Request as Ask};
use jsonrpc::Json;
use jsonrpc::call::{AutoscaleCall, Call};
use jsonrpc::envelope::{Answers, Calls, Error, Item, answer};
use jsonrpc::outcome::Outcome;
use jsonrpc::value::NotShown;
use latencies::Latencies;
use std::sync::Arc;
use store::{Change, Key, Refusal, Value};
use tokio::time::Instant;

/// The code of errors that are not JSON-RPC's own.
const SERVER_ERROR: i32 = -32000;
/// The calls of a batch that have not begun after this are not carried out.
const BATCH_TIME_MAX: Duration = Duration::from_secs(60);

/// The pages.
#[derive(Debug)]
pub struct Scalaris {
    handle: NodeHandle,
    info: Arc<ServerInfo>,
    latencies: Latencies,
}

/// Why an operation has no outcome that its object could say.
fn report_error(report: &Report) -> Error {
    let text = |t: &str| Json::string(t);
    Error {
        code: SERVER_ERROR,
        message: report.message.clone(),
        data: Some(Json::object([
            ("code", text(report.code.code)),
            ("cause", text(&report.cause)),
            ("fix", text(&report.fix)),
            ("outcome", text(report.code.outcome.word())),
        ])),
    }
}

fn problem_error(problem: &Problem) -> Error {
    report_error(problem.report())
}

fn not_shown(e: NotShown) -> Error {
    report_error(&Report::new(
        error::VALUE_TOO_LONG,
        "the value cannot be shown as JSON",
        format!("it is or contains {e}"),
        "read it over gRPC (kvnode.v1.Kv/Get), or write a smaller number",
    ))
}

/// What a change that failed is answered: `timeout` if it may have been done, `abort` if trying again may help.
fn change_failed(f: &Failure, key: &str) -> Result<Outcome, Error> {
    if matches!(f, Failure::Unknown { .. }) {
        return Ok(Outcome::Timeout);
    }
    if matches!(f, Failure::Unavailable { .. } | Failure::Busy) {
        return Ok(Outcome::Abort(vec![key.to_owned()]));
    }
    Err(problem_error(&failure(f, key)))
}

/// What a read that failed is answered: it can always be tried again.
fn read_failed(f: &Failure, key: &str) -> Result<Outcome, Error> {
    if matches!(f, Failure::Unknown { .. } | Failure::Unavailable { .. } | Failure::Busy) {
        return Ok(Outcome::Timeout);
    }
    Err(problem_error(&failure(f, key)))
}

/// An error where only an outcome has room.
fn as_outcome(outcome: Result<Outcome, Error>, key: &str) -> Outcome {
    outcome.unwrap_or_else(|e| {
        let is_unknown = e.data.is_some_and(|d| match d {
            Json::Object(members) => {
                members.contains(&("outcome".to_owned(), Json::string(Fate::Unknown.word())))
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => false,
        });
        if is_unknown { Outcome::Timeout } else { Outcome::Abort(vec![key.to_owned()]) }
    })
}

fn ok(value: Json) -> Json {
    Json::object([("status", Json::string("ok")), ("value", value)])
}

impl Scalaris {
    /// The pages of the node behind `api`.
    pub fn new(api: &Api) -> Scalaris {
        Scalaris { handle: api.handle().clone(), info: api.info_shared(), latencies: Latencies::default() }
    }

    /// Carries out what a body asked, one call after the other.
    async fn answers(&self, calls: Calls) -> Answers {
        let deadline = Instant::now() + BATCH_TIME_MAX;
        match calls {
            Calls::One(item) => Answers::One(self.item(item, deadline).await),
            Calls::Batch(items) => {
                let mut answers = Vec::with_capacity(items.len());
                for item in items {
                    answers.extend(self.item(item, deadline).await);
                }
                Answers::Batch(answers)
            }
        }
    }

    async fn item(&self, item: Item, deadline: Instant) -> Option<Json> {
        match item {
            Item::Call { id, .. } if Instant::now() >= deadline => Some(answer(id, Err(batch_too_long()))),
            Item::Call { id, call } => Some(answer(id, self.call(call).await)),
            Item::Error { id, error } => Some(answer(id, Err(error))),
            Item::Notification => None,
        }
    }

    async fn call(&self, call: Call) -> Result<Json, Error> {
        match call {
            Call::Nop => Ok(Json::string("ok")),
            Call::Single(key, operation) => self.single(&key, &operation).await,
            Call::ReqList(log, requests) => self.req_list(log, &requests).await,
            Call::ReqListCommitEach(operations) => self.commit_each(operations).await,
            Call::Delete { key, timeout_ms } => self.delete(&key, Duration::from_millis(timeout_ms)).await,
            Call::RangeRead { from, to } => self.range_read(from, to).await,
            Call::RangeReadHere { from, to } => self.range_read_here(from, to).await,
            Call::RbrWrite(key, value) => self.rbr_write(&key, value).await,
            Call::GetReplicationFactor => Ok(ok(Json::integer(self.status().await?.replication_factor))),
            Call::Vm(call) => self.vm(call).await,
            Call::Monitor(call) => self.monitor(call).await,
            Call::Autoscale(call) => Ok(autoscale(call)),
            Call::GetRingSize { timeout_ms } => Ok(self.ring_size(Duration::from_millis(timeout_ms)).await),
            Call::WaitForRingSize { size, timeout_ms } => {
                Ok(self.wait_for_ring_size(size, Duration::from_millis(timeout_ms)).await)
            }
            Call::Benchmark(call) => self.benchmark(call).await,
            Call::Unknown => Ok(Json::object([("failure", Json::string("unknownreq"))])),
        }
    }

    /// Asks the event loop.
    async fn ask(&self, ask: Ask) -> Result<Reply, Error> {
        self.handle.request(ask).await.map_err(|c| problem_error(&closed(c)))
    }

    async fn status(&self) -> Result<Status, Error> {
        let reply = self.ask(Ask::Status).await?;
        if let Reply::Status(s) = reply { Ok(*s) } else { Err(unexpected(&reply)) }
    }

    /// Changes a key once.
    async fn change(&self, key: &str, change: Change) -> Result<Changed, Error> {
        let reply = self.ask(Ask::Change { key: Key::new(key.as_bytes()), change }).await?;
        if let Reply::Changed { .. } = reply {
            return Ok(Changed::Done);
        }
        if let Reply::Refused { refusal, version, value } = reply {
            return Ok(Changed::Refused { refusal, version, value });
        }
        if let Reply::Failed(f) = reply { Ok(Changed::Failed(f)) } else { Err(unexpected(&reply)) }
    }
}

/// What came of a change.
enum Changed {
    Done,
    Refused { refusal: Refusal, version: u64, value: Option<Value> },
    Failed(Failure),
}

fn unexpected(reply: &Reply) -> Error {
    problem_error(&crate::grpc::unexpected(reply))
}

fn batch_too_long() -> Error {
    report_error(&Report::new(
        error::NODE_BUSY,
        "the batch took too long; this call was not carried out",
        format!("the calls before it took more than {} s", BATCH_TIME_MAX.as_secs()),
        "send smaller batches",
    ))
}

/// Nothing here starts or stops machines.
fn autoscale(call: AutoscaleCall) -> Json {
    let error = ("status", Json::string("error"));
    match call {
        AutoscaleCall::CheckConfig => Json::object([error]),
        AutoscaleCall::PullScaleReq | AutoscaleCall::LockScaleReq | AutoscaleCall::UnlockScaleReq => {
            Json::object([error, ("reason", Json::string("autoscale_false"))])
        }
    }
}
