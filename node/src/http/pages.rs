//! The pages for people and probes: `/`, `/livez`, `/readyz`.

use super::readiness::{Check, Readiness};
use super::unknown_path;
use crate::error::{self, Report, duration_text, size_text};
use crate::grpc::{Api, findings, phase_text};
use bytes::Bytes;
use core::fmt::Write;
use dht::api::{MemberView, Status};
use dht::{Reply, Request as Ask};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What the pages are made from.
pub(super) struct Pages {
    api: Api,
    readiness: Readiness,
}

impl Pages {
    pub(super) fn new(api: Api, readiness: Readiness) -> Pages {
        Pages { api, readiness }
    }

    /// Answers any request that is not gRPC.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(path, "/" | "/livez" | "/readyz") {
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
            "/readyz" => self.ready(is_verbose).await,
            _ => self.status_page().await,
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

    async fn status_page(&self) -> Response<Body> {
        let Some(status) = self.readiness.status().await else {
            return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the event loop does not answer\n");
        };
        let members = match self.api.handle().request(Ask::Members).await {
            Ok(Reply::Members(m)) => m,
            _ => Vec::new(),
        };
        respond(StatusCode::OK, HTML, page(self.api.info().version, &status, &members))
    }
}

fn respond(code: StatusCode, kind: &'static str, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text.into()))));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

fn problem(report: &Report) -> Response<Body> {
    let code = StatusCode::from_u16(report.code.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, TEXT, format!("{report}\n"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The ring's health in one sentence.
pub(crate) fn sentence(s: &Status) -> String {
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {}, can lose {}",
        plural(s.members_alive, "node"),
        plural(usize::from(s.replication_factor), "replica"),
        plural(s.tolerated_failures, "node"),
    )
}

fn page(version: &str, s: &Status, members: &[MemberView]) -> String {
    let mut out = String::with_capacity(4096);
    let ring = s.ring.map_or_else(|| "no ring".to_owned(), |r| format!("ring {r}"));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>kvnode {id}</title>\n\
         <style>body{{font:15px/1.5 sans-serif;margin:2em;max-width:60em}}\
         td,th{{text-align:left;padding:.2em 1em .2em 0}}</style>\n\
         <h1>{sentence}</h1>\n<p>kvnode {version}, node {id} at {addr}, {phase}, {ring}</p>\n",
        id = s.node.id,
        addr = s.node.addr,
        sentence = sentence(s),
        phase = phase_text(s.phase),
    );
    for f in findings(s) {
        let _ = writeln!(out, "<p><strong>{}</strong></p>", escape(&f));
    }
    let _ = writeln!(
        out,
        "<p>{} keys in {} bytes of memory (limit {}) in {} pieces; {} operations open</p>\n\
         <table><tr><th>node<th>overlay<th>clients<th>state<th>keys<th>bytes<th>heard<th>round trip",
        s.keys,
        s.bytes,
        size_text(s.bytes_max),
        s.pieces,
        s.operations_open
    );
    for m in members {
        let client = m.info.client_addr.map_or_else(|| "-".to_owned(), |a| a.to_string());
        let state = if m.is_suspected { "Suspected".to_owned() } else { format!("{:?}", m.info.state) };
        let trip = m.round_trip.map_or_else(|| "-".to_owned(), |d| format!("{} µs", d.as_micros()));
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{client}<td>{state}<td>{}<td>{}<td>{} ago<td>{trip}",
            m.info.node.id,
            m.info.node.addr,
            m.info.keys,
            m.info.bytes,
            duration_text(m.heard_ago)
        );
    }
    out.push_str("</table>\n<p>More: <a href=\"/readyz?verbose\">/readyz?verbose</a></p></html>\n");
    out
}
