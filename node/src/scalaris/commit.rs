//! The commit of a transaction's log: the one place that knows how many keys it takes.

use super::{Changed, Scalaris, change_failed, report_error};
use crate::error::{NOT_IMPLEMENTED, Report};
use jsonrpc::envelope::Error;
use jsonrpc::log::{Entry, Log};
use jsonrpc::outcome::Outcome;
use store::{Change, Condition};

impl Scalaris {
    /// Commits a log. A transaction of one key is a plain change on condition of what was seen.
    pub(super) async fn commit(&self, log: Log) -> Result<Outcome, Error> {
        let failed = log.failed_keys();
        if !failed.is_empty() {
            return Ok(Outcome::Abort(failed));
        }
        let mut entries = log.entries.into_iter();
        match (entries.next(), entries.len()) {
            (None, _) => Ok(Outcome::Ok),
            (Some((key, entry)), 0) => self.commit_one(key, entry).await,
            (Some(_), more) => Err(report_error(&Report::new(
                NOT_IMPLEMENTED,
                "transactions over several keys are not served yet; nothing was done",
                format!("the transaction has {} keys", more + 1),
                "commit each key by itself",
            ))),
        }
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
