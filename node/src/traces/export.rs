//! Spans on their way to the collector: in batches, by OTLP over gRPC.
//!
//! Keeps:
//! 1. One batch is under way at a time, for a bounded time; what the collector does not take is dropped and
//!    counted, never sent again.

use super::Span;
use crate::metrics::Traffic;
use core::time::Duration;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as WireSpan, Status, span::SpanKind, status::StatusCode,
};
use ring::{NodeRef, Time};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tracing::warn;

/// Spans of one batch.
const BATCH_MAX: usize = 512;
/// A batch that is not full waits for so long.
const BATCH_PAUSE: Duration = Duration::from_millis(500);
/// How long the collector may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A collector that does not take spans is complained of once in this.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// Flags of a span: sampled.
const SAMPLED: u32 = 1;

/// What sends spans.
pub(super) struct Exporter {
    client: TraceServiceClient<Channel>,
    endpoint: String,
    resource: Resource,
    wall_at_start: Duration,
    traffic: Arc<Traffic>,
    complained: Option<Instant>,
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

impl Exporter {
    pub(super) fn new(
        endpoint: &str,
        me: NodeRef,
        wall_at_start: Duration,
        traffic: Arc<Traffic>,
    ) -> Result<Exporter, String> {
        let target = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| e.to_string())?;
        let channel = target.connect_timeout(CALL_TIMEOUT).timeout(CALL_TIMEOUT).connect_lazy();
        let resource = Resource {
            attributes: vec![
                text("service.name", "kvnode"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", me.id.to_string()),
                text("kvnode.overlay_address", me.addr.to_string()),
            ],
            ..Resource::default()
        };
        Ok(Exporter {
            client: TraceServiceClient::new(channel),
            endpoint: endpoint.to_owned(),
            resource,
            wall_at_start,
            traffic,
            complained: None,
        })
    }

    /// Sends what comes, until nobody sends any more.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut batch = Vec::new();
        while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
            if batch.len() < BATCH_MAX {
                sleep(BATCH_PAUSE).await;
                while batch.len() < BATCH_MAX
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<Span>) {
        let count = u64::try_from(batch.len()).unwrap_or(0);
        let spans = batch.drain(..).map(|s| self.wire(&s)).collect();
        let scope = InstrumentationScope { name: "kvnode".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let of_node =
            ResourceSpans { resource: Some(self.resource.clone()), scope_spans, ..ResourceSpans::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![of_node] };
        let answer = timeout(CALL_TIMEOUT, self.client.export(request)).await;
        let cause = match answer {
            Ok(Ok(done)) => {
                let refused = done.into_inner().partial_success.map_or(0, |p| p.rejected_spans);
                let refused = u64::try_from(refused).unwrap_or(0).min(count);
                self.traffic.spans.exported(count - refused);
                self.traffic.spans.dropped(refused);
                return;
            }
            Ok(Err(status)) => status.to_string(),
            Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
        };
        self.traffic.spans.dropped(count);
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            self.complained = Some(Instant::now());
            let fix = "check --otlp-endpoint; operations are not affected";
            warn!(collector = %self.endpoint, fix, "spans are dropped: the collector does not take them: {cause}");
        }
    }

    fn nanoseconds(&self, at: Time) -> u64 {
        let wall = self.wall_at_start + Duration::from_micros(at.0);
        u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)
    }

    fn wire(&self, s: &Span) -> WireSpan {
        let [high, low] = s.open.trace.id;
        let mut attributes = vec![text("kvnode.outcome", s.outcome)];
        if let Some(from) = s.open.from {
            attributes.push(text("network.peer.address", from.ip().to_string()));
            attributes.push(attribute("network.peer.port", Value::IntValue(i64::from(from.port()))));
        }
        let code = if s.is_error { StatusCode::Error } else { StatusCode::Unset };
        WireSpan {
            trace_id: [high.to_be_bytes(), low.to_be_bytes()].concat(),
            span_id: s.open.trace.span.get().to_be_bytes().to_vec(),
            parent_span_id: s.open.parent.map(|p| p.get().to_be_bytes().to_vec()).unwrap_or_default(),
            name: s.open.name.to_owned(),
            // Each answers a question of somebody else: a client or another node.
            kind: i32::from(SpanKind::Server),
            start_time_unix_nano: self.nanoseconds(s.open.began),
            end_time_unix_nano: self.nanoseconds(s.ended.max(s.open.began)),
            attributes,
            status: Some(Status { code: i32::from(code), ..Status::default() }),
            flags: SAMPLED,
            ..WireSpan::default()
        }
    }
}
