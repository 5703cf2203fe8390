//! The dashboard: pages in the binary, what they ask, and the events that keep them alive.
//!
//! Keeps:
//! 1. A page asks nobody but the node that served it, and runs no script but the files here.
//! 2. What changes something is asked by POST with JSON, which no foreign page can send, or by a form that no browser
//!    has sent.
//!
//! Relies on: the facts of `crate::facts`, which the command line prints too.

mod assets;
mod forms;
mod history;
mod hot_keys;
mod journal;
mod keys;
mod live;
mod recent;
mod transact;

pub use history::History;
pub use journal::{Entry, Journal};
pub use recent::Recent;

use crate::error::{self, Report};
use crate::facts;
use crate::grpc::Api;
use crate::http::Readiness;
use crate::metrics::{self, Said};
use bytes::Bytes;
use dht::api::{Insight, PieceCounts};
use dht::{Reply, Request as Ask};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use proto::v1::cluster_server::Cluster;
use proto::v1::{self, LeaveRequest, LocateRequest, MembersRequest, RingRequest, StatusRequest};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// Dashboards that may look at one node at once.
const VIEWERS_MAX: usize = 64;
/// Where Scalaris' first page takes its forms.
const FORMS: &str = "/index.yaws";
const HTML: &str = "text/html; charset=utf-8";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Everything that the dashboard is made from.
#[derive(Debug)]
pub struct Dashboard {
    api: Api,
    readiness: Readiness,
    shutdown: CancellationToken,
    viewers: Arc<Semaphore>,
}

pub(crate) async fn members(api: &Api) -> Option<Vec<v1::Member>> {
    let answer = Cluster::members(api, tonic::Request::new(MembersRequest {})).await;
    answer.ok().map(|r| r.into_inner().members)
}

impl Dashboard {
    /// A dashboard, which begins to keep its history. To be used within a runtime.
    pub fn start(api: Api, readiness: Readiness, shutdown: CancellationToken) -> Arc<Dashboard> {
        let info = api.info_shared();
        let traffic = Arc::clone(&info.traffic);
        tokio::spawn(history::keep_own(api.clone(), traffic, shutdown.clone()));
        tokio::spawn(history::gather(info, api.clone(), shutdown.clone()));
        Arc::new(Dashboard { api, readiness, shutdown, viewers: Arc::new(Semaphore::new(VIEWERS_MAX)) })
    }

    /// Whether the dashboard answers at this path.
    pub fn serves(path: &str) -> bool {
        path == "/"
            || path == "/events"
            || path == "/metrics"
            || path.starts_with("/ui/")
            || assets::moved(path).is_some()
    }

