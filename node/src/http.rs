//! The client port: one listener for HTTP/1.1 and h2c gRPC.
//!
//! A connection's first bytes tell the two apart. The services of `kvnode.v1` are called directly, without a
//! router or middleware between hyper and them; everything else goes through a short table.

mod admission;
mod deadline;
mod pages;
mod readiness;

pub use readiness::{Check, PROBE_KEY, Readiness};

use crate::dashboard::Dashboard;
use crate::grpc::{Api, Problem, ServerInfo};
use crate::handle::NodeHandle;
use crate::scalaris::Scalaris;
use crate::{error, error::Report};
use admission::{Admission, REFUSAL_TIME};
use core::convert::Infallible;
use core::pin::Pin;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use proto::v1::kv_server::KvServer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service;

/// Streams that one connection may have open.
const STREAMS_MAX: u32 = 4096;
/// How long a client may take to send the head of an HTTP/1.1 request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent HTTP/2 connection is pinged after this, and closed if it stays silent as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long open calls may take to end after the shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(6);

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Serves clients on `listener` until `shutdown` is cancelled and the calls open then have ended.
pub async fn serve_clients(
    listener: TcpListener,
    handle: NodeHandle,
    info: ServerInfo,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let info = Arc::new(info);
    let health = HealthReporter::new();
    let readiness = Readiness::new(handle.clone(), Arc::clone(&info));
    let probe = tokio::spawn(readiness.clone().run(health.clone(), shutdown.clone()));
    let admission = Admission::new(info.connections_max);
    let api = Api::new(handle, info);
    let dashboard = Dashboard::start(api.clone(), readiness.clone(), shutdown.clone());
    let front = Front::new(api, readiness, health, dashboard)?;

    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Scalaris' server writes the names of headers so.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, or a connection that was gone at once: neither ends the server.
                    tracing::warn!(error = %e, "cannot accept a client's connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(error = %e, "cannot set TCP_NODELAY");
        }
        let Some(admitted) = admission.admit() else {
            tracing::debug!(limit = admission.limit(), "a client's connection was closed: there is no room");
            continue;
        };
        let refused_above = (!admitted.is_served).then(|| admission.limit());
        let front = Front { refused_above, ..front.clone() };
        let connection = builder.serve_connection(TokioIo::new(stream), front).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let ended = if admitted.is_served {
                connection.await
            } else {
                // It is closed even if the client would go on.
                tokio::time::timeout(REFUSAL_TIME, connection).await.unwrap_or(Ok(()))
            };
            if let Err(e) = ended {
                tracing::debug!(error = %e, "a client's connection ended");
            }
            drop(admitted);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("clients' calls were still open after {DRAIN_MAX:?} and were cut");
    }
    probe.abort();
    Ok(())
}

/// What answers requests; one per connection, all parts shared.
#[derive(Clone)]
struct Front {
    kv: KvServer<Api>,
    /// Other gRPC services by the beginning of their paths.
    services: Arc<[(&'static str, Handler)]>,
    pages: Arc<pages::Pages>,
    dashboard: Arc<Dashboard>,
    scalaris: Arc<Scalaris>,
    message_bytes_max: usize,
    /// Calls are refused: so many connections are open already.
    refused_above: Option<usize>,
}

impl Front {
    fn new(
        api: Api,
        readiness: Readiness,
        health: HealthReporter,
        dashboard: Arc<Dashboard>,
    ) -> io::Result<Front> {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = reflection().build_v1().map_err(io::Error::other)?;
        let v1alpha = reflection().build_v1alpha().map_err(io::Error::other)?;
        let health = HealthServer::new(HealthService::from_health_reporter(health));
        Ok(Front {
            kv: api.kv(),
            services: Arc::new([
                ("/kvnode.v1.Cluster/", handler(api.cluster())),
                ("/kvnode.v1.Transactions/", handler(api.transactions())),
                ("/grpc.health.v1.Health/", handler(health)),
                ("/grpc.reflection.v1.ServerReflection/", handler(v1)),
                ("/grpc.reflection.v1alpha.ServerReflection/", handler(v1alpha)),
            ]),
            message_bytes_max: api.info().message_bytes_max(),
            refused_above: None,
            scalaris: Arc::new(Scalaris::new(&api)),
            pages: Arc::new(pages::Pages::new(readiness)),
            dashboard,
        })
    }
}

fn handler<S>(service: S) -> Handler
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    Arc::new(move |request| Box::pin(service.clone().call(request)))
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(limit) = self.refused_above
            && is_grpc(&request)
        {
            return Box::pin(core::future::ready(Ok(admission::refusal(limit))));
        }
        if path.starts_with("/kvnode.v1.Kv/") {
            let deadline = deadline::of(request.headers());
            let answer = self.kv.clone().call(request);
            let limit = self.message_bytes_max;
            return Box::pin(async move {
                let answer = match deadline {
                    Some(d) => deadline::within(d, answer).await,
                    None => answer.await,
                };
                answer.map(|r| explained(r, limit))
            });
        }
        if let Some((_, service)) = self.services.iter().find(|(prefix, _)| path.starts_with(prefix)) {
            return service(request);
        }
        if let Some(page) = jsonrpc::Page::at(path) {
            let scalaris = Arc::clone(&self.scalaris);
            return Box::pin(async move { Ok(scalaris.answer(page, request).await) });
        }
        if is_grpc(&request) {
            let status: Status = Problem::from(unknown_path(path)).into();
            return Box::pin(core::future::ready(Ok(status.into_http())));
        }
        if Dashboard::serves(path) {
            let dashboard = Arc::clone(&self.dashboard);
            return Box::pin(async move { Ok(dashboard.answer(request).await) });
        }
        let pages = Arc::clone(&self.pages);
        Box::pin(async move { Ok(pages.answer(&request).await) })
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

/// What is said of a path at which nothing is served.
fn unknown_path(path: &str) -> Report {
    let shown: String = path.chars().take(200).collect();
    Report::new(
        error::PATH_UNKNOWN,
        format!("nothing is served at {shown}"),
        "this port serves gRPC (kvnode.v1.Kv, kvnode.v1.Transactions, kvnode.v1.Cluster, grpc.health.v1.Health, \
         reflection), Scalaris' JSON-RPC (/jsonrpc.yaws, /api/tx.yaws and others) and the pages /, /metrics, /livez \
         and /readyz",
        "open / in a browser, or ask by 'grpcurl -plaintext ADDRESS list'",
    )
}

/// Tonic refuses messages above its limit with OUT_OF_RANGE and no details; this says it as all other limits.
fn explained(response: Response<Body>, limit: usize) -> Response<Body> {
    let out_of_range = HeaderValue::from_static("11");
    if response.headers().get("grpc-status") != Some(&out_of_range) {
        return response;
    }
    let report = Report::new(
        error::VALUE_TOO_LONG,
        "the request is too long; nothing was done",
        format!("the longest message that is read has {limit} bytes: one largest key and value"),
        "split it, or raise --value-bytes-max (KVNODE_VALUE_BYTES_MAX) on all nodes",
    );
    Status::from(Problem::from(report)).into_http()
}
