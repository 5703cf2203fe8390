//! What went wrong with an operation, from the core's words to a report, a gRPC status and a batch result.
//!
//! Source: `google/rpc/error_details.proto` (ErrorInfo) and the comment of service Kv in `proto/kvnode/v1/kv.proto`.

use crate::error::{self, Code, Report, duration_text, key_text, size_text};
use crate::handle::Closed;
use dht::Failure;
use dht::api::{Phase, Reply};
use prost::Message;
use proto::client_api::value_to_wire;
use proto::codec::ERROR_DOMAIN;
use proto::v1;
use std::collections::{BTreeMap, HashMap};
use store::{Key, Refusal, Value};
use tonic::Status;
use tonic_types::pb;

/// A conflicting value longer than this is not part of the error.
const CONFLICT_VALUE_BYTES_MAX: usize = 1024;

/// More keys are not named in an error.
const CONFLICT_KEYS_MAX: usize = 16;

/// A report, and the state of the key that was in the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug, PartialEq)]
struct Inner {
    report: Report,
    conflicts: Vec<v1::Conflict>,
}

impl From<Report> for Problem {
    fn from(report: Report) -> Problem {
        Problem(Box::new(Inner { report, conflicts: Vec::new() }))
    }
}

impl Problem {
    /// The report.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let r = &self.0.report;
        let mut all = r.facts.clone();
        all.insert("code".to_owned(), r.code.code.to_owned());
        all.insert("cause".to_owned(), r.cause.clone());
        all.insert("fix".to_owned(), r.fix.clone());
        all.insert("outcome".to_owned(), r.code.outcome.word().to_owned());
        all
    }

    fn message(&self) -> String {
        let r = &self.0.report;
        format!("{}: {}: {}", r.code.code, r.message, r.cause)
    }

    /// The same as part of an answer.
    pub fn into_result(self) -> v1::OperationError {
        v1::OperationError {
            code: i32::from(self.0.report.code.grpc),
            message: self.message(),
            reason: self.0.report.code.reason.to_owned(),
            metadata: self.metadata(),
            conflict: self.0.conflicts.into_iter().next(),
        }
    }
}

impl From<Problem> for Status {
    fn from(p: Problem) -> Status {
        let info = pb::ErrorInfo {
            reason: p.0.report.code.reason.to_owned(),
            domain: ERROR_DOMAIN.to_owned(),
            metadata: p.metadata().into_iter().collect::<HashMap<_, _>>(),
        };
        let any = |name: &str, bytes| prost_types::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: bytes,
        };
        let mut details = vec![any("google.rpc.ErrorInfo", info.encode_to_vec())];
        for c in &p.0.conflicts {
            details.push(any("kvnode.v1.Conflict", c.encode_to_vec()));
        }
        let code = p.0.report.code.grpc;
        let status = pb::Status { code: i32::from(code), message: p.message(), details };
        Status::with_details(code, p.message(), status.encode_to_vec().into())
    }
}

/// The event loop does not answer.
pub fn closed(c: Closed) -> Problem {
    let fix = "use another node; all of them serve every key";
    let (code, message) = match c {
        Closed::NotTaken => (error::NODE_STOPPED, "this node has stopped; nothing was done"),
        Closed::NotAnswered => {
            (error::NODE_LOST, "this node stopped before it answered; it may have been done")
        }
    };
    Report::new(code, message, c.to_string(), fix).into()
}

/// A reply that does not belong to its request.
pub fn unexpected(reply: &Reply) -> Problem {
    let cause = format!("the core replied {reply:?}").chars().take(200).collect::<String>();
    Report::new(error::INTERNAL, "internal error", cause, "please report this with the node's log").into()
}

