//! The one catalogue of errors, for gRPC, HTTP and the command line.
//!
//! Every error has a stable code, a cause with the actual values, and a fix that is a command or a setting.
//!
//! Keeps:
//! 1. Codes are never reused for another meaning; tests hold that they are unique.
//! 2. Each code says whether the operation was not done, or is not known to be: see [`Outcome`].

use core::fmt;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Code as Grpc;

/// The exit code of the process, as the documentation lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An internal error.
    Internal = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The key is not there.
    NotFound = 3,
    /// A condition failed or a transaction was aborted.
    Condition = 4,
    /// Timeout or no quorum.
    Timeout = 5,
    /// Cannot connect, or the name does not resolve.
    Connect = 6,
    /// TLS or authorisation refused.
    Auth = 7,
    /// Done, with findings.
    Findings = 8,
    /// Could not bind.
    Bind = 10,
    /// Could not join in time.
    Join = 11,
    /// Ring or node id conflict.
    Conflict = 12,
}

impl Exit {
    /// The number that the process ends with.
    pub fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Internal => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Condition => 4,
            Exit::Timeout => 5,
            Exit::Connect => 6,
            Exit::Auth => 7,
            Exit::Findings => 8,
            Exit::Bind => 10,
            Exit::Join => 11,
            Exit::Conflict => 12,
        }
    }
}

/// What became of the operation. The two are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not done and will not be.
    NotDone,
    /// It may have been done, or may still be.
    Unknown,
}

impl Outcome {
    /// The word for it in metadata and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::NotDone => "not_done",
            Outcome::Unknown => "unknown",
        }
    }
}

/// An entry of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable code.
    pub code: &'static str,
    /// The name in `ErrorInfo.reason`.
    pub reason: &'static str,
    /// The gRPC status.
    pub grpc: Grpc,
    /// The HTTP status.
    pub http: u16,
    /// The exit code of the command line.
    pub exit: Exit,
    /// What became of the operation.
    pub outcome: Outcome,
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $grpc:ident, $http:literal, $exit:ident, $outcome:ident;)*) => {
        $($(#[$doc])* pub const $name: &Code = &Code {
            code: $code, reason: stringify!($name), grpc: Grpc::$grpc, http: $http, exit: Exit::$exit,
            outcome: Outcome::$outcome,
        };)*
        /// Every code there is.
        pub const CATALOGUE: &[&Code] = &[$($name),*];
    };
}

catalogue! {
    /// The key is not there.
    KEY_NOT_FOUND = "KV-KEY-001", NotFound, 404, NotFound, NotDone;
    /// The key is longer than the limit.
    KEY_TOO_LONG = "KV-KEY-002", ResourceExhausted, 413, Usage, NotDone;
    /// A key that clients cannot name.
    KEY_RESERVED = "KV-KEY-003", InvalidArgument, 400, Usage, NotDone;
    /// The value, or the one an operation would make, is longer than the limit.
    VALUE_TOO_LONG = "KV-VAL-001", ResourceExhausted, 413, Usage, NotDone;
    /// A request's value or condition is missing or not one.
    VALUE_MALFORMED = "KV-VAL-002", InvalidArgument, 400, Usage, NotDone;
    /// The stored value has a type with which the operation can do nothing.
    VALUE_WRONG_TYPE = "KV-VAL-003", FailedPrecondition, 409, Condition, NotDone;
    /// The key is there though it was to be absent.
    KEY_EXISTS = "KV-CON-001", Aborted, 409, Condition, NotDone;
    /// The version is another than required.
    VERSION_DIFFERS = "KV-CON-002", Aborted, 409, Condition, NotDone;
    /// The value is another than expected.
    VALUE_DIFFERS = "KV-CON-003", Aborted, 409, Condition, NotDone;
    /// A transaction holds the key.
    KEY_LOCKED = "KV-CON-004", Aborted, 409, Condition, NotDone;
    /// A transaction was not committed: others changed or held its keys.
    TRANSACTION_CONFLICT = "KV-TX-001", Aborted, 409, Condition, NotDone;
    /// The log of a transaction is not one.
    LOG_MALFORMED = "KV-TX-002", InvalidArgument, 400, Usage, NotDone;
    /// A transaction has more keys than the limit.
    TOO_MANY_KEYS = "KV-TX-003", ResourceExhausted, 413, Usage, NotDone;
    /// No quorum answered; nothing was done.
    NO_QUORUM = "KV-OP-001", Unavailable, 503, Timeout, NotDone;
    /// No answer in time; it may have been done.
    OUTCOME_UNKNOWN = "KV-OP-002", DeadlineExceeded, 504, Timeout, Unknown;
    /// A queue is full.
    NODE_BUSY = "KV-OP-003", ResourceExhausted, 429, Timeout, NotDone;
    /// The home's memory is full.
    MEMORY_FULL = "KV-OP-004", ResourceExhausted, 507, Timeout, NotDone;
    /// The node is not in a ring.
    NODE_NOT_READY = "KV-NODE-001", Unavailable, 503, Timeout, NotDone;
    /// The node stopped before it took the request.
    NODE_STOPPED = "KV-NODE-002", Unavailable, 503, Timeout, NotDone;
    /// The node stopped before it answered.
    NODE_LOST = "KV-NODE-003", Unknown, 504, Timeout, Unknown;
    /// The node left, but not all of its data found a new owner.
    LEAVE_UNCLEAN = "KV-NODE-004", Unknown, 500, Findings, NotDone;
    /// A salvage is under way, or the node is in no ring.
    SALVAGE_REFUSED = "KV-NODE-005", Unavailable, 503, Timeout, NotDone;
    /// The node knows of no other ring to dissolve its own for, or is in none.
    DISSOLVE_REFUSED = "KV-NODE-006", FailedPrecondition, 409, Conflict, NotDone;
    /// The request is not the expected message.
    REQUEST_MALFORMED = "KV-REQ-001", InvalidArgument, 400, Usage, NotDone;
    /// Too many operations in a list.
    TOO_MANY_OPERATIONS = "KV-REQ-002", ResourceExhausted, 413, Usage, NotDone;
    /// The node serves as many connections as it may.
    TOO_MANY_CONNECTIONS = "KV-REQ-005", ResourceExhausted, 503, Timeout, NotDone;
    /// Declared, but not implemented yet.
    NOT_IMPLEMENTED = "KV-REQ-003", Unimplemented, 501, Usage, NotDone;
    /// Nothing is served at this path or with this method.
    PATH_UNKNOWN = "KV-REQ-004", Unimplemented, 404, Usage, NotDone;
    /// No endpoint could be connected to.
    CANNOT_CONNECT = "KV-CONN-001", Unavailable, 502, Connect, NotDone;
    /// The endpoint answered as something else than kvnode.
    NOT_KVNODE = "KV-CONN-002", Unavailable, 502, Connect, Unknown;
    /// The connection broke before the answer came.
    CONNECTION_LOST = "KV-CONN-003", Unknown, 502, Timeout, Unknown;
    /// The endpoint wants TLS or a token, or refuses the one given.
    ACCESS_REFUSED = "KV-CONN-004", PermissionDenied, 403, Auth, NotDone;
    /// An unknown flag or wrong usage of the command line.
    USAGE = "KV-CFG-001", InvalidArgument, 400, Usage, NotDone;
    /// An unknown `KVNODE_` variable.
    VARIABLE_UNKNOWN = "KV-CFG-002", InvalidArgument, 400, Usage, NotDone;
    /// An unknown key of the configuration file.
    FILE_KEY_UNKNOWN = "KV-CFG-003", InvalidArgument, 400, Usage, NotDone;
    /// A setting's value is not one.
    SETTING_INVALID = "KV-CFG-004", InvalidArgument, 400, Usage, NotDone;
    /// A file cannot be read or is not what it should be.
    FILE_UNREADABLE = "KV-CFG-005", InvalidArgument, 400, Usage, NotDone;
    /// An address could not be bound.
    CANNOT_BIND = "KV-BIND-001", Unavailable, 503, Bind, NotDone;
    /// No ring let the node in in time.
    JOIN_TIMEOUT = "KV-JOIN-001", DeadlineExceeded, 504, Join, NotDone;
    /// A known host's name does not resolve.
    JOIN_UNRESOLVED = "KV-JOIN-002", Unavailable, 502, Join, NotDone;
    /// The ring found is another than the node's, or has another replication factor.
    RING_CONFLICT = "KV-JOIN-003", FailedPrecondition, 409, Conflict, NotDone;
    /// What must not happen.
    INTERNAL = "KV-INT-001", Internal, 500, Internal, Unknown;
}

