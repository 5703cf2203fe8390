//! One trace for each operation over all nodes it touches, for an OpenTelemetry collector.
//!
//! The gateway's event loop begins a trace, or continues the client's; the core carries it to homes and acceptors,
//! and their event loops add their spans. Spans go into a bounded queue, and from there to the collector.
//!
//! Keeps:
//! 1. Off unless a collector is named; then nothing is looked at, kept or sent for it.
//! 2. The event loop never waits for the collector: what does not fit into the queue is dropped and counted.
//! 3. No span holds a key or a value.
//!
//! Source: W3C Trace Context; the OpenTelemetry protocol (OTLP) 1.x.

mod context;
mod export;

pub use context::Parent;
pub(crate) use context::parent_of;

use crate::metrics::{OperationKind, OutcomeKind, Traffic};
use core::num::NonZeroU64;
use core::time::Duration;
use dht::message::Answer;
use dht::{Message, Trace};
use ring::{NodeRef, Time};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::SessionId;
use tokio::sync::mpsc;

/// All operations, where a part of them is told.
pub const PER_MILLION: u32 = 1_000_000;
/// Spans that wait for the collector.
const QUEUE_MAX: usize = 4096;
/// Operations at homes here whose spans are open.
const OPEN_MAX: usize = 4096;
/// A home's span that is open for so long will not be ended: nobody waits for its answer any more.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// What is told of spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// The collector: an address for OTLP over gRPC, as `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// How many of a million operations are traced where the client does not say.
    pub per_million: u32,
}

/// A span that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    trace: Trace,
    parent: Option<NonZeroU64>,
    name: &'static str,
    /// The node that asked; none if a client did.
    from: Option<SocketAddr>,
    began: Time,
}

impl Open {
    /// What this span causes is part of this.
    pub(crate) fn trace(&self) -> Trace {
        self.trace
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Span {
    open: Open,
    ended: Time,
    outcome: &'static str,
    is_error: bool,
}

/// Begins and ends spans; owned by the event loop.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Span>,
    traffic: Arc<Traffic>,
    /// A root is traced if a random number is not above this.
    threshold: u64,
    state: u64,
    /// Spans of operations at homes here, by whose they are.
    at_homes: HashMap<(SessionId, u64, u32), Open>,
}

/// The time of 1970 in the core's time, which is when it began.
#[allow(clippy::disallowed_methods, reason = "spans of several nodes are compared by the wall clock")]
fn wall_at_start(now: Time) -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(Duration::from_micros(now.0))
}

/// The number of 64 bits below which this part of them lies.
fn threshold_of(per_million: u32) -> u64 {
    if per_million >= PER_MILLION {
        u64::MAX
    } else {
        u64::MAX / u64::from(PER_MILLION) * u64::from(per_million)
    }
}

impl Tracer {
    /// A tracer of the node `me`, whose clock shows `now`. To be used within a runtime: its exporter is a task.
    pub fn start(
        settings: &TraceSettings,
        me: NodeRef,
        now: Time,
        seed: u64,
        traffic: Arc<Traffic>,
    ) -> Result<Tracer, String> {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let exporter =
            export::Exporter::new(&settings.endpoint, me, wall_at_start(now), Arc::clone(&traffic))?;
        tokio::spawn(exporter.run(spans));
        let threshold = threshold_of(settings.per_million);
        Ok(Tracer { queue, traffic, threshold, state: seed, at_homes: HashMap::new() })
    }

