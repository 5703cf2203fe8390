//! What went wrong, and what became of the operation.

use core::fmt;
use proto::client_api::value_from_wire;
use proto::codec::ERROR_DOMAIN;
use proto::v1;
use std::collections::BTreeMap;
use std::error::Error as _;
use store::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What became of an operation that has no answer. The two are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not done and will not be.
    NotDone,
    /// It may have been done, or may still be.
    Unknown,
}

/// The server's words, or the transport's where no server spoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The stable code, as KV-OP-001; empty if no kvnode spoke.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Why, with the actual values.
    pub cause: String,
    /// What to do.
    pub fix: String,
    /// All metadata of the answer.
    pub metadata: BTreeMap<String, String>,
    /// The gRPC status code.
    pub status: Code,
    /// Who answered, or should have.
    pub endpoint: String,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {}; fix: {})", self.message, self.endpoint, self.fix)
    }
}

/// Why an operation has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not done: the key is not there.
    #[error("{0}")]
    NotFound(Box<Detail>),
    /// Not done: the key's version or value is another than required.
    #[error("{detail}")]
    Conflict {
        /// The server's words.
        detail: Box<Detail>,
        /// The present version; 0 if the key is not there.
        version: u64,
        /// The present value, if the key is there and the value is short.
        value: Option<Value>,
    },
    /// Not done: the value has a type with which the operation can do nothing.
    #[error("{0}")]
    WrongType(Box<Detail>),
    /// Not done, and in vain to repeat as it is: malformed, too large, not implemented.
    #[error("{0}")]
    Rejected(Box<Detail>),
    /// Not done: no quorum, not ready, too busy, or full, at every endpoint until the deadline.
    #[error("{0}")]
    Unavailable(Box<Detail>),
    /// Not done: no endpoint could be connected to.
    #[error("cannot connect to any of {}", tried.iter().map(|(e, why)| format!("{e} ({why})")).collect::<Vec<_>>().join(", "))]
    CannotConnect {
        /// The endpoints and what each said.
        tried: Vec<(String, String)>,
    },
    /// It is not known whether it was done. Read the key before you do it again.
    #[error("{0}")]
    Unknown(Box<Detail>),
}

impl Error {
    /// What became of the operation.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Unknown(_) => Outcome::Unknown,
            Error::NotFound(_)
            | Error::Conflict { .. }
            | Error::WrongType(_)
            | Error::Rejected(_)
            | Error::Unavailable(_)
            | Error::CannotConnect { .. } => Outcome::NotDone,
        }
    }

    /// The server's words, if there are any.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Error::NotFound(d)
            | Error::WrongType(d)
            | Error::Rejected(d)
            | Error::Unavailable(d)
            | Error::Unknown(d)
            | Error::Conflict { detail: d, .. } => Some(d),
            Error::CannotConnect { .. } => None,
        }
    }

    /// No answer until the deadline, from a connection that was there.
    pub(crate) fn timed_out(endpoint: &str, waited: core::time::Duration) -> Error {
        Error::Unknown(Box::new(Detail {
            code: "KV-OP-002".into(),
            message: "no answer came in time; it is not known whether the operation was done".into(),
            cause: format!("{endpoint} did not answer within {waited:?}"),
            fix: "read the key to see, before you do it again; a longer deadline waits longer".into(),
            metadata: BTreeMap::new(),
            status: Code::DeadlineExceeded,
            endpoint: endpoint.to_owned(),
        }))
    }

    /// An answer that is not what the method answers.
    pub(crate) fn nonsense(endpoint: &str, what: &str) -> Error {
        Error::Unknown(Box::new(Detail {
            code: "KV-CONN-002".into(),
            message: "the answer cannot be understood".into(),
            cause: what.to_owned(),
            fix: "check that client and server have the same version".into(),
            metadata: BTreeMap::new(),
            status: Code::Internal,
            endpoint: endpoint.to_owned(),
        }))
    }

    /// The error of one operation of a batch.
    pub(crate) fn from_result(e: v1::OperationError, endpoint: &str) -> Error {
        let status = Code::from(e.code);
        let get = |name: &str| e.metadata.get(name).cloned().unwrap_or_default();
        let detail = Box::new(Detail {
            code: get("code"),
            message: e.message.clone(),
            cause: get("cause"),
            fix: get("fix"),
            status,
            endpoint: endpoint.to_owned(),
            metadata: e.metadata.clone(),
        });
        sort(detail, e.conflict)
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// Whether the same may be tried again, here or elsewhere, without the risk of doing it twice.
    pub(crate) is_safe_to_retry: bool,
    /// Whether the connection could not be made or broke.
    pub(crate) is_connection: bool,
}