/// The entry with this stable code.
pub fn lookup(code: &str) -> Option<&'static Code> {
    CATALOGUE.iter().find(|c| c.code == code).copied()
}

/// An error as users see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its entry in the catalogue.
    pub code: &'static Code,
    /// One sentence: what failed.
    pub message: String,
    /// Why, with the actual values.
    pub cause: String,
    /// What to do, as a command or a setting.
    pub fix: String,
    /// Further facts by name, as the key and its version.
    pub facts: BTreeMap<String, String>,
}

impl Report {
    /// A report without further facts.
    pub fn new(
        code: &'static Code,
        message: impl Into<String>,
        cause: impl Into<String>,
        fix: impl Into<String>,
    ) -> Report {
        Report { code, message: message.into(), cause: cause.into(), fix: fix.into(), facts: BTreeMap::new() }
    }

    /// The same with one more fact.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Report {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "error {}: {}\n  cause  {}\n  fix    {}",
            self.code.code, self.message, self.cause, self.fix
        )
    }
}

impl std::error::Error for Report {}

/// A duration for people: "250ms", "5s", "1.5s".
pub fn duration_text(d: Duration) -> String {
    match d.as_millis() {
        ms if ms < 1000 => format!("{ms}ms"),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{}.{:03}s", ms / 1000, ms % 1000).replace("00s", "s").replace("0s", "s"),
    }
}

/// A number of bytes for people: "64KiB", "16MiB", "1000B".
pub fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// A key for messages: escaped, and cut after 80 characters.
pub fn key_text(key: &str) -> String {
    let mut text: String = key.chars().take(80).flat_map(char::escape_debug).collect();
    if key.chars().nth(80).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_unique_and_short() {
        for (i, a) in CATALOGUE.iter().enumerate() {
            assert!(a.reason.len() < 64 && a.code.starts_with("KV-"));
            for b in &CATALOGUE[i + 1..] {
                assert!(a.code != b.code && a.reason != b.reason, "{a:?} {b:?}");
            }
        }
        assert_eq!(
            lookup(proto::codec::MALFORMED_CODE).expect("there").reason,
            proto::codec::MALFORMED_REASON
        );
    }

    #[test]
    fn an_unknown_outcome_is_never_unavailable() {
        for c in CATALOGUE.iter().filter(|c| c.code.starts_with("KV-OP") || c.code.starts_with("KV-NODE")) {
            assert!(c.outcome == Outcome::NotDone || c.grpc != Grpc::Unavailable, "{c:?}");
        }
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration_text(Duration::from_millis(250)), "250ms");
        assert_eq!(duration_text(Duration::from_millis(1500)), "1.5s");
        assert_eq!(duration_text(Duration::from_millis(10_000)), "10s");
        assert_eq!(size_text(16 << 20), "16MiB");
        assert_eq!(size_text(1000), "1000B");
    }
}
