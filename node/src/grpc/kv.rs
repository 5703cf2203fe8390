//! `kvnode.v1.Kv`.
//!
//! Each operation has a `prepare` that makes the core's request and a `finish` that makes the answer; the unary
//! methods and Batch share both.

use super::problem::{closed, failure, not_found, refusal, unexpected, value_too_long, version_of_nothing};
use super::{Api, Problem};
use crate::error::{self, Report};
use crate::traces::Parent;
use dht::tx::Step;
use dht::{Reply, Request as Ask};
use proto::client_api::{self, WireError, condition_from_wire, value_from_wire, value_to_wire};
use proto::v1::kv_server::Kv;
use proto::v1::operation::Kind as Op;
use proto::v1::operation_result::Kind as Done;
use proto::v1::{self, BatchRequest, BatchResponse};
use store::{Change, Condition, Key, Refusal, Value};
use tonic::{Request, Response, Status, async_trait};

/// What is asked, and what is needed to understand the reply.
struct Prepared<T> {
    key: String,
    ask: Ask,
    finish: fn(&str, Reply) -> Result<T, Problem>,
}

fn malformed(e: WireError) -> Problem {
    let fix = "send the fields as proto/kvnode/v1 describes them";
    Report::new(error::VALUE_MALFORMED, "the request has no usable value", e.to_string(), fix).into()
}

impl Api {
    fn checked(&self, value: Option<v1::Value>) -> Result<Value, Problem> {
        let value = value_from_wire(value).map_err(malformed)?;
        let size = value.as_bytes().len();
        if size > self.info.value_bytes_max {
            return Err(value_too_long(size, self.info.value_bytes_max).into());
        }
        Ok(value)
    }

    fn keyed(&self, key: &str) -> Result<Key, Problem> {
        if key.len() > self.info.key_bytes_max {
            let f = dht::Failure::KeyTooLong { size_bytes: key.len(), limit_bytes: self.info.key_bytes_max };
            return Err(failure(&f, key));
        }
        Ok(Key::new(key.as_bytes()))
    }

    fn change<T>(
        &self,
        key: String,
        change: Change,
        finish: fn(&str, Reply) -> Result<T, Problem>,
    ) -> Result<Prepared<T>, Problem> {
        Ok(Prepared { ask: Ask::Change { key: self.keyed(&key)?, change }, key, finish })
    }

    fn prepare_get(&self, r: v1::GetRequest) -> Result<Prepared<v1::GetResponse>, Problem> {
        Ok(Prepared { ask: Ask::Get { key: self.keyed(&r.key)? }, key: r.key, finish: finish_get })
    }

    fn prepare_put(&self, r: v1::PutRequest) -> Result<Prepared<v1::PutResponse>, Problem> {
        let value = self.checked(r.value)?;
        let condition = condition_from_wire(r.condition).map_err(malformed)?;
        let finish = |key: &str, reply| match changed(key, reply) {
            Ok((version, _)) => Ok(v1::PutResponse { version }),
            Err(Missing::Key(version)) => Err(version_of_nothing(key, version)),
            Err(Missing::Answer(p)) => Err(p),
        };
        self.change(r.key, Change::Put { value, condition }, finish)
    }

    fn prepare_delete(&self, r: v1::DeleteRequest) -> Result<Prepared<v1::DeleteResponse>, Problem> {
        let condition = condition_from_wire(r.condition).map_err(malformed)?;
        let finish: fn(&str, Reply) -> Result<v1::DeleteResponse, Problem> = match condition {
            Condition::Version(_) => |key, reply| match changed(key, reply) {
                Ok((version, _)) => Ok(v1::DeleteResponse { existed: true, version }),
                Err(Missing::Key(version)) => Err(version_of_nothing(key, version)),
                Err(Missing::Answer(p)) => Err(p),
            },
            Condition::Always | Condition::Absent => |key, reply| match changed(key, reply) {
                Ok((version, _)) => Ok(v1::DeleteResponse { existed: true, version }),
                Err(Missing::Key(version)) => Ok(v1::DeleteResponse { existed: false, version }),
                Err(Missing::Answer(p)) => Err(p),
            },
        };
        self.change(r.key, Change::Delete { condition }, finish)
    }