/// The core gives no answer about the key.
pub fn failure(f: &Failure, key: &str) -> Problem {
    let r = |code: &'static Code, message: String, cause: String, fix: String| {
        Report::new(code, message, cause, fix)
    };
    let report = match f {
        Failure::NotReady { phase } => r(
            error::NODE_NOT_READY,
            "this node does not serve now; nothing was done".into(),
            format!("the node is {}", phase_text(*phase)),
            "try again, or use another node; 'curl http://NODE:8000/readyz?verbose' says what it waits for"
                .into(),
        ),
        Failure::Unavailable { waited } => r(
            error::NO_QUORUM,
            format!("no quorum for key \"{}\"; nothing was done", key_text(key)),
            format!("too few replicas answered within {}", duration_text(*waited)),
            "try again; 'kvnode status' and 'kvnode locate KEY' show which nodes are missing".into(),
        ),
        Failure::Busy => r(
            error::NODE_BUSY,
            "too many operations are waiting; nothing was done".into(),
            "a queue of this node or of the key's home is full".into(),
            "try again after a pause with fewer operations at once, or raise --requests-max (KVNODE_REQUESTS_MAX)".into(),
        ),
        Failure::Full => r(
            error::MEMORY_FULL,
            "the memory for data is full; nothing was done".into(),
            "the node that serves the key is over its --max-memory".into(),
            "add nodes, raise --max-memory (KVNODE_MAX_MEMORY), or delete keys".into(),
        ),
        Failure::KeyTooLong { size_bytes, limit_bytes } => r(
            error::KEY_TOO_LONG,
            "the key is too long".into(),
            format!("it has {size_bytes} bytes, the limit is {}", size_of(*limit_bytes)),
            "use a shorter key, or raise --key-bytes-max (KVNODE_KEY_BYTES_MAX) on all nodes".into(),
        ),
        Failure::KeyReserved => r(
            error::KEY_RESERVED,
            "there is no such key".into(),
            "keys are UTF-8 texts".into(),
            "use a text as the key".into(),
        ),
        Failure::KeyNotInLog => r(
            error::LOG_MALFORMED,
            "a commit with a commit_id may use only keys of its log; nothing was done".into(),
            "an operation names a key that is not in the log".into(),
            "send the operations without commit first, then commit with the log of that answer".into(),
        ),
        Failure::TooManyKeys { keys, keys_max } => r(
            error::TOO_MANY_KEYS,
            "the transaction has too many keys; nothing was done".into(),
            format!("it has {keys} keys, the limit is {keys_max}"),
            "split it into several transactions".into(),
        ),
        Failure::ValueTooLong { size_bytes, limit_bytes } => value_too_long(*size_bytes, *limit_bytes),
        Failure::Unknown { waited } => r(
            error::OUTCOME_UNKNOWN,
            format!("it is not known whether the operation on key \"{}\" was done", key_text(key)),
            format!("no node could tell within {}", duration_text(*waited)),
            "read the key to see, before you do it again; 'kvnode status' shows missing nodes".into(),
        ),
    };
    report.with("key", key_text(key)).into()
}

fn size_of(bytes: usize) -> String {
    size_text(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// A value above the limit.
pub(super) fn value_too_long(size_bytes: usize, limit_bytes: usize) -> Report {
    Report::new(
        error::VALUE_TOO_LONG,
        "the value is too long",
        format!("it has {size_bytes} bytes encoded, the limit is {}", size_of(limit_bytes)),
        "split the value over several keys, or raise --value-bytes-max (KVNODE_VALUE_BYTES_MAX) on all nodes",
    )
}

/// Where the node is, for a sentence that begins "the node is".
pub(crate) fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "not started",
        Phase::Joining => "joining a ring",
        Phase::Probation => "waiting whether an older ring calls it home",
        Phase::Member => "a member",
        Phase::Leaving => "leaving and hands over its data",
        Phase::Left => "no member any more: it has left",
    }
}

