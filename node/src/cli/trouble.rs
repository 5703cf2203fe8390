//! The client's errors as reports.

use crate::error::{self, Code, Report};
use client::{Detail, Error};

/// The report for an operation of the client that failed.
pub(super) fn report(e: Error) -> Report {
    match e {
        Error::CannotConnect { tried } => {
            let all: Vec<String> = tried.iter().map(|(endpoint, why)| format!("{endpoint}: {why}")).collect();
            Report::new(
                error::CANNOT_CONNECT,
                "cannot connect to a server",
                if all.is_empty() { "there is no endpoint".to_owned() } else { all.join("; ") },
                "start one with 'kvnode', or name one with --endpoint HOST:PORT (KVNODE_ENDPOINT)",
            )
        }
        Error::NotFound(d) => from_detail(*d, error::KEY_NOT_FOUND),
        Error::Conflict { detail, .. } => from_detail(*detail, error::VALUE_DIFFERS),
        Error::WrongType(d) => from_detail(*d, error::VALUE_WRONG_TYPE),
        Error::Rejected(d) => from_detail(*d, error::REQUEST_MALFORMED),
        Error::Unavailable(d) => from_detail(*d, error::NO_QUORUM),
        Error::Unknown(d) => from_detail(*d, error::OUTCOME_UNKNOWN),
    }
}

fn from_detail(d: Detail, otherwise: &'static Code) -> Report {
    let code = error::lookup(&d.code).unwrap_or(otherwise);
    let mut report = Report::new(code, d.message, d.cause, d.fix).with("endpoint", &d.endpoint);
    for (name, value) in d.metadata {
        if !matches!(name.as_str(), "code" | "cause" | "fix" | "outcome") {
            report = report.with(&name, value);
        }
    }
    report
}

/// The key is not there.
pub(super) fn not_found(key: &str) -> Report {
    let name = error::key_text(key);
    let message = format!("key \"{name}\" not found");
    let fix = "check the spelling, or write it with 'kvnode put KEY VALUE'";
    Report::new(error::KEY_NOT_FOUND, message, "it was never written or has been deleted", fix)
        .with("key", name)
}