    fn prepare_test_and_set(
        &self,
        r: v1::TestAndSetRequest,
    ) -> Result<Prepared<v1::TestAndSetResponse>, Problem> {
        let (old, new) = (self.checked(r.old)?, self.checked(r.new)?);
        self.change(r.key, Change::TestAndSet { old, new }, |key, reply| {
            let (version, _) = changed(key, reply).map_err(|m| m.into_problem(key))?;
            Ok(v1::TestAndSetResponse { version })
        })
    }

    fn prepare_add_on_number(
        &self,
        r: v1::AddOnNumberRequest,
    ) -> Result<Prepared<v1::AddOnNumberResponse>, Problem> {
        let by = self.checked(r.by)?;
        self.change(r.key, Change::AddOnNumber { by }, |key, reply| {
            let (version, value) = changed(key, reply).map_err(|m| m.into_problem(key))?;
            Ok(v1::AddOnNumberResponse { version, value: value.as_ref().map(value_to_wire) })
        })
    }

    fn prepare_add_del_on_list(
        &self,
        r: v1::AddDelOnListRequest,
    ) -> Result<Prepared<v1::AddDelOnListResponse>, Problem> {
        let list = |l| client_api::list_from_wire(l).map_err(malformed);
        let (add, remove) = (list(r.add)?, list(r.remove)?);
        self.change(r.key, Change::AddDelOnList { add, remove }, |key, reply| {
            let (version, _) = changed(key, reply).map_err(|m| m.into_problem(key))?;
            Ok(v1::AddDelOnListResponse { version })
        })
    }

    async fn run<T>(
        &self,
        parent: Option<Parent>,
        prepared: Result<Prepared<T>, Problem>,
    ) -> Result<Response<T>, Status> {
        let p = prepared?;
        let pending = self.handle.submit_in(parent, p.ask).await.map_err(closed)?;
        let reply = pending.answer().await.map_err(closed)?;
        Ok(Response::new((p.finish)(&p.key, reply)?))
    }

    /// Hands an operation of a batch over; what comes back waits for its answer.
    async fn submit(&self, parent: Option<Parent>, op: v1::Operation) -> Result<InBatch, Problem> {
        async fn go<T>(
            (api, parent): (&Api, Option<Parent>),
            p: Prepared<T>,
            wrap: fn(T) -> Done,
        ) -> Result<(String, crate::handle::Pending, Finish<T>), Problem> {
            let pending = api.handle.submit_in(parent, p.ask).await.map_err(closed)?;
            Ok((p.key, pending, (p.finish, wrap)))
        }
        let Some(kind) = op.kind else { return Err(malformed(WireError::NoValue)) };
        Ok(match kind {
            Op::Get(r) => InBatch::Get(go((self, parent), self.prepare_get(r)?, Done::Get).await?),
            Op::Put(r) => InBatch::Put(go((self, parent), self.prepare_put(r)?, Done::Put).await?),
            Op::Delete(r) => {
                InBatch::Delete(go((self, parent), self.prepare_delete(r)?, Done::Delete).await?)
            }
            Op::TestAndSet(r) => InBatch::TestAndSet(
                go((self, parent), self.prepare_test_and_set(r)?, Done::TestAndSet).await?,
            ),
            Op::AddOnNumber(r) => InBatch::AddOnNumber(
                go((self, parent), self.prepare_add_on_number(r)?, Done::AddOnNumber).await?,
            ),
            Op::AddDelOnList(r) => InBatch::AddDelOnList(
                go((self, parent), self.prepare_add_del_on_list(r)?, Done::AddDelOnList).await?,
            ),
        })
    }
}

/// An operation of a transaction, and what makes its result of the core's reply.
pub(super) struct InTransaction {
    pub(super) step: Step,
    pub(super) finish: Box<dyn FnOnce(Reply) -> Done + Send>,
}