    /// Answers a request for which [`Dashboard::serves`] holds.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path().to_owned();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(verb) = path.strip_prefix("/ui/api/") {
            let (code, json) = if is_read {
                self.read(verb, request.uri().query()).await
            } else {
                self.act(verb, request).await
            };
            return respond(code, "application/json", json.to_string());
        }
        if request.method() == Method::POST && path == FORMS {
            return self.form(request).await;
        }
        if !is_read {
            let report = wrong_method(request.method(), &path);
            return respond(405, "text/plain; charset=utf-8", format!("{report}\n"));
        }
        if let Some(to) = assets::moved(&path) {
            let mut response = respond(308, "text/plain; charset=utf-8", format!("now at {to}\n"));
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
            return response;
        }
        match path.as_str() {
            "/events" => self.events(),
            "/metrics" => respond(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics().await),
            path => match assets::find(path) {
                Some(a) => respond(200, a.kind, a.text),
                None => respond(404, "text/plain; charset=utf-8", "no such file of the dashboard\n"),
            },
        }
    }

    fn events(self: Arc<Self>) -> Response<Body> {
        let Ok(place) = Arc::clone(&self.viewers).try_acquire_owned() else {
            return respond(503, "text/plain; charset=utf-8", "too many dashboards look at this node\n");
        };
        let mut response = Response::new(Body::new(live::begin(self, place)));
        dress(&mut response, "text/event-stream");
        response
    }

    async fn insight(&self) -> Option<Insight> {
        match self.api.handle().request(Ask::Insight).await {
            Ok(Reply::Insight(i)) => Some(*i),
            _ => None,
        }
    }

    async fn metrics(&self) -> String {
        let info = self.api.info();
        let is_ready = self.readiness.checks().await.iter().all(|c| c.is_ok);
        let said = async {
            let status = self.readiness.status().await?;
            let insight = self.insight().await?;
            let Ok(Reply::Members(members)) = self.api.handle().request(Ask::Members).await else {
                return None;
            };
            Some(Said { status, insight, members })
        };
        let said = said.await;
        let waiting = info.messages_waiting();
        let uptime = info.started.elapsed();
        metrics::scrape(info.version, uptime, is_ready, waiting, said.as_ref(), &info.traffic).render()
    }

    /// What changes from second to second.
    async fn state(&self) -> Option<Json> {
        let status =
            Cluster::status(&self.api, tonic::Request::new(StatusRequest {})).await.ok()?.into_inner();
        let members = members(&self.api).await?;
        let insight = self.insight().await?;
        let checks = self.readiness.checks().await;
        let checks: Vec<Json> =
            checks.iter().map(|c| json!({ "name": c.name, "ok": c.is_ok, "reason": c.reason })).collect();
        let info = self.api.info();
        Some(json!({
            "status": facts::status(&status),
            "members": facts::members(&members)["members"],
            "inside": inside(&insight, info.messages_waiting()),
            "ready": checks,
            "rates": info.history.rates().json(),
        }))
    }

    async fn ring(&self) -> Option<Json> {
        let answer = Cluster::ring(&self.api, tonic::Request::new(RingRequest {})).await.ok()?;
        Some(facts::ring(&answer.into_inner()))
    }

    async fn read(&self, verb: &str, query: Option<&str>) -> keys::Answer {
        match verb {
            "history" => {
                let history = &self.api.info().history;
                let node = query.and_then(|q| q.strip_prefix("node=")).filter(|n| !n.is_empty());
                let nodes: Vec<Json> = history
                    .nodes()
                    .into_iter()
                    .map(|(id, address)| json!({ "node": id, "overlay_address": address }))
                    .collect();
                let mut all = history.json(node);
                if let Some(o) = all.as_object_mut() {
                    o.insert("nodes".to_owned(), Json::Array(nodes));
                }
                (200, all)
            }
            "transactions" => {
                let Ok(Reply::Status(s)) = self.api.handle().request(Ask::Status).await else {
                    return keys::report_json(&wrong_method(&Method::GET, "/ui/api/transactions"));
                };
                let me = v1::Node { id: s.node.id.to_string(), overlay_address: s.node.addr.to_string() };
                (200, self.api.info().traffic.recent.json(&me))
            }
            "settings" => {
                let all = self.api.info().settings.iter();
                let all: Vec<Json> = all
                    .map(|s| json!({ "name": s.name, "value": s.value, "origin": s.origin, "help": s.help }))
                    .collect();
                (200, json!({ "settings": all }))
            }
            other => keys::report_json(&wrong_method(&Method::GET, &format!("/ui/api/{other}"))),
        }
    }

    async fn act<B>(&self, verb: &str, request: Request<B>) -> keys::Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(report) = check_sender(&request) {
            return keys::report_json(&report);
        }
        let limit = 2 * self.api.info().message_bytes_max();
        let malformed = |cause: String| {
            let fix = "send a JSON object";
            keys::report_json(&Report::new(error::VALUE_MALFORMED, "the request is not one", cause, fix))
        };
        let body = match Limited::new(request.into_body(), limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return malformed(e.to_string()),
        };
        let body: Json = match serde_json::from_slice(&body) {
            Ok(json) => json,
            Err(e) => return malformed(e.to_string()),
        };
        match verb {
            "locate" => self.locate(&body).await,
            "leave" => self.leave().await,
            "transact" => transact::answer(&self.api, &body).await,
            verb => keys::answer(&self.api, verb, &body).await,
        }
    }

    /// One of the forms of Scalaris' first page.
    async fn form<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let began = Instant::now();
        let refused = |r: &Report| respond(r.code.http, "text/plain; charset=utf-8", format!("{r}\n"));
        if let Err(report) = forms::check_sender(request.headers()) {
            return refused(&report);
        }
        // Each byte may have been written as three.
        let limit = 3 * self.api.info().message_bytes_max();
        let body = match Limited::new(request.into_body(), limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return refused(&forms::malformed(e.to_string())),
        };
        let form = match core::str::from_utf8(&body)
            .map_err(|e| forms::malformed(e.to_string()))
            .and_then(forms::parse)
        {
            Ok(form) => form,
            Err(report) => return refused(&report),
        };
        let answer = forms::answer(&self.api, &form).await;
        let replicas = self.readiness.status().await.map_or(0, |s| u64::from(s.replication_factor));
        respond(200, HTML, forms::page(began.elapsed(), &forms::term(&form, &answer, replicas)))
    }

    async fn locate(&self, body: &Json) -> keys::Answer {
        let key = body.get("key").and_then(Json::as_str).unwrap_or_default().to_owned();
        let request = LocateRequest { key: key.clone() };
        match Cluster::locate(&self.api, tonic::Request::new(request)).await {
            Ok(l) => (200, facts::location(&key, &l.into_inner())),
            Err(s) => status_json(&s),
        }
    }

    async fn leave(&self) -> keys::Answer {
        match Cluster::leave(&self.api, tonic::Request::new(LeaveRequest {})).await {
            Ok(r) => (200, json!({ "left": true, "clean": r.into_inner().clean })),
            Err(s) => status_json(&s),
        }
    }
}

