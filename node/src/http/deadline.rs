//! The deadline that a client names in `grpc-timeout`.
//!
//! When it comes the client is answered, as it would be by any gRPC server; the core finishes the operation on
//! its own, so that the outcome is not known.
//!
//! Source: "gRPC over HTTP2", `Timeout`: at most eight digits and a unit.

use crate::error::{self, Report, duration_text};
use crate::grpc::Problem;
use core::convert::Infallible;
use core::time::Duration;
use http::{HeaderMap, Response};
use tonic::Status;
use tonic::body::Body;

/// What the headers allow; none if they say nothing that can be understood.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// The answer, or what is said when it does not come in time.
pub(super) async fn within<F>(limit: Duration, answer: F) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let report = Report::new(
                error::OUTCOME_UNKNOWN,
                "the deadline that the client named has come; a change may have been done or may still be",
                format!("no answer within {} (grpc-timeout)", duration_text(limit)),
                "read the key to see, before you do it again; or name a later deadline",
            );
            Ok(Status::from(Problem::from(report)).into_http())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parsed(text: &'static str) -> Option<Duration> {
        of(&HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-timeout"),
            HeaderValue::from_static(text),
        )]))
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parsed("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "5", "5x", "-5S", "+5S", "123456789S"] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_unknown() {
        let never = core::future::pending();
        let Ok(answer) = within(Duration::from_millis(20), never).await;
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("20"), "{status:?}");
    }
}