impl Api {
    /// What an operation is in a transaction.
    pub(super) fn step(&self, op: v1::Operation) -> Result<InTransaction, Problem> {
        fn of<T: 'static>(p: Prepared<T>, wrap: fn(T) -> Done) -> Result<InTransaction, Problem> {
            let step = match p.ask {
                Ask::Get { key } => Step { key, change: None },
                Ask::Change { key, change } => Step { key, change: Some(change) },
                Ask::Start { .. }
                | Ask::Seeds(_)
                | Ask::Transact(_)
                | Ask::Status
                | Ask::Insight
                | Ask::Inspect { .. }
                | Ask::Members
                | Ask::Ring
                | Ask::Locate { .. }
                | Ask::Scan { .. }
                | Ask::Salvage { .. }
                | Ask::Dissolve { .. }
                | Ask::Leave => return Err(malformed(WireError::NoValue)),
            };
            let (key, finish) = (p.key, p.finish);
            let finish = move |reply| match finish(&key, reply) {
                Ok(done) => wrap(done),
                Err(problem) => Done::Error(problem.into_result()),
            };
            Ok(InTransaction { step, finish: Box::new(finish) })
        }
        match op.kind.ok_or_else(|| malformed(WireError::NoValue))? {
            Op::Get(r) => of(self.prepare_get(r)?, Done::Get),
            Op::Put(r) => of(self.prepare_put(r)?, Done::Put),
            Op::Delete(r) => of(self.prepare_delete(r)?, Done::Delete),
            Op::TestAndSet(r) => of(self.prepare_test_and_set(r)?, Done::TestAndSet),
            Op::AddOnNumber(r) => of(self.prepare_add_on_number(r)?, Done::AddOnNumber),
            Op::AddDelOnList(r) => of(self.prepare_add_del_on_list(r)?, Done::AddDelOnList),
        }
    }

    /// Refuses a list of operations that is too long.
    pub(super) fn check_length(&self, n: usize, fix: &str) -> Result<(), Problem> {
        let limit = self.info.batch_operations_max;
        if n <= limit {
            return Ok(());
        }
        let cause = format!("it has {n} operations, the limit is {limit}");
        let message = "the list of operations is too long; nothing was done";
        Err(Report::new(error::TOO_MANY_OPERATIONS, message, cause, fix).into())
    }
}

type Finish<T> = (fn(&str, Reply) -> Result<T, Problem>, fn(T) -> Done);
type Waiting<T> = (String, crate::handle::Pending, Finish<T>);

/// An operation of a batch that was handed over.
enum InBatch {
    Get(Waiting<v1::GetResponse>),
    Put(Waiting<v1::PutResponse>),
    Delete(Waiting<v1::DeleteResponse>),
    TestAndSet(Waiting<v1::TestAndSetResponse>),
    AddOnNumber(Waiting<v1::AddOnNumberResponse>),
    AddDelOnList(Waiting<v1::AddDelOnListResponse>),
}

impl InBatch {
    async fn done(self) -> Result<Done, Problem> {
        async fn go<T>((key, pending, (finish, wrap)): Waiting<T>) -> Result<Done, Problem> {
            let reply = pending.answer().await.map_err(closed)?;
            finish(&key, reply).map(wrap)
        }
        match self {
            InBatch::Get(w) => go(w).await,
            InBatch::Put(w) => go(w).await,
            InBatch::Delete(w) => go(w).await,
            InBatch::TestAndSet(w) => go(w).await,
            InBatch::AddOnNumber(w) => go(w).await,
            InBatch::AddDelOnList(w) => go(w).await,
        }
    }
}

/// No answer about a change.
enum Missing {
    /// The key is not there; its version as far as remembered.
    Key(u64),
    /// Another reason.
    Answer(Problem),
}

impl Missing {
    fn into_problem(self, key: &str) -> Problem {
        match self {
            Missing::Key(version) => not_found(key, version).into(),
            Missing::Answer(p) => p,
        }
    }
}