/// What a status means for an operation that only reads, or one that writes.
pub(crate) fn failed(status: &Status, endpoint: &str, is_read: bool) -> Failed {
    if let Some(info) = status.get_details_error_info().filter(|i| i.domain == ERROR_DOMAIN) {
        let get = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
        let code = get("code");
        let is_not_done = get("outcome") == "not_done";
        let cause = get("cause");
        let message = status.message();
        let message = message.strip_prefix(&format!("{code}: ")).unwrap_or(message);
        let message = message.strip_suffix(&format!(": {cause}")).unwrap_or(message).to_owned();
        let detail = Box::new(Detail {
            message,
            cause,
            fix: get("fix"),
            metadata: info.metadata.into_iter().collect(),
            status: status.code(),
            endpoint: endpoint.to_owned(),
            code,
        });
        let may_pass = matches!(status.code(), Code::Unavailable) || detail.code == "KV-OP-003";
        return Failed {
            is_safe_to_retry: (is_not_done && may_pass) || (is_read && !is_not_done),
            is_connection: false,
            error: if is_not_done { sort(detail, conflict(status)) } else { Error::Unknown(detail) },
        };
    }
    let is_refused = is_never_sent(status);
    let mut causes = vec![status.message().to_owned()];
    let mut next = status.source();
    while let Some(e) = next {
        let text = e.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = e.source();
    }
    let cause = causes.join(": ");
    if is_refused {
        return Failed {
            error: Error::CannotConnect { tried: vec![(endpoint.to_owned(), cause)] },
            is_safe_to_retry: true,
            is_connection: true,
        };
    }
    let detail = Box::new(Detail {
        code: "KV-CONN-003".into(),
        message: "the connection broke before the answer came".into(),
        cause,
        fix: "read the key to see, before you do it again".into(),
        metadata: BTreeMap::new(),
        status: status.code(),
        endpoint: endpoint.to_owned(),
    });
    let is_foreign =
        matches!(status.code(), Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated);
    if is_foreign {
        let detail = Box::new(Detail {
            code: if status.code() == Code::Unimplemented { "KV-CONN-002" } else { "KV-CONN-004" }.into(),
            message: "the endpoint refuses the call".into(),
            fix: "check that the endpoint is the client port (8000) of a kvnode of this version".into(),
            ..*detail
        });
        return Failed { error: Error::Rejected(detail), is_safe_to_retry: false, is_connection: false };
    }
    Failed { error: Error::Unknown(detail), is_safe_to_retry: is_read, is_connection: true }
}

fn sort(detail: Box<Detail>, conflict: Option<v1::Conflict>) -> Error {
    if detail.metadata.get("outcome").is_some_and(|o| o == "unknown") {
        return Error::Unknown(detail);
    }
    let code = detail.status;
    if code == Code::NotFound {
        Error::NotFound(detail)
    } else if code == Code::Aborted {
        let version = detail.metadata.get("version").and_then(|v| v.parse().ok()).unwrap_or(0);
        let value = conflict.and_then(|c| c.value).and_then(|v| value_from_wire(Some(v)).ok());
        Error::Conflict { detail, version, value }
    } else if code == Code::FailedPrecondition {
        Error::WrongType(detail)
    } else if code == Code::Unavailable || matches!(detail.code.as_str(), "KV-OP-003" | "KV-OP-004") {
        Error::Unavailable(detail)
    } else {
        Error::Rejected(detail)
    }
}

fn conflict(status: &Status) -> Option<v1::Conflict> {
    if status.code() != Code::Aborted {
        return None;
    }
    let details: tonic_types::pb::Status = prost::Message::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|a| a.type_url.ends_with("/kvnode.v1.Conflict"))?;
    prost::Message::decode(any.value.as_slice()).ok()
}

/// Whether the server certainly did nothing: no connection could be made, or it ended before the request was sent, or
/// the server said with its GOAWAY, as when it stops in an orderly way, that it did not look at the request.
fn is_never_sent(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(e) = next {
        let is_canceled = e.downcast_ref().is_some_and(hyper::Error::is_canceled);
        if e.is::<tonic::ConnectError>() || is_canceled || e.downcast_ref().is_some_and(is_left_undone) {
            return true;
        }
        next = e.source();
    }
    false
}

/// A GOAWAY ends only those streams with its own error that come after the last one that the server took.
fn is_left_undone(e: &h2::Error) -> bool {
    e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR)
}