fn status_json(s: &tonic::Status) -> keys::Answer {
    let report =
        Report::new(error::INTERNAL, "the node did not do it", s.message(), "look at the node's log");
    keys::report_json(&report)
}

fn wrong_method(method: &Method, path: &str) -> Report {
    Report::new(
        error::PATH_UNKNOWN,
        format!("{path} cannot be asked by {method}"),
        "the dashboard has nothing for it",
        "open / in a browser",
    )
}

/// Another site's page can make a browser send a form here, but neither this content type nor this origin.
fn check_sender<B>(request: &Request<B>) -> Result<(), Report> {
    let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let refused = |cause: String| {
        let fix = "use gRPC, or the dashboard itself, from other programs";
        Err(Report::new(error::VALUE_MALFORMED, "the request does not come from the dashboard", cause, fix))
    };
    if text(header::CONTENT_TYPE) != Some("application/json") {
        return refused("its content type is not application/json".to_owned());
    }
    let host = text(header::HOST).or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
    match (text(header::ORIGIN), host) {
        (Some(origin), Some(host)) if origin.split_once("://").map(|(_, o)| o) != Some(host) => {
            refused(format!("its origin is {origin}, and this is {host}"))
        }
        _ => Ok(()),
    }
}

fn inside(i: &Insight, messages_waiting: usize) -> Json {
    let PieceCounts { active, incomplete, frozen, stopped } = i.pieces;
    let rounds: serde_json::Map<String, Json> =
        i.rounds.iter().map(|(kind, n)| (kind.name().to_owned(), json!(n))).collect();
    json!({
        "pieces": { "active": active, "incomplete": incomplete, "frozen": frozen, "stopped": stopped },
        "intervals": i.intervals, "intervals_under_replicated": i.intervals_under_replicated,
        "reigns": i.reigns, "rounds": rounds, "operations_open": i.operations_open,
        "operations_waiting": i.operations_waiting_at_homes, "records_in_flight": i.records_in_flight,
        "messages_waiting": messages_waiting, "handovers_running": i.handovers_running,
        "replacements_running": i.replacements_running, "view_disagreements": i.view_disagreements,
        "resident_bytes": metrics::resident_bytes(),
    })
}

fn respond(code: u16, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    dress(&mut response, kind);
    response
}

fn dress(response: &mut Response<Body>, kind: &'static str) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A setting as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingShown {
    /// Its name.
    pub name: &'static str,
    /// Its value, as text.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
    /// What it does.
    pub help: &'static str,
}
