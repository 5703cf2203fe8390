//! Traces as an OpenTelemetry collector gets them, from a ring of three with real sockets.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, in real time")]

mod common;

use client::{Client, Value};
use common::http_get;
use common::three::ring_with;
use kvnode::run::Settings;
use kvnode::traces::{PER_MILLION, TraceSettings};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use proto::v1;
use proto::v1::kv_client::KvClient;
use proto::v1::transactions_client::TransactionsClient;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, async_trait};

/// Spans with the node that sent them.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

#[derive(Clone, Default)]
struct Collector(Spans);

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        r: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_node in r.into_inner().resource_spans {
            let attributes = of_node.resource.unwrap().attributes;
            let node = attributes.iter().find(|a| a.key == "service.instance.id").unwrap();
            let Some(Any::StringValue(node)) = node.value.clone().unwrap().value else { panic!("{node:?}") };
            for span in of_node.scope_spans.into_iter().flat_map(|s| s.spans) {
                self.0.lock().unwrap().push((node.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let collector = Collector::default();
    let spans = Arc::clone(&collector.0);
    let server = Server::builder().add_service(TraceServiceServer::new(collector));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, spans)
}

fn traced(settings: Settings, collector: SocketAddr) -> Settings {
    let endpoint = format!("http://{collector}");
    Settings { traces: Some(TraceSettings { endpoint, per_million: PER_MILLION }), ..settings }
}

async fn channel(at: &str) -> Channel {
    Channel::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap()
}

/// A call that is part of the client's span 9 of this trace.
fn of_trace<T>(number: u8, flags: &str, message: T) -> Request<T> {
    let mut r = Request::new(message);
    let parent = format!("00-{number:032x}-0000000000000009-{flags}");
    r.metadata_mut().insert("traceparent", parent.parse().unwrap());
    r
}

fn put(key: &str) -> v1::PutRequest {
    let value = Some(proto::client_api::value_to_wire(&Value::int(1)));
    v1::PutRequest { key: key.into(), value, condition: None }
}

fn of(spans: &Spans, trace: u8) -> Vec<(String, Span)> {
    let id = u128::from(trace).to_be_bytes().to_vec();
    spans.lock().unwrap().iter().filter(|(_, s)| s.trace_id == id).cloned().collect()
}

fn nodes(spans: &[(String, Span)]) -> usize {
    spans.iter().map(|(node, _)| node).collect::<BTreeSet<_>>().len()
}

/// Waits until a trace has what `is_whole` wants; then checks that its spans hang together.
async fn whole(
    spans: &Spans,
    trace: u8,
    is_whole: impl Fn(&[(String, Span)]) -> bool,
) -> Vec<(String, Span)> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let all = of(spans, trace);
        if is_whole(&all) {
            let ids: BTreeSet<Vec<u8>> = all.iter().map(|(_, s)| s.span_id.clone()).collect();
            assert_eq!(ids.len(), all.len(), "a span came twice: {all:?}");
            let roots: Vec<_> = all.iter().filter(|(_, s)| !ids.contains(&s.parent_span_id)).collect();
            assert!(
                matches!(roots.as_slice(), [(_, s)] if s.parent_span_id == 9u64.to_be_bytes()),
                "{all:?}"
            );
            assert!(all.iter().all(|(_, s)| s.start_time_unix_nano <= s.end_time_unix_nano));
            return all;
        }
        assert!(Instant::now() < until, "trace {trace} has only {all:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn names(spans: &[(String, Span)]) -> BTreeSet<String> {
    spans.iter().map(|(_, s)| s.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_one_trace_over_all_nodes_that_it_touches() {
    let (at, spans) = collector().await;
    // The third one does not trace: it passes on what it does not look at.
    let ring = ring_with(|i, s| if i == 3 { s } else { traced(s, at) }).await;
    let until = Instant::now() + Duration::from_secs(20);
    let any = Client::connect(ring.clients.clone()).await.unwrap();
    // Each of the three has a replica of every key.
    while any.status().await.unwrap().tolerated_failures == 0 {
        assert!(Instant::now() < until, "the ring did not spread");
        sleep(Duration::from_millis(50)).await;
    }
    let first = channel(&ring.clients[0]).await;
    let mut kv = KvClient::new(first.clone());
    let mut has_home = false;
    for i in 1..=12 {
        kv.put(of_trace(i, "01", put(&format!("secret {i}")))).await.unwrap();
        let all = whole(&spans, i, |all| nodes(all) == 2 && names(all).contains("kvnode change")).await;
        assert!(names(&all).contains("accept"), "{all:?}");
        has_home |= names(&all).contains("home");
    }
    assert!(has_home, "one of twelve keys has its home at the second node");

    kv.get(of_trace(100, "01", v1::GetRequest { key: "secret 1".into() })).await.unwrap();
    whole(&spans, 100, |all| names(all).contains("kvnode get")).await;

    let operations =
        (1..=6).map(|i| v1::Operation { kind: Some(v1::operation::Kind::Put(put(&format!("secret {i}")))) });
    let all_at_once = v1::ExecuteRequest {
        operations: operations.collect(),
        commit: true,
        ..v1::ExecuteRequest::default()
    };
    TransactionsClient::new(first).execute(of_trace(101, "01", all_at_once)).await.unwrap();
    let steps = |all: &[(String, Span)]| all.iter().filter(|(_, s)| s.name == "accept").count();
    // Six locks, a decision and what follows it.
    whole(&spans, 101, |all| names(all).contains("kvnode transaction") && nodes(all) == 2 && steps(all) > 6)
        .await;

    // A client that does not want it is not traced; without a client's word everything is.
    kv.put(of_trace(102, "00", put("unseen"))).await.unwrap();
    let before = spans.lock().unwrap().len();
    kv.put(Request::new(put("own"))).await.unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let is_own = |(_, s): &(String, Span)| s.name == "kvnode change" && s.parent_span_id.is_empty();
    while !spans.lock().unwrap().iter().skip(before).any(is_own) {
        assert!(Instant::now() < until, "an operation without a parent was not traced");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(of(&spans, 102), Vec::new());
    assert!(!format!("{:?}", spans.lock().unwrap()).contains("secret"), "a span holds a key");
}

async fn dropped(at: &str) -> u64 {
    let text = http_get(at.parse().unwrap(), "/metrics").await;
    let line = text.lines().find_map(|l| l.strip_prefix("kvnode_trace_spans_total{outcome=\"dropped\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_dead_or_does_not_answer_is_nobody_s_trouble() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = silent.local_addr().unwrap();
    let ring = ring_with(|i, s| traced(s, if i == 1 { gone } else { mute })).await;
    let kv = Client::connect(ring.clients.clone()).await.unwrap();
    let mut slowest = Duration::ZERO;
    for i in 0..6000u32 {
        let began = Instant::now();
        kv.put(&format!("key {}", i % 50), Value::int(i.into())).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    println!("6 000 writes with no collector: the slowest took {slowest:?}");
    // What waits for a collector that is silent goes too, after its time is over or when the queue is full.
    let until = Instant::now() + Duration::from_secs(20);
    for at in &ring.clients {
        while dropped(at).await == 0 {
            assert!(Instant::now() < until, "{at} has dropped nothing");
            sleep(Duration::from_millis(100)).await;
        }
    }
}