/// The key's state does not allow the change.
pub fn refusal(r: &Refusal, key: &str, version: u64, value: Option<&Value>) -> Problem {
    let name = key_text(key);
    let there = match value {
        Some(v) => format!("it has version {version} and is a {}", v.type_name()),
        None => "it is not there".to_owned(),
    };
    let reread = "read the key again and repeat with its present version or value";
    let report = match r {
        Refusal::NotFound if value.is_none() => not_found(key, version),
        Refusal::Exists => Report::new(
            error::KEY_EXISTS,
            format!("key \"{name}\" is already there"),
            format!("it was to be absent; {there}"),
            "put without a condition to replace it, or with its version",
        ),
        Refusal::VersionDiffers | Refusal::NotFound => {
            Report::new(error::VERSION_DIFFERS, format!("key \"{name}\" has another version"), there, reread)
        }
        Refusal::ValueDiffers => {
            Report::new(error::VALUE_DIFFERS, format!("key \"{name}\" has another value"), there, reread)
        }
        Refusal::WrongType { found, needed } => Report::new(
            error::VALUE_WRONG_TYPE,
            format!("key \"{name}\" or the operand has the wrong type"),
            format!("found {found}, needed {needed}"),
            "use the operation that fits the type, or put another value first",
        ),
        Refusal::TooLarge { size_bytes, limit_bytes } => value_too_long(*size_bytes, *limit_bytes),
        Refusal::Locked => Report::new(
            error::KEY_LOCKED,
            format!("a transaction holds key \"{name}\""),
            "one transaction after the other held it while this operation waited",
            "try again",
        ),
        Refusal::Applied | Refusal::Forgotten => {
            Report::new(error::VERSION_DIFFERS, format!("key \"{name}\" has another version"), there, reread)
        }
    };
    let is_conflict = report.code.grpc == tonic::Code::Aborted;
    let report = report.with("key", name).with("version", version);
    let conflict = is_conflict.then(|| v1::Conflict {
        key: key.to_owned(),
        version,
        value: value.filter(|v| v.as_bytes().len() <= CONFLICT_VALUE_BYTES_MAX).map(value_to_wire),
        exists: value.is_some(),
    });
    let conflicts = conflict.into_iter().filter(|c| c.key.len() <= CONFLICT_VALUE_BYTES_MAX).collect();
    Problem(Box::new(Inner { report, conflicts }))
}

/// A transaction was not committed because of others.
pub(super) fn transaction_conflict(keys: &[Key]) -> Problem {
    let names: Vec<String> = keys
        .iter()
        .take(CONFLICT_KEYS_MAX)
        .map(|k| String::from_utf8_lossy(k.as_bytes()).into_owned())
        .collect();
    let cause = match names.as_slice() {
        [] => "its coordinator was taken for dead while it ran".to_owned(),
        [one] => format!("key \"{}\" was changed or held by another one", key_text(one)),
        [one, ..] => {
            format!("{} keys were changed or held by others, \"{}\" among them", keys.len(), key_text(one))
        }
    };
    let report = Report::new(
        error::TRANSACTION_CONFLICT,
        "the transaction was not committed",
        cause,
        "begin it anew with the number of conflicts it has met",
    );
    let of = |key: String| v1::Conflict { key, version: 0, value: None, exists: false };
    let is_short = |n: &String| n.len() <= CONFLICT_VALUE_BYTES_MAX;
    let conflicts = names.into_iter().filter(is_short).map(of).collect();
    Problem(Box::new(Inner { report, conflicts }))
}

/// The condition names a version of a key that is not there.
pub(super) fn version_of_nothing(key: &str, version: u64) -> Problem {
    let name = key_text(key);
    let report = Report::new(
        error::VERSION_DIFFERS,
        format!("key \"{name}\" has another version"),
        "it is not there",
        "read the key again; put it with the condition that it is absent",
    )
    .with("key", &name)
    .with("version", version);
    let conflict = v1::Conflict { key: key.to_owned(), version, value: None, exists: false };
    let conflicts = Some(conflict).into_iter().filter(|c| c.key.len() <= CONFLICT_VALUE_BYTES_MAX).collect();
    Problem(Box::new(Inner { report, conflicts }))
}

/// The key is not there.
pub(super) fn not_found(key: &str, version: u64) -> Report {
    let name = key_text(key);
    Report::new(
        error::KEY_NOT_FOUND,
        format!("key \"{name}\" not found"),
        "it was never written or has been deleted",
        "check the spelling, or write it with 'kvnode put KEY VALUE'",
    )
    .with("key", name)
    .with("version", version)
}
