//! `kvnode.v1.Transactions`.
//!
//! The log that the client carries is all there is of a transaction between two calls, so any node takes any
//! call.

use super::problem::{closed, failure, transaction_conflict, unexpected};
use super::{Api, Problem};
use crate::error::{LOG_MALFORMED, REQUEST_MALFORMED, Report};
use crate::traces::Parent;
use dht::api::{Transact, TxOutcome};
use dht::{Reply, Request as Ask};
use proto::transaction_log;
use proto::v1::transactions_server::Transactions;
use proto::v1::{ExecuteRequest, ExecuteResponse, OperationResult};
use store::{OpId, SessionId};
use tonic::{Request, Response, Status, async_trait};

/// The commit's id that 16 bytes of a client are.
fn commit_id(bytes: &[u8]) -> Result<Option<OpId>, Problem> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let halves = bytes.split_at_checked(8).and_then(|(a, b)| Some((a.try_into().ok()?, b.try_into().ok()?)));
    match halves {
        Some((a, b)) => {
            Ok(Some(OpId { session: SessionId(u64::from_be_bytes(a)), seq: u64::from_be_bytes(b) }))
        }
        None => Err(Report::new(
            REQUEST_MALFORMED,
            "the commit_id is not one",
            format!("it has {} bytes", bytes.len()),
            "draw 16 random bytes for each commit, or leave it out",
        )
        .into()),
    }
}

impl Api {
    async fn transact(&self, parent: Option<Parent>, r: ExecuteRequest) -> Result<ExecuteResponse, Problem> {
        self.check_length(r.operations.len(), "send them in several calls, with the log of the one before")?;
        let log = transaction_log::decode(&r.log).map_err(|e| {
            let fix = "send the bytes that the last answer had as its log, or none to begin";
            Report::new(LOG_MALFORMED, "the log is not one of a transaction", e.to_string(), fix)
        })?;
        let op = if log.entries.is_empty() { None } else { commit_id(&r.commit_id)? };
        let (mut steps, mut finishes) = (Vec::new(), Vec::new());
        for op in r.operations {
            let one = self.step(op)?;
            steps.push(one.step);
            finishes.push(one.finish);
        }
        let key = steps.first().map(|s| String::from_utf8_lossy(s.key.as_bytes()).into_owned());
        let asked = Transact {
            log,
            steps,
            commit: r.commit,
            op,
            is_repeated: r.repeated_commit,
            conflicts: r.conflicts,
        };
        let ask = Ask::Transact(Box::new(asked));
        let pending = self.handle().submit_in(parent, ask).await.map_err(closed)?;
        let reply = pending.answer().await.map_err(closed)?;
        let done = match reply {
            Reply::Transacted(done) => done,
            Reply::Failed(f) => return Err(failure(&f, key.as_deref().unwrap_or_default())),
            other @ (Reply::Ok
            | Reply::Value { .. }
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
            | Reply::Left { .. }) => return Err(unexpected(&other)),
        };
        let (committed, failed_key) = match &done.outcome {
            TxOutcome::Conflict(keys) => return Err(transaction_conflict(keys)),
            TxOutcome::Open => (false, None),
            TxOutcome::Committed(_) => (true, None),
            TxOutcome::Failed(key) => (false, Some(String::from_utf8_lossy(key.as_bytes()).into_owned())),
        };
        let result = |(finish, reply): (Box<dyn FnOnce(Reply) -> _ + Send>, Reply)| OperationResult {
            kind: Some(finish(reply)),
        };
        let results = finishes.into_iter().zip(done.results).map(result).collect();
        let log = transaction_log::encode(&done.log).into();
        Ok(ExecuteResponse { log, results, committed, failed_key })
    }
}

#[async_trait]
impl Transactions for Api {
    async fn execute(&self, r: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        Ok(Response::new(self.transact(self.parent(&r), r.into_inner()).await?))
    }
}
