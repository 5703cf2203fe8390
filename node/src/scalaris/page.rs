//! A page as HTTP: which requests it takes, and how its answers look.

use super::Scalaris;
use bytes::Bytes;
use core::time::Duration;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use jsonrpc::{Page, envelope};
use tonic::body::Body;

/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

impl Scalaris {
    /// Answers a request for `page`.
    pub async fn answer(&self, page: Page, request: Request<Incoming>) -> Response<Body> {
        let is_http1 = request.version() <= Version::HTTP_11;
        let mut response = match *request.method() {
            Method::POST => self.post(page, request).await,
            Method::GET | Method::HEAD => respond(StatusCode::NOT_IMPLEMENTED, "\n"),
            Method::OPTIONS => {
                let mut response = respond(StatusCode::OK, "");
                let methods = HeaderValue::from_static("GET, POST, HEAD, OPTIONS");
                response.headers_mut().insert(header::ALLOW, methods);
                response
            }
            _ => {
                let mut response = respond(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "<!doctype html>\n<title>405 Method Not Allowed</title>\n<p>This page takes POST with a JSON-RPC call.\n",
                );
                response.headers_mut().insert(header::CONTENT_TYPE, HTML);
                response.headers_mut().insert(header::CONNECTION, CLOSE);
                response
            }
        };
        if !is_http1 {
            response.headers_mut().remove(header::CONNECTION);
        }
        response
    }

    async fn post(&self, page: Page, request: Request<Incoming>) -> Response<Body> {
        let limit = self.info.jsonrpc_bytes_max;
        // A body of unknown length is refused as Scalaris does; one that announces too much is not waited for.
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let announced = request.body().size_hint().lower();
        if is_chunked || announced > u64::try_from(limit).unwrap_or(u64::MAX) {
            return closing(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let collected = Limited::new(request.into_body(), limit).collect();
        match tokio::time::timeout(BODY_TIME_MAX, collected).await {
            Ok(Ok(body)) => {
                let answers = self.answers(envelope::calls(page, &body.to_bytes())).await;
                respond(StatusCode::OK, envelope::body_of(&answers))
            }
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                closing(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Ok(Err(_)) => closing(StatusCode::BAD_REQUEST),
            Err(_) => closing(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

fn closing(code: StatusCode) -> Response<Body> {
    let mut response = respond(code, "\n");
    response.headers_mut().insert(header::CONNECTION, CLOSE);
    response
}

fn respond(code: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body.into()))));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