    /// The next of a sequence of numbers that look random (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn draw_span(&mut self) -> NonZeroU64 {
        NonZeroU64::new(self.draw()).unwrap_or(NonZeroU64::MIN)
    }

    /// An operation of a client begins; none if it is not traced.
    pub(crate) fn begin_operation(
        &mut self,
        kind: OperationKind,
        parent: Option<Parent>,
        now: Time,
    ) -> Option<Open> {
        let name = match kind {
            OperationKind::Get => "kvnode get",
            OperationKind::Change => "kvnode change",
            OperationKind::Transaction => "kvnode transaction",
            OperationKind::Probe => return None,
        };
        let (id, parent) = match parent {
            Some(p) if !p.is_sampled => return None,
            Some(p) => (p.trace.id, Some(p.trace.span)),
            None if self.draw() > self.threshold => return None,
            None => ([self.draw().max(1), self.draw()], None),
        };
        let trace = Trace { id, span: self.draw_span() };
        Some(Open { trace, parent, name, from: None, began: now })
    }

    /// The client has its answer.
    pub(crate) fn end_operation(&self, open: Open, outcome: OutcomeKind, now: Time) {
        let is_error = matches!(outcome, OutcomeKind::NotDone | OutcomeKind::Unknown);
        self.end(open, outcome.name(), is_error, now);
    }

    /// A message of another node that is part of a trace; none for one that nobody waits for.
    pub(crate) fn begin_message(
        &mut self,
        from: NodeRef,
        message: &Message,
        trace: Trace,
        now: Time,
    ) -> Option<Open> {
        if !message.is_traced() {
            return None;
        }
        let is_home = matches!(message, Message::Operation(_));
        let name = if is_home { "home" } else { dht::counters::MessageKind::of(message).name() };
        let open = Open {
            trace: Trace { id: trace.id, span: self.draw_span() },
            parent: Some(trace.span),
            name,
            from: Some(from.addr),
            began: now,
        };
        if let Message::Operation(a) = message {
            if self.at_homes.len() >= OPEN_MAX {
                self.at_homes.retain(|_, o| now.since(o.began) < OPEN_TIME_MAX);
            }
            if self.at_homes.len() >= OPEN_MAX {
                self.traffic.spans.dropped(1);
            } else {
                self.at_homes.insert((a.session, a.seq, a.attempt), open);
            }
        }
        Some(open)
    }

    /// The message was handled. A home's span goes on until the home has answered.
    pub(crate) fn end_message(&self, open: Open, now: Time) {
        if open.name != "home" {
            self.end(open, "answered", false, now);
        }
    }

    /// A message to another node: an answer of a home ends its span.
    pub(crate) fn sends(&mut self, message: &Message, now: Time) {
        let Message::OperationReply { session, seq, attempt, answer, .. } = message else { return };
        let Some(open) = self.at_homes.remove(&(*session, *seq, *attempt)) else { return };
        let (outcome, is_error) = match answer {
            Answer::Done { .. } | Answer::Nothing { .. } | Answer::Value { .. } => ("done", false),
            Answer::Refused { .. } => ("refused", false),
            Answer::NotHome { .. } => ("not_home", false),
            Answer::Behind { .. } => ("behind", false),
            Answer::Locked => ("locked", false),
            Answer::Busy => ("busy", true),
            Answer::Full => ("full", true),
            Answer::Unknown | Answer::Forgotten => ("unknown", true),
        };
        self.end(open, outcome, is_error, now);
    }

    fn end(&self, open: Open, outcome: &'static str, is_error: bool, now: Time) {
        if self.queue.try_send(Span { open, ended: now, outcome, is_error }).is_err() {
            self.traffic.spans.dropped(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(per_million: u32) -> (Tracer, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(2);
        let traffic = Arc::new(Traffic::default());
        let threshold = threshold_of(per_million);
        (Tracer { queue, traffic, threshold, state: 7, at_homes: HashMap::new() }, spans)
    }

    #[test]
    fn the_client_decides_whether_it_is_traced_and_else_the_ratio_does() {
        let span = NonZeroU64::MIN;
        let parent = |is_sampled| Some(Parent { trace: Trace { id: [1, 2], span }, is_sampled });
        let begin = |t: &mut Tracer, p| t.begin_operation(OperationKind::Get, p, Time(0));
        let (mut never, _) = tracer(0);
        assert!(begin(&mut never, None).is_none() && begin(&mut never, parent(false)).is_none());
        let continued = begin(&mut never, parent(true)).expect("the client wants it");
        assert_eq!((continued.trace.id, continued.parent), ([1, 2], Some(span)));
        let (mut always, _) = tracer(PER_MILLION);
        assert!((0..1000).all(|_| begin(&mut always, None).is_some()));
        assert!(begin(&mut always, parent(false)).is_none());
        let (mut some, _) = tracer(250_000);
        let n = (0..4000).filter(|_| begin(&mut some, None).is_some()).count();
        assert!((850..1150).contains(&n), "{n}");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (mut t, mut spans) = tracer(PER_MILLION);
        for _ in 0..5 {
            let open = t.begin_operation(OperationKind::Change, None, Time(0)).expect("traced");
            t.end_operation(open, OutcomeKind::Done, Time(1));
        }
        assert_eq!(t.traffic.spans.counts(), (0, 3));
        assert!(spans.try_recv().is_ok() && spans.try_recv().is_ok() && spans.try_recv().is_err());
    }
}
