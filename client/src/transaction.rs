//! Transactions from a closure.

use crate::batch::{Answer, Operation, answers_of};
use crate::error::{Detail, Error};
use crate::{Client, Condition, Entry, Value, jittered};
use proto::v1;
use proto::v1::transactions_client::TransactionsClient;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

/// The code of a transaction that met others.
const CONFLICT: &str = "KV-TX-001";
/// The pause after the first conflict; it grows with their number.
const CONFLICT_PAUSE: Duration = Duration::from_millis(3);

/// A transaction under way, in the closure of [`Client::transaction`].
///
/// Its operations see its own writes. What it reads may be of different moments until it commits; a transaction
/// that saw what never was together does not commit.
///
/// Cloning it gives another hand on the same transaction; its operations are executed one after the other.
#[derive(Clone, Debug)]
pub struct Transaction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    log: Mutex<bytes::Bytes>,
    conflicts: u32,
}

fn service(channel: Channel) -> TransactionsClient<Channel> {
    TransactionsClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn is_conflict(e: &Error) -> bool {
    e.detail().is_some_and(|d| d.code == CONFLICT)
}

impl Transaction {
    /// The value of `key` and its version, or nothing if it is not there. Version 0 is that of an own write.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        match self.one(Operation::get(key)).await {
            Ok(a) => Ok(a.value.map(|value| Entry { value, version: a.version })),
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes `value` to `key` when the transaction commits.
    pub async fn put(&self, key: &str, value: &Value) -> Result<(), Error> {
        self.one(Operation::put(key, value, Condition::Always)).await.map(drop)
    }

    /// Removes `key` when the transaction commits; whether it is there.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        Ok(self.one(Operation::delete(key, Condition::Always)).await?.existed)
    }

    /// Writes `new` to `key` if its value is `old`; if not, the transaction cannot commit any more.
    pub async fn test_and_set(&self, key: &str, old: &Value, new: &Value) -> Result<(), Error> {
        self.one(Operation::test_and_set(key, old, new)).await.map(drop)
    }

    /// Adds `by` to the number at `key`; a missing key counts as zero. The sum.
    pub async fn add_on_number(&self, key: &str, by: &Value) -> Result<Option<Value>, Error> {
        Ok(self.one(Operation::add_on_number(key, by)).await?.value)
    }

    /// Puts `add` before the list at `key`, then removes the first occurrence of each of `remove`.
    pub async fn add_del_on_list(&self, key: &str, add: &[Value], remove: &[Value]) -> Result<(), Error> {
        self.one(Operation::add_del_on_list(key, add, remove)).await.map(drop)
    }

    /// Several operations in one call, one after the other.
    pub async fn run(&self, operations: &[Operation]) -> Result<Vec<Result<Answer, Error>>, Error> {
        let mut log = self.0.log.lock().await;
        let request = v1::ExecuteRequest {
            log: log.clone(),
            operations: operations.iter().map(|o| o.0.clone()).collect(),
            conflicts: self.0.conflicts,
            ..v1::ExecuteRequest::default()
        };
        let call = |c| {
            let request = request.clone();
            async move { service(c).execute(request).await }
        };
        let (answer, node) = self.0.client.run(None, true, call).await?;
        let answer = answer.into_inner();
        *log = answer.log;
        answers_of(answer.results, operations.len(), &node.address)
    }

    async fn one(&self, operation: Operation) -> Result<Answer, Error> {
        let mut all = self.run(&[operation]).await?;
        all.pop().unwrap_or_else(|| Err(Error::nonsense("the server", "no result of an operation")))
    }

    /// Commits. An outcome that was not told is asked for until it is, or the deadline passes.
    async fn commit(&self, deadline: Instant) -> Result<(), Error> {
        let random = RandomState::new();
        let halves = [random.hash_one(1u8).to_be_bytes(), random.hash_one(2u8).to_be_bytes()];
        let request = v1::ExecuteRequest {
            log: self.0.log.lock().await.clone(),
            commit: true,
            commit_id: halves.concat().into(),
            conflicts: self.0.conflicts,
            ..v1::ExecuteRequest::default()
        };
        let mut doubt = None;
        loop {
            let request = v1::ExecuteRequest { repeated_commit: doubt.is_some(), ..request.clone() };
            let call = |c| {
                let request = request.clone();
                async move { service(c).execute(request).await }
            };
            let failed = match self.0.client.run(None, false, call).await {
                Ok((answer, node)) => return committed(&answer.into_inner(), &node.address),
                Err(e) => e,
            };
            match (&failed, &doubt) {
                (Error::Unknown(_), None) => doubt = Some(failed),
                // That it could not be asked for says nothing of the first time.
                (Error::Unknown(_) | Error::Unavailable(_) | Error::CannotConnect { .. }, Some(_)) => {}
                (_, _) => return Err(failed),
            }
            let pause = jittered(Duration::from_millis(50));
            if Instant::now() + pause >= deadline {
                return Err(doubt.unwrap_or_else(|| Error::nonsense("the server", "no answer")));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn committed(answer: &v1::ExecuteResponse, endpoint: &str) -> Result<(), Error> {
    if answer.committed {
        return Ok(());
    }
    let key = answer.failed_key.clone().unwrap_or_default();
    Err(Error::Rejected(Box::new(Detail {
        code: "KV-TX-004".into(),
        message: format!("the transaction was not committed: its operation on key \"{key}\" failed"),
        cause: "the operation was answered with the reason".into(),
        fix: "end the closure with the error of the operation".into(),
        metadata: BTreeMap::from([("key".to_owned(), key)]),
        status: Code::FailedPrecondition,
        endpoint: endpoint.to_owned(),
    })))
}

impl Client {
    /// Runs `body` as a transaction and commits it: strictly serializable over all keys that it touches.
    ///
    /// After a conflict the closure runs anew, until it commits or the deadline passes, so it should do nothing
    /// outside but through the transaction. If it returns an error nothing is committed. A commit whose answer was
    /// lost is asked for; only if nobody can say is it [`Error::Unknown`].
    ///
    /// ```no_run
    /// # use client::{Client, Error, Value};
    /// # async fn example(kv: &Client) -> Result<(), Error> {
    /// kv.transaction(|tx| async move {
    ///     tx.add_on_number("alice", &Value::int(-10)).await?;
    ///     tx.add_on_number("bob", &Value::int(10)).await
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<T, F, A>(&self, body: F) -> Result<T, Error>
    where
        F: Fn(Transaction) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.transaction_deadline();
        let mut conflicts = 0;
        loop {
            let log = Mutex::new(bytes::Bytes::new());
            let tx = Transaction(Arc::new(Inner { client: self.clone(), log, conflicts }));
            let failed = match body(tx.clone()).await {
                Ok(out) => match tx.commit(deadline).await {
                    Ok(()) => return Ok(out),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            conflicts += 1;
            let pause = jittered(CONFLICT_PAUSE * conflicts.min(16));
            if !is_conflict(&failed) || Instant::now() + pause >= deadline {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
        }
    }
}