fn changed(key: &str, reply: Reply) -> Result<(u64, Option<Value>), Missing> {
    match reply {
        Reply::Changed { version, value } => Ok((version, value)),
        Reply::Refused { refusal: Refusal::NotFound, version, .. } => Err(Missing::Key(version)),
        Reply::Refused { refusal: r, version, value } => {
            Err(Missing::Answer(refusal(&r, key, version, value.as_ref())))
        }
        Reply::Failed(f) => Err(Missing::Answer(failure(&f, key))),
        other @ (Reply::Ok
        | Reply::Value { .. }
        | Reply::Status(_)
        | Reply::Insight(_)
        | Reply::Inspected(_)
        | Reply::Members(_)
        | Reply::Ring(_)
        | Reply::Located(_)
        | Reply::Scanned { .. }
        | Reply::Salvaged(_)
        | Reply::Dissolved(_)
        | Reply::Transacted(_)
        | Reply::Left { .. }) => Err(Missing::Answer(unexpected(&other))),
    }
}

fn finish_get(key: &str, reply: Reply) -> Result<v1::GetResponse, Problem> {
    match reply {
        Reply::Value { value: Some(v), version } => {
            Ok(v1::GetResponse { value: Some(value_to_wire(&v)), version })
        }
        Reply::Value { value: None, version } => Err(not_found(key, version).into()),
        Reply::Failed(f) => Err(failure(&f, key)),
        other @ (Reply::Ok
        | Reply::Changed { .. }
        | Reply::Refused { .. }
        | Reply::Status(_)
        | Reply::Insight(_)
        | Reply::Inspected(_)
        | Reply::Members(_)
        | Reply::Ring(_)
        | Reply::Located(_)
        | Reply::Scanned { .. }
        | Reply::Salvaged(_)
        | Reply::Dissolved(_)
        | Reply::Transacted(_)
        | Reply::Left { .. }) => Err(unexpected(&other)),
    }
}

#[async_trait]
impl Kv for Api {
    async fn get(&self, r: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.run(self.parent(&r), self.prepare_get(r.into_inner())).await
    }

    async fn put(&self, r: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        self.run(self.parent(&r), self.prepare_put(r.into_inner())).await
    }

    async fn delete(&self, r: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        self.run(self.parent(&r), self.prepare_delete(r.into_inner())).await
    }

    async fn test_and_set(
        &self,
        r: Request<v1::TestAndSetRequest>,
    ) -> Result<Response<v1::TestAndSetResponse>, Status> {
        self.run(self.parent(&r), self.prepare_test_and_set(r.into_inner())).await
    }

    async fn add_on_number(
        &self,
        r: Request<v1::AddOnNumberRequest>,
    ) -> Result<Response<v1::AddOnNumberResponse>, Status> {
        self.run(self.parent(&r), self.prepare_add_on_number(r.into_inner())).await
    }

    async fn add_del_on_list(
        &self,
        r: Request<v1::AddDelOnListRequest>,
    ) -> Result<Response<v1::AddDelOnListResponse>, Status> {
        self.run(self.parent(&r), self.prepare_add_del_on_list(r.into_inner())).await
    }

    async fn batch(&self, r: Request<BatchRequest>) -> Result<Response<BatchResponse>, Status> {
        let parent = self.parent(&r);
        let operations = r.into_inner().operations;
        let n = operations.len();
        self.check_length(n, "send it as several batches")?;
        // All of them are handed over before the first answer is waited for.
        let mut waiting = Vec::with_capacity(n);
        for op in operations {
            waiting.push(self.submit(parent, op).await);
        }
        let mut results = Vec::with_capacity(n);
        for w in waiting {
            let done = match w {
                Ok(w) => w.done().await,
                Err(p) => Err(p),
            };
            let kind = done.unwrap_or_else(|p| Done::Error(p.into_result()));
            results.push(v1::OperationResult { kind: Some(kind) });
        }
        Ok(Response::new(BatchResponse { results }))
    }
}
