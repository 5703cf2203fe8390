//! The pages for probes: `/livez`, `/readyz`.

use super::readiness::{Check, Readiness};
use super::unknown_path;
use crate::error::{self, Report};
use bytes::Bytes;
use core::fmt::Write;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

const TEXT: &str = "text/plain; charset=utf-8";

/// What the pages are made from.
pub(super) struct Pages {
    readiness: Readiness,
}

impl Pages {
    pub(super) fn new(readiness: Readiness) -> Pages {
        Pages { readiness }
    }

    /// Answers any request that is not gRPC.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(path, "/livez" | "/readyz") {
            return problem(&unknown_path(path));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let report = Report::new(
                error::PATH_UNKNOWN,
                format!("{path} cannot be asked by {}", request.method()),
                "it is a page to read",
                format!("use GET {path}"),
            );
            return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("{report}\n"));
        }
        let is_verbose = request
            .uri()
            .query()
            .is_some_and(|q| q.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")));
        match path {
            "/livez" => self.live().await,
            _ => self.ready(is_verbose).await,
        }
    }

    async fn live(&self) -> Response<Body> {
        match self.readiness.status().await {
            Some(_) => respond(StatusCode::OK, TEXT, "ok\n"),
            None => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the event loop does not answer\n"),
        }
    }

    async fn ready(&self, is_verbose: bool) -> Response<Body> {
        let checks = self.readiness.checks().await;
        let is_ready = checks.iter().all(|c| c.is_ok);
        let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut text = String::new();
        for Check { name, is_ok, reason } in checks.iter().filter(|c| is_verbose || !c.is_ok) {
            let word = if *is_ok { "ok" } else { "not ok" };
            let _ = writeln!(text, "{name}: {word}: {reason}");
        }
        text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
        respond(code, TEXT, text)
    }
}

fn respond(code: StatusCode, kind: &'static str, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text.into()))));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static("default-src 'none'"));
    response
}

fn problem(report: &Report) -> Response<Body> {
    let code = StatusCode::from_u16(report.code.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, TEXT, format!("{report}\n"))
}
