//! The commit of a transaction's log: the one place that knows how many keys it takes.

use super::{Changed, Scalaris, change_failed, unexpected};
use dht::api::{Transact, TxOutcome};
use dht::tx::{LogEntry, TxLog};
use dht::{Reply, Request as Ask};
use jsonrpc::envelope::Error;
use jsonrpc::log::{Entry, Log};
use jsonrpc::outcome::Outcome;
use std::collections::BTreeMap;
use store::{Change, Condition, Key, Seen};

impl Scalaris {
    /// Commits a log. A transaction of one key is a plain change on condition of what was seen.
    pub(super) async fn commit(&self, log: Log) -> Result<Outcome, Error> {
        let failed = log.failed_keys();
        if !failed.is_empty() {
            return Ok(Outcome::Abort(failed));
        }
        let mut entries = log.entries;
        if entries.len() > 1 {
            return self.commit_many(entries).await;
        }
        match entries.pop_first() {
            Some((key, entry)) => self.commit_one(key, entry).await,
            None => Ok(Outcome::Ok),
        }
    }

    /// Several keys: the core locks, validates and decides.
    async fn commit_many(&self, entries: BTreeMap<String, Entry>) -> Result<Outcome, Error> {
        let keys: Vec<String> = entries.keys().cloned().collect();
        let entry = |(key, e): (String, Entry)| {
            let seen = Seen::of(e.version, e.exists);
            (Key::new(key.as_bytes()), LogEntry { seen, value: None, write: e.write.map(Some) })
        };
        let log = TxLog { entries: entries.into_iter().map(entry).collect(), failed: None };
        let transact = Transact { log, commit: true, ..Transact::default() };
        let reply = self.ask(Ask::Transact(Box::new(transact))).await?;
        let text = |key: &Key| String::from_utf8_lossy(key.as_bytes()).into_owned();
        if let Reply::Transacted(done) = reply {
            return match done.outcome {
                TxOutcome::Committed(_) => Ok(Outcome::Ok),
                TxOutcome::Conflict(keys) => Ok(Outcome::Abort(keys.iter().map(text).collect())),
                TxOutcome::Failed(key) => Ok(Outcome::Abort(vec![text(&key)])),
                TxOutcome::Open => Err(unexpected(&Reply::Transacted(done))),
            };
        }
        let Reply::Failed(f) = reply else { return Err(unexpected(&reply)) };
        let first = keys.first().map_or("", String::as_str);
        let outcome = change_failed(&f, first)?;
        Ok(if matches!(outcome, Outcome::Abort(_)) { Outcome::Abort(keys) } else { outcome })
    }

    async fn commit_one(&self, key: String, entry: Entry) -> Result<Outcome, Error> {
        let Some(value) = entry.write else { return self.validate(key, &entry).await };
        let condition = if entry.exists { Condition::Version(entry.version) } else { Condition::Absent };
        let change = Change::Put { value, condition };
        match self.change(&key, change).await? {
            Changed::Done => Ok(Outcome::Ok),
            Changed::Refused { .. } => Ok(Outcome::Abort(vec![key])),
            Changed::Failed(f) => change_failed(&f, &key),
        }
    }

    /// Whether a key that was only read is as it was.
    async fn validate(&self, key: String, entry: &Entry) -> Result<Outcome, Error> {
        Ok(match self.get(&key).await? {
            Ok((value, version)) => {
                let is_same = value.is_some() == entry.exists && (!entry.exists || version == entry.version);
                if is_same { Outcome::Ok } else { Outcome::Abort(vec![key]) }
            }
            Err(_) => Outcome::Abort(vec![key]),
        })
    }
}
